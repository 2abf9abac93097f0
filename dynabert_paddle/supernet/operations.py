"""What an encoder layer is made of, in Paddle's own operations: for any device, data type, and a static graph.

`cpu_operations` has the same functions for training on a CPU.

Shapes: b batch, s sequence, t tokens of it that ask, d hidden size, h heads, e width of one head.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

linear = F.linear


def dropout(x: Tensor, probability: float) -> Tensor:
    """Drop elements at random, and scale up what stays.

    Args:
        x: any shape.
        probability: of dropping an element.

    Returns:
        The same shape.
    """
    return F.dropout(x, probability, mode="upscale_in_train") if probability else x


def add_norm(residual: Tensor, x: Tensor, layer: nn.LayerNorm, *, dropout_prob: float) -> Tensor:
    """Add a block's output to its input, and normalize the sum.

    Args:
        residual: the block's input, `[b, s, d]`.
        x: its output, likewise.
        layer: has the scale, the shift and epsilon.
        dropout_prob: of an element of `x`.

    Returns:
        `[b, s, d]`.
    """
    return layer(residual + dropout(x, dropout_prob))


def activate(x: Tensor, activation) -> Tensor:
    """Apply the FFN's activation.

    Args:
        x: any shape.
        activation: a function of `paddle.nn.functional`.

    Returns:
        The same shape.
    """
    return activation(x)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, heads: int, dropout_prob: float, gate: Tensor | None = None
) -> Tensor:
    """Attention of all heads.

    Args:
        q: queries, `[b, t, h*e]`.
        k: keys, `[b, s, h*e]`.
        v: values, likewise.
        mask: added to the scores, broadcasts to `[b, h, t, s]`.
        heads: h.
        dropout_prob: of an attention weight.
        gate: `[h]`, multiplies each head's output.

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
