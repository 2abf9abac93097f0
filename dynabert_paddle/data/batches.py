"""Which examples are in which batch, and which are held out. Shapes: n examples, b batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dynabert_paddle.errors import DataError

_BATCHES_PER_BUCKET = 50


def length_bucketed_batches(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Shuffle examples into batches of similar length, so that little is spent on padding.

    Args:
        lengths: `[n]`, tokens of each example.
        batch_size: examples a batch; the rest forms one smaller batch.
        seed: chooses the order, together with `epoch`.
        epoch: counted from 0; each has its own order.

    Yields:
        Indices of each batch's examples; every example is in exactly one batch.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(np.arange(len(lengths), dtype=np.int32 if len(lengths) < 2**31 else np.int64))
    for bucket in _cut(order, _BATCHES_PER_BUCKET * batch_size):
        bucket[:] = bucket[np.argsort(lengths[bucket], kind="stable")]
    for batch in rng.permutation(-(-len(order) // batch_size)):
        yield order[batch * batch_size : (batch + 1) * batch_size]


def sequential_batches(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut examples into batches of similar length for evaluation.

    Args:
        lengths: `[n]`, tokens of each example.
        batch_size: examples a batch; the last batch may be smaller.

    Returns:
        Indices of each batch's examples. `ordered[np.concatenate(batches)] = results` restores the examples' order.
    """
    # The longest batch comes first, so that a batch size too large for the memory fails at once.
    return list(_cut(np.argsort(-lengths, kind="stable"), batch_size))


def _cut(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (indices[start : start + size] for start in range(0, len(indices), size))


def split_holdout(
    labels: np.ndarray, *, num_examples: int | None = None, fraction: float | None = None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold training examples out, each class in proportion.

    Args:
        labels: `[n]`; integers are classes, floats are scores and not stratified.
        num_examples: examples to hold out; at least 1 and at most half of them are, and one of each class stays.
        fraction: the same as a fraction of `n`, in place of `num_examples`.
        seed: chooses the examples.

    Returns:
        Ascending indices of the examples to train on, and of those held out.

    Raises:
        DataError: a single example, or a single one in every class.
        ValueError: neither or both of `num_examples` and `fraction` are given.
    """
    if (num_examples is None) == (fraction is None):
        raise ValueError("give num_examples or fraction")
    if np.issubdtype(labels.dtype, np.integer):
        groups, counts = np.unique(labels, return_counts=True)
        members = [labels == group for group in groups]
    else:
        members, counts = [np.ones(len(labels), dtype=bool)], np.array([len(labels)])
    spare = counts - 1
    if not spare.sum() > 0:
        raise DataError(
            f"none of {len(labels)} training examples can be held out, as every class must keep one; "
            "add training rows, or read the development file: --select_on dev, in rewire --accumulation huawei."
        )
    size = round((fraction or 0) * len(labels)) if num_examples is None else num_examples
    size = min(max(size, 1), len(labels) // 2, spare.sum())
    quota = size * counts / len(labels)
    held_out = np.floor(quota).astype(np.int64)
    while held_out.sum() < size:
        held_out[np.argmax(np.where(held_out < spare, quota - held_out, -np.inf))] += 1
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(own))[:count] for own, count in zip(members, held_out, strict=True)]
    holdout = np.sort(np.concatenate(chosen))
    kept = np.ones(len(labels), dtype=bool)
    kept[holdout] = False
    return np.flatnonzero(kept), holdout
