"""Holds out texts with several labels so that each label keeps its share: iterative stratification."""

from __future__ import annotations

import numpy as np


def hold_out_label_sets(labels: np.ndarray, size: int, *, seed: int) -> np.ndarray:
    """Choose texts to hold out by iterative stratification (Sechidis et al., 2011), with two subsets.

    The label with the fewest texts left to divide comes first, and gets its share of the held-out texts; those that are
    held out for it count for their other labels, too. Texts without labels get their share in the end.

    Args:
        labels: `[n, c]` booleans.
        size: how many texts to hold out.
        seed: random seed of the choice.

    Returns:
        Ascending indices of the texts that are held out; fewer than `size`, if a label would lose its last other text.
    """
    rng = np.random.default_rng(seed)
    num_rows = len(labels)
    outside = labels.sum(axis=0)  # texts of each label that are not held out
    wanted = outside * size / num_rows  # texts of each label that are still to be held out
    is_left, num_left = np.ones(num_rows, dtype=bool), outside.copy()  # still to be divided
    held_out: dict[int, None] = {}

    def hold_out(row: int) -> None:
        own = labels[row]
        if row not in held_out and (outside[own] > 1).all():
            held_out[row] = None
            wanted[own] -= 1
            outside[own] -= 1

    while num_left.any():
        label = int(np.where(num_left > 0, num_left, num_rows + 1).argmin())
        rows = np.flatnonzero(is_left & labels[:, label])
        for row in rng.permutation(rows).tolist():
            if wanted[label] <= 0.5 or len(held_out) == size:
                break
            hold_out(row)
        is_left[rows] = False
        num_left -= labels[rows].sum(axis=0)
    without = rng.permutation(np.flatnonzero(is_left)).tolist()
    for row in (*without[: round(len(without) * size / num_rows)], *rng.permutation(num_rows).tolist()):
        if len(held_out) == size:
            break
        hold_out(row)
    return np.sort(np.fromiter(held_out, dtype=np.int64))
