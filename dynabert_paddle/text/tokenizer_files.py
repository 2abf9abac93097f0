"""The files of a tokenizer, Hugging Face's or PaddleNLP's: read, checked, written."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from dynabert_paddle.errors import ModelError

CONFIG = "tokenizer_config.json"
VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model")
# Where a tokenizer came from is no part of it.
_ORIGIN = ("name_or_path", "from_slow", "tokenizer_file", "special_tokens_map_file", "vocab_file")


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in its folder, whose files are saved with every model: a link could lead to anything.

    Args:
        path: the file.
        folder: where it was found; in Hugging Face's cache the links lead to the blobs beside the snapshots.

    Returns:
        Whether the file itself lies in the folder, or among those blobs.
    """
    root = folder.resolve()
    blobs = [parent.with_name("blobs") for parent in root.parents if parent.name == "snapshots"]
    return any(path.resolve().is_relative_to(place) for place in (root, *blobs))


def token_text(token: str | dict) -> str:
    """Return a special token's text; Hugging Face writes some as objects with settings."""
    return token["content"] if isinstance(token, dict) else token


def parse_json(files: dict[str, bytes], name: str) -> dict[str, Any]:
    """Read one of a tokenizer's JSON files.

    Args:
        files: contents by name.
        name: which one.

    Returns:
        The object in it, empty where there is no such file.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        values = dict(json.loads(files.get(name, b"{}")))
        json.dumps(values, ensure_ascii=False).encode()  # JSON can spell half of a character, which no file can hold
        return values
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(name, error) from error


def dump_config(config: dict[str, Any]) -> bytes:
    """Write a tokenizer_config.json without what names the place that the tokenizer came from."""
    config = {key: value for key, value in config.items() if key not in _ORIGIN}
    return (json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode("utf-8")


def damaged(name: str, error: BaseException) -> ModelError:
    """Make the error that calls a file damaged.

    Args:
        name: of the file.
        error: what reading it gave.

    Returns:
        The error to raise.
    """
    return ModelError(f"{name} is truncated or corrupt ({one_line(error)}): download or copy it again")


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks, cut to 200 characters."""
    return " ".join(str(error).split())[:200]


def hash_content(content: dict[str, Any]) -> str:
    """Hash what makes a tokenizer what it is."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def write_files(folder: str | os.PathLike, files: dict[str, bytes]) -> None:
    """Write a tokenizer's files.

    Args:
        folder: made where it is missing.
        files: contents by name.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (Path(folder) / name).write_bytes(content)
