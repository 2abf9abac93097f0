"""Sparse weights: zeros among the weights of a model's matrices, which training keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import paddle
from paddle import Tensor

from dynabert_paddle.backbone.structure import find_word_embedding, owner_of
from dynabert_paddle.supernet.low_rank_linear import PARTS, LowRankLinear
from dynabert_paddle.supernet.shared_layers import unique
from dynabert_paddle.supernet.supernet import Supernet

EMBEDDING = "embedding"


def find_matrices(supernet: Supernet, parts: Sequence[str]) -> dict[str, list[Tensor]]:
    """Find the matrices that a sparse model has zeros in.

    Args:
        supernet: the model.
        parts: attention, ffn (of all layers) and embedding (the table of words).

    Returns:
        The matrices of each part; both of a product of a low rank.

    Raises:
        ModelError: a model without a single word embedding.
    """
    found = {}
    for part in parts:
        if part == EMBEDDING:
            found[part] = [getattr(*owner_of(supernet.model, find_word_embedding(supernet.model))).weight]
            continue
        linears = [getattr(*owner_of(layer, name)) for layer in supernet.encoder.layers for name in PARTS[part]]
        matrices = [
            matrix
            for linear in linears
            for matrix in ((linear.down, linear.up) if isinstance(linear, LowRankLinear) else (linear.weight,))
        ]
        found[part] = unique(matrices)
    return found


def measure_sparsity(supernet: Supernet, parts: Sequence[str]) -> dict[str, float]:
    """Return the share of zeros in each part of a model.

    Args:
        supernet: the model.
        parts: as for `find_matrices`.

    Returns:
        Shares in [0, 1].
    """
    return {
        part: sum(matrix.size - int((matrix != 0).sum()) for matrix in matrices) / sum(m.size for m in matrices)
        for part, matrices in find_matrices(supernet, parts).items()
    }


@contextmanager
def keep_zeros(supernet: Supernet) -> Iterator[None]:
    """Keep the weights of a sparse model that are zero so, while an optimizer takes a step within a `with` block.

    Their gradients count neither for the clipping of gradients nor for the optimizer's moments; moments from before
    they became zero are passed over.

    Args:
        supernet: the model, with the gradients of the step; its metadata name the sparse parts.

    Yields:
        Nothing.
    """
    matrices = [m for part in find_matrices(supernet, supernet.metadata.sparse_parts).values() for m in part]
    masks = [(matrix != 0).astype(matrix.dtype) for matrix in matrices]
    for matrix, mask in zip(matrices, masks, strict=True):
        if matrix.grad is not None:
            matrix.grad.detach().multiply_(mask)
    yield
    with paddle.no_grad():
        for matrix, mask in zip(matrices, masks, strict=True):
            # A negative zero becomes a plain one, so that the file compresses well.
            matrix.detach().multiply_(mask).add_(paddle.zeros([1]))
