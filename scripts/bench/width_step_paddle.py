"""The side of width_step.py that runs this package: a training step of the width stage, as in `training.loop`."""

from __future__ import annotations

from collections.abc import Callable

import typer
from timing import serve_steps

from dynabert_paddle.runtime.environment import import_paddle, keep_freed_memory


def main(shape: str, widths: str, batch_size: int, length: int) -> None:
    """Run a step for each line on stdin."""
    serve_steps(make_step(shape, [float(width) for width in widths.split()], batch_size, length))


def make_step(shape: str, widths: list[float], batch_size: int, length: int) -> Callable[[], None]:
    """Make the step: the teacher's forward pass, a forward and a backward pass of each width, and AdamW."""
    import_paddle()
    keep_freed_memory()
    import paddle
    from random_models import random_batch, random_supernet, training_passes

    from dynabert_paddle.config.settings import TrainConfig, WidthConfig
    from dynabert_paddle.supernet.extract import extract
    from dynabert_paddle.training.optimizer import apply_gradients, make_optimizer
    from dynabert_paddle.training.replicas import Replicas, count_replicas
    from dynabert_paddle.training.steps import distillation_step

    supernet = random_supernet(shape)
    teacher = extract(supernet, supernet.full)
    grid = {subnet.heads[0] / supernet.full.heads[0]: subnet
            for subnet in supernet.search_space(depth_mults=[1.0]).grid().values()}  # fmt: skip
    subnets = {str(width): grid[width] for width in widths}
    supernet.train()
    step = distillation_step(teacher, subnets, WidthConfig(), kind="classification")
    passes = training_passes(Replicas(supernet, count_replicas()), step, random_batch(batch_size, length))
    optimizer = make_optimizer(supernet, TrainConfig())
    scaler = paddle.amp.GradScaler(enable=False)

    def run() -> None:
        passes()
        apply_gradients(optimizer, scaler)

    return run


if __name__ == "__main__":
    typer.run(main)
