"""Whether a folder's files are as they were written: their SHA-256 lies in one of its JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.hashing import hash_file


def hash_files(folder: str | Path) -> dict[str, str]:
    """Hash a folder's files.

    Args:
        folder: an existing folder.

    Returns:
        SHA-256 in hexadecimal by the file's name; hidden files are left out.
    """
    return {path.name: hash_file(path) for path in sorted(Path(folder).glob("[!.]*")) if path.is_file()}


def check_files(path: Path, files: Any) -> None:
    """Refuse a folder with a file that is not as it was written.

    Args:
        path: the JSON file that has the hashes of those beside it, under `files`.
        files: what it has, as from `hash_files`.

    Raises:
        ModelError: a file is missing or altered.
    """
    again = "copy the folder again from where it was made"
    if not isinstance(files, dict):
        raise ModelError(f"{path}: damaged at 'files': {again}")
    for name, expected in files.items():
        file = path.parent / name
        if file.name != name or not file.is_file():
            raise ModelError(f"{file}: missing, and {path.name} names it: {again}")
        try:
            found = hash_file(file)
        except OSError as error:
            raise ModelError(f"{file}: cannot be read: {error.strerror}") from None
        if found != expected:
            raise ModelError(f"{file}: not as it was written: {again}, or {as_it_is(path, 'files', 'checksum')}")


def as_it_is(path: Path, *keys: str) -> str:
    """Say what to do for somebody who has changed a file on purpose.

    Args:
        path: the JSON file that tells what it was.
        keys: those that do.

    Returns:
        The second half of a message.
    """
    return f"remove {' and '.join(map(repr, keys))} from {path.name} to take it as it is"
