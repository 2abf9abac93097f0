"""Attention relations of one layer, which any width can learn from any teacher (MiniLMv2: Wang et al., 2021).

The relation of a layer's queries is softmax(Q Q^T / sqrt(w)), w their width over all heads; so are those of keys and of
values. They are as large as the text is long, whatever the heads and the hidden size. The paper divides each matrix
into the same number of relation heads; here it is one, as the heads of sub-networks have no number in common.

Shapes: b batch, s sequence, d hidden size, w = h*e width of h heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from dynabert_paddle.errors import ModelError
from dynabert_paddle.supernet.calls import NO_STATE, PassState
from dynabert_paddle.supernet.low_rank_linear import LowRankLinear
from dynabert_paddle.supernet.slices import slice_parameter

_PADDING = -1e4  # added to the scores of padding: its share of a softmax is 0


def relation_vectors(
    layer: nn.TransformerEncoderLayer, hidden: Tensor, *, heads: int, state: PassState = NO_STATE
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the queries, keys and values of a part of a layer again: the elastic encoder does not keep them.

    Args:
        layer: an encoder layer, pre-norm or post-norm.
        hidden: `[b, s, d]`, the layer's input.
        heads: heads of the sub-network.
        state: shared with the sub-network's pass.

    Returns:
        `[b, s, w]` each.

    Raises:
        ModelError: a layer whose matrices are products of a low rank.
    """
    attention = layer.self_attn
    if layer.normalize_before:
        hidden = layer.norm1(hidden)

    def project(name: str) -> Tensor:
        owner = getattr(attention, name)
        if isinstance(owner, LowRankLinear):
            raise ModelError("attention relations need whole matrices, this model has products of a low rank")
        sizes = {"heads": heads, "neurons": 1, "head_dim": attention.head_dim}  # no neurons are in these matrices
        weight = slice_parameter(owner.weight, f"self_attn.{name}.weight", **sizes, cache=state.slices)
        bias = owner.bias
        if bias is not None:
            bias = slice_parameter(bias, f"self_attn.{name}.bias", **sizes, cache=state.slices)
        return F.linear(hidden, weight, bias)

    return project("q_proj"), project("k_proj"), project("v_proj")


def relation_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], attention_mask: Tensor) -> Tensor:
    """The divergence KL(teacher || student) of relations, a mean over their kinds and over the tokens of a batch.

    Args:
        student: `[b, s, w]`, from `relation_vectors`.
        teacher: `[b, s, w']`, its vectors of the same kinds.
        attention_mask: `[b, s]`, 1 for a token and 0 for padding.

    Returns:
        The mean.
    """
    mask = attention_mask.astype(student[0].dtype)
    padding = (1 - mask).unsqueeze(1) * _PADDING  # [b, 1, s]

    def log_relation(vectors: Tensor) -> Tensor:
        scores = paddle.matmul(vectors * vectors.shape[-1] ** -0.5, vectors, transpose_y=True)
        return F.log_softmax(scores + padding)  # [b, s, s]

    total = paddle.zeros([], dtype=mask.dtype)
    for ours, theirs in zip(student, teacher, strict=True):
        target = log_relation(theirs)
        divergence = (target.exp() * (target - log_relation(ours))).sum(axis=-1)  # [b, s]
        total = total + (divergence * mask).sum()
    return total / (len(student) * mask.sum())
