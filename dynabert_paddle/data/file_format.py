"""What a data file looks like before a task reads it: its format, its columns, and the kind of task that it is for."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from dynabert_paddle.data.annotated import find_span_column, find_text
from dynabert_paddle.data.kinds import KINDS
from dynabert_paddle.data.label_studio import is_task
from dynabert_paddle.data.records import (
    JSON_ENDINGS,
    TEXT_COLUMNS,
    first_record,
    open_records,
    read_lines,
    read_objects,
)
from dynabert_paddle.data.spans import parse_span
from dynabert_paddle.data.token_classification import LABEL_COLUMN, TEXT_COLUMN
from dynabert_paddle.errors import DataError
from dynabert_paddle.files.json_text import parse_json
from dynabert_paddle.text.conll import CONLL_ENDINGS, are_numbered, count_columns, is_separated
from dynabert_paddle.text.lines import LineError, data_ending
from dynabert_paddle.text.quoting import find_delimiter, has_quoted_cells

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class FileFormat(NamedTuple):
    """A file's format.

    Args:
        name: in words.
        columns: the names of its columns, or the keys of its first object; empty where nothing names them.
        kind: the kind of task that its structure is of; classification where several are possible.
    """

    name: str
    columns: tuple[str, ...]
    kind: str


def find_format(path: Path) -> FileFormat:
    """Look at a file.

    Args:
        path: the file.

    Returns:
        Its format.

    Raises:
        DataError: it cannot be read, is empty, or has an unknown ending.
    """
    ending = data_ending(path)
    if ending in JSON_ENDINGS:
        return _json_format(path, ending)
    if ending in CONLL_ENDINGS or ending == ".txt" or (ending == ".tsv" and _has_sentences(path)):
        return FileFormat(_name_of_sentences(path), (), "token_classification")
    _, header = first_record(path, open_records(path))
    lines = (text for _, text in read_lines(path))
    if ending == ".csv":
        name = f"CSV, cells are separated by {_DELIMITERS[find_delimiter(next(lines))]}"
    else:
        try:
            is_quoted = has_quoted_cells(lines)
        except LineError as error:
            raise DataError(f"{path}:{error.line}: {error}.") from None
        name = "TSV, cells with tabs, quotes or line breaks are quoted" if is_quoted else "TSV, quotes are text"
    return FileFormat(name, tuple(header), "classification")


def _name_of_sentences(path: Path) -> str:
    start = [text for _, text in islice(read_lines(path), 2)]
    if is_separated(start):
        return "PaddleNLP's, a sentence a line, with \\x02 between its words"
    num_columns = count_columns(text for _, text in read_lines(path))
    if not num_columns:
        raise DataError(f"{path}:1: the file is empty; add sentences, a word and its label a line.")
    if are_numbered(text for _, text in read_lines(path)):
        return "CoNLL-U's, words with numbers"
    return f"CoNLL's, {num_columns} columns, the last one is the label"


def _json_format(path: Path, ending: str) -> FileFormat:
    if ending == ".parquet":
        _, record = first_record(path, open_records(path))
        assert isinstance(record, dict)  # so are its rows
        return FileFormat("Parquet", tuple(record), _kind_of_record(record))
    if ending == ".json" and (document := _whole_document(path)) is not None:
        return FileFormat("JSON, one object (SQuAD's)", tuple(document), "question_answering")
    _, record = first_record(path, open_records(path))
    assert isinstance(record, dict)  # JSON has no other records
    first = next(text for _, text in read_lines(path) if text.strip())
    name = "JSON, an array of objects" if first.lstrip().startswith("[") and ending == ".json" else "JSON lines"
    if is_task(next(iter(read_objects(path)), (1, {}))[1]):
        name += ", Label Studio's tasks"
    kind = _kind_of_record(record)
    if kind == "token_classification" and not isinstance(record.get(TEXT_COLUMN), list):
        name += ", spans of characters"
    return FileFormat(name, tuple(record), kind)


def _kind_of_record(record: dict[str, Any]) -> str:
    column = find_span_column(record, LABEL_COLUMN)
    has_spans = column is not None and any(map(parse_span, record[column])) and find_text(record, TEXT_COLUMN)
    if isinstance(record.get(TEXT_COLUMN), list) or has_spans:
        return "token_classification"
    sets = [record[name] for name in KINDS["multi_label"].label_columns if isinstance(record.get(name), list)]
    if sets and all(isinstance(label, str) for label in sets[0]):
        return "multi_label"
    return "question_answering" if {"question", "context", "answers"} <= set(record) else "classification"


def _whole_document(path: Path) -> dict[str, Any] | None:
    """Read a `.json` file that is one object over several lines, as SQuAD's; None for others."""
    lines = [text for _, text in read_lines(path)]
    try:
        document = parse_json("\n".join(lines))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and isinstance(document.get("data"), list) else None


def _has_sentences(path: Path) -> bool:
    """Tell a `.tsv` file of labelled words from a table: a table has the name of a text's column, or no empty line."""
    if is_separated(text for _, text in islice(read_lines(path), 2)):
        return True
    _, header = first_record(path, open_records(path))
    if {*TEXT_COLUMNS, "label"} & set(header):
        return False
    return any(not text.strip() for _, text in read_lines(path))
