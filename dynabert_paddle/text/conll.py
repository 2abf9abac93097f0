"""Files of labelled words: a word and its label a line, an empty line after each sentence, and forms like it.

CoNLL-U numbers the words of a sentence in its first column. PaddleNLP writes a sentence a line, its words, a TAB and
their labels, with the character `\\x02` between two of them.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice, tee

from dynabert_paddle.text.lines import LineError

CONLL_ENDINGS = (".conll", ".bio", ".conllu", ".iob", ".iob2")
SEPARATOR = "\x02"  # between two words, and two labels, in PaddleNLP's form
_CONLLU = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_COLUMN_NAMES = re.compile(r"#\s*global\.columns\s*=(.*)")  # of CoNLL-U Plus
_NUMBER = re.compile(r"\d+([-.]\d+)?")  # of a word; with a dash of several in one, with a point of one left out
_PLACEHOLDERS = ("_", "-", "*")
_LABEL_NAMES = ("ner", "xner", "labels", "label", "tag")  # of the label's column among several
_LEAST_NUMBERED = 3  # words of a sentence whose numbers are no words, unless the names of columns tell
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


def split_sentences(
    lines: Iterable[str], *, labelled: bool = True, label_column: str | None = None
) -> Iterator[list[tuple[int, list[str]]]]:
    """Divide a file in any of the forms into sentences.

    Args:
        lines: its lines.
        labelled: words have labels; otherwise there may be none.
        label_column: of CoNLL-U, the name or the number of the label's column, from 1.

    Yields:
        As `split_conll`.

    Raises:
        LineError: a line has another form, or the label's column is not clear.
    """
    lines = iter(lines)
    start = list(islice(lines, 2))
    if is_separated(start):
        yield from _split_separated(chain(start, lines), labelled=labelled)
        return
    first, again = tee(_without_numbers(chain(start, lines), labelled=labelled, label_column=label_column))
    num_columns = count_columns(first)
    del first  # which would keep all lines in memory
    yield from split_conll(again, max(num_columns, 2) if labelled else num_columns)


def is_separated(lines: Iterable[str]) -> bool:
    """Tell PaddleNLP's form by the first two lines of a file; one may name its columns."""
    return any(SEPARATOR in line for line in islice(lines, 2))


def _split_separated(lines: Iterable[str], *, labelled: bool) -> Iterator[list[tuple[int, list[str]]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and SEPARATOR not in line and line.split("\t")[-1].startswith("label")):
            continue
        words, *columns = (column.split(SEPARATOR) for column in line.split("\t"))
        if labelled and (len(columns) != 1 or len(columns[0]) != len(words)):
            found = f"{len(columns[0])} labels" if columns else "no TAB and labels"
            raise LineError(number, f"{len(words)} words and {found}, all separated by \\x02; give each word one label")
        labels = columns[0] if labelled else [""] * len(words)
        rows = [(number, [word, label.strip()]) for word, label in zip(words, labels) if word.strip()]  # noqa: B905
        if rows:
            yield rows


def are_numbered(lines: Iterable[str]) -> bool:
    """Whether a file is in CoNLL-U: the words of its first sentence are numbered, and columns are named or many."""
    return bool(_Numbered(lines).rows)


class _Numbered:
    """The beginning of a file, as far as its first sentence, if that numbers its words.

    Args:
        lines: the file's lines.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.begin: list[str] = []
        rows: list[list[str]] = []
        is_numbered = True
        for line in lines:
            self.begin.append(line)
            if line.strip() and not line.startswith("#"):
                rows.append(line.split("\t"))
                is_numbered = len(rows[-1]) > 2 and _NUMBER.fullmatch(rows[-1][0]) is not None
            if not is_numbered or (rows and not line.strip()):
                break
        names = next((match.group(1).split() for match in map(_COLUMN_NAMES.match, self.begin) if match), [])
        words = [int(fields[0]) for fields in rows if fields[0].isdigit()] if is_numbered else []
        in_order = words == list(range(1, len(words) + 1)) and len(words) >= (1 if names else _LEAST_NUMBERED)
        self.rows = rows if is_numbered and in_order else []
        self.names = names or list(_CONLLU if rows and len(rows[0]) == len(_CONLLU) else _CONLLU[:2])


def _without_numbers(lines: Iterable[str], *, labelled: bool, label_column: str | None) -> Iterator[str]:
    """Rewrite the lines of CoNLL-U to words and labels; those of other files stay as they are."""
    lines = iter(lines)
    first = _Numbered(lines)
    if not first.rows:
        yield from chain(first.begin, lines)
        return
    width = len(first.rows[0])
    label = _find_label_column(first, label_column) if labelled else 1
    for number, line in enumerate(chain(first.begin, lines), start=1):
        fields = line.split("\t")
        if not line.strip() or line.startswith("#"):
            yield "" if not line.strip() else "#"
        elif len(fields) != width or not _NUMBER.fullmatch(fields[0]):
            raise LineError(number, f"{len(fields)} columns, expected {width} with a word's number in the first one")
        else:  # a word of its own has a plain number
            yield f"{fields[1]}\t{fields[label]}" if fields[0].isdigit() else "#"


def _find_label_column(first: _Numbered, wanted: str | None) -> int:
    """Find the label's column: the wanted one, one whose name tells, or of unnamed ones the last that has values."""
    width, names = len(first.rows[0]), first.names
    small = [name.rpartition(":")[2].lower() for name in names][:width]
    if wanted is not None:
        if wanted.isdigit() and 2 < int(wanted) <= width:
            return int(wanted) - 1
        found = [index for index, name in enumerate(small) if name == wanted.lower() and index > 1]
    elif len(names) == 2:
        found = [i for i in range(2, width) if any(row[i] not in _PLACEHOLDERS for row in first.rows)]
    else:
        found = [small.index(name) for name in reversed(_LABEL_NAMES) if name in small]
    if found:
        return found[-1]
    listed = ", ".join(names[2:]) or f"3 to {width}"
    seen = f"no column {wanted!r}" if wanted is not None else "several columns can be the label's"
    raise LineError(1, f"{seen}; choose one of {listed}, by its name or number, as the column of the label")


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
        elif not sentence and _is_setting(fields):
            continue
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
    lines = iter(lines)
    start = list(islice(lines, 2))
    if is_separated(start):
        return True
    for number, line in enumerate(chain(start, lines), start=1):
        fields = _split_columns(line)
        is_comment = (bool(fields) and fields[0].startswith("#") and len(fields) != num_columns) or _is_setting(fields)
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


def _is_setting(fields: Sequence[str]) -> bool:
    """Whether a line before a sentence tells something about it, such as `# text = He` or `# id 1 domain=en`."""
    return len(fields) > 2 and fields[0] == "#" and (fields[2] == "=" or "=" in fields[-1])


def _split_columns(line: str) -> list[str]:
    """Split a line into columns; one of white space alone has none."""
    return _COLUMN_GAP.split(line.strip(" \t\r\n")) if line.strip() else []
