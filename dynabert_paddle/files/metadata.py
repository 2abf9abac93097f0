"""`dynabert.json`: the description of a model, in its folder beside PaddleNLP's and the tokenizer's files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.atomic import read_json, write_json
from dynabert_paddle.files.integrity import hash_files
from dynabert_paddle.runtime.home import user_path

METADATA_FILE = "dynabert.json"
FORMAT_VERSION = 1
# The kind of a model that learned from texts without labels, and has no task yet.
RAW_TEXT = "raw_text"
# Written only where they are set, as earlier versions know no such keys.
_NEW_KEYS = (
    "thresholds",
    "compression",
    "embedding_rank",
    "layer_ranks",
    "layer_groups",
    "sparse_parts",
    "weight_bits",
)


@dataclass(frozen=True)
class Metadata:
    """The content of `dynabert.json`.

    Args:
        stage: the training stage that produced the model; empty for an external backbone.
        task: the task that the model was trained on, from `Task.to_dict`, and `ENCODING_SETTINGS`.
        heads: attention heads of each layer.
        neurons: FFN neurons of each layer.
        space: the trained width, depth and rank multipliers.
        subnet: for an extracted model, the name of its subnet.
        importance: per layer, the importance of each head and neuron in their sorted order.
        metrics: measured values by split.
        provenance: versions, seed, resolved settings, parent folder.
        compression: what each `compress` has done to the model, the first one first.
        embedding_rank: components of an elastic word embedding: as many as it is wide in a supernet, fewer in a small
            model; None for a stock one.
        layer_ranks: for each layer the ranks of its linear layers that are products, by name; empty without any.
        layer_groups: for each layer the number of the group that it shares its weights with; empty without any.
        sparse_parts: the parts of the model whose weights that are zero stay zero: attention, ffn, embedding.
        thresholds: for a task of several labels a text, by sub-network and label the probability from which a label is
            predicted.
        weight_bits: of the weights of a quantized model: 8, 4 or 2; None for one that is not.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's protocol for plain dataclasses

    stage: str = ""
    task: Mapping[str, Any] = field(default_factory=dict)
    heads: tuple[int, ...] = ()
    neurons: tuple[int, ...] = ()
    space: Mapping[str, Any] = field(default_factory=dict)
    subnet: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    compression: tuple[Mapping[str, Any], ...] = ()
    embedding_rank: int | None = None
    layer_ranks: tuple[Mapping[str, int], ...] = ()
    layer_groups: tuple[int, ...] = ()
    sparse_parts: tuple[str, ...] = ()
    thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    weight_bits: Literal[8, 4, 2] | None = None

    @property
    def max_seq_length(self) -> int:
        """The length in tokens that the model was trained at; the default if it is not recorded."""
        return self.task.get("max_seq_length", TaskConfig.max_seq_length)

    @property
    def special_tokens_in_text(self) -> bool:
        """Whether the text of a special token in a text is that token; the default if it is not recorded."""
        return self.task.get("special_tokens_in_text", TaskConfig.special_tokens_in_text)

    @property
    def is_general(self) -> bool:
        """Whether the model has learned from raw text alone: its encoder is trained, and it has no classifier yet."""
        return self.task.get("kind") == RAW_TEXT

    def replace(self, **changes: Any) -> Metadata:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def read_metadata(folder: str | Path) -> Metadata:
    """Read a model folder's `dynabert.json`.

    Args:
        folder: a model folder.

    Returns:
        Its metadata; empty for a plain PaddleNLP or Hugging Face folder.

    Raises:
        ModelError: the file exists but is damaged or of another format version.
    """
    path = user_path(folder) / METADATA_FILE
    if not path.is_file():
        return Metadata()
    from pydantic import TypeAdapter, ValidationError

    values = read_json(path)
    values.pop("files", None)
    if values.pop("format_version", None) != FORMAT_VERSION:
        raise ModelError(f"{path}: not format version {FORMAT_VERSION}: written by another version of dynabert_paddle")
    try:
        metadata = TypeAdapter(Metadata).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise ModelError(f"{path}: damaged at '{key}': copy the folder again from its source") from None
    if len(metadata.heads) != len(metadata.neurons):
        raise ModelError(
            f"{path}: damaged: {len(metadata.heads)} entries in 'heads', {len(metadata.neurons)} in 'neurons'"
        )
    return metadata


def write_metadata(folder: str | Path, metadata: Metadata) -> None:
    """Write `dynabert.json`, with the SHA-256 of every file beside it; so write the other files first."""
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(metadata), "files": hash_files(folder)}
    for name in _NEW_KEYS:
        if values[name] in (None, (), {}):
            del values[name]
    write_json(Path(folder) / METADATA_FILE, values)


def describe_general(folder: str | Path) -> str:
    """Say of a model that has learned from raw text what it is, and how it gets a task."""
    return (
        f"{folder} has learned from raw text alone and has no classifier: give it a task with 'dynabert finetune "
        f"--model_name_or_path {folder}', or all of its sub-networks at once with 'dynabert train_final {folder}'"
    )


def check_has_task(folder: str | Path, metadata: Metadata) -> None:
    """Refuse a model that has learned from raw text alone, where its predictions are needed.

    Args:
        folder: the model's folder or name, for the message.
        metadata: its own.

    Raises:
        UsageError: it has no task.
    """
    if metadata.is_general:
        raise UsageError(describe_general(folder))


def check_expected(folder: str | Path, expected: Metadata | None, found: Metadata) -> None:
    """Refuse a model that was replaced after the command read its settings.

    Args:
        folder: the model's folder.
        expected: its metadata when the command began; None if it has not read them.
        found: its metadata as loaded with the weights.

    Raises:
        ModelError: they differ.
    """
    if expected is not None and expected != found:
        raise ModelError(f"{folder} was replaced while this command read it: run the command again")
