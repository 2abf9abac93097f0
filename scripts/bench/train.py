#!/usr/bin/env python
"""What elasticity costs: a training step over all widths against the same widths as models of their own.

Both sides do the same work on the same batch: the teacher's forward pass, and for every width a forward pass, the
distillation loss and the backward pass, with dropout; then each width is evaluated on 8 batches. They alternate, so
that a machine whose speed drifts does not favour either; each runs twice in its turn, and the second time counts. A
process can keep a deviation of a part's time in all its rounds: so several processes measure, one after the other, and
the figures are medians over the rounds of all. The weights are random, which does not matter to the time.

    python scripts/bench/train.py
    python scripts/bench/train.py --shape 12x384 --seq_length 128 --processes 15
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from statistics import median
from typing import Annotated

import typer

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import describe_environment, import_paddle, keep_freed_memory, package_versions

EVALUATED = 8  # batches


def main(
    shape: Annotated[str, typer.Option("--shape", help="Layers x hidden size; heads are 32 wide.")] = "6x384",
    batch_size: Annotated[int, typer.Option("--batch_size")] = 32,
    seq_length: Annotated[list[int], typer.Option("--seq_length")] = [24, 64],  # noqa: B006 - typer copies it
    processes: Annotated[int, typer.Option("--processes", min=1)] = 7,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds of each process.")] = 3,
) -> None:
    """Print the time of each part in ms, and the ratio of the supernet's step to the separate models' steps."""
    import_paddle()
    import paddle

    versions = package_versions()
    print(
        f"{shape}, batch {batch_size}, {describe_environment()['processor']}, {os.environ['OMP_NUM_THREADS']} threads, "
        f"paddle {versions.get('paddlepaddle') or versions.get('paddlepaddle-gpu')}, {paddle.get_device()}"
    )
    for length in seq_length:
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            runs = pool.starmap(measure, [(shape, batch_size, length, repeats)] * processes, chunksize=1)
        times = {name: [seconds for run in runs for seconds in run[name]] for name in runs[0]}
        print(f"length {length}:")
        for name, seconds in times.items():
            print(f"  {name:<40} {median(seconds) * 1000:8.1f} ms")
        widths = [name.removeprefix("extracted ") for name in times if name.startswith("extracted ")]
        for width in widths:
            for what, part in (("embedding not shared", ""), ("evaluating", "evaluating ")):
                inside, alone = times[f"{part}in the supernet {width}"], times[f"{part}extracted {width}"]
                ratio = median(ours / theirs for ours, theirs in zip(inside, alone, strict=True))
                print(f"  {f'ratio of {width}, {what}':<40} {ratio:8.3f}")
        separate = [
            sum(run) for run in zip(times["teacher forward"], *(times[f"extracted {w}"] for w in widths), strict=True)
        ]
        ratios = [step / alone for step, alone in zip(times["step over all widths"], separate, strict=True)]
        print(f"  {'teacher forward + extracted steps':<40} {median(separate) * 1000:8.1f} ms")
        print(f"  {'overhead ratio':<40} {median(ratios):8.3f}")


def measure(shape: str, batch_size: int, length: int, repeats: int) -> dict[str, list[float]]:
    """Time all parts in a process of its own; returns the seconds of each round, by name."""
    import_paddle()
    keep_freed_memory()
    parts = make_parts(shape, batch_size, length)
    # What runs before a part leaves threads that spin beside it for a while: so each comes after itself, as in use.
    times = alternate({f"{before}{name}": part for name, part in parts.items() for before in ("before ", "")}, repeats)
    return {name: times[name] for name in parts}


def make_parts(shape: str, batch_size: int, length: int) -> dict[str, Callable[[], None]]:
    """Make what is measured: the teacher, each width inside the supernet and extracted, and the whole step.

    Gradients are never cleared: within a step, too, all passes but the first add to what is there.
    """
    import paddle
    from random_models import random_batch, random_features, random_supernet, shared_passes, training_passes

    from dynabert_paddle.config.settings import WidthConfig
    from dynabert_paddle.distill.losses import DistillationLoss, token_rows
    from dynabert_paddle.supernet.elastic import PassState
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
    features = random_features(EVALUATED * batch_size, length)
    settings = WidthConfig()
    loss = DistillationLoss(lambda_logit=settings.lambda_logit, lambda_hidden=settings.lambda_hidden)
    targets = {}

    def teach(_, number: int, shard: Shard, state: PassState) -> None:
        with paddle.no_grad():
            targets[number] = teacher(**shard.inputs)

    def train(own: Replicas, subnet, full) -> Callable[[], None]:
        """One width alone; `full` names the teacher's layers that belong to the model's."""

        def passes(model: Supernet, number: int, shard: Shard, state: PassState) -> None:
            rows = token_rows(shard.inputs["attention_mask"])
            output = model(subnet, state=state, **shard.inputs)
            loss(output, targets[number], full, rows=rows)["loss"].backward()

        return shared_passes(own, passes, batch)

    def evaluate(model: Supernet, subnet) -> Callable[[], None]:
        return lambda: predict_logits(model, features, [subnet], batch_size=batch_size)

    parts: dict[str, Callable[[], None]] = {"teacher forward": shared_passes(replicas, teach, batch)}
    for name, subnet in widths.items():
        parts[f"in the supernet {name}"] = train(replicas, subnet, subnet)
        parts[f"extracted {name}"] = train(Replicas(models[name], count_replicas()), None, subnet)
    step = distillation_step(teacher, widths, settings, kind="classification")
    parts["step over all widths"] = training_passes(replicas, step, batch)
    for name, subnet in widths.items():
        parts[f"evaluating in the supernet {name}"] = evaluate(supernet, subnet)
        parts[f"evaluating extracted {name}"] = evaluate(models[name], models[name].full)
    return parts


def alternate(parts: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Time all parts in turn, after a round that is not counted.

    Args:
        parts: what to time, by name.
        repeats: rounds.

    Returns:
        Seconds of each round, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(repeats + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            times[name].append(time.perf_counter() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


if __name__ == "__main__":
    run_command(main)
