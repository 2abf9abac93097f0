"""The principal components of a word embedding, weighted by how often each token occurs: its elastic basis."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dynabert_paddle.backbone.structure import find_word_embedding
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.supernet.elastic_embedding import elastic_embedding, make_embedding_elastic, word_table
from dynabert_paddle.supernet.supernet import Supernet

_ROWS_PER_PRODUCT = 2**15  # of the table in float64 at a time


def sort_embedding(supernet: Supernet, batches: Iterable[dict[str, np.ndarray]]) -> None:
    """Make a model's word embedding elastic, its most important components first; the full model stays the same.

    Args:
        supernet: the model, changed in place.
        batches: collated batches of the training text, which tell how often each token occurs.

    Raises:
        UsageError: a small model, which has lost components.
        ModelError: a model that predicts words with the table of its word embedding.
    """
    embedding = elastic_embedding(supernet.model)
    if embedding is not None and embedding.down is None:
        raise UsageError(
            f"this model has {embedding.max_rank} components of its word embedding left, already in their order: "
            f"rewire it without ranks, or rewire the model that it was extracted from"
        )
    _check_untied(supernet)
    table = word_table(supernet.model)
    counts = count_tokens(batches, len(table))
    make_embedding_elastic(supernet.model, principal_components(table, counts + 1))


def _check_untied(supernet: Supernet) -> None:
    """Refuse a masked LM: its head would need the whole table, which a part of the embedding does not have."""
    state = supernet.model.state_dict()
    path = find_word_embedding(supernet.model)
    table = state[f"{path}.weight"]
    tied = [name for name, tensor in state.items() if tensor is table and name != f"{path}.weight"]
    if tied:
        raise ModelError(
            f"{type(supernet.model).__name__} predicts words with the table of its word embedding ('{tied[0]}'), which "
            f"has to stay whole: ranks are for models with a classifier"
        )


def principal_components(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Find the directions in which a table varies most about zero, as the weighted mean square measures it.

    Args:
        table: E, `[v, e]`.
        weights: w, `[v]`, of its rows.

    Returns:
        `[e, e]` float64: orthonormal rows, the eigenvectors of E^T diag(w) E in descending order of their eigenvalues.
    """
    gram = np.zeros((table.shape[1], table.shape[1]))
    for start in range(0, len(table), _ROWS_PER_PRODUCT):
        part = slice(start, start + _ROWS_PER_PRODUCT)
        rows = table[part].astype(np.float64)
        gram += rows.T @ (rows * weights[part, None])
    _, vectors = np.linalg.eigh(gram)  # in columns, of ascending eigenvalues
    return vectors.T[::-1]


def count_tokens(batches: Iterable[dict[str, np.ndarray]], vocab_size: int) -> np.ndarray:
    """Count how often each token occurs, padding aside.

    Args:
        batches: with `input_ids` and `attention_mask`, `[b, s]` each.
        vocab_size: number of tokens.

    Returns:
        `[v]` int64.
    """
    counts = np.zeros(vocab_size, np.int64)
    for batch in batches:
        counts += np.bincount(batch["input_ids"][batch["attention_mask"] > 0], minlength=vocab_size)
    return counts
