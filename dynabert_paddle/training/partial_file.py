"""A text file that takes hours to write: after a crash, the same command resumes after the last complete piece."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.atomic import handle_write_errors, read_json, write_json
from dynabert_paddle.files.partial import is_at, lock


class PartialFile:
    """Writes `.NAME.partial` piece by piece and renames it when it is complete; a context manager.

    Beside it, `.NAME.state` records how many bytes are valid and their counts; bytes after them are dropped.

    Args:
        path: the file.
        settings: a run resumes the file only if these equal those that it was begun with.
        counts: initial counts by name.
        overwrite: begin anew where the settings differ.

    Raises:
        UsageError: the file was begun with other settings, or another run writes it.
        DynabertError: it cannot be written, or the piece of an earlier run is missing.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, counts: Mapping[str, int], overwrite: bool = False
    ) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._state = path.with_name(f".{path.name}.state")
        self._settings, self.counts, self._size = dict(settings), dict(counts), 0
        with handle_write_errors(path):
            self._file = os.fdopen(os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        try:
            self._claim()
            if self._state.exists() and self._partial.stat().st_size:
                self._resume(overwrite=overwrite)
            with handle_write_errors(path):
                self._file.truncate(self._size)
                self._file.seek(self._size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with suppress(OSError):  # of a piece that does not count
            self._file.close()
        if not self._size:
            self._partial.unlink(missing_ok=True)

    def write(self, text: str, counts: Mapping[str, int]) -> None:
        """Write a piece, after which the run can be killed.

        Args:
            text: the piece.
            counts: added to the counts.

        Raises:
            DynabertError: the disk is full, or something else forbids it.
        """
        with handle_write_errors(self._path):
            self._file.write(text.encode("utf-8"))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._size = self._file.tell()
            self.counts = {name: count + counts.get(name, 0) for name, count in self.counts.items()}
            write_json(self._state, {"settings": self._settings, "bytes": self._size, "counts": self.counts})

    def finish(self) -> None:
        """Give the file its name.

        Raises:
            DynabertError: it cannot be renamed.
        """
        with handle_write_errors(self._path):
            self._partial.replace(self._path)
            self._state.unlink(missing_ok=True)

    def _claim(self) -> None:
        # Whoever had locked it may have given it its name meanwhile.
        with handle_write_errors(self._path):
            is_ours = lock(self._file.fileno()) and is_at(self._file.fileno(), self._partial)
        if not is_ours:
            raise UsageError(
                f"{self._path} is in use by another run: wait until it has ended, or name another "
                f"{setting('output_file')}"
            )

    def _resume(self, *, overwrite: bool) -> None:
        state = read_json(self._state)
        before, size, counts = state.get("settings"), state.get("bytes"), state.get("counts")
        if not isinstance(before, dict) or not isinstance(counts, dict) or type(size) is not int:
            raise DynabertError(f"{self._state} is damaged: remove it to begin anew")
        if counts.keys() != self.counts.keys() or any(type(n) is not int or n < 0 for n in counts.values()):
            raise DynabertError(f"{self._state} is damaged: remove it to begin anew")
        differing = next((key for key, value in self._settings.items() if before.get(key) != value), None)
        if differing and overwrite:
            return
        if differing:
            raise UsageError(
                f"{self._partial} was begun with {differing} = {before.get(differing)}, this run has "
                f"{self._settings[differing]}: repeat its settings, or begin anew with "
                f"{setting('overwrite_output_file')}"
            )
        self._size, self.counts = size, counts
        if self._size < 0 or not self.counts or self._partial.stat().st_size < self._size:
            raise DynabertError(f"{self._partial} is damaged: remove it to begin anew")
