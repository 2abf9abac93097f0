#!/usr/bin/env python
"""Latency of exported models: the full model and its smallest sub-network, in every runtime and precision.

All bundles alternate in one process (`dynabert_paddle/bundle/timing.py`), and a ratio is the median of the ratios of
each round. The full model is compared with Paddle Inference in fp32, with its own runtime in fp32 and with ONNX Runtime
in fp32; the sub-network ("part") with the full model, and this ratio with the ratio of their MACs. The weights are
random, which does not affect the time; int8 is calibrated on texts of the built-in task.

    python scripts/bench/inference.py
    python scripts/bench/inference.py --shape 6x384 --batch_size 1 --seq_length 64 --rounds 7
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from timing import SHAPE_HELP, describe_machine

from dynabert_paddle.bundle.engines import Engine
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import import_paddle

Key = tuple[str, str, str]  # ("full" or "part", format, precision)
EXPORTS = {"paddle": ("fp32", "bf16", "int8"), "openvino": ("fp32", "bf16", "int8"), "onnx": ("fp32", "int8")}


def main(
    shape: Annotated[list[str], typer.Option("--shape", help=SHAPE_HELP)] = [  # noqa: B006
        "6x384",
        "12x384",
    ],
    subnet: Annotated[str, typer.Option("--subnet", help="The smallest sub-network.")] = "w0.25d0.50",
    batch_size: Annotated[list[int], typer.Option("--batch_size", help="Texts in a batch.")] = [1, 32],  # noqa: B006 - typer copies it
    seq_length: Annotated[list[int], typer.Option("--seq_length", help="Tokens of each text.")] = [32, 128],  # noqa: B006
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds to take the median of.")] = 5,
) -> None:
    """Export, measure, and print a table for each shape, batch size and length."""
    import_paddle()
    from dynabert_paddle.bundle.timing import make_batch, time_alternately

    for layers_by_hidden in shape:
        with TemporaryDirectory() as folder:
            engines, mac_ratios, vocab_size = open_all(layers_by_hidden, subnet, seq_length, Path(folder))
            print(f"{layers_by_hidden}, {describe_machine()}, median of {rounds} rounds")
            for length, size in product(seq_length, batch_size):
                times = time_alternately(engines, make_batch(size, length, vocab_size), rounds)
                print(f"\nbatch {size} x {length} tokens; the sub-network has {mac_ratios[length]:.3f} of the MACs")
                medians = {key: np.array(list(map(median, runs))) for key, runs in times.items()}
                show(medians, mac_ratios[length])


def supported_exports() -> list[tuple[str, str]]:
    """Formats and precisions that this version of Paddle can export."""
    from dynabert_paddle.exporting.formats import list_format_support

    abilities = list_format_support().items()
    formats = {name.removeprefix("export to ") for name, ability in abilities if ability.startswith("yes")}
    return [(format, precision) for format in EXPORTS if format in formats for precision in EXPORTS[format]]


def open_all(
    shape: str, subnet: str, seq_lengths: list[int], folder: Path
) -> tuple[dict[Key, Engine], dict[int, float], int]:
    """Export the full model and the sub-network in every supported format and precision.

    Returns:
        The engines, with both models of one runtime next to each other; the ratio of MACs by length; the vocabulary
        size.
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
    for (format, precision), name in product(supported_exports(), parts):
        # The predictions of random weights are arbitrary, so that int8 may change any of them.
        tolerance = 1.0 if precision == "int8" else None
        out = folder / f"{name}-{format}-{precision}"
        db.export(models[name], out, format=format, precision=precision, tolerance=tolerance)
        engines[name, format, precision] = open_engine(out, read_bundle(out))
    full, part = ({length: space.num_macs(one, seq_length=length) for length in seq_lengths} for one in parts.values())
    return engines, {length: part[length] / full[length] for length in seq_lengths}, supernet.model.config.vocab_size


def show(times: dict[Key, np.ndarray], mac_ratio: float) -> None:
    """Print one table: medians in ms, and ratios. `times` has one value per round."""
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
