#!/usr/bin/env python
"""Latency of exported models: the full model and its smallest sub-network, in every runtime and precision.

Everything takes turns in one process (`dynabert_paddle/bundle/timing.py`); ratios are medians of the rounds' own. The
full model's latency is given over Paddle Inference's in fp32, over the same runtime's in fp32 and over ONNX Runtime's
in fp32; the sub-network's over the full model's, and that over their ratio of MACs. The weights are random, which does
not matter to the time; int8 is calibrated on texts of the built-in task.

    python scripts/bench/inference.py
    python scripts/bench/inference.py --shape 6x384 --batch_size 1 --seq_length 64 --rounds 7
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from dynabert_paddle.bundle.engines import Engine
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import describe_environment, import_paddle, package_versions

Key = tuple[str, str, str]  # full or part, format, precision
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
    import_paddle()
    from dynabert_paddle.bundle.timing import make_batch, time_alternately

    for layers_by_hidden in shape:
        with TemporaryDirectory() as folder:
            engines, mac_ratios, vocab_size = open_all(layers_by_hidden, subnet, seq_length, Path(folder))
            print(
                f"{layers_by_hidden}, {describe_environment()['processor']}, {os.environ['OMP_NUM_THREADS']} threads, "
                f"paddle {package_versions().get('paddlepaddle')}, median of {rounds} rounds"
            )
            for length, size in product(seq_length, batch_size):
                turns = time_alternately(engines, make_batch(size, length, vocab_size), rounds)
                print(f"\nbatch {size} x {length} tokens; the sub-network has {mac_ratios[length]:.3f} of the MACs")
                show({key: np.array([median(turn) for turn in own]) for key, own in turns.items()}, mac_ratios[length])


def exports() -> list[tuple[str, str]]:
    """Formats and precisions that this Paddle writes."""
    from dynabert_paddle.exporting.formats import list_abilities

    able = {name.removeprefix("export to ") for name, said in list_abilities().items() if said.startswith("yes")}
    return [(format, precision) for format in EXPORTS if format in able for precision in EXPORTS[format]]


def open_all(
    shape: str, subnet: str, seq_lengths: list[int], folder: Path
) -> tuple[dict[Key, Engine], dict[int, float], int]:
    """Export the full model and the sub-network to everything that is compared, those of one runtime side by side.

    Returns the engines, the ratio of MACs by length, and the size of the vocabulary.
    """
    from random_models import random_supernet

    import dynabert_paddle as db
    from dynabert_paddle.bundle.engines import open_engine
    from dynabert_paddle.bundle.manifest import read_bundle

    supernet = random_supernet(shape)
    space = supernet.search_space()
    parts = {"full": space.full, "part": space.parse(subnet)}
    models = {name: db.extract(supernet, part).save_pretrained(folder / name) for name, part in parts.items()}
    engines = {}
    for (format, precision), name in product(exports(), parts):
        # A model with random weights guesses: how much int8 loses says nothing here.
        tolerance = 1.0 if precision == "int8" else None
        out = folder / f"{name}-{format}-{precision}"
        db.export(models[name], out, format=format, precision=precision, tolerance=tolerance)
        engines[name, format, precision] = open_engine(out, read_bundle(out))
    full, part = ({length: space.num_macs(one, seq_length=length) for length in seq_lengths} for one in parts.values())
    return engines, {length: part[length] / full[length] for length in seq_lengths}, supernet.model.config.vocab_size


def show(times: dict[Key, np.ndarray], mac_ratio: float) -> None:
    """Print one shape's table of the rounds' medians in ms."""
    paddle, onnx = times["full", "paddle", "fp32"], times.get(("full", "onnx", "fp32"), np.nan)
    heads = f"{'full ms':>10}{'/ Paddle':>10}{'/ own fp32':>12}{'/ ONNX':>8}{'part ms':>10}{'/ full':>8}{'/ MACs':>8}"
    print(" " * 16 + heads)
    for format, precision in dict.fromkeys(key[1:] for key in times):
        full, part = (times[name, format, precision] for name in ("full", "part"))
        own = times["full", format, "fp32"]
        ratio = median(part / full)
        print(
            f"  {format + ' ' + precision:<14}{median(full):>10.2f}{median(full / paddle):>10.2f}"
            f"{median(full / own):>12.2f}{median(full / onnx):>8.2f}{median(part):>10.2f}{ratio:>8.3f}"
            f"{ratio / mac_ratio:>8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    run_command(main)
