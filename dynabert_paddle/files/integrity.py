"""Detects changed files in a folder: one of its JSON files holds the SHA-256 of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.hashing import hash_file


def hash_files(folder: str | Path) -> dict[str, str]:
    """Return the SHA-256 of a folder's files by name, in hexadecimal, without hidden files."""
    return {path.name: hash_file(path) for path in sorted(Path(folder).glob("[!.]*")) if path.is_file()}


def check_files(path: Path, files: Any) -> None:
    """Compare files with their recorded SHA-256.

    Args:
        path: the JSON file that records the hashes of the files beside it, under `files`.
        files: the recorded hashes, as from `hash_files`.

    Raises:
        ModelError: a file is missing or changed.
    """
    again = "copy the folder again from its source"
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
            raise ModelError(
                f"{file}: changed since it was written: {again}, or {accept_change_hint(path, 'files', 'checksum')}"
            )


def accept_change_hint(path: Path, *keys: str) -> str:
    """Return the advice for a user who changed a file on purpose: remove these keys from the JSON file `path`."""
    return f"remove {' and '.join(map(repr, keys))} from {path.name} to accept the change"
