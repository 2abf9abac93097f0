"""Lines of a pipe or a terminal: each is there as soon as its end is written, and can be read once."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from dynabert_paddle.text.lines import decode_lines, split_at_returns

_CHUNK = 2**16  # bytes, as many as a pipe of Linux holds


class LineStream:
    """The lines of a pipe, in UTF-8.

    Args:
        descriptor: an open file descriptor.
        name: the pipe's name in messages.
    """

    def __init__(self, descriptor: int, name: str | Path) -> None:
        self._descriptor, self._name = descriptor, name
        self._lines: list[bytes] = []  # complete ones, the next one last
        self._parts: list[bytes] = []  # of a line whose end is not there yet
        self._is_at_end = False

    def __iter__(self) -> Iterator[str]:
        """Read the lines that were not read yet, without their ends and without a byte order mark.

        Yields:
            The lines; a stream whose lines end with carriage returns alone is one line, and split at its end.

        Raises:
            LineError: a line that is not text in UTF-8.
            OSError: the stream cannot be read.
        """
        lines = decode_lines(self._raw_lines(), self._name)
        for line in islice(lines, 1):
            # Splitting looks at the second line, for which a reader of the first should not wait without need.
            yield from split_at_returns(chain([line], lines)) if "\r" in line else [line]
        yield from lines

    def is_ready(self) -> bool:
        """Whether reading on does not wait for the writer."""
        if self._lines or self._is_at_end:
            return True
        ready, _, _ = select.select([self._descriptor], [], [], 0)
        return bool(ready)

    def _raw_lines(self) -> Iterator[bytes]:
        while True:
            if self._lines:
                yield self._lines.pop()
            elif self._is_at_end:
                return
            else:
                self._read()

    def _read(self) -> None:
        data = os.read(self._descriptor, _CHUNK)
        self._is_at_end = not data
        first, *others = data.split(b"\n")
        self._parts.append(first)
        if others or (self._is_at_end and any(self._parts)):
            *middle, rest = others or [b""]
            self._lines = [*middle[::-1], b"".join(self._parts)]
            self._parts = [rest]
