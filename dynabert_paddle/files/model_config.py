"""The config of a model's folder: `config.json`, or `model_config.json` of PaddleNLP before 2.5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynabert_paddle.files.atomic import read_json

CONFIG_FILE, LEGACY_CONFIG_FILE = "config.json", "model_config.json"

# What a PaddleNLP class for sequences or tokens took by position after the encoder, before 2.5.
_LEGACY_ARGUMENTS = ("num_classes", "dropout")


def find_config(folder: Path) -> Path:
    """Return the file that describes a folder's model; `config.json` if there is none."""
    legacy = folder / LEGACY_CONFIG_FILE
    return legacy if legacy.is_file() and not (folder / CONFIG_FILE).exists() else folder / CONFIG_FILE


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of a model's folder.

    Args:
        folder: a folder of this project, PaddleNLP or Hugging Face.

    Returns:
        The content, in the keys that PaddleNLP has since 2.5.

    Raises:
        ModelError: the file is missing or damaged.
    """
    return flatten_config(read_json(find_config(folder)))


def flatten_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Write a config of PaddleNLP before 2.5 as one of today; others stay as they are.

    Args:
        values: the content; before 2.5, `init_args` holds the encoder's own config, and `init_class` names the class.

    Returns:
        The content with the encoder's values beside the model's, which have priority.
    """
    if "init_class" not in values:
        return dict(values)
    arguments = values.get("init_args") or ()
    encoders = [value for value in arguments if isinstance(value, Mapping)]
    others = [value for value in arguments if not isinstance(value, Mapping)]
    flat: dict[str, Any] = dict(zip(_LEGACY_ARGUMENTS, others, strict=False))
    for encoder in (*encoders, values):
        flat.update(encoder)
    flat["architectures"] = [values["init_class"]]
    if "num_classes" in flat:
        flat["num_labels"] = flat.pop("num_classes")
    return {key: value for key, value in flat.items() if key not in ("init_args", "init_class")}
