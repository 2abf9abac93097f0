"""Atomic writes of files and folders, and JSON files with a checksum."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynabert_paddle.errors import DynabertError, ModelError
from dynabert_paddle.files.hashing import hash_json
from dynabert_paddle.files.integrity import accept_change_hint
from dynabert_paddle.files.json_text import RepeatedKeyError, parse_json
from dynabert_paddle.files.partial import MOVING_FILE, partial_file, partial_folder
from dynabert_paddle.runtime.interruption import postpone_signals


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object and verify its checksum.

    Args:
        path: the file.

    Returns:
        Its content, without the checksum that `write_json` adds.

    Raises:
        ModelError: the file is missing, unreadable, changed since it was written, or holds no JSON object.
    """
    if not path.is_file():  # reading a pipe could block for ever
        raise ModelError(f"{path}: {'not a file' if path.exists() else 'missing'}: a model folder needs it")
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        checksum = values.pop("checksum", None) if isinstance(values, dict) else None
        changed = checksum is not None and checksum != hash_json(values)
        json.dumps(values, ensure_ascii=False).encode()  # refuses lone surrogates, which UTF-8 lacks
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except RepeatedKeyError as error:
        raise ModelError(f"{path}: {error}: keep one of them") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not JSON: the file is damaged or cut off") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: holds no JSON object")
    if changed:
        raise ModelError(
            f"{path}: changed since it was written: copy it again, or {accept_change_hint(path, 'checksum')}"
        )
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with a checksum as its last key."""
    content: dict[str, Any] = json.loads(json.dumps(values))  # keys become strings, as after reading
    content.pop("checksum", None)
    write_text(path, json.dumps({**content, "checksum": hash_json(content)}, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: after a failure the file is as it was before."""
    with partial_file(path) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).replace(path)
        _sync(path.parent)


def write_new_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder that is complete or absent: as a hidden sibling, which is then renamed.

    All files are synced to disk when this returns, so the caller may delete what they replace. For a folder that
    exists, or that several processes may write, see `claim`.

    Args:
        folder: the folder, which does not exist.
        write: writes all files into the folder that it receives.

    Raises:
        DynabertError: the disk is full or the folder is not writable.
    """
    with handle_write_errors(folder), partial_folder(folder) as partial:
        write(partial)
        _sync_tree(partial)
        partial.rename(folder)
        _sync(folder.parent)


def move_content(partial: Path, folder: Path, *, last: str, remove: Iterable[Path] = ()) -> None:
    """Move all files of a folder to another one in the same file system; files of the same names are replaced.

    Args:
        partial: the folder with the new files.
        folder: the existing target folder.
        last: name of the file whose presence marks the folder as complete.
        remove: files and folders in `folder` to remove before.

    Raises:
        OSError: a file cannot be moved.
    """
    _sync_tree(partial)
    moving = folder / MOVING_FILE
    with postpone_signals():
        moving.touch()
        (folder / last).unlink(missing_ok=True)
        for path in remove:
            if path == moving:  # of a killed process; now it is this one's
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == last):
            if path.name == last:
                _sync(folder)
            path.replace(folder / path.name)
        moving.unlink()
        _sync(folder)
    partial.rmdir()


def check_complete(folder: Path, last: str) -> None:
    """Refuse a folder whose files are a mixture: their replacement goes on, or was cut off.

    Args:
        folder: the folder.
        last: name of the file whose presence marks the folder as complete.

    Raises:
        ModelError: the file is missing, and others are being replaced.
    """
    if (folder / MOVING_FILE).exists() and not (folder / last).exists():
        raise ModelError(
            f"{folder}: its files are being replaced, or were when a command was killed: wait, or make the folder again"
        )


def _sync_tree(folder: Path) -> None:
    """Sync a folder and all that is in it to disk."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """Sync a file, or the list of a folder's files, to disk, so that it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems do not support it
            raise
    finally:
        os.close(descriptor)


@contextmanager
def handle_write_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` inside a `with` block into a one-line `DynabertError`.

    Args:
        path: the file or folder that the message names.

    Yields:
        Nothing.

    Raises:
        DynabertError: the disk is full or the folder is not writable.
    """
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from None


def write_error(path: Path, error: OSError) -> DynabertError:
    """Return the error to raise when a file or folder cannot be written."""
    if error.errno == errno.ENOENT:
        return DynabertError(
            f"{path}: cannot be written: its folder does not exist, or was removed or replaced meanwhile: "
            "make it, or name another, then run again"
        )
    return DynabertError(
        f"{path}: cannot be written: {error.strerror or error}: make room or name another folder, then run again"
    )
