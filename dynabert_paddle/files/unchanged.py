"""Loads a folder, and again if a file changed meanwhile: a model must not mix two versions' labels and weights.

This file is part of every bundle's `infer.py` and `infer_lite.py`; Python 3.7 runs it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")

_ATTEMPTS = 5
_PAUSE_SECONDS = 0.2  # a writer moves its files in milliseconds


def folder_version(folder: Path) -> tuple[Any, ...] | None:
    """Return what differs after any of a folder's files was changed, or the folder was replaced; None without a folder.

    Args:
        folder: the folder.

    Returns:
        Identity and times of the folder and its files.
    """
    try:
        own = os.stat(str(folder))
        entries = [(entry.name, entry.stat()) for entry in os.scandir(str(folder)) if entry.is_file()]
    except OSError:
        return None
    files = [(name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in entries]
    # Its time of change tells a folder that was moved away and back.
    return own.st_dev, own.st_ino, own.st_ctime_ns, tuple(sorted(files))


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
        version: returns what tells that the folder has changed.

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
