"""Records of annotation tools as labelled words: spans of a text, and integer tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.data_file import AnyFile
from dynabert_paddle.data.records import TEXT_COLUMNS
from dynabert_paddle.data.spans import SpanReader, find_spans, parse_span
from dynabert_paddle.data.tag_names import find_tag_names, name_tags
from dynabert_paddle.errors import DataError

TAGS_COLUMN = "ner_tags"  # in Hugging Face's rows
SPAN_COLUMNS = ("label", "entities")  # doccano's, and Label Studio's after `label_studio.plain_records`


class AnnotatedRecords:
    """Turns the records of a file into those with a list of words and one of labels.

    Args:
        path: the file.
        text_column: key of the words.
        label_column: key of the labels.
        given_names: the user's labels in their order, which integers may stand for.
        word_split: how texts with spans are split into words.
    """

    def __init__(
        self,
        path: AnyFile,
        text_column: str,
        label_column: str,
        *,
        given_names: Sequence[str] | None = None,
        word_split: str = "words",
    ) -> None:
        self._path, self._text_column, self._label_column = path, text_column, label_column
        self._given_names = given_names
        self._tag_names: Sequence[str] | None = None
        self._spans = SpanReader(path, word_split)

    def plain(self, line: int, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Replace the annotated spans of a record by words with labels.

        Args:
            line: its line, for messages.
            record: the record.

        Returns:
            The record with words and labels; one that has them, or no spans, as it is.

        Raises:
            DataError: a value that is no span, or an integer without a name.
        """
        if isinstance(record.get(self._text_column), list):
            return self._with_names(line, record)
        text_column, span_column = find_text(record, self._text_column), find_span_column(record, self._label_column)
        if text_column is None or span_column is None:
            return record
        spans = find_spans(record[span_column], self._path, line, span_column)
        words, labels = self._spans.read(record[text_column], spans, line)
        return {**record, self._text_column: words, self._label_column: labels}

    def _with_names(self, line: int, record: Mapping[str, Any]) -> Mapping[str, Any]:
        column = next((name for name in (self._label_column, TAGS_COLUMN) if name in record), None)
        values = record.get(column) if column else None
        if not isinstance(values, list):
            return record
        if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            values = name_tags(values, self._find_names(column or "", line), f"{self._path}:{line}")
        return {**record, self._label_column: values}

    def _find_names(self, column: str, line: int) -> Sequence[str]:
        if self._tag_names is None:
            found = find_tag_names(self._path, column) if isinstance(self._path, Path) else None
            self._tag_names = found[0] if found else self._given_names
        if self._tag_names is None:
            raise DataError(
                f"{self._path}:{line}: {column!r} has integers, and nothing tells their names: list them in their "
                f"order with {setting('task.labels')}, or a line each in labels.txt beside the file."
            )
        return self._tag_names

    def check(self) -> Iterator[str]:
        """Judge the file's spans, after its last record; see `SpanReader.check`."""
        return self._spans.check()


def find_text(record: Mapping[str, Any], text_column: str) -> str | None:
    """Return the key of a record's text; None if it has none."""
    return next((name for name in (text_column, *TEXT_COLUMNS) if isinstance(record.get(name), str)), None)


def find_span_column(record: Mapping[str, Any], label_column: str) -> str | None:
    """Return the key of the list of a text's spans; None if there is none."""
    for name in (label_column, *SPAN_COLUMNS):
        values = record.get(name)
        if isinstance(values, list) and (all(map(parse_span, values)) or _has_lists(values)):
            return name
    return None


def _has_lists(values: list[Any]) -> bool:
    """Whether a list looks like spans, though some may be wrong."""
    return any(isinstance(value, (list, dict)) for value in values)
