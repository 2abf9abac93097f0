#!/usr/bin/env python
"""Latency of exported models: the full model and its smallest sub-network, in every runtime and precision.

Everything takes turns in one process (`dynabert_paddle/deploy/bench.py`). Two ratios are printed for each: the speed-up
over the full model in fp32 on Paddle Inference, and the latency of the smallest sub-network over the full model's in
the same runtime, beside their ratio of MACs. The weights are random, which does not matter to the time; int8 is
calibrated on texts of the built-in task.

    python scripts/bench_inference.py
    python scripts/bench_inference.py --shape 6x384 --batch_size 1 --seq_length 64 --rounds 7
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from command import run_command

from dynabert_paddle import runtime

EXPORTS = {"paddle": ("fp32", "bf16", "int8"), "openvino": ("fp32", "bf16", "int8"), "onnx": ("fp32", "int8")}


def main(
    shape: Annotated[list[str], typer.Option("--shape", help="Layers x hidden size; heads are 32 wide.")] = [  # noqa: B006
        "6x384",
        "12x384",
    ],
    subnet: Annotated[str, typer.Option("--subnet", help="The smallest sub-network.")] = "w0.25d0.50",
    batch_size: Annotated[list[int], typer.Option("--batch_size")] = [1, 32],  # noqa: B006 - typer copies it
    seq_length: Annotated[list[int], typer.Option("--seq_length")] = [32, 128],  # noqa: B006
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 5,
) -> None:
    """Export, measure, and print a table for each shape."""
    runtime.import_paddle()
    from dynabert_paddle.deploy.bench import bench

    for layers_by_hidden in shape:
        with TemporaryDirectory() as folder:
            bundles, mac_ratios = export_all(layers_by_hidden, subnet, seq_length, Path(folder))
            report = bench(list(bundles.values()), batch_sizes=batch_size, seq_lengths=seq_length, rounds=rounds)
            environment = report["environment"]
            print(
                f"{layers_by_hidden}, {environment['processor']}, {report['threads']} threads, "
                f"paddle {environment['versions'].get('paddlepaddle')}, median of {rounds} rounds"
            )
            for length in seq_length:
                for size in batch_size:
                    show(report, bundles, size, length, mac_ratios[length])


def exports() -> list[tuple[str, str]]:
    """Formats and precisions that this Paddle writes."""
    from dynabert_paddle.exporting.formats import list_abilities

    able = {name.removeprefix("export to ") for name, said in list_abilities().items() if said.startswith("yes")}
    return [(format, precision) for format in EXPORTS if format in able for precision in EXPORTS[format]]


def export_all(
    shape: str, subnet: str, seq_lengths: list[int], folder: Path
) -> tuple[dict[tuple[str, str, str], Path], dict[int, float]]:
    """Export the full model and the sub-network to everything that is compared."""
    from shapes import random_supernet

    import dynabert_paddle as db

    supernet = random_supernet(shape)
    space = supernet.search_space()
    small = space.parse(subnet)
    bundles, able = {}, exports()
    for name, part in (("full", space.full), (subnet, small)):
        model = db.extract(supernet, part).save_pretrained(folder / name)
        for format, precision in able:
            # A model with random weights guesses: how much int8 loses says nothing here.
            tolerance = 1.0 if precision == "int8" else None
            bundles[name, format, precision] = db.export(
                model, folder / f"{name}-{format}-{precision}", format=format, precision=precision, tolerance=tolerance
            )
    full, part = (
        {length: space.num_macs(which, seq_length=length) for length in seq_lengths} for which in (space.full, small)
    )
    return bundles, {length: part[length] / full[length] for length in seq_lengths}


def show(report: dict, bundles: dict, batch_size: int, seq_length: int, mac_ratio: float) -> None:
    """Print one shape's table."""
    p50 = {
        row["name"]: row["p50_ms"]
        for row in report["rows"]
        if (row["batch_size"], row["seq_length"]) == (batch_size, seq_length)
    }
    speedup = {
        row["name"]: row["speedup"]
        for row in report["rows"]
        if (row["batch_size"], row["seq_length"]) == (batch_size, seq_length)
    }
    print(f"\nbatch {batch_size} x {seq_length} tokens; the sub-network has {mac_ratio:.3f} of the MACs")
    small = next(name for name, _, _ in bundles if name != "full")
    print(f"  {'':<14}{'full ms':>10}{'speed-up':>10}{small + ' ms':>16}{'of full':>9}{'/ MACs':>8}")
    for format, precision in dict.fromkeys(key[1:] for key in bundles):
        full, part = (str(bundles[name, format, precision]) for name in ("full", small))
        ratio = speedup[full] / speedup[part]
        print(
            f"  {format + ' ' + precision:<14}{p50[full]:>10.2f}{speedup[full]:>10.2f}{p50[part]:>16.2f}"
            f"{ratio:>9.3f}{ratio / mac_ratio:>8.2f}"
        )


if __name__ == "__main__":
    run_command(main)
