"""The functions of an encoder layer in Paddle's own operations: for any device and data type, and for static graphs.

`cpu_operations` has the same functions, faster, for training on a CPU; `bits` matters there alone.

Shapes: b batch, s sequence, t query tokens, d hidden size, h heads, e width of one head.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

linear = F.linear


def dropout(x: Tensor, probability: float, bits: np.random.Generator | None = None) -> Tensor:
    """Drop elements at random and scale up the rest.

    Args:
        x: any shape.
        probability: of dropping an element.
        bits: not used: Paddle's seed decides.

    Returns:
        The same shape.
    """
    return F.dropout(x, probability, mode="upscale_in_train") if probability else x


def add_norm(
    residual: Tensor, x: Tensor, layer: nn.LayerNorm, *, dropout_prob: float, bits: np.random.Generator | None = None
) -> Tensor:
    """Add a block's output to its input, and normalize the sum.

    Args:
        residual: the block's input, `[b, s, d]`.
        x: its output, likewise.
        layer: has the scale, the shift and epsilon.
        dropout_prob: of an element of `x`.
        bits: as in `dropout`.

    Returns:
        `[b, s, d]`.
    """
    return layer(residual + dropout(x, dropout_prob))


def activate(x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply the FFN's activation, a function of `paddle.nn.functional`; the shape stays."""
    return activation(x)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    heads: int,
    dropout_prob: float,
    gate: Tensor | None = None,
    bits: np.random.Generator | None = None,
) -> Tensor:
    """Multi-head attention (Vaswani et al., 2017, equation 1).

    Args:
        q: queries, `[b, t, h*e]`.
        k: keys, `[b, s, h*e]`.
        v: values, likewise.
        mask: added to the scores, broadcasts to `[b, h, t, s]`.
        heads: h.
        dropout_prob: of an attention weight.
        gate: `[h]`, multiplies each head's output.
        bits: as in `dropout`.

    Returns:
        `[b, t, h*e]`.
    """

    def split(x: Tensor) -> Tensor:
        return x.reshape([0, 0, heads, x.shape[-1] // heads]).transpose([0, 2, 1, 3])  # [b, h, s or t, e]

    q, k, v = split(q), split(k), split(v)
    scores = paddle.matmul(q * q.shape[-1] ** -0.5, k, transpose_y=True)  # [b, h, t, s]
    if mask is not None:
        scores = scores + mask
    weights = dropout(F.softmax(scores), dropout_prob)
    context = paddle.matmul(weights, v)  # [b, h, t, e]
    if gate is not None:
        context = context * gate.reshape([1, heads, 1, 1])
    return context.transpose([0, 2, 1, 3]).reshape([0, 0, heads * v.shape[-1]])
