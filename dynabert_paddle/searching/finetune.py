"""A short training of the sub-network that was chosen, alone."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path

from dynabert_paddle.config.settings import WidthConfig
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.stages import train_width


def finetune_subnet(supernet: Supernet, subnet: Subnet, task: Task, *, steps: int, output_dir: str | Path) -> Supernet:
    """Extract a sub-network and distil the full model's logits into it, as the supernet's last stage has trained.

    Args:
        supernet: the supernet, which stays as it is.
        subnet: the sub-network.
        task: the task.
        steps: optimizer steps.
        output_dir: where the small model goes; an interrupted training there goes on, anything else is replaced.

    Returns:
        The small model.

    Raises:
        DynabertError: with the reason in one line.
    """
    before = supernet.metadata.provenance.get("settings", {})
    lasting = {field.name: before[field.name] for field in fields(WidthConfig) if field.name in before}
    # The hidden states of a sub-network of fewer layers have no counterpart of the same number.
    config = WidthConfig(**{**lasting, "max_steps": steps, "lambda_hidden": 0.0})
    small = extract(supernet, subnet)
    small.train()
    space = small.search_space(width_mults=(1.0,), depth_mults=(1.0,))
    train = partial(train_width, small, supernet, task, space, output_dir=output_dir, config=config)
    try:
        return train()
    except UsageError:  # another model is there, or the beginning of one
        return train(overwrite=True)
