#!/usr/bin/env python
"""The cost of elasticity: a training step of a supernet over all widths, against one separate model for each width.

Both do the same work on the same batch: the teacher's forward pass, and for every width a forward pass, the
distillation loss and the backward pass, with dropout; then each width is evaluated on 8 batches. The parts alternate,
so that drift in the machine's speed affects all alike; each part runs twice in a row, and the second run counts. A part
can be faster or slower for the whole life of a process, so several processes measure one after the other, and the
figures are medians over the rounds of all. The weights are random, which does not affect the time.

    python scripts/bench/train.py
    python scripts/bench/train.py --shape 12x384 --seq_length 128 --processes 15
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing import get_context
from statistics import median
from typing import Annotated

import typer
from timing import SHAPE_HELP, describe_machine, time_alternately

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import import_paddle, keep_freed_memory

EVALUATION_BATCHES = 8


def main(
    shape: Annotated[str, typer.Option("--shape", help=SHAPE_HELP)] = "6x384",
    batch_size: Annotated[int, typer.Option("--batch_size", help="Texts in a batch.")] = 32,
    seq_length: Annotated[list[int], typer.Option("--seq_length", help="Tokens of each text.")] = [24, 64],  # noqa: B006 - typer copies it
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that measure one after the other.")
    ] = 7,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds of each process.")] = 3,
) -> None:
    """Print the time of each part in ms, and the ratio of the supernet's step to the separate models' steps."""
    import_paddle()
    import paddle

    print(f"{shape}, batch {batch_size}, {describe_machine()}, {paddle.get_device()}")
    for length in seq_length:
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            runs = pool.starmap(measure, [(shape, batch_size, length, repeats)] * processes, chunksize=1)
        times = {name: [seconds for run in runs for seconds in run[name]] for name in runs[0]}
        print(f"length {length}:")
        for name, seconds in times.items():
            print(f"  {name:<40} {median(seconds) * 1000:8.1f} ms")
        widths = [name.removeprefix("extracted ") for name in times if name.startswith("extracted ")]
        for width in widths:
            for label, prefix in (("embedding not shared", ""), ("evaluating", "evaluating ")):
                ratio = median_ratio(times[f"{prefix}in the supernet {width}"], times[f"{prefix}extracted {width}"])
                print(f"  {f'ratio of {width}, {label}':<40} {ratio:8.3f}")
        separate = [
            sum(run) for run in zip(times["teacher forward"], *(times[f"extracted {w}"] for w in widths), strict=True)
        ]
        print(f"  {'teacher forward + extracted steps':<40} {median(separate) * 1000:8.1f} ms")
        print(f"  {'overhead ratio':<40} {median_ratio(times['step over all widths'], separate):8.3f}")


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios of each round."""
    return median(time / other for time, other in zip(times, others, strict=True))


def measure(shape: str, batch_size: int, length: int, repeats: int) -> dict[str, list[float]]:
    """Time all parts; runs in a new process. Returns the seconds of each round, by name."""
    import_paddle()
    keep_freed_memory()
    parts = make_parts(shape, batch_size, length)
    # The threads of the previous part spin for a while, so each part runs once more before it is timed.
    twice = {f"{prefix}{name}": part for name, part in parts.items() for prefix in ("untimed ", "")}
    times = time_alternately(twice, repeats)
    return {name: times[name] for name in parts}


def make_parts(shape: str, batch_size: int, length: int) -> dict[str, Callable[[], None]]:
    """Make the timed parts: the teacher, each width inside the supernet and extracted, and the whole step.

    Gradients are never cleared, because also within a step all passes but the first add to existing gradients.
    """
    import paddle
    from random_models import random_batch, random_features, random_supernet, shared_passes, training_passes

    from dynabert_paddle.config.settings import WidthConfig
    from dynabert_paddle.distill.losses import DistillationLoss, token_rows
    from dynabert_paddle.supernet.calls import PassState
    from dynabert_paddle.supernet.extract import extract
    from dynabert_paddle.supernet.supernet import Supernet
    from dynabert_paddle.training.batches import Shard
    from dynabert_paddle.training.evaluate import predict_logits
    from dynabert_paddle.training.replicas import Replicas, count_replicas
    from dynabert_paddle.training.steps import distillation_step

    supernet = random_supernet(shape)
    teacher = extract(supernet, supernet.full)
    teacher.eval()
    widths = {f"w{subnet.heads[0] / supernet.full.heads[0]:.2f}": subnet
              for subnet in supernet.search_space(depth_mults=[1.0]).grid().values()}  # fmt: skip
    models = {name: extract(supernet, subnet) for name, subnet in widths.items()}
    for model in (supernet, *models.values()):
        model.train()
    replicas = Replicas(supernet, count_replicas())

    batch = random_batch(batch_size, length)
    features = random_features(EVALUATION_BATCHES * batch_size, length)
    settings = WidthConfig()
    loss = DistillationLoss(lambda_logit=settings.lambda_logit, lambda_hidden=settings.lambda_hidden)
    targets = {}

    def teacher_forward(_, number: int, shard: Shard, state: PassState) -> None:
        with paddle.no_grad():
            targets[number] = teacher(**shard.inputs)

    def train_width(replicas: Replicas, subnet, layers_of) -> Callable[[], None]:
        """Train one width; `layers_of` is the sub-network that says which teacher layers the model's layers match."""

        def passes(model: Supernet, number: int, shard: Shard, state: PassState) -> None:
            rows = token_rows(shard.inputs["attention_mask"])
            output = model(subnet, state=state, **shard.inputs)
            loss(output, targets[number], layers_of, rows=rows)["loss"].backward()

        return shared_passes(replicas, passes, batch)

    def evaluate(model: Supernet, subnet) -> Callable[[], None]:
        return lambda: predict_logits(model, features, [subnet], batch_size=batch_size)

    parts: dict[str, Callable[[], None]] = {"teacher forward": shared_passes(replicas, teacher_forward, batch)}
    for name, subnet in widths.items():
        parts[f"in the supernet {name}"] = train_width(replicas, subnet, subnet)
        parts[f"extracted {name}"] = train_width(Replicas(models[name], count_replicas()), None, subnet)
    step = distillation_step(teacher, widths, settings, kind="classification")
    parts["step over all widths"] = training_passes(replicas, step, batch)
    for name, subnet in widths.items():
        parts[f"evaluating in the supernet {name}"] = evaluate(supernet, subnet)
        parts[f"evaluating extracted {name}"] = evaluate(models[name], models[name].full)
    return parts


if __name__ == "__main__":
    run_command(main)
