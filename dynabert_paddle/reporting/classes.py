"""Scores the classes of a run's model, which no file of the run has, for its report."""

from __future__ import annotations

from pathlib import Path

from dynabert_paddle.data.class_scores import ClassScores
from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.data.kinds import CLASS_KINDS, list_kinds
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.metadata import check_expected, read_metadata


def score_model_classes(folder: Path, names: list[str]) -> dict[str, ClassScores]:
    """Score each class with sub-networks of a model, on the dev set of the task that it was trained for.

    Args:
        folder: the model's folder.
        names: names of sub-networks.

    Returns:
        The scores by name.

    Raises:
        UsageError: a task without classes.
        DynabertError: the model or the data cannot be loaded.
    """
    from dynabert_paddle.supernet.supernet import Supernet  # which imports Paddle
    from dynabert_paddle.training.evaluate import run_on_dev, score_each_class
    from dynabert_paddle.training.inputs import match_task

    metadata = read_metadata(folder)
    task = load_described_task(metadata.task, for_dev=True)
    if task.kind not in CLASS_KINDS:
        raise UsageError(f"scores of each class are for {list_kinds(CLASS_KINDS)}, {folder} is of {task.kind}")
    supernet = Supernet.from_pretrained(folder)
    check_expected(folder, metadata, supernet.metadata)
    outputs = run_on_dev(supernet, match_task(supernet, task, folder), names)
    return score_each_class(outputs)
