#!/usr/bin/env python
"""How well the table of latencies estimates: 20 random sub-networks, estimated from it and measured whole.

The table has not seen them; their layers differ in heads and neurons. They are exported as users export them, and take
turns in Paddle Inference with those that the table is made of, for the pace of a machine that others use drifts.

    python scripts/bench/latency.py
    python scripts/bench/latency.py --model out/quickstart/depth --batch_size 32
    python scripts/bench/latency.py --shape 12x384 --precision bf16
"""

from __future__ import annotations

import time
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import describe_environment, import_paddle


def main(
    model: Annotated[str | None, typer.Option("--model", help="A model folder, in place of --shape.")] = None,
    shape: Annotated[str, typer.Option("--shape", help="Layers x hidden size; heads are 32 wide.")] = "6x384",
    batch_size: Annotated[int, typer.Option("--batch_size")] = 1,
    seq_length: Annotated[int, typer.Option("--seq_length")] = 64,
    device: Annotated[str, typer.Option("--device")] = "cpu",
    num_threads: Annotated[int | None, typer.Option("--num_threads")] = None,
    precision: Annotated[str, typer.Option("--precision")] = "fp32",
) -> None:
    """Measure a table with its checks, and print them."""
    import_paddle()
    from random_models import random_supernet

    import dynabert_paddle as db
    from dynabert_paddle.searching.latency import LatencySetting, latency_table

    setting = LatencySetting(batch_size, seq_length, device, num_threads, precision)
    supernet = db.load_model(model) if model else random_supernet(shape)
    environment = describe_environment()
    print(
        f"{model or shape}, {setting}, {environment['processor']}, {environment['cores']} cores, "
        f"paddle {environment['versions'].get('paddlepaddle')}"
    )
    with TemporaryDirectory() as cache_dir:
        began = time.perf_counter()
        table = latency_table(supernet, setting, cache_dir=cache_dir)
        print(f"table built and checked in {time.perf_counter() - began:.0f} s")
    print(f"{'measured':>9} {'error':>7}  sub-network")
    for name, error in table.errors.items():
        print(f"{table.checks_ms[name]:9.2f} {error:+7.1%}  {name}")
    largest = max(map(abs, table.errors.values()))
    print(f"error: mean {table.mean_error:.1%}, largest {largest:.1%}, {len(table.errors)} sub-networks")


if __name__ == "__main__":
    run_command(main)
