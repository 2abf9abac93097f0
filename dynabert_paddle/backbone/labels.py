"""The classes of a model's classifier: named in its config, and ordered by name."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from paddle import nn

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.labels import describe_difference, permutation
from dynabert_paddle.errors import ModelError

logger = logging.getLogger(__name__)

# What PaddleNLP and Hugging Face call classes that nobody has named.
_PLACEHOLDER = re.compile(r"(LABEL_\d+)?")


def class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read the classes from a model's config.

    Args:
        config: the content of a PaddleNLP or Hugging Face `config.json`.

    Returns:
        The names in the order of the logits; None if the config names no classes, or only `LABEL_0`, `LABEL_1`, ...
    """
    by_id, by_name = config.get("id2label"), config.get("label2id")
    if not isinstance(by_id, Mapping) and isinstance(by_name, Mapping):
        by_id = {index: name for name, index in by_name.items()}
    if not isinstance(by_id, Mapping):
        return None
    found = {str(index): str(name).strip() for index, name in by_id.items()}
    names = tuple(found.get(str(index), "") for index in range(len(found)))
    if len(set(names)) < len(names) or any(_PLACEHOLDER.fullmatch(name) for name in names):
        return None
    return names or None


def model_labels(config: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes of a model.

    Args:
        config: the content of its `config.json`.
        task: the task in its metadata; empty for a model of PaddleNLP or Hugging Face.

    Returns:
        The names in the order of the logits; None if nothing names them.

    Raises:
        ModelError: the config and the metadata name different classes, or another order.
    """
    in_config, in_task = class_names(config), tuple(map(str, task.get("labels") or ())) or None
    if in_config and in_task and permutation(in_config, in_task) != list(range(len(in_task))):
        raise ModelError(
            f"the model's labels differ between 'id2label' in config.json and 'labels' in dynabert.json "
            f"({describe_difference(in_config, in_task)}): correct the wrong one, or fine-tune again"
        )
    return in_task or in_config


def classifier_rows(
    own: Sequence[str] | None, labels: Sequence[str], *, trust_order: bool, source: object
) -> list[int] | None:
    """Choose the rows of a model's classifier for a task's labels; why there are none is logged.

    Args:
        own: the model's classes; None if it does not name them.
        labels: the task's.
        trust_order: a classifier without names has the order of `labels`.
        source: the model, for the log.

    Returns:
        For each label its row; None if the task needs a new classifier.
    """
    if own is None:
        if trust_order:
            return list(range(len(labels)))
        logger.info(
            "%s does not name the labels of its classifier: a new one is trained; to keep it, give its order with %s",
            source,
            setting("task.labels"),
        )
        return None
    rows = permutation(own, labels)
    if rows is None:
        logger.info(
            "the classifier of %s has other labels than the task (%s): a new one is trained",
            source,
            describe_difference(own, labels),
        )
    return rows


def classifier_parameters(model: nn.Layer) -> tuple[str, ...]:
    """Find the weight and the bias of the layer that computes a model's logits.

    Args:
        model: a PaddleNLP model with a head.

    Returns:
        The names in its state dict, the outputs as the last dimension.
    """
    layers = [
        name
        for name, layer in model.named_sublayers()
        if isinstance(layer, nn.Linear)
        and not f"{name}.".startswith(f"{model.base_model_prefix}.")
        and layer.weight.shape[-1] == model.config.num_labels
    ]
    state = model.state_dict()
    return tuple(name for name in (f"{layers[-1]}.weight", f"{layers[-1]}.bias") if name in state) if layers else ()
