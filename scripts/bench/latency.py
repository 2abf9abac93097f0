#!/usr/bin/env python
"""Accuracy of the latency table: 20 random sub-networks, estimated from the table and measured as whole models.

The table is not fitted to them; their layers differ in heads and neurons. They are exported as users export them. In
Paddle Inference they alternate with the models that the table is made from, because the speed of a shared machine
drifts.

    python scripts/bench/latency.py
    python scripts/bench/latency.py --model out/quickstart/depth --batch_size 32
    python scripts/bench/latency.py --shape 12x384 --precision bf16
"""

from __future__ import annotations

import time
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from timing import SHAPE_HELP

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import describe_environment, import_paddle


def main(
    model: Annotated[str | None, typer.Option("--model", help="A model folder, instead of --shape.")] = None,
    shape: Annotated[str, typer.Option("--shape", help=SHAPE_HELP)] = "6x384",
    batch_size: Annotated[int, typer.Option("--batch_size", help="Texts in a batch.")] = 1,
    seq_length: Annotated[int, typer.Option("--seq_length", help="Tokens of each text.")] = 64,
    device: Annotated[str, typer.Option("--device", help="cpu, or gpu:0.")] = "cpu",
    num_threads: Annotated[int | None, typer.Option("--num_threads", help="CPU threads of the measurement.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="Precision of the exported models.")] = "fp32",
) -> None:
    """Build the latency table, and print the error of each checked sub-network."""
    import_paddle()
    from random_models import random_supernet

    import dynabert_paddle as db
    from dynabert_paddle.searching.latency import latency_table
    from dynabert_paddle.searching.latency_setting import LatencySetting

    setting = LatencySetting(batch_size, seq_length, device, num_threads, precision)
    supernet = db.load_model(model) if model else random_supernet(shape)
    environment = describe_environment()
    print(
        f"{model or shape}, {setting}, {environment['processor']}, {environment['cores']} cores, "
        f"paddle {environment['versions'].get('paddlepaddle')}"
    )
    with TemporaryDirectory() as cache_dir:
        start = time.perf_counter()
        table = latency_table(supernet, setting, cache_dir=cache_dir)
        print(f"table built and checked in {time.perf_counter() - start:.0f} s")
    print(f"{'measured':>9} {'error':>7}  sub-network")
    for name, error in table.errors.items():
        print(f"{table.checks_ms[name]:9.2f} {error:+7.1%}  {name}")
    largest = max(map(abs, table.errors.values()))
    print(f"error: mean {table.mean_error:.1%}, largest {largest:.1%}, {len(table.errors)} sub-networks")


if __name__ == "__main__":
    run_command(main)
