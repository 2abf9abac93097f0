"""Trains a compressed model: the model that it was made of teaches its logits and hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from dynabert_paddle.compressing.alignment import AlignedTeacher
from dynabert_paddle.compressing.sparse import plan_pruning
from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.settings import WidthConfig
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.files.folder import COMPRESS
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.evaluate import trained_space
from dynabert_paddle.training.loop import train
from dynabert_paddle.training.stage import Stage
from dynabert_paddle.training.steps import distillation_step


def distil(
    source: Supernet,
    small: Supernet,
    task: Task,
    config: CompressConfig,
    *,
    output_dir: str | Path,
    overwrite: bool,
    inputs: Iterable[str | Path],
    finish: Callable[[], None],
) -> Supernet:
    """Train a compressed model, and write its folder; a supernet learns for all sub-networks that it was trained for.

    Args:
        source: the model that it was made of, which teaches.
        small: the compressed model, trained in place.
        task: the task.
        config: how many steps, at which learning rate; all else is as in the last stage of the model.
        output_dir: the folder; an interrupted training in it is resumed.
        overwrite: replace what is in it.
        inputs: files and folders that are read, and not removed.
        finish: called before the model is saved.

    Returns:
        The compressed model, with the best weights.

    Raises:
        DynabertError: with the reason in one line.
    """
    small.train()
    space = trained_space(small)
    subnets = space.grid()
    settings = _settings(small, config)
    teacher = source
    if small.tokenizer is not source.tokenizer:  # the step calls its teacher, and needs nothing else of it
        teacher = cast(Supernet, AlignedTeacher(source, small, kind=task.kind))
    stage = Stage(
        name=COMPRESS,
        model=small,
        task=task,
        step=distillation_step(teacher, subnets, settings, kind=task.kind, space=space),
        subnets=subnets,
        config=settings,
        output_dir=user_path(output_dir),
        space=space if small.metadata.space else None,
        teacher=source,
        also_read=tuple(inputs),
        write_results=lambda state: finish(),
        pruning=plan_pruning(source, config) if config.method == "sparse" else None,
        config_section=COMPRESS,
    )
    return train(stage, overwrite=overwrite)


# Settings of a whole stage that the training of a compressed model does without: its matrices may be products, and its
# teacher is the model that it was made of.
_NOT_KEPT: dict[str, Any] = {
    "augmented_file": None,
    "unlabelled_files": (),
    "early_stopping_patience": None,
    "ema_decay": 0.0,
    "lambda_relation": 0.0,
    "teacher_name_or_path": None,
}


def _settings(model: Supernet, config: CompressConfig) -> WidthConfig:
    """The settings of the model's last stage, for so many steps on the task's own texts."""
    last_stage = model.metadata.provenance.get("settings", {})
    kept = {field.name: last_stage[field.name] for field in fields(WidthConfig) if field.name in last_stage}
    settings = WidthConfig(**{**kept, **_NOT_KEPT})
    learning_rate = settings.learning_rate if config.learning_rate is None else config.learning_rate
    return replace(settings, max_steps=config.finetune_steps, learning_rate=learning_rate, seed=config.seed)
