"""Loads a task from its description in a config file or a model's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dynabert_paddle.config.settings import ENCODING_SETTINGS, TaskConfig
from dynabert_paddle.data.tasks import Task, load_task


def load_task_config(config: TaskConfig) -> Task:
    """Load the task that a config's `task` section describes."""
    arguments = asdict(config)
    for name in ENCODING_SETTINGS:
        arguments.pop(name)
    return load_task(**arguments)


def load_described_task(described: Mapping[str, Any]) -> Task:
    """Load the task that a model's metadata describes."""
    return load_task_config(TaskConfig(**{key: value for key, value in described.items() if value is not None}))
