"""Files and folders that are written whole or not at all, and JSON that is known to be as it was written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynabert_paddle.errors import DynabertError, ModelError
from dynabert_paddle.files.hashing import hash_json
from dynabert_paddle.files.integrity import as_it_is


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.

    Returns:
        Its content, without the checksum that `write_json` adds.

    Raises:
        ModelError: the file is missing, unreadable, altered since it was written, or holds no JSON object.
    """
    if not path.is_file():  # a pipe could be waited for in vain
        raise ModelError(f"{path}: {'no file' if path.exists() else 'missing'}: a model folder needs it")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        checksum = values.pop("checksum", None) if isinstance(values, dict) else None
        altered = checksum is not None and checksum != hash_json(values)
        json.dumps(values, ensure_ascii=False).encode()  # JSON can spell half of a character, which no file can hold
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not JSON: the file is damaged or cut off") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: holds no JSON object")
    if altered:
        raise ModelError(f"{path}: not as it was written: copy it again, or {as_it_is(path, 'checksum')}")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, with a checksum as its last key, so that the file is whole or absent.

    Args:
        path: the file.
        values: its content.
    """
    content: dict[str, Any] = json.loads(json.dumps(values))  # keys become strings, as they will be read
    content.pop("checksum", None)
    write_text(path, json.dumps({**content, "checksum": hash_json(content)}, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that the file is whole or as it was before.

    Args:
        path: the file.
        text: its content.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_folder(folder: str | Path, write: Callable[[Path], None], *, last: str) -> Path:
    """Write a folder's files so that the folder is whole or absent.

    The files of a new folder are written to a hidden sibling, which is then renamed. In a folder that exists, because
    it holds logs and checkpoints, they are written to a hidden subfolder, then moved one by one, the one that marks the
    folder as whole last. When this returns, all is on the disk: what it replaces can go.

    Args:
        folder: where the files shall be.
        write: writes all of them into the folder that it is given.
        last: name of the file whose presence says that the folder is whole.

    Returns:
        The folder.

    Raises:
        DynabertError: a full disk, or a folder that cannot be written to.
    """
    folder = Path(folder)
    exists = folder.exists()
    partial = folder / ".partial" if exists else folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        if exists:
            (folder / last).unlink(missing_ok=True)
            for path in sorted(partial.iterdir(), key=lambda path: path.name == last):
                if path.name == last:
                    _sync(folder)
                path.replace(folder / path.name)
            partial.rmdir()
            _sync(folder)
        else:
            partial.rename(folder)
            _sync(folder.parent)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _sync(path: Path) -> None:
    """Have the disk hold a file's content, or which files a folder has, so that a power failure cannot undo it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a network file system that has no such thing
            raise
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why something cannot be written.

    Args:
        path: the file or the folder that the message names.

    Yields:
        Nothing.

    Raises:
        DynabertError: a full disk, or a folder that cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(folder: Path, error: OSError) -> DynabertError:
    """Say in one line why an output folder cannot be written to.

    Args:
        folder: the folder.
        error: what the system said.

    Returns:
        The error to raise.
    """
    return DynabertError(
        f"{folder}: cannot be written: {error.strerror or error}: make room or name another folder, then run again"
    )
