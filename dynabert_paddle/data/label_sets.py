"""Reads data files whose rows have several labels or none: in a JSON list, or in one cell with a separator."""

import logging
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.labels import LabelIndex, is_missing, label_text
from dynabert_paddle.data.layout import PLAIN, Layout
from dynabert_paddle.data.readers import (
    Columns,
    Examples,
    Row,
    check_not_empty,
    class_index,
    read_raw_rows,
    sort_labels,
)
from dynabert_paddle.data.records import JSON_ENDINGS, quote
from dynabert_paddle.data.stored_texts import new_column
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.text.lines import data_ending

logger = logging.getLogger(__name__)


def read_label_sets(
    path: str | os.PathLike,
    columns: Columns,
    *,
    labels: Iterable[str],
    separator: str | None,
    layout: Layout = PLAIN,
) -> Examples:
    """Read a data file of texts with several labels or none; the texts of a large file stay on disk.

    Args:
        path: a .tsv, .csv, .jsonl or .json file.
        columns: the columns to read.
        labels: all labels in the order of the logits.
        separator: what separates the labels of a cell; None: the labels are JSON lists.
        layout: how the file differs from a plain one.

    Returns:
        The file's rows in order, with `[n, c]` booleans as labels.

    Raises:
        DataError: the file cannot be read, or a row has another format.
        UsageError: a table, and no separator.
    """
    path = Path(path)
    classes = LabelIndex(labels)
    texts, pairs = new_column(path), new_column(path) if columns.pair else None
    owners, indices = array("q"), array("q")  # of each label: its row, and its class
    for row, names in _read_sets(path, columns, separator, layout):
        found = [class_index(path, row.line, name, classes, may_be_score=False) for name in names]
        if len(set(found)) < len(found):  # such as 1 and 1.0
            raise DataError(f"{path}:{row.line}: {quote(list(names))} has a label twice; keep one of them.")
        owners.extend([len(texts)] * len(found))
        indices.extend(found)
        texts.append(row.text)
        if pairs is not None:
            pairs.append(row.pair or "")
    values = np.zeros((len(texts), len(classes.names)), dtype=bool)
    values[np.asarray(owners), np.asarray(indices)] = True
    if rewritten := classes.describe_rewritten():
        logger.warning("%s: %s", path, rewritten)
    return Examples(texts=texts, pairs=pairs, labels=values, source=path.absolute())


def find_set_labels(
    path: str | os.PathLike, columns: Columns, *, separator: str | None, layout: Layout = PLAIN
) -> tuple[str, ...]:
    """List the labels that occur in a data file.

    Args:
        path: the training file.
        columns: the columns to read.
        separator: as for `read_label_sets`.
        layout: how the file differs from a plain one.

    Returns:
        The distinct labels, sorted; numerically if all are numbers.

    Raises:
        DataError: the file cannot be read, or no row has a label.
        UsageError: a table, and no separator.
    """
    found = {name for _, names in _read_sets(Path(path), columns, separator, layout) for name in names}
    if not found:
        raise DataError(
            f"{path}: no row has a label; choose another column with {setting('task.label_column')}, or add labels."
        )
    return sort_labels(found)


def check_separator(separator: str | None, labels: Iterable[str]) -> None:
    """Refuse a separator that no cell can be split at, or that is part of a label.

    Args:
        separator: the user's; None if there is none.
        labels: the labels.

    Raises:
        UsageError: it is empty, or a label contains it.
    """
    if separator is None:
        return
    if not separator:
        raise UsageError(f"{setting('task.label_separator')} is empty: give the characters between labels, such as '|'")
    for label in labels:
        if separator in label:
            raise UsageError(
                f"the label {quote(label)} contains {setting('task.label_separator')} {separator!r}: choose another "
                "separator, or rename the label"
            )


def _read_sets(
    path: Path, columns: Columns, separator: str | None, layout: Layout
) -> Iterator[tuple[Row, tuple[str, ...]]]:
    """Yield the rows with their labels."""
    check_separator(separator, ())
    if separator is None and data_ending(path) not in JSON_ENDINGS:
        raise UsageError(
            f"{path}: several labels a row are in one cell; name what separates them with "
            f"{setting('task.label_separator')}, such as '|'"
        )
    num_rows = 0
    for row in read_raw_rows(path, columns, layout, label_lists=True):
        num_rows += 1
        try:
            names = _parse_list(row.label, separator) if isinstance(row.label, list) else _parse(row.label, separator)
        except ValueError as error:
            raise DataError(f"{path}:{row.line}: {columns.label!r} is {quote(row.label)}; {error}.") from None
        yield row, names
    check_not_empty(path, num_rows)


def _parse(value: Any, separator: str | None) -> tuple[str, ...]:
    """Return the labels of a cell, without the white space around them; raises a `ValueError` with the remedy."""
    if is_missing(value):
        raise ValueError("write [] for no label, or delete the row")
    if separator is None:
        hint = f", or {setting('task.label_separator')} must name what separates them" if isinstance(value, str) else ""
        raise ValueError(f"it must be a list of labels{hint}")
    if not isinstance(value, str):
        raise ValueError(f"it must be a list of labels, or one string with {separator!r} between them")
    if not value.strip():
        return ()
    names = [name.strip() for name in value.split(separator)]
    if "" in names:
        raise ValueError(f"it has an empty label: remove the {separator!r} that is too many, or fill it in")
    return _check_once(names)


def _parse_list(values: list[Any], separator: str | None) -> tuple[str, ...]:
    """Return the labels of a JSON list, likewise."""
    if len({isinstance(value, str) for value in values}) > 1 or not all(map(_is_label, values)):
        raise ValueError("it must be a list of strings")
    names = [label_text(value) for value in values]
    if "" in names:
        raise ValueError("it has an empty label: remove it or fill it in")
    for name in names:
        if separator is not None and separator in name:
            raise ValueError(
                f"{quote(name)} contains {setting('task.label_separator')} {separator!r}: list its parts as labels of "
                "their own, or choose another separator"
            )
    return _check_once(names)


def _is_label(value: Any) -> bool:
    """Whether a value of a list can be a label: a string, or a number, as in other kinds of tasks."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) or (is_number and not is_missing(value))


def _check_once(names: list[str]) -> tuple[str, ...]:
    repeated = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if repeated is not None:
        is_flags = set(names) <= {"0", "1"}
        hint = " (a list holds the names of a row's labels, not 0 or 1 for each label)" if is_flags else ""
        raise ValueError(f"it has {quote(repeated)} twice: keep one of them{hint}")
    return tuple(names)
