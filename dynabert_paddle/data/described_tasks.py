"""Loads a task from its description in a config file or a model's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from dynabert_paddle.config.settings import ENCODING_SETTINGS, TaskConfig
from dynabert_paddle.data.tasks import Task, load_task
from dynabert_paddle.runtime.home import user_path


def load_task_config(config: TaskConfig) -> Task:
    """Load the task that a config's `task` section describes."""
    arguments = asdict(config)
    for name in ENCODING_SETTINGS:
        arguments.pop(name)
    return load_task(**arguments)


def load_described_task(described: Mapping[str, Any], *, for_dev: bool = False) -> Task:
    """Load the task that a model's metadata describes; `for_dev` as `for_evaluation` has it."""
    config = TaskConfig(**{key: value for key, value in described.items() if value is not None})
    return load_task_config(for_evaluation(config) if for_dev else config)


def for_evaluation(config: TaskConfig) -> TaskConfig:
    """Let the dev file stand in for a training file that is not on this machine: an evaluation reads no row of it."""
    is_gone = config.train_file is not None and not user_path(config.train_file).exists()
    return replace(config, train_file=config.dev_file) if is_gone and config.dev_file else config
