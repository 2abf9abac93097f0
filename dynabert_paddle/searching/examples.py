"""Selects the examples that candidates are scored on: training examples that no stage has seen, or the dev set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.tasks import Task, TaskExamples
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.training.inputs import hold_out


def choose_examples(task: Task, metadata: Metadata, *, score_on: str, size: int | None) -> TaskExamples:
    """Choose the examples that a supernet's sub-networks are scored on.

    Args:
        task: the supernet's task.
        metadata: the supernet's; its stages' settings determine what they held out.
        score_on: holdout or dev.
        size: how many; by default all.

    Returns:
        The examples.

    Raises:
        UsageError: no example was held out by all stages, or there are fewer than `size`.
    """
    examples = task.dev
    if score_on == "holdout":
        examples = task.train.select(_find_unseen(task, metadata))
    if size is None or size == len(examples):
        return examples
    if size > len(examples):
        raise UsageError(
            f"{setting('search.holdout_size')} {size} is more than the {len(examples)} examples of {score_on} "
            f"that training has not seen: omit it to score on all of them"
        )
    chosen = np.random.default_rng(0).permutation(len(examples))[:size]
    return examples.select(np.sort(chosen))


def _find_unseen(task: Task, metadata: Metadata) -> np.ndarray:
    """Indices of the training examples that all training stages held out."""
    unseen = np.arange(len(task.train))
    for settings in _training_settings(metadata.provenance):
        if settings["select_on"] != "holdout":
            raise UsageError(
                f"training held out no examples (select_on {settings['select_on']}): set "
                f"{setting('search.score_on')} to dev"
            )
        _, held_out = hold_out(task.train, settings["holdout_size"], seed=settings["seed"])
        unseen = np.intersect1d(unseen, held_out)
    if len(unseen) in (0, len(task.train)):
        raise UsageError(f"no training example was held out by all stages: set {setting('search.score_on')} to dev")
    return unseen


def _training_settings(provenance: Mapping[str, Any] | str) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of a model's training stages, the last stage first."""
    while isinstance(provenance, Mapping):
        settings = provenance.get("settings", {})
        if "select_on" in settings:
            yield {"holdout_size": TrainConfig.holdout_size, "seed": TrainConfig.seed, **settings}
        provenance = provenance.get("parent", "")
