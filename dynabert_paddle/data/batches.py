"""Divides examples: batches for evaluation, and examples held out of training. Shapes: n examples, b batch."""

from __future__ import annotations

import numpy as np

from dynabert_paddle.data.stratify import hold_out_label_sets
from dynabert_paddle.errors import DataError


def sequential_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Split examples into batches of similar length for evaluation.

    Args:
        lengths: `[n]`, tokens of each example.
        batch_size: examples per batch; the last batch may be smaller.

    Returns:
        Indices of each batch's examples. `ordered[np.concatenate(batches)] = results` restores the examples' order.
    """
    # Longest first, so that a batch size that needs too much memory fails at once.
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def split_holdout(
    labels: np.ndarray, *, num_examples: int | None = None, fraction: float | None = None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out training examples, stratified by class.

    Args:
        labels: `[n]`; integers are classes, floats are scores and not stratified. Or `[n, c]` booleans: several labels
            an example; each label is stratified.
        num_examples: examples to hold out; limited to at least 1 and at most half, and one of each class is kept.
        fraction: the same as a fraction of `n`, instead of `num_examples`.
        seed: random seed of the choice.

    Returns:
        Ascending indices of the examples to train on, and of those held out.

    Raises:
        DataError: there is only one example, or only one in every class.
        ValueError: neither or both of `num_examples` and `fraction` are given.
    """
    if (num_examples is None) == (fraction is None):
        raise ValueError("give num_examples or fraction")
    size = round((fraction or 0) * len(labels)) if num_examples is None else num_examples
    size = min(max(size, 1), len(labels) // 2)
    hold_out = hold_out_label_sets if labels.ndim == 2 else _hold_out_classes
    holdout = hold_out(labels, size, seed=seed)
    if not len(holdout):
        raise DataError(
            f"none of {len(labels)} training examples can be held out, as every class must keep one; add training rows"
        )
    kept = np.ones(len(labels), dtype=bool)
    kept[holdout] = False
    return np.flatnonzero(kept), holdout


def _hold_out_classes(labels: np.ndarray, size: int, *, seed: int) -> np.ndarray:
    """Choose at most `size` examples, in ascending order; one of each class stays."""
    if np.issubdtype(labels.dtype, np.integer):
        groups, counts = np.unique(labels, return_counts=True)
        members = [labels == group for group in groups]
    else:
        members, counts = [np.ones(len(labels), dtype=bool)], np.array([len(labels)])
    available = counts - 1
    size = min(size, available.sum())
    quota = size * counts / len(labels)
    held_out = np.floor(quota).astype(np.int64)
    while held_out.sum() < size:
        held_out[np.argmax(np.where(held_out < available, quota - held_out, -np.inf))] += 1
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(mask))[:count] for mask, count in zip(members, held_out, strict=True)]
    return np.sort(np.concatenate(chosen))
