#!/usr/bin/env python
"""A training step of the width stage against the same step in PyTorch.

A step is the teacher's forward pass, a forward and a backward pass of four widths with dropout 0.1, and AdamW with the
gradient's norm clipped. `width_step_paddle.py` and `width_step_torch.py` run in processes of their own, because their
thread pools would disturb each other in one; their steps alternate, so that drift in the machine's speed affects both
alike. The weights are random, which does not affect the time.

    pip install -e '.[bench]'
    python scripts/bench/width_step.py
    python scripts/bench/width_step.py --shape 12x384 --seq_length 128 --repeats 9
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from timing import SHAPE_HELP, run_step, start_process

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import describe_environment


def main(
    shape: Annotated[list[str], typer.Option("--shape", help=SHAPE_HELP)] = [  # noqa: B006 - typer copies it
        "6x384",
        "12x384",
    ],
    batch_size: Annotated[int, typer.Option("--batch_size", help="Texts in a batch.")] = 32,
    seq_length: Annotated[list[int], typer.Option("--seq_length", help="Tokens of each text.")] = [24, 64, 128],  # noqa: B006
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Rounds to take the median of.")] = 5,
) -> None:
    """Print the time of a step in Paddle and in PyTorch in ms, and the median of their ratios."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("paddlepaddle", "torch"))
    machine = describe_environment()
    print(f"{machine['processor']}, {machine['cores']} threads, {versions}, median of {repeats}")
    scripts = [Path(__file__).with_name(name) for name in ("width_step_paddle.py", "width_step_torch.py")]
    for layers_by_hidden in shape:
        for length in seq_length:
            arguments = (layers_by_hidden, "1.0 0.75 0.5 0.25", batch_size, length)
            processes = [start_process(path, *arguments) for path in scripts]
            times = np.array([[run_step(process) for process in processes] for _ in range(repeats + 1)])[1:]
            for process in processes:
                process.communicate()
            paddle, pytorch = 1000 * np.median(times, axis=0)
            ratio = np.median(times[:, 0] / times[:, 1])
            print(
                f"{layers_by_hidden} batch {batch_size} length {length:>3}: "
                f"paddle {paddle:7.0f} ms, pytorch {pytorch:7.0f} ms, ratio {ratio:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    run_command(main)
