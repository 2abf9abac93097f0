"""Partly written folders and files: each has a hidden name of its own, and nothing of a killed process stays for long.

Each is locked while its writer lives. The next writer removes those that nobody holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os.path import samestat
from pathlib import Path
from typing import TextIO

SUFFIX = ".partial"
# In a folder whose files are being replaced one by one; it stays if the writer is killed then.
MOVING_FILE = f".moving{SUFFIX}"

# The names that `partial_file` and `partial_folder` give; a user may have other hidden files that end like this.
_NAME = re.compile(r"\.(.+\.)?[0-9a-f]{8}\.partial", re.DOTALL)


def is_partial(name: str) -> bool:
    """Whether a file or folder of this name is partly written, by a process of this package that may be dead."""
    return name == MOVING_FILE or _NAME.fullmatch(name) is not None


def lock(handle: int, *, unsupported: bool = True) -> bool:
    """Lock an open file or folder until it is closed.

    Args:
        handle: its descriptor.
        unsupported: what to return on a file system without locks.

    Returns:
        False if another process has locked it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return unsupported
    return True


def is_at(handle: int, path: Path) -> bool:
    """Tell whether an open file or folder is still the one at its path, neither removed nor replaced.

    Args:
        handle: its descriptor.
        path: the path.

    Returns:
        False if another one, or none, is there.

    Raises:
        OSError: nobody can tell, such as while a network file system does not answer.
    """
    try:
        return samestat(os.fstat(handle), path.stat())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return False
        raise


@contextmanager
def partial_file(path: Path) -> Iterator[TextIO]:
    """Make a hidden file beside a file, for its new content.

    Args:
        path: the file, which need not exist.

    Yields:
        The hidden file, open for UTF-8 text, which the caller renames; else it is removed at the end of the `with`
        block.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
        file = partial.open("w", encoding="utf-8")
        if lock(file.fileno()) and is_at(file.fileno(), partial):
            break
        file.close()  # another process has removed it before it was locked
    try:
        with file:
            yield file
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """Make a hidden folder for the new content of a folder: inside it, or beside it while it does not exist.

    Args:
        folder: the target folder.

    Yields:
        The hidden folder, which the caller renames or empties; it is removed at the end of the `with` block.

    Raises:
        OSError: it cannot be made.
    """
    inside = folder.is_dir()
    parent, prefix = (folder, ".") if inside else (folder.parent, f".{folder.name}.")
    remove_stale(parent, prefix)
    while True:
        partial = parent / f"{prefix}{secrets.token_hex(4)}{SUFFIX}"
        partial.mkdir(parents=True)
        with suppress(FileNotFoundError):  # another process has removed it before it was locked
            handle = os.open(partial, os.O_RDONLY)
            if lock(handle) and is_at(handle, partial):
                break
            os.close(handle)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(handle)


def remove_stale(parent: Path, prefix: str = ".") -> None:
    """Remove the partly written files and folders in a folder that no living process holds.

    Args:
        parent: the folder.
        prefix: how their names begin.
    """
    for path in parent.iterdir() if parent.is_dir() else ():
        if path.name.startswith(prefix) and is_partial(path.name) and path.name != MOVING_FILE:
            _remove_unheld(path)


def _remove_unheld(path: Path) -> None:
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        return
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            if not lock(handle, unsupported=False):  # without locks, it may be of a living process
                return
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(handle)
