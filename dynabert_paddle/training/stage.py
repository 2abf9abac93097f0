"""`Stage`: the specification of one training stage, and what is recorded about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.config.options import lasting_settings
from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.fingerprint import hash_examples
from dynabert_paddle.data.long_texts import DOCUMENT_SETTINGS
from dynabert_paddle.data.question_answering import ANSWER_SETTINGS
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.data.word_settings import WORD_SETTINGS
from dynabert_paddle.files.array_hash import hash_arrays, hash_model
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.runtime.environment import package_versions, thread_settings
from dynabert_paddle.runtime.ranks import num_processes
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.checkpoint import TrainState
from dynabert_paddle.training.inputs import Split
from dynabert_paddle.training.made_of import hash_data
from dynabert_paddle.training.pruning import Pruning
from dynabert_paddle.training.steps import Step
from dynabert_paddle.training.thresholds import Thresholds

_SETTINGS_OF_SOME_KINDS = (*ANSWER_SETTINGS, *WORD_SETTINGS, *DOCUMENT_SETTINGS)


@dataclass(frozen=True)
class Stage:
    """What one stage trains, what it learns from, and what it writes.

    Args:
        name: finetune, width, depth, general, final or baseline.
        model: trained in place.
        task: the task.
        step: yields the losses of a step.
        subnets: by name; the best checkpoint is the one with the highest mean score over them.
        config: how to train.
        output_dir: gets checkpoints, logs, and in the end the model.
        space: the grid that `subnets` belong to, if the model's folder is to record it.
        teacher: the model that `step` distils; a resumed run must have the same.
        parent: name of the model that training began with; by default the provenance in the model's own metadata.
        parent_hash: hash of the weights of `parent`, if it has a folder.
        write_results: called in every process before the model is saved, to write further files beside it.
        also_read: files and folders that the stage reads besides, and never removes.
        pruning: makes the model sparse while it trains; until it has, no checkpoint is the best.
        score: scores sub-networks on examples without labels; by default the labels do, by the task's metrics.
        scored_from_step: evaluations up to this step do not count for early stopping.
        config_section: compress or search, if the user sets what these have, and the rest of `config` is that of the
            model's last stage; by default the user sets all of it.
    """

    name: str
    model: Supernet
    task: Task
    step: Step
    subnets: Mapping[str, Subnet]
    config: TrainConfig
    output_dir: Path
    space: SearchSpace | None = None
    teacher: Supernet | None = None
    parent: str | Path | None = None
    parent_hash: str | None = None
    write_results: Callable[[TrainState], None] | None = None
    also_read: tuple[str | Path, ...] = ()
    pruning: Pruning | None = None
    score: Callable[[Supernet, FeatureSet, Mapping[str, Subnet]], dict[str, dict[str, float]]] | None = None
    scored_from_step: int = 0
    config_section: str | None = None

    @property
    def inputs(self) -> list[str | Path]:
        """The files and folders that the user named; the stage never removes them."""
        augmented_file = getattr(self.config, "augmented_file", None)
        texts = [*([augmented_file] if augmented_file else []), *getattr(self.config, "unlabelled_files", ())]
        return [*self.task.files.values(), *texts, *self.also_read]

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint."""
        return self.task.metrics[0]


def resume_settings(stage: Stage, split: Split, start: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the settings that an interrupted run and its continuation must share.

    Args:
        stage: the stage.
        split: its tokenized examples.
        start: the weights that it starts from.

    Returns:
        Values by name; data and models as hashes.
    """
    return {
        **lasting_settings(stage.config),
        "stage": stage.name,
        "num_processes": num_processes(),
        "sub-networks": list(stage.subnets),
        "metrics": list(stage.task.metrics),
        "labels": list(stage.task.labels),
        "positive_label": stage.task.positive_label,
        **{key: value for key, value in stage.task.to_dict().items() if key in _SETTINGS_OF_SOME_KINDS},
        "data": hash_arrays(split.train.content),
        "selection data": hash_arrays(split.select.content),
        "model": hash_arrays(start.values()),
        "teacher": hash_arrays(to_arrays(stage.teacher.model).values()) if stage.teacher else "none",
        **({"pruning": str(stage.pruning)} if stage.pruning else {}),
        # A stage that writes results of its own scores them on the dev rows.
        **({"dev data": hash_examples(stage.task.dev, stage.task.labels)} if stage.write_results else {}),
    }


def hash_origins(stage: Stage, start: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return the hashes of a stage's inputs.

    Args:
        stage: the stage.
        start: the weights that it starts from.

    Returns:
        Hashes by name, as `made_of.check_hashes` compares them.
    """
    model = hash_model(start) if stage.parent is None else stage.parent_hash
    hashes = hash_data(stage.task, stage.config, reads_dev=stage.write_results is not None)
    if model is not None:
        hashes["model"] = model
    if stage.teacher:
        hashes["teacher"] = hash_model(to_arrays(stage.teacher.model))
    return hashes


def finished_metadata(
    stage: Stage, split: Split, state: TrainState, hashes: Mapping[str, str], thresholds: Thresholds
) -> Metadata:
    """Return the metadata of the model that a stage has made.

    Args:
        stage: the stage.
        split: its examples.
        state: after the last step.
        hashes: from `hash_origins`.
        thresholds: from `measure_thresholds`.

    Returns:
        The content of `dynabert.json`.
    """
    before = stage.model.metadata
    return before.replace(
        stage=stage.name,
        space={} if stage.space is None else trained_mults(stage.space, stage.subnets),
        metrics={split.select_name: state.best_metrics, "best_step": state.best_step, "steps": state.step},
        thresholds=thresholds,
        provenance=provenance_of(
            stage.config,
            parent=before.provenance if stage.parent is None else str(stage.parent),
            examples=state.examples,
            seconds=state.seconds,
            hashes=hashes,
        ),
    )


def describe_task(task: Task, max_seq_length: int, *, special_tokens_in_text: bool) -> dict[str, Any]:
    """Return the description of a task that a model's metadata keep.

    Args:
        task: the task.
        max_seq_length: longer inputs are cut to this number of tokens.
        special_tokens_in_text: whether the text of a special token in a text is that token.

    Returns:
        Values of a config's task section, in JSON types.
    """
    return {
        **task.to_dict(),
        "max_seq_length": max_seq_length,
        "special_tokens_in_text": special_tokens_in_text,
    }


def provenance_of(
    config: Any, *, parent: Any, examples: int, seconds: float, hashes: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything needed to repeat a stage, and its cost; a parent's provenance is nested in its child's.

    Args:
        config: the stage's settings.
        parent: provenance of the model that the stage started from, or that model's name.
        examples: that the stage has read, each as often as it was read.
        seconds: that it took.
        hashes: of its data and of the models that it started from, from `hash_origins`.

    Returns:
        The content of `Metadata.provenance`.
    """
    return {
        "versions": package_versions(),
        "num_processes": num_processes(),
        "environment": thread_settings(),
        "settings": lasting_settings(config),
        "made_of": dict(hashes),
        "spent": {"examples": examples, "seconds": round(seconds, 3)},
        "parent": parent,
    }


def trained_mults(space: SearchSpace, subnets: Mapping[str, Subnet]) -> dict[str, list[float]]:
    """Describe the part of the grid that a stage has trained, which an evaluation of the grid covers.

    Args:
        space: the grid.
        subnets: the stage's sub-networks.

    Returns:
        The content of `Metadata.space`.
    """
    full_depth_only = all(len(subnet.layers) == space.num_layers for subnet in subnets.values())
    return {
        "width_mults": list(space.width_mults),
        "depth_mults": [1.0] if full_depth_only else list(space.depth_mults),
        **({"rank_mults": list(space.rank_mults)} if space.has_ranks else {}),
    }
