"""A data file whose name does not tell its format, or a pipe in place of one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import tee
from pathlib import Path

from dynabert_paddle.text.lines import data_ending, read_lines


class DataFile:
    """A data file as the readers take it in place of a path.

    Args:
        path: the file; of a pipe, its name in messages.
        ending: the ending that tells the format, such as `.tsv`.
        lines: the lines of a pipe, which can be read once; None: those of the file.
    """

    def __init__(self, path: Path, ending: str, lines: Iterator[str] | None = None) -> None:
        self.path, self.ending, self._lines = path, ending, lines

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_stream(self) -> bool:
        """Whether the lines can be read once."""
        return self._lines is not None

    def lines(self) -> Iterator[str]:
        """The lines, without their ends: of a file from the first one, of a pipe those that were not read yet."""
        return read_lines(self.path) if self._lines is None else self._lines

    def beginning(self) -> DataFile:
        """The same file, to look at its first lines: of a pipe they stay to be read."""
        if self._lines is None:
            return self
        self._lines, lines = tee(self._lines)
        return DataFile(self.path, self.ending, lines)


AnyFile = Path | DataFile


def ending_of(file: AnyFile) -> str:
    """Return the ending that tells a file's format, in small letters, without that of gzip."""
    return file.ending if isinstance(file, DataFile) else data_ending(file)
