#!/usr/bin/env python
"""The cost of embedding ranks: a training step over all widths, and a batch of the grid's evaluation, without and with.

Both supernets have the same random weights and do the same work: the teacher's forward pass, for every width a forward
pass, the distillation loss and the backward pass, with dropout, and AdamW. With ranks, each width has one of them in
each step; an evaluation runs every width with each of them. The parts alternate, so that drift in the machine's speed
affects all alike; the figures are medians over the rounds, and of the ratios within each round.

    python scripts/bench/rank_step.py
    python scripts/bench/rank_step.py --ranks "1.0 0.25" --seq_length 64 --rounds 30
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Annotated

import typer
from timing import SHAPE_HELP, describe_machine, time_alternately

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.multipliers import parse_mults
from dynabert_paddle.runtime.environment import import_paddle, keep_freed_memory


def main(
    shape: Annotated[str, typer.Option("--shape", help=SHAPE_HELP)] = "6x384",
    ranks: Annotated[str, typer.Option("--ranks", help="Shares of the word embedding's components.")] = "1.0 0.5 0.25",
    batch_size: Annotated[int, typer.Option("--batch_size", help="Sequences in a batch.")] = 32,
    seq_length: Annotated[int, typer.Option("--seq_length", help="Tokens of each sequence.")] = 24,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed rounds; the parts alternate in each.")] = 20,
) -> None:
    """Print the time of each part in ms, and the ratios."""
    import_paddle()
    keep_freed_memory()
    parts = {}
    for name, mults in (("without ranks", (1.0,)), ("with ranks", parse_mults(ranks))):
        step, evaluate = make_parts(shape, mults, batch_size, seq_length)
        parts |= {f"step {name}": step, f"evaluation {name}": evaluate}
    print(f"{shape}, ranks {ranks}, batch {batch_size} x {seq_length}, {describe_machine()}")
    times = time_alternately(parts, rounds)
    for name, seconds in times.items():
        print(f"{name:<26} {median(seconds) * 1000:8.1f} ms")
    for what in ("step", "evaluation"):
        pairs = zip(times[f"{what} with ranks"], times[f"{what} without ranks"], strict=True)
        print(f"{f'{what}, ratio':<26} {median(after / before for after, before in pairs):8.3f}")


def make_parts(
    shape: str, rank_mults: tuple[float, ...], batch_size: int, length: int
) -> tuple[Callable[[], None], Callable[[], object]]:
    """Make a training step, and the evaluation of every width and rank on one batch."""
    import paddle
    from random_models import random_batch, random_features, random_supernet, shared_passes

    from dynabert_paddle.config.settings import TrainConfig, WidthConfig
    from dynabert_paddle.rewiring.components import sort_embedding
    from dynabert_paddle.supernet.calls import PassState
    from dynabert_paddle.supernet.extract import extract
    from dynabert_paddle.supernet.supernet import Supernet
    from dynabert_paddle.training.batches import Shard
    from dynabert_paddle.training.evaluate import predict_logits
    from dynabert_paddle.training.optimizer import apply_gradients, make_optimizer
    from dynabert_paddle.training.replicas import Replicas, count_replicas
    from dynabert_paddle.training.steps import distillation_step

    paddle.seed(0)
    supernet = random_supernet(shape)
    teacher = extract(supernet, supernet.full)
    batch = random_batch(batch_size, length)
    if min(rank_mults) < 1:
        sort_embedding(supernet, [batch])
    subnets = supernet.search_space(depth_mults=[1.0], rank_mults=rank_mults).grid()
    step = distillation_step(teacher, subnets, WidthConfig(), kind="classification")
    index = 0
    optimizer = make_optimizer(supernet, TrainConfig())
    scaler = paddle.amp.GradScaler(enable=False)
    features = random_features(batch_size, length)

    def passes(model: Supernet, _: int, shard: Shard, state: PassState) -> None:
        for losses in step(model, shard, index=index, state=state):
            losses["loss"].backward()

    supernet.train()
    run_passes = shared_passes(Replicas(supernet, count_replicas()), passes, batch)

    def train() -> None:
        nonlocal index
        index += 1
        supernet.train()
        run_passes()
        apply_gradients(optimizer, scaler)

    return train, lambda: predict_logits(supernet, features, list(subnets.values()), batch_size=batch_size)


if __name__ == "__main__":
    run_command(main)
