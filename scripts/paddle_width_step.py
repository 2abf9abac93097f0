"""A training step of the width stage, as `training.loop` does it, for scripts/bench_width_step.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import typer
from turns import answer

from dynabert_paddle import runtime


def main(shape: str, widths: str, batch_size: int, length: int) -> None:
    """Do a step for each line that comes."""
    ids = np.random.default_rng(0).integers(1000, 30000, (batch_size, length))
    answer(make_step(shape, [float(width) for width in widths.split()], ids))


def make_step(shape: str, widths: list[float], ids: np.ndarray) -> Callable[[], None]:
    """Make the teacher's forward pass, a forward and a backward pass of each width, and AdamW.

    Args:
        shape: layers x hidden size.
        widths: width multipliers, the largest first.
        ids: `[b, s]`.

    Returns:
        The whole step.
    """
    runtime.import_paddle()
    runtime.keep_freed_memory()
    import paddle
    from shapes import random_supernet

    from dynabert_paddle.config import TrainConfig, WidthConfig
    from dynabert_paddle.supernet.cpu_operations import fast_gradients
    from dynabert_paddle.supernet.extract import extract
    from dynabert_paddle.training.loop import make_optimizer
    from dynabert_paddle.training.loss_scale import apply_gradients
    from dynabert_paddle.training.steps import distillation_step

    supernet = random_supernet(shape)  # with BERT's own dropout of 0.1
    teacher = extract(supernet, supernet.full)
    supernet.train()
    subnets = supernet.search_space(width_mults=widths, depth_mults=[1.0]).grid()
    passes = distillation_step(supernet, teacher, subnets, WidthConfig(), kind="classification")
    optimizer = make_optimizer(supernet, TrainConfig())
    scaler = paddle.amp.GradScaler(enable=False)
    batch = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}
    tensors = {name: paddle.to_tensor(value) for name, value in batch.items()}

    def step() -> None:
        with fast_gradients():
            passes(0, dict(tensors), lambda loss: loss.backward())
        apply_gradients(optimizer, scaler)

    return step


if __name__ == "__main__":
    typer.run(main)
