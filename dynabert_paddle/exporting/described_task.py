"""The task that a bundle describes: the model's own, or for a model of another library the user's description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.catalog import find_declaration
from dynabert_paddle.data.kinds import KINDS, check_columns, check_kind_settings
from dynabert_paddle.data.long_texts import DOCUMENT_SETTINGS, DocumentSettings
from dynabert_paddle.data.word_settings import parse_label_scheme
from dynabert_paddle.errors import UsageError

_COLUMNS = ("text_column", "text_pair_column")


def describe_task(trained: Mapping[str, Any], given: Mapping[str, Any], *, kind: str) -> dict[str, Any]:
    """Describe the task of a model to export.

    Args:
        trained: the task in the model's metadata; empty for a model of PaddleNLP or Hugging Face.
        given: the user's settings of the task, or those that the model was trained with.
        kind: the kind of task that the model's class has.

    Returns:
        The task as in metadata.

    Raises:
        UsageError: the user's settings do not fit the model.
    """
    given = {key: value for key, value in given.items() if value is not None}
    kind = trained.get("kind", kind)
    # Many folders of others do not say that a text can have several labels: their classes have the same head.
    is_multi_label = not trained and given.get("kind") == "multi_label" and kind == "classification"
    kind = "multi_label" if is_multi_label else kind
    if given.get("kind", kind) != kind:
        raise UsageError(f"{setting('task.kind')} is {given['kind']!r}, and the model is for {kind}: leave it out")
    task = dict(trained)
    if not trained and "name" in given:
        declared = find_declaration(given["name"])
        if declared.name != "custom" and declared.kind != kind:
            raise UsageError(f"task {declared.name!r} is {declared.kind}, and the model is for {kind}: name another")
        task = {"name": declared.name, **{key: getattr(declared, key) for key in _COLUMNS}}
    check_columns(kind, {key: given.get(key) for key in _COLUMNS})
    if KINDS[kind].fixed_columns.get("text_pair_column") is None and trained:
        _check_pair(trained, given)
    own = sorted({name for other in KINDS.values() for name in other.settings})  # of some kinds alone
    check_kind_settings(kind, {name: given.get(name) for name in own})
    if "label_scheme" in given:
        given["label_scheme"] = parse_label_scheme(given["label_scheme"])
    names = (*_COLUMNS, *KINDS[kind].settings, *(["kind"] if is_multi_label else []))
    task |= {name: given[name] for name in names if name in given}
    if set(DOCUMENT_SETTINGS) <= set(KINDS[kind].settings):
        documents = DocumentSettings.of(given).over(trained)
        task = {**{key: task[key] for key in task if key not in DOCUMENT_SETTINGS}, **documents.to_dict()}
    return task


def _check_pair(trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    pair = given.get("text_pair_column")
    if pair and not trained.get("text_pair_column"):
        raise UsageError(
            f"{setting('task.text_pair_column')} is {pair!r}, and the model was fine-tuned on single texts: leave it "
            "out, or fine-tune on pairs"
        )
