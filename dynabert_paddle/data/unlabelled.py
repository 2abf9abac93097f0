"""Texts without labels, which distillation can learn from beside the training rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from dynabert_paddle.data.readers import Columns, Examples, read_rows
from dynabert_paddle.data.records import read_lines
from dynabert_paddle.data.stored_texts import new_column
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.errors import DataError
from dynabert_paddle.runtime.home import user_path


def add_unlabelled(examples: Examples, paths: Sequence[str], columns: Columns) -> Examples:
    """Append the texts of files to training rows; those of large files stay on disk.

    Args:
        examples: the training rows, with or without labels.
        paths: tables with the task's columns of text, whose other columns are not read; a .txt file of single texts has
            one a line.
        columns: the task's columns.

    Returns:
        The rows, then the texts. Rows without a label have one that no loss counts: `IGNORED`, or NaN.

    Raises:
        DataError: a file cannot be read, has no text, or lacks a column.
    """
    files = [path for path in (examples.source, *map(user_path, paths)) if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size, default=examples.source)  # tells where texts are kept
    texts, pairs = new_column(largest), new_column(largest) if columns.pair else None
    own: Iterable[tuple[str, str | None]] = zip(
        examples.texts, examples.texts if examples.pairs is None else examples.pairs, strict=True
    )
    for text, pair in chain(own, *(_read(user_path(path), columns) for path in paths)):
        texts.append(text)
        if pairs is not None:
            pairs.append(pair or "")
    labels = None if examples.labels is None else _extend(examples.labels, len(texts))
    return Examples(texts, pairs, labels, examples.source, examples.positive, examples.documents)


def _read(path: Path, columns: Columns) -> Iterator[tuple[str, str | None]]:
    is_empty = True
    if path.name.removesuffix(".gz").endswith(".txt"):
        if columns.pair:
            raise DataError(
                f"{path}: has one text a line, and the task has pairs: give a table with the columns "
                f"{columns.text!r} and {columns.pair!r}"
            )
        rows: Iterable[tuple[str, str | None]] = ((line, None) for _, line in read_lines(path) if line.strip())
    else:
        rows = ((row.text, row.pair) for row in read_rows(path, Columns(columns.text, columns.pair)))
    for row in rows:
        is_empty = False
        yield row
    if is_empty:
        raise DataError(f"{path}: has no text: leave it out")


def _extend(labels: np.ndarray, size: int) -> np.ndarray:
    """Append labels that do not count, up to a number of rows."""
    if np.issubdtype(labels.dtype, np.integer):
        missing: int | float = IGNORED
    else:  # values, or which of several labels a row has
        labels, missing = labels.astype(np.float32), float("nan")
    return np.concatenate([labels, np.full((size - len(labels), *labels.shape[1:]), missing, labels.dtype)])
