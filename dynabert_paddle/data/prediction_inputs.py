"""The rows to predict: from files, from pipes, and from the command line, each with the columns that it has there."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.data_file import AnyFile, DataFile, ending_of
from dynabert_paddle.data.question_answering import iterate_questions
from dynabert_paddle.data.readers import Columns, read_column_names, read_rows
from dynabert_paddle.data.records import (
    DATA_FILE_ENDINGS,
    JSON_ENDINGS,
    TEXT_COLUMNS,
    open_records,
    quote,
    read_lines,
)
from dynabert_paddle.data.task_files import default_text_column
from dynabert_paddle.data.token_classification import TEXT_COLUMN, has_sentences, iterate_sentences
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.files.json_text import parse_json
from dynabert_paddle.text.line_stream import LineStream
from dynabert_paddle.text.quoting import find_delimiter, split_rows

STANDARD_INPUT = "-"

_NAME = re.compile(r"\w+")  # of a column
_MAX_GROUP = 4096  # rows of a pipe that are predicted together


class InputRow(NamedTuple):
    """A row to predict.

    Args:
        texts: one text, or a pair; a text can be a list of words.
        columns: all that its file says about it, by column.
    """

    texts: tuple[Any, ...]
    columns: Mapping[str, Any]


class Input(NamedTuple):
    """A file or a pipe to predict.

    Args:
        rows: its rows.
        is_ready: of a pipe, whether the next row is there without waiting; None for a file, where it always is.
    """

    rows: Iterator[InputRow]
    is_ready: Callable[[], bool] | None = None

    def groups(self) -> Iterator[Iterable[InputRow]]:
        """Divide the rows into those that are predicted together: all of a file; of a pipe those that are there."""
        if self.is_ready is None:
            yield self.rows
            return
        for row in self.rows:
            group = [row]
            while len(group) < _MAX_GROUP and self.is_ready() and (following := next(self.rows, None)) is not None:
                group.append(following)
            yield group


@dataclass(frozen=True)
class InputForm:
    """How the rows to predict are read.

    Args:
        kind: the kind of task.
        labels: the task's labels.
        takes_pairs: whether the task has pairs of texts.
        trained: the columns of the task's own files, as far as they are known.
        text_column: the user's column of the text.
        pair_column: the user's column of the second text.
        format: `tsv`, `csv`, `jsonl`, `json`, `txt` or `conll`; None: the ending tells.
        with_columns: whether a row has all columns of a table, whose names are then different.
    """

    kind: str
    labels: Sequence[str]
    takes_pairs: bool
    trained: tuple[str | None, str | None]
    text_column: str | None = None
    pair_column: str | None = None
    format: str | None = None
    with_columns: bool = True

    def __post_init__(self) -> None:
        if self.pair_column and not self.takes_pairs:
            raise UsageError(f"this bundle's task has single texts: leave out {setting('task.text_pair_column')}")

    def of_texts(self, texts: Sequence[str]) -> Input:
        """Combine the texts of a command line to rows.

        Args:
            texts: the texts; for a task of pairs, the first and the second of each pair in turn.

        Returns:
            The rows of the texts.

        Raises:
            UsageError: one of a pair is missing.
        """
        size = 1 + self.takes_pairs
        if len(texts) % size:
            raise UsageError(
                f"this bundle's task has pairs of texts: give two texts for each, not {len(texts)}: "
                "'a question' 'its context'"
            )
        names = (self._text_name, self.trained[1] or "text_pair")
        rows = (tuple(texts[start : start + size]) for start in range(0, len(texts), size))
        return Input(InputRow(row, dict(zip(names, row, strict=False))) for row in rows)

    def open(self, name: str) -> Input:
        """Open a file or a pipe.

        Args:
            name: its path; `-` for the standard input.

        Returns:
            Its rows.

        Raises:
            DataError: it cannot be read, or is not in its format; in part only while its rows are read.
        """
        stream = _open_stream(name)
        path = Path("stdin" if name == STANDARD_INPUT else name)
        if stream is None:
            file: AnyFile = DataFile(path, f".{self.format}") if self.format else path
            return Input(self._read(file))
        lines = _Lines(iter(stream))
        file = DataFile(path, f".{self.format}" if self.format else ending_of(path) or ".txt", lines)
        if not self.format and not ending_of(path):
            lines.check = lambda line: self._check_guess(path, line)
        return Input(self._read(file), stream.is_ready)

    def _check_guess(self, path: Path, line: str) -> None:
        """Refuse a pipe without a named format whose first line does not look like a text."""
        names, words = _split_names(line), line.split()
        if line.lstrip().startswith(("{", "[")) and _is_json(line):
            seen, format = "JSON", "jsonl" if line.lstrip().startswith("{") else "json"
        elif {*self.trained, self.text_column, *TEXT_COLUMNS} & set(names) and all(map(_NAME.fullmatch, names)):
            seen, format = "names of columns", "csv" if "\t" not in line and len(names) > 1 else "tsv"
        elif self.kind == "token_classification" and len(words) > 1 and words[-1] in self.labels:
            seen, format = "a word and its label", "conll"
        else:
            return
        option = setting("input_format")
        raise DataError(
            f"{path}:1: {quote(line)} looks like {seen}: say {option} {format}, or {option} txt if it is a text."
        )

    def _read(self, file: AnyFile) -> Iterator[InputRow]:
        if self.kind == "question_answering" and ending_of(file) in JSON_ENDINGS:
            yield from _read_questions(file)
        elif self.kind == "token_classification" and self._has_sentences(file):
            text_column = self._text_column(file) or TEXT_COLUMN
            for sentence in iterate_sentences(file, text_column=text_column, label_column=None):
                yield InputRow((sentence.words,), sentence.fields or {TEXT_COLUMN: sentence.words})
        else:
            yield from self._read_texts(file)

    def _has_sentences(self, file: AnyFile) -> bool:
        if not isinstance(file, DataFile):
            return has_sentences(file, self._text_column(file), self.labels)
        if file.ending in JSON_ENDINGS:
            column = self._text_column(file) or TEXT_COLUMN
            records = open_records(file.beginning())
            return any(isinstance(record.get(column), list) for _, record in islice(records, 1))
        return file.ending == ".conll"

    def _read_texts(self, file: AnyFile) -> Iterator[InputRow]:
        ending, allowed = ending_of(file), (".txt", *DATA_FILE_ENDINGS)
        if ending not in allowed:
            raise DataError(
                f"{file}: unknown file ending {ending!r}; the endings are {', '.join(allowed)}: name the format with "
                f"{setting('input_format')}"
            )
        if ending == ".txt":
            if self.takes_pairs:
                raise UsageError(
                    f"{file}: is read as single texts, a line each: give pairs as .tsv, .csv or .jsonl with names of "
                    f"columns; of a pipe {setting('input_format')} tells it"
                )
            yield from (InputRow((text,), {self._text_name: text}) for _, text in read_lines(file))
            return
        pair_column = self.pair_column or self.trained[1]
        if self.takes_pairs and not pair_column:
            raise UsageError(
                "this bundle's task has pairs of texts: name the second text's column with "
                f"{setting('task.text_pair_column')}"
            )
        columns = Columns(self._text_column(file) or default_text_column(file), pair_column)
        for row in read_rows(file, columns, with_fields=self.with_columns):
            yield InputRow(row.texts, row.fields or {})

    @property
    def _text_name(self) -> str:
        """The column of a text that has none."""
        lists_words = self.kind == "token_classification"
        return self.text_column or (None if lists_words else self.trained[0]) or "text"

    def _text_column(self, file: AnyFile) -> str | None:
        """The text's column: the user's, else the one that the task was trained on, if the file has it."""
        if self.text_column or not self.trained[0] or ending_of(file) not in DATA_FILE_ENDINGS:
            return self.text_column
        return self.trained[0] if self.trained[0] in read_column_names(file) else None


class _Lines:
    """The lines of a pipe; the first one can be checked, when it is there."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.check: Callable[[str], None] | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if self.check is not None:
            check, self.check = self.check, None
            check(line)
        return line


def _open_stream(name: str) -> LineStream | None:
    """Open a pipe, a terminal or another device; None for a file, and for what is missing."""
    if name == STANDARD_INPUT:
        try:
            return LineStream(sys.stdin.fileno(), "stdin")
        except (OSError, ValueError) as error:
            raise DataError(f"stdin: cannot be read ({error}); give a file") from None
    path = Path(name)
    if not path.exists() or path.is_dir() or path.is_file():
        return None
    try:
        return LineStream(os.open(path, os.O_RDONLY), path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a readable file.") from None


def _read_questions(file: AnyFile) -> Iterator[InputRow]:
    if ending_of(file) != ".json":
        beginning = file.beginning() if isinstance(file, DataFile) else file
        pairs = zip(open_records(beginning), iterate_questions(file, answered=False), strict=True)
        yield from (InputRow((row.question, row.context), record) for (_, record), row in pairs)
        return
    for row in iterate_questions(file, answered=False):
        yield InputRow((row.question, row.context), {"id": row.id, "question": row.question, "context": row.context})


def _is_json(line: str) -> bool:
    try:
        return isinstance(parse_json(line), (dict, list))
    except (ValueError, RecursionError):
        return line.strip() in ("[", "{", "[{")


def _split_names(line: str) -> list[str]:
    delimiter = "\t" if "\t" in line else find_delimiter(line)
    try:
        return [name.strip() for name in next(split_rows([line], delimiter), [])]
    except csv.Error:
        return []
