"""Fine-tunes the chosen sub-network."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from dynabert_paddle.config.settings import WidthConfig
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.folder import SEARCH
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.loop import train
from dynabert_paddle.training.stage import Stage
from dynabert_paddle.training.steps import distillation_step

# Settings of a whole stage that a short training does without.
_NOT_KEPT: dict[str, Any] = {
    "early_stopping_patience": None,
    "ema_decay": 0.0,
    "lambda_relation": 0.0,
    "teacher_name_or_path": None,
}


def finetune_subnet(supernet: Supernet, subnet: Subnet, task: Task, *, steps: int, output_dir: str | Path) -> Supernet:
    """Extract a sub-network and distil the full model's logits into it, with the settings of the supernet's last stage.

    Args:
        supernet: the supernet; it is not changed.
        subnet: the sub-network.
        task: the task.
        steps: optimizer steps.
        output_dir: folder for the small model; an interrupted training in it is resumed, another model is replaced.

    Returns:
        The small model.

    Raises:
        DynabertError: the training failed.
    """
    last_stage = supernet.metadata.provenance.get("settings", {})
    settings = {field.name: last_stage[field.name] for field in fields(WidthConfig) if field.name in last_stage}
    # A sub-network may have fewer layers than the full model, so hidden states are not compared layer by layer.
    config = WidthConfig(**{**settings, "max_steps": steps, "lambda_hidden": 0.0, **_NOT_KEPT})
    small = extract(supernet, subnet)
    small.train()
    space = small.search_space(width_mults=(1.0,), depth_mults=(1.0,))
    subnets = space.grid()
    stage = Stage(
        name="width",
        model=small,
        task=task,
        step=distillation_step(supernet, subnets, config, kind=task.kind),
        subnets=subnets,
        config=config,
        output_dir=user_path(output_dir),
        space=space,
        teacher=supernet,
        config_section=SEARCH,
    )
    try:
        return train(stage)
    except UsageError:  # the folder holds another model, finished or not
        return train(stage, overwrite=True)
