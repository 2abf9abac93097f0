"""Texts of a file that is too large for memory: they are stored on disk and read one by one when needed."""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from dynabert_paddle.errors import DataError

_LARGE_FILE = 2**28  # bytes; the texts of a larger data file are not held in memory
_BLOCK = 64  # rows per stored start offset


class StoredTexts(Sequence[str]):
    """Texts in a temporary file that is deleted with this object; needs 4 bytes of memory per text.

    Args:
        source: the data file of the texts, for messages.

    Raises:
        DataError: the temporary file cannot be created.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self._sizes, self._starts, self._end = array("i"), array("q"), 0
        self._rows: np.ndarray | None = None  # the selected rows, in a selection
        self._hash = hashlib.blake2b(digest_size=8)
        try:
            self._file = tempfile.TemporaryFile(prefix="dynabert-texts-")  # noqa: SIM115 - open for the lifetime of this object
        except OSError as error:
            raise self._storage_error(error) from None

    def append(self, text: str) -> None:
        """Add a text; not allowed after the first read.

        Args:
            text: the text.

        Raises:
            DataError: the disk is full.
        """
        encoded = text.encode()
        self._hash.update(b"%d:%b" % (len(encoded), encoded))  # the length separates texts
        if len(self._sizes) % _BLOCK == 0:
            self._starts.append(self._end)
        self._sizes.append(len(encoded))
        self._end += len(encoded)
        try:
            self._file.write(encoded)
        except OSError as error:
            raise self._storage_error(error) from None

    def __len__(self) -> int:
        return len(self._sizes) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self)))]
        return self._read(index)

    def _read(self, index: int) -> str:
        row = range(len(self))[index] if self._rows is None else self._rows[index]
        block = row // _BLOCK
        start = self._starts[block] + sum(self._sizes[block * _BLOCK : row])
        try:
            self._file.flush()
        except OSError as error:
            raise self._storage_error(error) from None
        return os.pread(self._file.fileno(), self._sizes[row], start).decode()

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each text, `[n]` int32."""
        sizes = np.frombuffer(self._sizes, dtype=np.int32)
        return sizes if self._rows is None else sizes[self._rows]

    @property
    def fingerprint(self) -> np.ndarray:
        """A hash of the texts, as uint8."""
        hashed = self._hash.copy()
        if self._rows is not None:
            hashed.update(np.ascontiguousarray(self._rows).data)
        return np.frombuffer(hashed.digest(), dtype=np.uint8)

    def select(self, indices: np.ndarray) -> StoredTexts:
        """Select some of the texts, without a copy.

        Args:
            indices: `[k]` integers, in any order.

        Returns:
            The texts in the order of `indices`.
        """
        indices = indices.astype(np.int32 if len(self) < 2**31 else np.int64)
        selection = copy.copy(self)
        selection._rows = indices if self._rows is None else self._rows[indices]
        return selection

    def _storage_error(self, error: OSError) -> DataError:
        return DataError(
            f"{self.source}: its texts cannot be stored in {tempfile.gettempdir()} ({error.strerror}); free as much "
            "space there as the size of the file, or set the environment variable TMPDIR to another folder."
        )


Column = list[str] | StoredTexts


def new_column(path: Path) -> Column:
    """Return an empty column for the texts of a data file: a list, or for a large file `StoredTexts`."""
    return StoredTexts(path) if path.is_file() and path.stat().st_size >= _LARGE_FILE else []


def select_rows(columns: Sequence[Column | None], indices: np.ndarray) -> list[Column | None]:
    """Select some rows of columns; a small selection of a column on disk is loaded into memory.

    Args:
        columns: from `new_column`, or None for a missing column.
        indices: `[k]` integers, in any order.

    Returns:
        The columns' texts in the order of `indices`.
    """
    selected: list[Column | None] = [
        column.select(indices) if isinstance(column, StoredTexts) else column and [column[i] for i in indices]
        for column in columns
    ]
    if sum(int(column.sizes.sum()) for column in selected if isinstance(column, StoredTexts)) >= _LARGE_FILE:
        return selected
    return [column[:] if isinstance(column, StoredTexts) else column for column in selected]
