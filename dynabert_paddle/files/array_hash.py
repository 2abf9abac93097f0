"""Hashes of arrays, by which data and models are recognized."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np


def hash_arrays(arrays: Iterable[np.ndarray]) -> str:
    """Return a short hash of the content of arrays, in their order."""
    hashed = hashlib.blake2b(digest_size=8)
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def hash_model(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash a model's weights, the same for a model in memory and its folder."""
    return hash_arrays(arrays[name] for name in sorted(arrays))
