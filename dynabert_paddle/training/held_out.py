"""The training examples that no stage of a model has trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Any

import numpy as np

from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.training.inputs import hold_out


def unseen_rows(task: Task, metadata: Metadata, *, on_dev: str | None = None) -> np.ndarray:
    """Find the training examples that all training stages of a model held out.

    Args:
        task: the model's task.
        metadata: the model's; its stages' settings determine what they held out.
        on_dev: as for `hold_out`.

    Returns:
        Ascending indices; none if a stage held out no examples, or the metadata record no stage.

    Raises:
        DataError: from `hold_out`.
    """
    if has_selected_on_dev(metadata):
        return np.array([], dtype=np.int64)
    held_out = [
        hold_out(task.train, settings["holdout_size"], seed=settings["seed"], on_dev=on_dev)[1]
        for settings in _training_settings(metadata.provenance)
    ]
    return reduce(np.intersect1d, held_out) if held_out else np.array([], dtype=np.int64)


def has_selected_on_dev(metadata: Metadata) -> bool:
    """Whether a training stage of a model has selected its weights on the dev set, and held out no examples."""
    return any(settings["select_on"] != "holdout" for settings in _training_settings(metadata.provenance))


def _training_settings(provenance: Mapping[str, Any] | str) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of a model's training stages, the last stage first."""
    while isinstance(provenance, Mapping):
        settings = provenance.get("settings", {})
        if "select_on" in settings:
            yield {"holdout_size": TrainConfig.holdout_size, "seed": TrainConfig.seed, **settings}
        provenance = provenance.get("parent", "")
