"""What a stage, or another use of a model, starts from: a task, a model that fits it, and a folder apart from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.data.tasks import Task, load_task
from dynabert_paddle.errors import UsageError

if TYPE_CHECKING:
    from dynabert_paddle.supernet.supernet import Supernet


def load_task_config(config: TaskConfig) -> Task:
    """Load the task that a config's `task` section describes.

    Args:
        config: the section.

    Returns:
        The task.

    Raises:
        DynabertError: with the reason in one line.
    """
    arguments = asdict(config)
    arguments.pop("max_seq_length")
    return load_task(**arguments)


def load_described_task(described: Mapping[str, Any]) -> Task:
    """Load the task that a model's metadata describes.

    Args:
        described: as `describe_task` gives it.

    Returns:
        The task.

    Raises:
        DynabertError: with the reason in one line.
    """
    return load_task_config(TaskConfig(**{key: value for key, value in described.items() if value is not None}))


def check_trained(supernet: Supernet, task: Task, source: str | Path) -> None:
    """Refuse a model that was not fine-tuned for a task.

    Args:
        supernet: the model.
        task: the task.
        source: where the model comes from.

    Raises:
        UsageError: it was not fine-tuned, or for another number of outputs.
    """
    if not supernet.metadata.stage:
        raise UsageError(f"{source} is not a model that 'dynabert finetune' has made: begin with that")
    what = f"task {task.name!r} needs"
    hint = "name the task and the data that it was fine-tuned on"
    if not type(supernet.model).__name__.endswith(task.head):
        raise UsageError(f"{source} is a {type(supernet.model).__name__} and {what} a ...{task.head}: {hint}")
    if supernet.model.config.num_labels != task.num_outputs:
        raise UsageError(
            f"{source} has {supernet.model.config.num_labels} outputs and {what} {task.num_outputs}: {hint}"
        )


def check_apart(source: str | Path, output_dir: str | Path) -> None:
    """Refuse an output folder that holds what a stage starts from, which it must not replace.

    Args:
        source: the model that the stage starts from.
        output_dir: where the result is to go.

    Raises:
        UsageError: the one lies in the other.
    """
    source, output_dir = Path(source).resolve(), Path(output_dir).resolve()
    if output_dir in (source, *source.parents):
        raise UsageError(f"{output_dir} exists and holds the model to start from: name another --output_dir")
