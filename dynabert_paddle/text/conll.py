"""CoNLL's format: a word and its label a line, an empty line after each sentence.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

from dynabert_paddle.text.lines import LineError

CONLL_ENDINGS = (".conll", ".bio")
_DOCUMENT = "-DOCSTART-"
_COLUMN_GAP = re.compile("[ \t]+")  # other white space can be a word, such as the ideographic space


def count_columns(lines: Iterable[str]) -> int:
    """Count the columns of a file.

    Args:
        lines: its lines.

    Returns:
        The number in the first line that is neither empty nor perhaps a comment; 0 if there is none.
    """
    unclear = 0
    for line in lines:
        fields = _split_columns(line)
        if fields and fields[0].startswith("#"):
            unclear = unclear or len(fields)
        elif fields and fields[0] != _DOCUMENT:
            return len(fields)
    return unclear


def split_conll(lines: Iterable[str], num_columns: int) -> Iterator[list[tuple[int, list[str]]]]:
    """Divide a file into sentences.

    Args:
        lines: its lines.
        num_columns: from `count_columns`; a line that begins with `#` and has another number is a comment.

    Yields:
        Each sentence's lines: their numbers and columns; the first column is the word, the last one the label. Words of
        white space are left out, as where a text is split into words.

    Raises:
        LineError: a line has another number of columns.
    """
    sentence: list[tuple[int, list[str]]] = []
    for number, line in enumerate(chain(lines, [""]), start=1):
        fields = _split_columns(line)
        if not fields or fields[0] == _DOCUMENT:
            if sentence:
                yield sentence
            sentence = []
        elif len(fields) == num_columns:
            if not fields[0].isspace():
                sentence.append((number, fields))
        elif not fields[0].startswith("#"):
            raise LineError(
                number,
                f"{len(fields)} columns, expected {num_columns}; a line has a word, optional further columns, and the "
                "label, and an empty line ends a sentence",
            )


def is_conll(lines: Iterable[str], num_columns: int, labels: Collection[str]) -> bool:
    """Tell a file in CoNLL's format from one with a text a line.

    Args:
        lines: the file's lines.
        num_columns: from `count_columns`.
        labels: the labels that its last column may have.

    Returns:
        Whether there are several lines, and each ends with a label.

    Raises:
        LineError: most lines end with a label, but not this one.
    """
    num_labelled, others = 0, 0
    first_other = (0, "")
    for number, line in enumerate(lines, start=1):
        fields = _split_columns(line)
        is_comment = bool(fields) and fields[0].startswith("#") and len(fields) != num_columns
        if not fields or fields[0] == _DOCUMENT or is_comment:
            continue
        if len(fields) > 1 and fields[-1] in labels:
            num_labelled += 1
        else:
            first_other = first_other if others else (number, fields[-1])
            others += 1
    if num_labelled > others > 0:
        number, last = first_other
        raise LineError(
            number,
            f"{last[:60]!r} is not one of the bundle's labels, with which most lines end; correct it, or name the file "
            ".conll to read no labels",
        )
    return num_labelled > 1 and not others


def _split_columns(line: str) -> list[str]:
    """Split a line into columns; one of white space alone has none."""
    return _COLUMN_GAP.split(line.strip(" \t\r\n")) if line.strip() else []
