"""Attention scores before the softmax, which TinyBERT distils layer by layer (Jiao et al., 2020, section 3).

Shapes: b batch, s sequence, d hidden size, h heads, e width of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import paddle
from paddle import Tensor, nn

from dynabert_paddle.subnet import Subnet


def attention_scores(layer: nn.TransformerEncoderLayer, hidden: Tensor) -> Tensor:
    """Compute a layer's attention scores again: the elastic encoder does not keep them.

    Args:
        layer: an encoder layer, pre-norm or post-norm.
        hidden: `[b, s, d]`, the layer's input.

    Returns:
        `[b, h, s, s]`, QK^T / sqrt(e), without a mask.
    """
    attention = layer.self_attn
    if layer.normalize_before:
        hidden = layer.norm1(hidden)

    def split(x: Tensor) -> Tensor:
        return x.reshape([0, 0, -1, attention.head_dim]).transpose([0, 2, 1, 3])  # [b, h, s, e]

    q, k = split(attention.q_proj(hidden)), split(attention.k_proj(hidden))
    return paddle.matmul(q * attention.head_dim**-0.5, k, transpose_y=True)


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """The sum over layers of the mean squared error of the scores between tokens that are not padding.

    Args:
        student: the scores of each of its layers, `[b, h, s, s]`.
        teacher: the scores of the teacher's layer for each of them, with as many heads.
        attention_mask: `[b, s]`, 1 for a token and 0 for padding.

    Returns:
        The sum.
    """
    mask = attention_mask.astype(student[0].dtype)
    pairs = (mask.unsqueeze(1) * mask.unsqueeze(2)).unsqueeze(1)  # [b, 1, s, s]
    count = pairs.sum()
    losses = (
        ((ours - theirs) ** 2 * pairs).sum() / (count * ours.shape[1])
        for ours, theirs in zip(student, teacher, strict=True)
    )
    return cast(Tensor, sum(losses))


def block_ends(subnet: Subnet, num_layers: int) -> tuple[int, ...]:
    """Return the teacher's layer that each layer of a student learns from, g(m) in the paper.

    A kept layer replaces the teacher's layers up to the next kept one: of 6, layers 0, 2, 4 replace 0-1, 2-3, 4-5.

    Args:
        subnet: the layers of the teacher that the student has.
        num_layers: the teacher's layers.

    Returns:
        The last layer of each block.
    """
    return tuple(layer - 1 for layer in (*subnet.layers[1:], num_layers))
