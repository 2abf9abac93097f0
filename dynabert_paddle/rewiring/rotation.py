"""The rotation of vectors after which their first dimensions keep the most.

Shapes: n texts, d size of a vector.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def principal_rotation(batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Find the principal components of vectors, without their mean subtracted: cosines are of the vectors as they are.

    Args:
        batches: vectors, `[b, d]` each.

    Returns:
        `[d, d]`, orthogonal: the first k columns span the space of k dimensions that keeps the largest share of the
        squared lengths (Eckart and Young, 1936); and `[d]`, the share that each column keeps.
    """
    moment: np.ndarray | None = None
    for vectors in batches:
        exact = vectors.astype(np.float64)
        moment = exact.T @ exact + (0.0 if moment is None else moment)
    assert moment is not None  # a task has texts
    values, vectors = np.linalg.eigh(moment)
    order = np.argsort(-values, kind="stable")
    shares = np.maximum(values[order], 0.0)
    columns = vectors[:, order]
    signs = np.sign(columns[np.abs(columns).argmax(axis=0), np.arange(len(columns))])  # an eigenvector has two
    return columns * signs, shares / shares.sum()
