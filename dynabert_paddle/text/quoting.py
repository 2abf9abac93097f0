"""Splits CSV and TSV files into cells: how they are separated and quoted.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from dynabert_paddle.text.lines import LineError

_MAX_CELL = 2**31 - 1  # characters; the csv module's own limit is 131,072
_CLOSED = re.compile(r'([^"]*(?:""[^"]*)*)"(?!")')  # the rest of a quoted cell, with the quote that ends it
_DELIMITER = re.compile("sep=.")  # names the delimiter, before the columns' names
_MIN_CELLS = 3  # a file with at least so many cells that are quoted for their commas is taken for Excel's

_EITHER_WAY = (
    "a cell begins and ends with a double quote, which can be part of the text or quoting as in CSV, and the other "
    "cells do not tell; save the file as .csv or .jsonl"
)
_SEVERAL_LINES = (  # a table of as many columns either way, whose labels only the user knows
    "a cell begins with a double quote, and a cell of a later line ends with one: two texts with a quote each, or a "
    "text of several lines, quoted as in CSV; save the file as .csv or .jsonl"
)
_NOT_AS_HEADER = (
    "the names of the columns are in double quotes, as in CSV, and this line has quotes as CSV does not allow them; "
    'write "" for a quote inside of a cell, or save the file as .csv or .jsonl'
)


def split_table(open_lines: Callable[[], Iterable[str]], *, is_tsv: bool) -> Iterator[tuple[int, list[str]]]:
    """Split a CSV or TSV file into rows.

    Args:
        open_lines: returns the file's lines, without line ends, from the first one; it is called more than once.
        is_tsv: cells are separated by tabs, and not all writers quote them.

    Yields:
        For each row, the one with the columns' names included, the number of its first line, and its cells; empty lines
        of a file with quoted cells are left out.

    Raises:
        LineError: double quotes at wrong places, or such that can be the text's own or those of CSV.
    """
    lines = iter(open_lines())
    header = next(lines, None)
    if header is None:
        return
    if not is_tsv:
        lines = chain([header], lines)
        if "\r" in header:  # Excel for Mac, with line feeds inside of cells
            lines = (part for line in lines for part in line.split("\r"))
            header = header.partition("\r")[0]
        if _DELIMITER.fullmatch(header):  # written by Excel, and for it
            yield from _split_quoted(islice(lines, 1, None), header[-1], first=2)
            return
        yield from _split_quoted(lines, find_delimiter(header))
        return
    yield 1, split_header(header)  # before the whole file is read
    if has_quoted_cells(open_lines()):
        yield from _split_quoted(lines, "\t", first=2)
    else:
        yield from ((number, line.split("\t")) for number, line in enumerate(lines, start=2))


def split_tsv_once(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Split a TSV file that can be read once, such as a pipe: each row is there as soon as its line tells it.

    A cell that begins with a double quote can be quoted, or not, and later lines tell. Rows wait from there on, until a
    line has quotes that no writer of quoted cells makes, or for the end.

    Args:
        lines: its lines, without line ends.

    Yields:
        As `split_table`.

    Raises:
        LineError: as `split_table`.
    """
    lines = iter(lines)
    header = next(lines, None)
    if header is None:
        return
    cells = _Cells()
    is_tsv, first = not cells.add(1, header), 2
    if cells.is_open:  # a name of several lines
        whole = [header, *lines]
        yield from split_table(lambda: whole, is_tsv=True)
        return
    yield 1, split_header(header)
    if not is_tsv and split_header(header) != header.split("\t"):
        yield from _split_quoted(_check_quotes(lines, cells), "\t", first=2)
        return
    waiting: list[str] = []
    for number, line in enumerate(lines, start=2):
        is_tsv = is_tsv or not cells.add(number, line)
        if waiting or (not is_tsv and any(cell.startswith('"') for cell in line.split("\t"))):
            first = first if waiting else number
            waiting.append(line)
            if not is_tsv:
                continue
        for place, row in enumerate(waiting or [line], start=first if waiting else number):
            yield place, row.split("\t")
        waiting = []
    if waiting and cells.are_quoted():
        yield from _split_quoted(iter(waiting), "\t", first=first)
    else:
        yield from ((place, row.split("\t")) for place, row in enumerate(waiting, start=first))


def _check_quotes(lines: Iterable[str], cells: _Cells) -> Iterator[str]:
    """Yield the lines below a header of quoted names; one that no writer of quoted cells makes is refused."""
    for number, line in enumerate(lines, start=2):
        if not cells.add(number, line):
            raise LineError(number, _NOT_AS_HEADER)
        yield line


def _split_quoted(lines: Iterable[str], delimiter: str, *, first: int = 1) -> Iterator[tuple[int, list[str]]]:
    reader: Any = split_rows((line + "\n" for line in lines), delimiter)
    while True:
        number = reader.line_num + first
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise LineError(
                number,
                f"the row that begins here is not valid CSV ({error}); write a double quote inside a quoted field as "
                '"", or save the file as TSV',
            ) from None
        if cells is None:
            return
        if cells:
            yield number, cells


def find_delimiter(header: str) -> str:
    """Return what separates the cells of a .csv file.

    Args:
        header: its first line.

    Returns:
        The comma; a semicolon, as Excel writes where numbers have a decimal comma, or a tab if the line has no comma.
    """
    return next((delimiter for delimiter in ",;\t" if delimiter in header), ",")


def split_rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Split a file with quoted cells into rows.

    Args:
        lines: its lines with their ends.
        delimiter: between the cells.

    Returns:
        The csv module's reader; it refuses quotes at wrong places, and accepts cells of any length.
    """
    csv.field_size_limit(_MAX_CELL)
    # Strict, because the lenient mode joins all lines after an unclosed quote to one cell.
    return csv.reader(lines, delimiter=delimiter, strict=True)


def split_header(line: str) -> list[str]:
    """Split the first line of a .tsv file, whose cells may be quoted."""
    if '"' in line:
        try:
            return next(split_rows([line], "\t"), [])
        except csv.Error:
            pass
    return line.split("\t")


def has_quoted_cells(lines: Iterable[str]) -> bool:
    """Tell a TSV file with quoted cells, as pandas and Excel write it, from one in which quotes are part of the text.

    A writer that quotes does so for every cell with a quote, a tab or a line break, and doubles the quotes inside; some
    quote all cells, and Excel those with a comma. GLUE's files have quotes anywhere.

    Args:
        lines: all lines of the file, without line ends.

    Returns:
        Whether cells are quoted; False if it makes no difference.

    Raises:
        LineError: the file can be read either way, or the names of its columns are quoted, and other cells are not.
    """
    cells = _Cells()
    for number, line in enumerate(lines, start=1):
        if not cells.add(number, line):
            if cells.header_is_quoted:  # `split_header` removes the quotes there
                raise LineError(number, _NOT_AS_HEADER)
            return False
    return cells.are_quoted()


class _Cells:
    """What is known about the cells of a TSV file if they are read as quoted."""

    def __init__(self) -> None:
        self._tabs = -1  # of the first line
        self._width, self._cells = 0, 0  # cells of the first row and, so far, of this one
        self.is_open = False  # a quoted cell goes on in the next line
        self._same_tabs, self._same_width = True, True
        self._quoted, self._unquoted, self._unquoted_commas = 0, 0, 0
        self._doubled, self._several_lines, self._commas = 0, 0, 0  # quoted cells with these
        self._for_commas = 0  # quoted cells with a comma and nothing else that needs quotes
        self._without_need, self._first = 0, 0  # number, and line of the first quoted cell
        self.header_is_quoted = False

    def add(self, number: int, line: str) -> bool:
        """Read the next line; returns False if it has quotes that no writer of quoted cells makes."""
        if not line and not self.is_open:
            if number == 1:  # a header of one column without a name
                self._width = 1
            return True
        if self._tabs < 0:
            self._tabs = line.count("\t")
        self._same_tabs &= line.count("\t") == self._tabs
        if '"' not in line:
            if not self.is_open:
                self._unquoted += line.count("\t") + 1
                self._unquoted_commas += line.count(",")
                self._cells = line.count("\t") + 1
                self._end_row()
            return True
        position = 0
        while position <= len(line):
            end = self._read_cell(number, line, position)
            if end < 0:
                return False
            position = end + 1
        if not self.is_open:
            self._end_row()
        return True

    def _read_cell(self, number: int, line: str, start: int) -> int:
        """Read the cell that begins or goes on at a position; returns its end, or -1 for quotes at a wrong place."""
        goes_on = self.is_open
        if not goes_on and line[start : start + 1] != '"':
            end = line.find("\t", start)
            cell = line[start : end if end >= 0 else len(line)]
            self._unquoted += 1
            self._unquoted_commas += "," in cell
            self._cells += 1
            return -1 if '"' in cell else start + len(cell)
        closed = _CLOSED.match(line, start if goes_on else start + 1)
        self._first = self._first or number
        self.is_open = closed is None
        if closed is None:
            self._doubled += '""' in line[start + 1 :]
            return len(line)
        end, content = closed.end(), closed.group(1)
        if end < len(line) and line[end] != "\t":
            return -1
        self._cells += 1
        self._quoted += 1
        self._several_lines += goes_on
        self._doubled += '""' in content
        is_needed = goes_on or '""' in content or "\t" in content or (not content and not self._tabs)
        self._for_commas += not is_needed and "," in content
        self._without_need += not is_needed
        return end

    def _end_row(self) -> None:
        if not self._width:
            self._width = self._cells
            self.header_is_quoted = self._quoted > 0
        self._same_width &= self._cells == self._width
        self._cells = 0

    def are_quoted(self) -> bool:
        """Decide, after the last line."""
        if self.header_is_quoted:
            return True
        if not self._quoted or self.is_open or not self._same_width:
            return False
        if not self._same_tabs:
            return True
        if self._several_lines and (self._tabs or not self._doubled):
            raise LineError(self._first, _SEVERAL_LINES)
        if not self._without_need:
            return True
        if self._for_commas == self._without_need and not self._unquoted_commas:
            if self._for_commas >= _MIN_CELLS or self._doubled:
                return True
            raise LineError(self._first, _EITHER_WAY)
        if self._doubled:
            raise LineError(self._first, _EITHER_WAY)
        return False
