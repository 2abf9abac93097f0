"""Reads data files as examples, row by row, with errors that name the file and the line."""

import json
import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.batches import split_holdout
from dynabert_paddle.data.data_file import AnyFile, DataFile, ending_of
from dynabert_paddle.data.document_features import tokenize_documents
from dynabert_paddle.data.features import FeatureSet, TextEncoder, tokenize
from dynabert_paddle.data.labels import LabelIndex, is_missing, is_number, label_text, merge_labels
from dynabert_paddle.data.layout import PLAIN, Layout
from dynabert_paddle.data.long_texts import TRUNCATE, DocumentSettings
from dynabert_paddle.data.records import JSON_ENDINGS, first_record, open_records, quote
from dynabert_paddle.data.stored_texts import Column, StoredTexts, new_column, select_rows
from dynabert_paddle.data.streaming import StreamedFeatures
from dynabert_paddle.errors import DataError, did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """The columns of a data file that a task reads.

    Args:
        text: the text, or the first text of a pair.
        pair: the second text; None for single texts.
        label: the class or the score; None for a file without labels.
    """

    text: str
    pair: str | None = None
    label: str | None = None


class Row(NamedTuple):
    """One row of a data file: its line number, counted from 1, and the values of the requested columns.

    `fields` has the values of all columns by name, where they are asked for.
    """

    line: int
    text: str
    pair: str | None
    label: str | None
    fields: Mapping[str, Any] | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, or both texts of a pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


@dataclass(frozen=True, eq=False)
class Examples:
    """The rows of one data file.

    Args:
        texts: `n` texts; those of a large file are on disk.
        pairs: the `n` second texts, or None for single texts.
        labels: `[n]`, class indices or float32 scores; `[n, c]` booleans for several labels a row; None for a file
            without labels.
        source: the file that was read, as an absolute path.
        positive: the class whose F1 the metric `f1` is.
        documents: how texts are read that are longer than the longest input.
    """

    texts: Column
    pairs: Column | None
    labels: np.ndarray | None
    source: Path
    positive: int = 1
    documents: DocumentSettings = TRUNCATE

    def __len__(self) -> int:
        return len(self.texts)

    def hold_out(self, num_examples: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Hold out examples, stratified by class.

        Args:
            num_examples: number of examples to hold out.
            seed: random seed of the choice.

        Returns:
            Ascending indices of the examples to train on, and of those held out.
        """
        assert self.labels is not None  # training files have labels
        return split_holdout(self.labels, num_examples=num_examples, seed=seed)

    def tokenize(self, tokenizer: TextEncoder, *, max_seq_length: int) -> FeatureSet:
        """Tokenize the texts, with a cache; the texts of a large file are tokenized batch by batch when needed.

        Args:
            tokenizer: the tokenizer.
            max_seq_length: longer inputs are truncated to this number of tokens, including special tokens, or read in
                windows, which are all in memory.

        Returns:
            The tokenized examples, in their order.

        Raises:
            UsageError: the settings of windows do not fit.
            DataError: the first text of a pair leaves no room for windows of the second.
        """
        max_tokens = max_seq_length - tokenizer.num_special_tokens(1 if self.pairs is None else 2)
        stride = self.documents.window_stride(max_tokens, max_seq_length=max_seq_length)
        if stride is not None:
            lengths = {"max_seq_length": max_seq_length, "stride": stride}
            return tokenize_documents(self, tokenizer, **lengths, pooling=self.documents.pooling)
        if isinstance(self.texts, StoredTexts):
            return StreamedFeatures(self, tokenizer, max_seq_length)
        return tokenize(self, tokenizer, max_seq_length=max_seq_length)

    def select(self, indices: np.ndarray) -> "Examples":
        """Select some of the rows.

        Args:
            indices: `[k]` integers, in any order.

        Returns:
            The rows in the order of `indices`.
        """
        texts, pairs = select_rows([self.texts, self.pairs], indices)
        assert texts is not None
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, texts=texts, pairs=pairs, labels=labels)


def read_examples(
    path: str | os.PathLike,
    columns: Columns,
    *,
    kind: str = "classification",
    labels: Iterable[str] = (),
    layout: Layout = PLAIN,
) -> Examples:
    """Read a data file, and convert its labels to numbers; the texts of a large file stay on disk.

    Args:
        path: a .tsv, .csv, .jsonl or .json file; .json has one object per line, like .jsonl.
        columns: the columns to read.
        kind: 'classification' (labels become indices into `labels`) or 'regression' (labels become scores).
        labels: the classes in the order of the logits; unused for regression.
        layout: how the file differs from a plain one.

    Returns:
        The file's rows in order.

    Raises:
        DataError: the file cannot be read, or a row has another format.
    """
    path = Path(path)
    classes = LabelIndex(labels)
    texts, pairs = new_column(path), new_column(path) if columns.pair else None
    values: array[Any] = array("f" if kind == "regression" else "h" if len(classes.names) < 2**15 else "i")
    for row in read_rows(path, columns, layout):
        texts.append(row.text)
        if pairs is not None:
            pairs.append(row.pair or "")
        if row.label is not None:
            label = row.label
            values.append(
                _score(path, row.line, label) if kind == "regression" else class_index(path, row.line, label, classes)
            )
    if rewritten := classes.describe_rewritten():
        logger.warning("%s: %s", path, rewritten)
    return Examples(
        texts=texts,
        pairs=pairs,
        labels=np.asarray(values) if columns.label else None,
        source=path.absolute(),
    )


def find_labels(path: str | os.PathLike, columns: Columns, layout: Layout = PLAIN) -> tuple[str, ...]:
    """List the classes that occur in a data file.

    Args:
        path: the training file.
        columns: the columns to read, including a label column.
        layout: how the file differs from a plain one.

    Returns:
        The distinct labels, sorted; numerically if all are numbers. Equal numbers are one label.

    Raises:
        DataError: the file cannot be read.
    """
    return sort_labels({row.label for row in read_rows(path, columns, layout) if row.label is not None})


def sort_labels(found: Iterable[str]) -> tuple[str, ...]:
    """Sort the labels of a file: numerically if all are numbers; equal numbers are one label."""
    labels = sorted(merge_labels(found))
    return tuple(sorted(labels, key=float) if all(map(is_number, labels)) else labels)


def read_column_names(path: str | os.PathLike | DataFile) -> list[str]:
    """Read the names of a data file's columns.

    Args:
        path: the data file; what is read of a pipe stays to be read.

    Returns:
        The header's fields, or the keys of the first JSON object.

    Raises:
        DataError: the file cannot be read or is empty.
    """
    file = path.beginning() if isinstance(path, DataFile) else Path(path)
    return list(first_record(file, open_records(file))[1])


def read_rows(
    path: str | os.PathLike | DataFile, columns: Columns, layout: Layout = PLAIN, *, with_fields: bool = False
) -> Iterator[Row]:
    """Read a data file row by row, without loading it into memory.

    Args:
        path: the data file.
        columns: the columns to read.
        layout: how the file differs from a plain one; the number of skipped rows is logged.
        with_fields: whether a row has the values of the other columns, too.

    Returns:
        An iterator over the rows. Texts are unchanged; white space around labels is removed.

    Raises:
        DataError: during iteration, at the first error.
    """
    file = path if isinstance(path, DataFile) else Path(path)
    num_rows, skipped = 0, list[int]()
    for row in read_raw_rows(file, columns, layout, with_fields=with_fields):
        if row.label is not None:
            row = row._replace(label=row.label.strip())
            if not row.label:
                raise DataError(f"{file}:{row.line}: the label is empty; fill it in or delete the row.")
            if row.label == layout.skipped_label:
                skipped.append(row.line)
                continue
        num_rows += 1
        yield row
    _log_skipped(file, skipped, f"with the label {layout.skipped_label!r}")
    check_not_empty(file, num_rows)


def check_not_empty(path: AnyFile, num_rows: int) -> None:
    """Refuse a data file that has no rows.

    Args:
        path: the data file, for the message.
        num_rows: its rows.

    Raises:
        DataError: there are none.
    """
    if not num_rows:
        raise DataError(f"{path}:1: the file has no rows of data; add at least one.")


def read_raw_rows(
    path: AnyFile, columns: Columns, layout: Layout, *, with_fields: bool = False, label_lists: bool = False
) -> Iterator[Row]:
    """Read a data file row by row, with its labels as they are.

    Args:
        path: the data file.
        columns: the columns to read.
        layout: how the file differs from a plain one.
        with_fields: whether a row has the values of the other columns, too.
        label_lists: a label is any JSON value, so that it can be a list; otherwise it is text.

    Returns:
        An iterator over the rows.

    Raises:
        DataError: during iteration, at the first error.
    """
    if ending_of(path) in JSON_ENDINGS:
        return _json_rows(path, columns, layout, with_fields=with_fields, label_lists=label_lists)
    return _table_rows(path, columns, layout, with_fields=with_fields)


def _log_skipped(path: AnyFile, lines: list[int], reason: str) -> None:
    if lines:
        logger.info("%s: left out %d of its rows, %s; the first is line %d", path, len(lines), reason, lines[0])


def _table_rows(path: AnyFile, columns: Columns, layout: Layout, *, with_fields: bool) -> Iterator[Row]:
    records = open_records(path, bare_quotes=layout.bare_quotes)
    header_line, header = first_record(path, records)
    # Some copies of a headerless file have a header.
    if layout.header and not {name for _, name in _keys(columns) if name} <= set(header):
        header, records = list(layout.header), chain([(header_line, header)], records)
    positions: list[int | None] = []
    short: list[int] = []
    for key, name in _keys(columns):
        _check_column(path, header_line, list(header), name, key)
        positions.append(None if name is None else list(header).index(name))
    repeated = [name for name in header if list(header).count(name) > 1] if with_fields else []
    if repeated:
        raise DataError(
            f"{path}:{header_line}: {list(header).count(repeated[0])} columns are called {quote(repeated[0])}; rename "
            "them to write all columns."
        )
    for line, fields in records:
        # An empty line is skipped, except in a file of one column, where it is an empty text.
        if fields == [""] and len(header) > 1:
            continue
        if layout.skip_short_rows and len(fields) < len(header):
            short.append(line)
            continue
        if len(fields) != len(header):
            raise DataError(f"{path}:{line}: {len(fields)} fields, but the header has {len(header)}; {_remedy(path)}.")
        values: list[Any] = [None if position is None else fields[position] for position in positions]
        row = Row(line, *values)
        yield row._replace(fields=dict(zip(header, fields, strict=True))) if with_fields else row
    _log_skipped(path, short, f"with fewer fields than the header's {len(header)}")


def _remedy(path: AnyFile) -> str:
    if ending_of(path) == ".csv":
        return 'put a text with commas or line breaks in "double quotes"'
    return "separate the fields by one TAB each, and replace a TAB or line break inside a text by a space"


def _json_rows(
    path: AnyFile, columns: Columns, layout: Layout, *, with_fields: bool, label_lists: bool
) -> Iterator[Row]:
    wanted = _keys(columns)
    for line, record in open_records(path):
        if layout.derive:
            record = _derive(path, line, record, layout)
        values: list[Any] = []  # strings; pair and label are None if there is no such column
        for key, name in wanted:
            _check_column(path, line, list(record), name, key)
            if name is None:
                values.append(None)
            elif label_lists and key == "task.label_column":
                values.append(record[name])
            else:
                values.append(_json_text(path, line, name, record[name], key=key))
        row = Row(line, *values)
        yield row._replace(fields=record) if with_fields else row


def _derive(path: AnyFile, line: int, record: dict[str, Any], layout: Layout) -> dict[str, Any]:
    assert layout.derive is not None
    try:
        return layout.derive(record)
    except KeyError as error:
        raise DataError(f"{path}:{line}: no key {error}; correct or delete the row.") from None
    except ValueError as error:
        raise DataError(f"{path}:{line}: {error}; correct or delete the row.") from None
    except TypeError as error:
        raise DataError(f"{path}:{line}: a value is of the wrong type ({error}); correct or delete the row.") from None


def _json_text(path: AnyFile, line: int, name: str, value: Any, *, key: str) -> str:
    """Convert a JSON string, number or boolean to text; a list of one label, as annotation tools write it, is that."""
    if key == "task.label_column" and isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, dict | list):
        several = key == "task.label_column" and isinstance(value, list)
        hint = f" For several labels a row, set {setting('task.kind')} to multi_label." if several else ""
        raise DataError(f"{path}:{line}: {name!r} is {quote(value)}; it must be a string or a number.{hint}")
    if is_missing(value):
        missing = json.dumps(value)
        raise DataError(f"{path}:{line}: {name!r} is {missing}, a missing value; fill it in or delete the row.")
    if not isinstance(value, str):
        return label_text(value) if key == "task.label_column" else json.dumps(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON can contain half of a surrogate pair, which no tokenizer accepts.
        message = (
            f"{name!r} contains half of a surrogate pair ({quote(value)}); write the whole character or remove it."
        )
        raise DataError(f"{path}:{line}: {message}") from None
    return value


def _keys(columns: Columns) -> tuple[tuple[str, str | None], ...]:
    return (
        ("task.text_column", columns.text),
        ("task.text_pair_column", columns.pair),
        ("task.label_column", columns.label),
    )


def _check_column(path: AnyFile, line: int, names: list[str], name: str | None, key: str) -> None:
    if name is None:
        return
    count = names.count(name)
    if count == 0:
        found = ", ".join(map(quote, names[:20])) + (", ..." if len(names) > 20 else "")
        hint = did_you_mean(name, names)
        raise DataError(
            f"{path}:{line}: no column {name!r}; the columns here are {found}.{hint} Choose one with {setting(key)}."
        )
    if count > 1:
        raise DataError(
            f"{path}:{line}: {count} columns are called {name!r}; rename them or choose another with {setting(key)}."
        )


def class_index(path: AnyFile, line: int, label: str, classes: LabelIndex, *, may_be_score: bool = True) -> int:
    """Find a label of a row among a task's classes.

    Args:
        path: the data file, for the message.
        line: the row's line, likewise.
        label: the label.
        classes: the task's.
        may_be_score: a number that is no class may be a score.

    Returns:
        The class's index.

    Raises:
        DataError: there is no such class.
    """
    index = classes.find(label)
    if index is None:
        names = classes.names
        allowed = ", ".join(map(quote, names[:20])) + (", ..." if len(names) > 20 else "")
        hint = did_you_mean(label, names)
        is_score = may_be_score and is_number(label)
        scores = f" For scores, set {setting('task.kind')} to regression." if is_score else ""
        raise DataError(
            f"{path}:{line}: label {quote(label)} is not one of the task's labels, {allowed}.{hint} "
            f"Correct it, add a training row that has it, or list all labels with {setting('task.labels')}.{scores}"
        )
    return index


def _score(path: AnyFile, line: int, label: str) -> float:
    if not is_number(label) or abs(float(label)) > np.finfo(np.float32).max:
        point = " (with a decimal point)" if "," in label and is_number(label.replace(",", ".", 1)) else ""
        raise DataError(
            f"{path}:{line}: label {quote(label)} is not a finite number, which regression needs; "
            f"correct it{point}, or set {setting('task.kind')} to classification."
        )
    return float(label)
