"""The weights of classes in the hard-label loss: by name in the settings, by class in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import LabelLossConfig, TrainConfig, WidthConfig
from dynabert_paddle.data.kinds import CLASS_KINDS, list_kinds
from dynabert_paddle.data.label_set_metrics import are_label_sets
from dynabert_paddle.data.labels import LabelIndex
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.training.logging import logger

_MAX_LISTED = 20
# YAML reads these names of labels, written without quotes, as values: as `LabelLossConfig` names the value, in small
# letters.
_YAML_NAMES = {"true": ("yes", "true", "on"), "false": ("no", "false", "off"), "None": ("null", "~")}


def check_label_loss(task: Task, config: TrainConfig, *, section: str) -> None:
    """Refuse settings of the hard-label loss that a task does not have.

    Args:
        task: the task.
        config: a stage's settings.
        section: the stage, for messages.

    Raises:
        UsageError: a task without classes, or a weight for an unknown class, or a loss of another kind of task.
    """
    if isinstance(config, WidthConfig) and config.lambda_label and task.kind == "embedding":
        raise UsageError(f"{setting(f'{section}.lambda_label')}: an embedding task has no labels: leave it out")
    if isinstance(config, WidthConfig) and config.lambda_contrastive and task.kind != "embedding":
        raise UsageError(
            f"{setting(f'{section}.lambda_contrastive')} is for embedding, this task is {task.kind}: leave it out"
        )
    if not isinstance(config, LabelLossConfig):
        return
    for name in ("class_weights", "focal_gamma", "label_smoothing"):
        if getattr(config, name) and task.kind not in CLASS_KINDS:
            raise UsageError(
                f"{setting(f'{section}.{name}')} is for {list_kinds(CLASS_KINDS)}, this task is {task.kind}: leave "
                "it out"
            )
    if isinstance(config.class_weights, dict):
        _by_class(config.class_weights, task.labels, section)


def find_class_weights(
    task: Task, config: TrainConfig, targets: np.ndarray | None, *, section: str
) -> np.ndarray | None:
    """Find the weight of each class, scaled so that the mean weight of the training labels is 1.

    Args:
        task: has the classes.
        config: a stage's settings.
        targets: the labels that the stage trains on: classes, `IGNORED` ones not counted; `[n, c]` booleans for several
            labels a text.
        section: the stage, for messages and the log.

    Returns:
        `[c]` float32, for several labels a text `[c, 2]`: of a text without and with each label; 0 for a class without
        a training label. None where all that occur weigh the same.

    Raises:
        UsageError: as for `check_label_loss`, or no training label has a weight above 0.
    """
    given = config.class_weights if isinstance(config, LabelLossConfig) else None
    if not given or targets is None:
        return None
    is_several = are_label_sets(targets)
    if is_several:
        with_label = targets.sum(axis=0)
        counts = np.stack([len(targets) - with_label, with_label], axis=1)  # [c, 2]
    else:
        counts = np.bincount(targets[targets != IGNORED].ravel(), minlength=len(task.labels))
    occurs = counts > 0
    if given == "balanced":
        each = {"axis": -1, "keepdims": True}  # each of several labels is a question of its own
        weights = np.divide(counts.sum(**each), occurs.sum(**each) * counts, out=np.zeros(counts.shape), where=occurs)
    else:
        weights = _by_class(given, task.labels, section)
        if is_several:
            weights = np.stack([np.ones(len(weights)), weights], axis=1)
        total = (weights * counts).sum()
        if total == 0:
            there = np.flatnonzero(occurs[:, 1] if is_several else occurs)[:_MAX_LISTED]
            raise UsageError(
                f"{setting(f'{section}.class_weights')} is 0 for every label of the training rows: give one of "
                f"{', '.join(repr(task.labels[c]) for c in there)} a weight above 0"
            )
        weights = np.where(occurs, weights * counts.sum() / total, 0.0)
    listed = [
        f"{name} {weight[1]:.4g} (without {weight[0]:.4g})" if is_several else f"{name} {weight:.4g}"
        for name, weight in zip(task.labels, weights, strict=True)
    ]
    more = ", ..." if len(listed) > _MAX_LISTED else ""
    logger.info("%s: weights of labels: %s%s", section, ", ".join(listed[:_MAX_LISTED]), more)
    return None if np.ptp(weights[occurs]) == 0 else weights.astype("float32")


def _by_class(given: dict[str, float], labels: Sequence[str], section: str) -> np.ndarray:
    """Each class's weight as it is given, `[c]`; 1 where it is not."""
    name_of_setting = setting(f"{section}.class_weights")
    index, names = LabelIndex(labels), dict[int, str]()
    weights = np.ones(len(labels))
    for name, weight in given.items():
        position = index.find(name)
        if position is None:
            meant = [label for label in labels if label.lower() in _YAML_NAMES.get(name, ())]
            position = labels.index(meant[0]) if len(meant) == 1 else None
        if position is None:
            listed = ", ".join(map(repr, labels[:_MAX_LISTED])) + (", ..." if len(labels) > _MAX_LISTED else "")
            raise UsageError(
                f"{name_of_setting} names {name!r}, which is not one of the task's labels, {listed}: correct or remove "
                f"it.{did_you_mean(name, labels)}"
            )
        if position in names:
            raise UsageError(f"{name_of_setting} names one label twice, {names[position]!r} and {name!r}: keep one")
        names[position] = name
        weights[position] = weight
    return weights
