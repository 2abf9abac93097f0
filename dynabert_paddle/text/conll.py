"""CoNLL's format: a word and its label a line, an empty line after each sentence.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain

CONLL_ENDINGS = (".conll", ".bio")
_DOCUMENT = "-DOCSTART-"


class ConllError(ValueError):
    """A line that is not in CoNLL's format.

    Args:
        line: its number.
        message: what is wrong with it.
    """

    def __init__(self, line: int, message: str) -> None:
        """Remember the line's number."""
        super().__init__(message)
        self.line = line


def count_columns(lines: Iterable[str]) -> int:
    """Count the columns of a file.

    Args:
        lines: its lines.

    Returns:
        The number in the first line that is neither empty nor perhaps a comment; 0 if there is none.
    """
    unclear = 0
    for line in lines:
        fields = line.split()
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
        Each sentence's lines: their numbers and columns; the first column is the word, the last one the label.

    Raises:
        ConllError: a line has another number of columns.
    """
    sentence: list[tuple[int, list[str]]] = []
    for number, line in enumerate(chain(lines, [""]), start=1):
        fields = line.split()
        if not fields or fields[0] == _DOCUMENT:
            if sentence:
                yield sentence
            sentence = []
        elif len(fields) == num_columns:
            sentence.append((number, fields))
        elif not fields[0].startswith("#"):
            raise ConllError(
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
        ConllError: most lines end with a label, but not this one.
    """
    num_labelled, others = 0, 0
    first_other = (0, "")
    for number, line in enumerate(lines, start=1):
        fields = line.split()
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
        raise ConllError(
            number,
            f"{last[:60]!r} is not one of the bundle's labels, with which most lines end; correct it, or name the file "
            ".conll to read no labels",
        )
    return num_labelled > 1 and not others
