"""Reads `bundle.json` and verifies the bundle's files by their checksums.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynabert_paddle.files.hashing import hash_file, hash_json
from dynabert_paddle.text.encode import WORD_SPLITS
from dynabert_paddle.text.word_labels import DECODINGS, LABEL_SCHEMES

BUNDLE_FILE = "bundle.json"
FORMAT_VERSION = 1
KINDS = ("classification", "regression", "multi_label", "token_classification", "question_answering", "embedding")
WINDOW_POOLINGS = ("mean", "max")  # of the logits of a long document's windows
ROLES = ("document", "query")  # of a text that is embedded; each has a prompt
PROMPTS = {role: f"{role}_prompt" for role in ROLES}  # the keys of the task's prompts

_TYPES = {
    "files": dict,
    "format": str,
    "precision": str,
    "task": dict,
    "labels": list,
    "pair": bool,
    "max_seq_length": int,
    "vocab_size": int,
    "pad_token_id": int,
}
_ANSWER_TYPES = {"doc_stride": int, "max_answer_length": int, "may_be_empty": bool}
_MODEL_FILES = ("dynabert.json", "config.json", "model_config.json")
_LAST_STAGES = ("depth", "final")  # of a run
_REMEDY = "copy the bundle again, or export it again"
_MAX_DIMENSIONS = 8
# No encoder has more; without a limit a few bytes could order endless loops or terabytes.
_MAX_POSITIONS, _MAX_VOCABULARY, _MAX_LABELS, _MAX_COUNT = 10**6, 2**22, 2**17, 2**31 - 1


class BundleError(Exception):
    """A bundle that cannot be run, or unsuitable texts; the message is one line."""


class RowError(BundleError):
    """A row of the right form that the bundle cannot read."""


def read_bundle(folder: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Read `bundle.json` and check the bundle's files against it.

    Args:
        folder: the bundle.
        names: the files that are used; by default all.

    Returns:
        The content of `bundle.json`.

    Raises:
        BundleError: the folder is no bundle, or a file is missing, truncated or altered.
    """
    path = folder / BUNDLE_FILE
    description = _read_description(folder, path)
    files = description["files"]
    for name in files if names is None else names:
        if os.path.basename(name) != name:
            raise BundleError(f"{path}: names '{name}', which is outside the bundle: {_REMEDY}")
        if name not in files:
            raise BundleError(f"{path}: lists no {name}, which this script needs: export the model again")
        try:
            if not (folder / name).is_file():
                raise BundleError(f"{folder / name}: missing: {_REMEDY}")
            if (folder / name).stat().st_size != files[name].get("bytes"):
                raise BundleError(f"{folder / name}: truncated or altered since the export: {_REMEDY}")
            if hash_file(folder / name) != files[name].get("sha256"):
                raise BundleError(f"{folder / name}: altered since the export: {_REMEDY}")
        except OSError as error:
            raise BundleError(f"{folder / name}: cannot be read: {error.strerror}") from None
    return description


def _read_description(folder: Path, path: Path) -> dict[str, Any]:
    """Read `bundle.json`, and check that an export has written it."""
    if not path.is_file():
        raise BundleError(_describe_other(folder))
    try:
        description = json.loads(path.read_bytes())
        checksum = description.pop("checksum")
        is_altered = checksum != hash_json(description)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise BundleError(f"{path}: damaged: {_REMEDY}") from None
    if description.get("format_version") != FORMAT_VERSION:
        raise BundleError(f"{path}: not format version {FORMAT_VERSION}: written by another version of dynabert_paddle")
    if is_altered:
        raise BundleError(f"{path}: altered since the export: {_REMEDY}")
    check_description(path, description)
    return description


def _describe_other(folder: Path) -> str:
    """Say what a path is that is no bundle, and what to do."""
    if folder.is_file():
        inside = f", {folder.parent}" if (folder.parent / BUNDLE_FILE).is_file() else ""
        return f"{folder} is a file: name the folder of a bundle{inside}"
    if not folder.is_dir():
        return f"{folder}: no such folder: name one that 'dynabert export' created"
    bundles = sorted(path.parent for path in folder.glob(f"*/{BUNDLE_FILE}"))
    if bundles:
        return f"{folder} is not a bundle, but holds some: name one of them: {', '.join(map(str, bundles))}"
    if any((folder / name).is_file() for name in _MODEL_FILES):
        return (
            f"{folder} is the folder of a model: export it first, with 'dynabert export {folder} --output_dir NEW_DIR'"
        )
    models = sorted(path.parent for path in folder.glob(f"*/{_MODEL_FILES[0]}"))
    if models:
        last = next((model for model in reversed(models) if model.name in _LAST_STAGES), models[-1])
        return f"{folder} holds models: export one first, as with 'dynabert export {last} --output_dir NEW_DIR'"
    return f"{folder}: no {BUNDLE_FILE} in it: name a folder that 'dynabert export' created"


def check_description(path: str | Path, description: dict[str, Any]) -> None:
    """Check types and ranges: anybody can compute a valid checksum.

    Args:
        path: of `bundle.json`, for the message.
        description: its content.

    Raises:
        BundleError: a value that no export writes.
    """
    if not _is_valid(description):
        raise BundleError(f"{path}: damaged: {_REMEDY}")
    positions = description.get("max_positions", _MAX_POSITIONS)
    answers = description.get("answers") or {}
    stride = answers.get("doc_stride", description["task"].get("doc_stride", 1))
    for name, value, least, most in (
        ("max_positions", positions, 3, _MAX_POSITIONS),
        ("max_seq_length", description["max_seq_length"], 3, positions),
        ("vocab_size", description["vocab_size"], 1, _MAX_VOCABULARY),
        ("pad_token_id", description["pad_token_id"], 0, description["vocab_size"] - 1),
        ("the number of labels", len(description["labels"]), 0, _MAX_LABELS),
        ("doc_stride", stride, 1, _MAX_COUNT),
        ("vector_size", description.get("vector_size", 1), 1, _MAX_LABELS),
        ("max_answer_length", answers.get("max_answer_length", 1), 1, _MAX_COUNT),
    ):
        if not least <= value <= most:
            raise BundleError(f"{path}: {name} is {value}, allowed are {least} to {most}: export the model again")


def check_inputs(batch: dict[str, Any], description: dict[str, Any]) -> None:
    """Check a batch, because some runtimes return wrong results for invalid inputs, or read other memory.

    Args:
        batch: arrays `[b, s]` by input name.
        description: the content of the bundle's `bundle.json`.

    Raises:
        BundleError: an id is not in the vocabulary, or a row is longer than the position embeddings.
    """
    ids, vocab_size = batch["input_ids"], description["vocab_size"]
    longest = description.get("max_positions", _MAX_POSITIONS)
    if ids.shape[1] > longest:
        raise BundleError(f"a row has {ids.shape[1]} tokens, the model takes at most {longest}")
    unknown = ids[(ids < 0) | (ids >= vocab_size)]
    if unknown.size:
        raise BundleError(f"a token has the id {unknown[0]}, the model has a vocabulary of {vocab_size}")


def depends_on_batch(description: dict[str, Any]) -> bool:
    """Whether a text's answer depends on the other texts of its batch, which share a scale of quantization with it.

    Args:
        description: the content of `bundle.json`; one that does not say it was exported before this was recorded.

    Returns:
        True for dynamic quantization.
    """
    return description.get("depends_on_batch", (description["format"], description["precision"]) == ("onnx", "int8"))


def _is_valid(description: dict[str, Any]) -> bool:
    """Whether a description has the types that an export writes."""
    if not _has_types(description, _TYPES):
        return False
    task, members = description["task"], description.get("members", [description])
    kind = task.get("kind", "classification")
    return (
        all(isinstance(entry, dict) for entry in description["files"].values())
        and all(isinstance(task.get(key, ""), str) for key in ("name", "kind", "label_separator", *PROMPTS.values()))
        and kind in KINDS
        and all(isinstance(description.get(key, True), bool) for key in ("depends_on_batch", "special_tokens_in_text"))
        and task.get("word_split", "words") in WORD_SPLITS
        and task.get("label_scheme", LABEL_SCHEMES[0]) in LABEL_SCHEMES
        and task.get("decode", "free") in DECODINGS
        and _is_whole(task.get("doc_stride", 1))
        and task.get("window_pooling", "mean") in WINDOW_POOLINGS
        and isinstance(description.get("unk_token_id", 0), int)
        and isinstance(description.get("special_token_ids", []), list)
        and all(isinstance(token, int) for token in description.get("special_token_ids", []))
        and all(isinstance(label, str) for label in description["labels"])
        and (kind != "question_answering" or (description["pair"] and _is_valid_answers(description.get("answers"))))
        and isinstance(members, list)
        and len(members) > 0
        and all(isinstance(member, dict) and isinstance(member.get("subnet"), str) for member in members)
        and isinstance(task.get("output_dims", []), list)
        and all(map(_is_whole, task.get("output_dims", [])))
        and (kind != "embedding" or _is_whole(description.get("vector_size")))
        and (kind != "multi_label" or _are_thresholds(description["labels"], members))
        and _is_whole(description.get("max_positions", 0))
        and ("choice" not in description or _is_valid_choice(description["choice"]))
        and ("members" not in description or all(_is_valid_member(member, description["files"]) for member in members))
    )


def _has_types(content: dict[str, Any], types: dict[str, type]) -> bool:
    return all(
        _is_whole(content.get(key)) if kind is int else isinstance(content.get(key), kind)
        for key, kind in types.items()
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_valid_choice(choice: Any) -> bool:
    sets = choice.get("instruction_sets") if isinstance(choice, dict) else None
    return isinstance(sets, list) and all(isinstance(name, str) for name in sets)


def _is_valid_answers(settings: Any) -> bool:
    return isinstance(settings, dict) and set(settings) == set(_ANSWER_TYPES) and _has_types(settings, _ANSWER_TYPES)


def _are_thresholds(labels: list[str], members: list[dict[str, Any]]) -> bool:
    """Whether every sub-network has a threshold for each label, above 0 and below 1."""
    return len(labels) > 0 and all(
        isinstance(thresholds, dict)
        and set(thresholds) == set(labels)
        and all(isinstance(value, float) and 0 < value < 1 for value in thresholds.values())
        for thresholds in (member.get("thresholds") for member in members)
    )


def _is_valid_member(member: dict[str, Any], files: dict[str, Any]) -> bool:
    """Whether a sub-network has a graph in the bundle, and for each parameter an array's index and a shape."""
    return (
        _has_types(member, {"graph": str, "parameters": list})
        and member["graph"] in files
        and all(isinstance(parameter, list) and len(parameter) == 2 for parameter in member["parameters"])
        and all(isinstance(index, int) and _is_valid_shape(shape) for index, shape in member["parameters"])
    )


def _is_valid_shape(shape: Any) -> bool:
    is_short_list = isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS
    return is_short_list and all(isinstance(size, int) and size >= 0 for size in shape)
