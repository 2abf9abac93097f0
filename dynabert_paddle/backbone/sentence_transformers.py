"""Reads how sentence-transformers embeds texts with a model's folder: its pooling, normalisation and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynabert_paddle.data.embedding_settings import POOLINGS, EmbeddingSettings
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.json_text import parse_json

_MODULES, _PROMPTS = "modules.json", "config_sentence_transformers.json"
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}
_DOCUMENT_NAMES = ("document", "passage", "corpus")  # of prompts, the first that is there


def read_embedding_settings(folder: Path) -> EmbeddingSettings:
    """Read a folder's settings.

    Args:
        folder: a model's folder.

    Returns:
        The settings; None where the folder has none.

    Raises:
        ModelError: a damaged file, or a module or a pooling that is not supported.
    """
    values: dict[str, Any] = {}
    if (folder / _MODULES).is_file():
        modules = _read_list(folder / _MODULES)
        values["normalize"] = False
        for module in modules:
            kind = str(module.get("type", "")).rpartition(".")[2]
            if kind == "Pooling":
                values["pooling"] = _read_pooling(folder / str(module.get("path")) / "config.json")
            elif kind == "Normalize":
                values["normalize"] = True
            elif kind != "Transformer":
                raise ModelError(
                    f"{folder / _MODULES}: has a module {kind or module!r}, which is not supported: allowed are "
                    "Transformer, Pooling and Normalize"
                )
    if (folder / _PROMPTS).is_file():
        prompts = read_json(folder / _PROMPTS).get("prompts")
        if isinstance(prompts, dict):
            documents = next((prompts[name] for name in _DOCUMENT_NAMES if name in prompts), None)
            values |= {"query_prompt": prompts.get("query"), "document_prompt": documents}
    return EmbeddingSettings(**values)


def _read_list(path: Path) -> list[dict[str, Any]]:
    try:
        modules = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}): copy the folder again from its source") from None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path}: must be a list of modules: copy the folder again from its source")
    return modules


def _read_pooling(path: Path) -> str:
    config = read_json(path)
    mode = config.get("pooling_mode")  # of sentence-transformers from 5.2 on
    chosen = [str(mode)] if mode else [key for key, value in config.items() if "pooling_mode" in key and value is True]
    names = [_MODES.get(key, key) for key in chosen]
    if len(names) != 1 or names[0] not in POOLINGS:
        seen = " and ".join(names) or "none"
        raise ModelError(f"{path}: its pooling is {seen}: allowed is one of {', '.join(POOLINGS)}")
    if config.get("include_prompt") is False:
        raise ModelError(
            f"{path}: include_prompt is false, which is not supported: use a model that pools prompts, too"
        )
    return names[0]
