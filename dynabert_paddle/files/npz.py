"""Writes NumPy's archives, also where the disk is full."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import IO

import numpy as np


def write_npz(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays in the format of `numpy.savez`.

    NumPy does not close its archive after an error, and Python then reports a second error that nobody can catch.

    Args:
        file: an open file that can seek.
        arrays: by name.

    Raises:
        OSError: the file cannot be written.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as part:
                np.lib.format.write_array(part, np.asanyarray(array), allow_pickle=False)
