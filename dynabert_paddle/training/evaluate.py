"""Score sub-networks on a data split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dynabert_paddle.data.class_scores import ClassScores, score_classes
from dynabert_paddle.data.embedding_metrics import needs_teacher
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.data_warnings import warn_about_tokens
from dynabert_paddle.training.inputs import match_labels, tokenize_examples
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.predict import predict_logits
from dynabert_paddle.training.progress import show_progress
from dynabert_paddle.training.teacher_vectors import add_targets, load_teacher
from dynabert_paddle.training.thresholds import choose_anew, find_thresholds

_SECONDS_BETWEEN_LINES = 10.0


def evaluate_subnets(
    supernet: Supernet,
    features: FeatureSet,
    subnets: Mapping[str, Subnet],
    *,
    metrics: Iterable[str],
    thresholds: Mapping[str, np.ndarray] | None = None,
    batch_size: int = 64,
) -> dict[str, dict[str, float]]:
    """Score sub-networks; the processes of `paddle.distributed.launch` share the work, and all get the scores.

    Args:
        supernet: the model.
        features: tokenized examples with labels.
        subnets: sub-networks by name.
        metrics: names of metrics.
        thresholds: of each sub-network, for several labels an example; None: those that are best for these examples.
        batch_size: examples at a time.

    Returns:
        Each sub-network's metrics, by its name.
    """
    names = tuple(metrics)
    logits = predict_logits(supernet, features, subnets.values(), batch_size=batch_size, shared=True)
    return {
        name: features.score(names, rows, None if thresholds is None else thresholds[name])
        for name, rows in zip(subnets, logits, strict=True)
    }


def evaluate_grid(
    supernet: Supernet,
    task: Task,
    space: SearchSpace | None = None,
    *,
    max_seq_length: int | None = None,
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """Score a grid of sub-networks on the task's dev set, with their costs.

    Args:
        supernet: the model of a stage.
        task: its task.
        space: the grid; by default the part that the supernet's stages have trained.
        max_seq_length: longer inputs are cut to this number of tokens; by default the model's own setting.
        batch_size: examples at a time.

    Returns:
        One row a sub-network: its name, metrics, parameters with and without embeddings, and MACs of 128 tokens.
    """
    names = list((space or trained_space(supernet)).grid())
    return evaluate_named(supernet, task, names, max_seq_length=max_seq_length, batch_size=batch_size)


def evaluate_named(
    supernet: Supernet,
    task: Task,
    names: Iterable[str],
    *,
    max_seq_length: int | None = None,
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """Score sub-networks, by their names, on the task's dev set.

    Args:
        supernet: the model of a stage.
        task: its task.
        names: names of sub-networks.
        max_seq_length: longer inputs are cut to this number of tokens; by default the model's own setting.
        batch_size: examples at a time.

    Returns:
        Rows as from `evaluate_grid`.

    Raises:
        UsageError: a name that is no sub-network of this model, or a task with other classes than the model has.
    """
    return score_outputs(supernet, run_on_dev(supernet, task, names, max_seq_length, batch_size=batch_size))


@dataclass(frozen=True)
class DevOutputs:
    """What sub-networks compute for a task's dev set.

    Args:
        task: the task, with its classes in the order of the logits.
        features: its dev examples.
        logits: by the sub-network's name; from `predict_logits`.
        thresholds: for several labels a text, likewise, `[c]` each.
    """

    task: Task
    features: FeatureSet
    logits: Mapping[str, Sequence[np.ndarray]]
    thresholds: Mapping[str, np.ndarray] | None = None


def run_on_dev(
    supernet: Supernet, task: Task, names: Iterable[str], max_seq_length: int | None = None, *, batch_size: int = 64
) -> DevOutputs:
    """Run sub-networks over a task's dev set; the processes of `paddle.distributed.launch` share the work.

    Args:
        supernet: the model of a stage.
        task: its task.
        names: names of sub-networks.
        max_seq_length: longer inputs are cut to this number of tokens; by default the model's own setting.
        batch_size: examples at a time.

    Returns:
        What they compute, in every process.

    Raises:
        UsageError: as for `evaluate_named`.
    """
    task = match_labels(supernet, task, "the model")
    space = trained_space(supernet)
    subnets = {name: space.parse(name) for name in names}
    features = tokenize_examples(task.dev, supernet, max_seq_length=max_seq_length)
    warn_about_tokens(task, [features], supernet, examples=task.dev, max_seq_length=max_seq_length)
    if needs_teacher(task.metrics):
        teacher = load_teacher(supernet)
        features = add_targets(features, task.dev, teacher, max_seq_length=max_seq_length, batch_size=batch_size)
    thresholds = None
    if task.kind == "multi_label":
        choose = partial(choose_anew, supernet, task, batch_size=batch_size)
        thresholds = find_thresholds(supernet, task.labels, subnets, choose)
    logger.info("evaluating %d sub-network%s on dev", len(subnets), "" if len(subnets) == 1 else "s")
    with show_progress("evaluate", len(features), seconds=_SECONDS_BETWEEN_LINES) as report:
        logits = predict_logits(supernet, features, subnets.values(), batch_size=batch_size, shared=True, report=report)
    return DevOutputs(task, features, dict(zip(subnets, logits, strict=True)), thresholds)


def score_outputs(supernet: Supernet, outputs: DevOutputs) -> list[dict[str, Any]]:
    """Score what sub-networks compute for a dev set.

    Args:
        supernet: the model that they are of.
        outputs: from `run_on_dev`.

    Returns:
        Rows as from `evaluate_grid`.
    """
    space, thresholds = trained_space(supernet), outputs.thresholds or {}
    return [
        {
            "subnet": name,
            **outputs.features.score(outputs.task.metrics, rows, thresholds.get(name)),
            **_costs(space, space.parse(name)),
        }
        for name, rows in outputs.logits.items()
    ]


def score_each_class(outputs: DevOutputs) -> dict[str, ClassScores]:
    """Score each class of what sub-networks compute for a dev set, by the sub-network's name."""
    thresholds = outputs.thresholds or {}
    return {
        name: score_classes(outputs.features, logits, outputs.task.labels, thresholds.get(name))
        for name, logits in outputs.logits.items()
    }


def recorded_grid(supernet: Supernet) -> tuple[str, list[dict[str, Any]]]:
    """Return the scores that a model without labels has recorded when its last stage ended.

    Args:
        supernet: a model that has learned from raw text.

    Returns:
        The data that was scored, and rows as from `evaluate_grid`, without a metric where nothing was scored.
    """
    space = trained_space(supernet)
    nothing: dict[str, dict[str, Any]] = {name: {} for name in space.grid()}
    split, scores = next(
        ((split, scores) for split, scores in supernet.metadata.metrics.items() if isinstance(scores, dict)),
        ("holdout", nothing),
    )
    return split, [{"subnet": name, **values, **_costs(space, space.parse(name))} for name, values in scores.items()]


def trained_space(supernet: Supernet) -> SearchSpace:
    """The part of the paper's grid that a supernet was trained for.

    Args:
        supernet: the model of a stage.

    Returns:
        Its search space; the grid of a model that is not elastic yet is the full model alone.
    """
    return supernet.search_space(
        width_mults=supernet.metadata.space.get("width_mults", (1.0,)),
        depth_mults=supernet.metadata.space.get("depth_mults", (1.0,)),
        rank_mults=supernet.metadata.space.get("rank_mults", (1.0,)),
    )


def _costs(space: SearchSpace, subnet: Subnet) -> dict[str, int]:
    return {
        "params": space.num_params(subnet),
        "params_without_embeddings": space.num_params(subnet, embeddings=False),
        "macs": space.num_macs(subnet),
    }
