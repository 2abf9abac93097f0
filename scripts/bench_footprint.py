#!/usr/bin/env python
"""How long a user waits before anything happens, and how much memory training takes.

Whole processes are measured: `dynabert --help`, Python until a `Predictor` is ready, and the peak memory of 20 steps of
the stages finetune and width on the same data, which width shall not exceed by more than half.

    python scripts/bench_footprint.py
    python scripts/bench_footprint.py --model_name_or_path MODEL_DIR --max_seq_length 128 --repeats 9
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

STEPS = 20
DYNABERT = [sys.executable, "-m", "dynabert_paddle"]
READY = "import sys, dynabert_paddle as db; db.Predictor(sys.argv[1])"


def main(
    model_name_or_path: Annotated[str, typer.Option("--model_name_or_path")] = "minilm-l6",
    max_seq_length: Annotated[int, typer.Option("--max_seq_length")] = 64,
    batch_size: Annotated[int, typer.Option("--batch_size")] = 32,
    repeats: Annotated[int, typer.Option("--repeats", min=1)] = 5,
) -> None:
    """Print seconds and megabytes."""
    flags = ["--max_steps", STEPS, "--max_seq_length", max_seq_length, "--per_device_train_batch_size", batch_size]
    with TemporaryDirectory() as name:
        folder = Path(name)
        tuned, rewired, width, bundle = (folder / part for part in ("finetune", "rewire", "width", "bundle"))
        peaks = {
            "finetune": measure([*DYNABERT, "finetune", "--model_name_or_path", model_name_or_path, *flags,
                                 "--output_dir", tuned])[1],
        }  # fmt: skip
        measure([*DYNABERT, "rewire", tuned, "--output_dir", rewired])
        peaks["width"] = measure([*DYNABERT, "width", rewired, *flags, "--output_dir", width])[1]
        measure([*DYNABERT, "export", tuned, "--output_dir", bundle])
        waits = {
            "dynabert --help": [measure([*DYNABERT, "--help"])[0] for _ in range(repeats)],
            "Predictor ready": [measure([sys.executable, "-c", READY, bundle])[0] for _ in range(repeats)],
        }
    for what, seconds in waits.items():
        print(f"{what:<18}{median(seconds):8.2f} s, median of {repeats}")
    for stage, megabytes in peaks.items():
        print(
            f"peak of {stage:<10}{megabytes:8.0f} MB, {STEPS} steps of {batch_size} texts of at most {max_seq_length}"
        )
    print(f"width / finetune  {peaks['width'] / peaks['finetune']:8.2f}")


def measure(command: Sequence[object]) -> tuple[float, float]:
    """Run a program to its end, and tell its seconds and its peak memory in MB."""
    begin = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: {' '.join(map(str, command))} has failed with {process.returncode}: run it alone")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


if __name__ == "__main__":
    typer.run(main)
