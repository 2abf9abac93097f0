#!/usr/bin/env python
"""How well the table of latencies estimates: random sub-networks, estimated from it and measured whole.

The sub-networks are drawn anew, so that the table has not seen them; their layers differ in heads and neurons. They are
exported as users export them and take turns in Paddle Inference. On a machine that others use, too, the measurements of
the table and of the sub-networks meet different paces: the whole model, which is in both, tells by how much.

    python scripts/bench_latency.py
    python scripts/bench_latency.py --model out/quickstart/depth --batch_size 32
    python scripts/bench_latency.py --shape 12x384 --precision bf16
"""

from __future__ import annotations

import logging
import time
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from dynabert_paddle import runtime


def main(
    model: Annotated[str | None, typer.Option("--model", help="A model folder, in place of --shape.")] = None,
    shape: Annotated[str, typer.Option("--shape", help="Layers x hidden size; heads are 32 wide.")] = "6x384",
    batch_size: Annotated[int, typer.Option("--batch_size")] = 1,
    seq_length: Annotated[int, typer.Option("--seq_length")] = 64,
    device: Annotated[str, typer.Option("--device")] = "cpu",
    num_threads: Annotated[int | None, typer.Option("--num_threads")] = None,
    precision: Annotated[str, typer.Option("--precision")] = "fp32",
    num_subnets: Annotated[int, typer.Option("--num_subnets", min=1)] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Draws the sub-networks.")] = 42,
) -> None:
    """Measure a table, and the sub-networks; print both."""
    runtime.import_paddle()
    from shapes import random_supernet

    import dynabert_paddle as db
    from dynabert_paddle.searching.fit import mixed_subnet
    from dynabert_paddle.searching.latency import LatencySetting, latency_table, measure_latency

    logger = logging.getLogger("dynabert_paddle")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
    setting = LatencySetting(batch_size, seq_length, device, num_threads, precision)
    supernet = db.load_model(model) if model else random_supernet(shape)
    space, rng = supernet.search_space(), np.random.default_rng(seed)
    subnets = {str(subnet): subnet for subnet in (mixed_subnet(space, rng) for _ in range(num_subnets))}
    environment = runtime.describe()
    print(
        f"{model or shape}, {setting}, {environment['processor']}, {environment['cores']} cores, "
        f"paddle {environment['versions'].get('paddlepaddle')}"
    )
    with TemporaryDirectory() as cache_dir:
        began = time.perf_counter()
        table = latency_table(supernet, setting, cache_dir=cache_dir)
        print(f"table built in {time.perf_counter() - began:.0f} s")
    measured = measure_latency(supernet, {"whole model": space.full, **subnets}, setting)
    pace = measured["whole model"] / table.full_ms
    ratios = {name: table.estimate(subnet) / measured[name] for name, subnet in subnets.items()}
    print(f"{'estimated':>9} {'measured':>9} {'error':>7}  sub-network")
    for name, subnet in subnets.items():
        print(f"{table.estimate(subnet):9.2f} {measured[name]:9.2f} {ratios[name] - 1:+7.1%}  {name}")
    print(f"the whole model took {table.full_ms:.2f} ms for the table, then {measured['whole model']:.2f} ms")
    for what, factor in (("as measured", 1), ("at the same pace of the machine", pace)):
        errors = np.abs(np.array(list(ratios.values())) * factor - 1)
        print(f"error {what}: mean {errors.mean():.1%}, largest {errors.max():.1%}, {len(errors)} sub-networks")


if __name__ == "__main__":
    typer.run(main)
