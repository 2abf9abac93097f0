"""Reads, checks and writes the files of Hugging Face's and PaddleNLP's tokenizers."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import tokenizers

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files import json_text
from dynabert_paddle.runtime.streams import quiet

CONFIG = "tokenizer_config.json"
VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model")
AS_TEXT = "split_special_tokens"  # Hugging Face's and PaddleNLP's name for the opposite of special_tokens_in_text
# Settings that name the tokenizer's source, such as local paths; they are not saved.
_SOURCE_KEYS = ("name_or_path", "from_slow", "tokenizer_file", "special_tokens_map_file", "vocab_file")


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in its folder: a link to another place would publish that file with the model.

    Args:
        path: the file.
        folder: the folder; in Hugging Face's cache its files are links to `blobs` beside `snapshots`.

    Returns:
        Whether the file, with links followed, lies in the folder or in `blobs`.
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
        name: the file's name.

    Returns:
        The object in the file; empty if there is no such file.

    Raises:
        ModelError: the file is damaged.
    """
    try:
        values = dict(json_text.parse_json(files.get(name, b"{}")))
        json.dumps(values, ensure_ascii=False).encode()  # refuses lone surrogates, which UTF-8 lacks
        return values
    except json_text.RepeatedKeyError as error:
        raise ModelError(f"{name}: {error}: keep one of them") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged_error(name, error) from error


def parse_settings(files: dict[str, bytes]) -> dict[str, Any]:
    """Read tokenizer_config.json; the `init_class` of old PaddleNLP versions becomes today's `tokenizer_class`.

    Args:
        files: contents of the tokenizer's files by name.

    Returns:
        The settings; empty if there is no such file.

    Raises:
        ModelError: the file is damaged.
    """
    settings = parse_json(files, CONFIG)
    name = settings.pop("init_class", None)
    if isinstance(name, str) and name.isidentifier():
        settings = {"tokenizer_class": name, **settings}
    return settings


def serialize(backend: tokenizers.Tokenizer, *, pretty: bool = False) -> str:
    """Return the content of tokenizer.json; the library prints to stdout that some ids have no token."""
    with quiet():
        return backend.to_str(pretty=pretty)


def dump_config(config: dict[str, Any]) -> bytes:
    """Return the content of tokenizer_config.json without settings that name the tokenizer's source."""
    config = {key: value for key, value in config.items() if key not in _SOURCE_KEYS}
    return (json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode("utf-8")


def special_tokens_in_text(files: dict[str, bytes]) -> bool:
    """Whether a tokenizer's files say that the text of a special token is that token, as Hugging Face names it."""
    return not parse_json(files, CONFIG).get(AS_TEXT)


def set_special_tokens_in_text(files: dict[str, bytes], in_text: bool) -> dict[str, bytes]:
    """Return a tokenizer's files with another answer of `special_tokens_in_text`."""
    config = {key: value for key, value in parse_json(files, CONFIG).items() if key != AS_TEXT}
    return {**files, CONFIG: dump_config(config if in_text else {**config, AS_TEXT: True})}


def damaged_error(name: str, error: BaseException) -> ModelError:
    """Return the error to raise when reading the file `name` failed."""
    return ModelError(f"{name} is truncated or corrupt ({one_line(error)}): download or copy it again")


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks, cut to 200 characters."""
    return " ".join(str(error).split())[:200]


def hash_content(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a tokenizer's content in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()


def write_files(folder: str | os.PathLike, files: dict[str, bytes]) -> None:
    """Write files, given by name and content, to a new or existing folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (Path(folder) / name).write_bytes(content)
