"""Loads a folder, and again if a file changed meanwhile: a model must not mix two versions' labels and weights.

This file is part of every bundle's `infer.py` and `infer_lite.py`; Python 3.7 runs it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")

_MANIFESTS = ("bundle.json", "dynabert.json")
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2  # a writer moves its files in milliseconds


@dataclass(eq=False)
class FolderVersion:
    """What differs after one of a folder's files was changed, or the folder was replaced.

    Args:
        identity: of the folder on this machine.
        changed: time at which the folder was moved, or a file in it made or removed, in nanoseconds.
        content_changed: time at which a file in it was made or removed.
        files: names of the files that count, with their identity, size and time.
    """

    identity: tuple[int, int]
    changed: int
    content_changed: int
    files: tuple[Any, ...]

    def __eq__(self, other: object) -> bool:
        """Compare all but files that do not count, such as a log that somebody writes into a bundle's folder.

        After one was made or removed both times are the same; a folder that was moved away and back has a new `changed`
        alone.
        """
        if not isinstance(other, FolderVersion):
            return NotImplemented
        later = max(self, other, key=lambda version: version.changed)
        was_moved = self.changed != other.changed and later.changed != later.content_changed
        return not was_moved and (self.identity, self.files) == (other.identity, other.files)


def folder_version(folder: Path) -> FolderVersion | None:
    """Return the version of a folder; None without a folder.

    Args:
        folder: the folder. The files that its `bundle.json` or `dynabert.json` lists count, without one all.

    Returns:
        What differs after a file that counts was changed, or the folder was replaced.
    """
    try:
        own = os.stat(str(folder))
        listed = _listed_files(folder)
        entries = [(entry.name, entry.stat()) for entry in os.scandir(str(folder)) if entry.is_file()]
    except OSError:
        return None
    files = [
        (name, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        for name, stat in entries
        if listed is None or name in listed
    ]
    return FolderVersion((own.st_dev, own.st_ino), own.st_ctime_ns, own.st_mtime_ns, tuple(sorted(files)))


def _listed_files(folder: Path) -> set[str] | None:
    """The names of the files whose checksums a folder's manifest holds, and its own; None without a manifest."""
    for manifest in _MANIFESTS:
        try:
            files = json.loads((folder / manifest).read_bytes())["files"]
            return {*files, *_MANIFESTS}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return None


def load_unchanged(
    folder: Path,
    load: Callable[[], _T],
    error: type[Exception],
    version: Callable[[Path], Any] = folder_version,
) -> _T:
    """Load a folder; again if its files have changed meanwhile.

    Args:
        folder: the folder.
        load: reads its files, any number of times.
        error: what to raise if its files have changed in every attempt.
        version: returns a value that differs after the folder has changed.

    Returns:
        The result of `load`.

    Raises:
        Exception: from `load`, if its files have not changed; else `error`.
    """
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        before = version(folder)
        try:
            result = load()
        except Exception:
            if version(folder) == before:
                raise
            continue
        if version(folder) == before:
            return result
    raise error(f"{folder}: its files change while they are read: wait until nothing writes there, then try again")
