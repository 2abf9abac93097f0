"""Reads data files line by line, and refuses files that are not text in UTF-8.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import gzip
import shlex
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

_GZIP = ".gz"  # the ending of a compressed file, after that of its format

_MARK = "\ufeff"  # the byte order mark, also where files that begin with one were joined
_MAX_ZEROS = 1 / 8  # share of zeros in a damaged file of UTF-8; UTF-16 has more, or bytes that UTF-8 has not
_MOSTLY = 4  # times as many zeros at every second place as at the others, in UTF-16
_STARTS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_PACKED = (
    (b"PK\x03\x04", "a zip archive, such as a workbook of Excel: save the table as .csv in UTF-8, or unpack the file"),
    (b"\xd0\xcf\x11\xe0", "a document of Microsoft Office: save the table as .csv in UTF-8"),
    (b"\x1f\x8b", "compressed by gzip: unpack it with gunzip, or let its name end with .gz"),
    (b"PAR1", "in Parquet's format: convert it to .csv or .jsonl"),
)


class LineError(ValueError):
    """A line of a data file that cannot be read.

    Args:
        line: its number, from 1.
        message: what is wrong, and how to mend it, in one line.
    """

    def __init__(self, line: int, message: str) -> None:
        """Remember the line's number."""
        super().__init__(message)
        self.line = line


def data_ending(path: str | Path) -> str:
    """Return the ending that tells a data file's format, in small letters: `.tsv` of `a.tsv` and of `a.tsv.gz`."""
    path = Path(path)
    return Path(path.stem if path.suffix.lower() == _GZIP else path).suffix.lower()


def read_lines(path: str | Path) -> Iterator[str]:
    """Read a file of text line by line.

    Args:
        path: the file, in UTF-8, compressed if its name ends with `.gz`; its lines end with line feeds, or, as Excel
            for Mac writes them, all with carriage returns.

    Yields:
        Its lines without their ends, and without a byte order mark.

    Raises:
        LineError: it is in another encoding, or no text.
        OSError: it cannot be opened or read.
    """
    return split_at_returns(_decode(path))


def split_at_returns(lines: Iterable[str]) -> Iterator[str]:
    """Split a file whose lines end with carriage returns alone.

    Args:
        lines: the lines of any file, without line ends; such a file is a single one.

    Yields:
        The lines.
    """
    lines = iter(lines)
    start = list(islice(lines, 2))
    yield from start[0].split("\r") if len(start) == 1 else start
    yield from lines


def _decode(path: str | Path) -> Iterator[str]:
    if Path(path).suffix.lower() == _GZIP:
        yield from _decode_gzip(path)
        return
    with open(path, "rb") as file:
        yield from decode_lines(file, path, head=file.peek())


def _decode_gzip(path: str | Path) -> Iterator[str]:
    number = 0
    try:
        with gzip.open(path, "rb") as file:
            for number, line in enumerate(decode_lines(file, path, head=file.peek(1)), start=1):  # noqa: B007
                yield line
    except (EOFError, zlib.error) as error:
        raise LineError(number + 1, f"the file is cut off or damaged here ({error}): copy it again") from None
    except OSError as error:  # of gzip itself, whose errors have no number
        if error.errno is not None:
            raise
        raise LineError(number + 1, f"the file is not what gzip writes, or damaged ({error}): rename it") from None


def decode_lines(lines: Iterable[bytes], path: str | Path, *, head: bytes = b"") -> Iterator[str]:
    """Decode lines, and refuse what is not text in UTF-8.

    Args:
        lines: raw lines with their ends.
        path: the file that they are from, for messages.
        head: its first bytes, which tell its encoding in a message.

    Yields:
        The lines without their ends, and without a byte order mark.

    Raises:
        LineError: a line in another encoding, or no text.
    """
    for number, raw in enumerate(lines, start=1):
        try:
            line = raw.decode("utf-8")
            place = raw.find(0)
        except UnicodeDecodeError as error:
            place = error.start
        if place >= 0:
            raise LineError(number, _describe(head or raw, raw, place, Path(path)))
        yield line.rstrip("\r\n").lstrip(_MARK)


def _describe(head: bytes, raw: bytes, place: int, path: Path) -> str:
    """Describe the invalid bytes at a place of a line, and how to convert the file."""
    for start, kind in _PACKED:
        if head.startswith(start):
            return f"the file is {kind}"
    encoding = _find_encoding(head)
    packed = path.suffix.lower() == _GZIP
    plain = Path(path.stem if packed else path.name)
    old, new = (shlex.quote(str(each)) for each in (path, path.with_name(f"{plain.stem}.utf8{plain.suffix}")))
    iconv = f"gunzip -c {old} | iconv -f {{}} -t UTF-8 > {new}" if packed else f"iconv -f {{}} -t UTF-8 {old} > {new}"
    where = f"byte {place + 1} of the line is"
    if encoding:
        return f"the file is in {encoding}; convert it with: {iconv.format(encoding)}"
    if raw[place] == 0:
        tr = f"gunzip -c {old} | tr -d '\\0' > {new}" if packed else f"tr -d '\\0' < {old} > {new}"
        return f"{where} 0, which no text has; remove such bytes with: {tr}"
    command = iconv.format("ENCODING")
    return f"{where} not UTF-8; convert the file with: {command} (ENCODING: GB18030, WINDOWS-1252, ...)"


def _find_encoding(head: bytes) -> str | None:
    """Tell UTF-16 and UTF-32 by the beginning of a file; None for others."""
    for start, encoding in _STARTS:
        if head.startswith(start):
            return encoding
    zeros = [head[place::4].count(0) for place in range(4)]
    if 2 * sum(zeros) > len(head) > sum(zeros):
        return "UTF-32LE" if zeros[0] < zeros[3] else "UTF-32BE"
    first, second = zeros[0] + zeros[2], zeros[1] + zeros[3]
    is_damaged = first + second <= _MAX_ZEROS * len(head) and _is_utf8(head)
    if is_damaged or max(first, second) <= _MOSTLY * min(first, second):
        return None
    return "UTF-16LE" if second > first else "UTF-16BE"


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(head) - error.start < 4  # a character that is cut off
    return True
