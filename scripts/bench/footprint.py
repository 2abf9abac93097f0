#!/usr/bin/env python
"""How long a user waits before anything happens, and how much memory training takes.

Whole processes are measured: `dynabert --help`, Python until a `Predictor` is ready, and the peak memory of 20 steps of
the stages finetune and width on the same data, which width shall not exceed by more than half; and of 20 steps of
finetune on a large file, whose rows are four sentences each, which takes disk space twice.

    python scripts/bench/footprint.py
    python scripts/bench/footprint.py --model_name_or_path MODEL_DIR --max_seq_length 128 --repeats 9 --large_gb 0
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

import dynabert_paddle
from dynabert_paddle.cli.script import run_command

STEPS = 20
TEXTS = Path(dynabert_paddle.__file__).parent / "data" / "snips"
DYNABERT = [sys.executable, "-m", "dynabert_paddle"]
READY = "import sys, dynabert_paddle as db; db.Predictor(sys.argv[1])"


def main(
    model_name_or_path: Annotated[str, typer.Option("--model_name_or_path")] = "minilm-l6",
    max_seq_length: Annotated[int, typer.Option("--max_seq_length")] = 64,
    batch_size: Annotated[int, typer.Option("--batch_size")] = 32,
    repeats: Annotated[int, typer.Option("--repeats", min=1)] = 5,
    large_gb: Annotated[float, typer.Option("--large_gb", help="Size of the large file; 0 for none.")] = 5,
) -> None:
    """Print seconds and megabytes."""
    steps = ["--max_steps", STEPS, "--per_device_train_batch_size", batch_size]
    finetune = [*DYNABERT, "finetune", "--model_name_or_path", model_name_or_path, *steps,
                "--max_seq_length", max_seq_length]  # fmt: skip
    with TemporaryDirectory() as name:
        folder = Path(name)
        tuned, rewired, width, bundle = (folder / part for part in ("finetune", "rewire", "width", "bundle"))
        peaks = {"finetune": measure([*finetune, "--output_dir", tuned])[1]}
        measure([*DYNABERT, "rewire", tuned, "--output_dir", rewired])
        peaks["width"] = measure([*DYNABERT, "train_width", rewired, *steps, "--output_dir", width])[1]
        measure([*DYNABERT, "export", tuned, "--output_dir", bundle])
        for what, size in {"a small file": 1e7, "a large file": large_gb * 1e9}.items() if large_gb else ():
            write_texts(folder / "train.tsv", size)
            files = ["--task_name", "custom", "--train_file", folder / "train.tsv", "--dev_file", TEXTS / "dev.tsv"]
            peaks[what] = measure([*finetune, *files, "--output_dir", folder / what])[1]
        waits = {
            "dynabert --help": [measure([*DYNABERT, "--help"])[0] for _ in range(repeats)],
            "Predictor ready": [measure([sys.executable, "-c", READY, bundle])[0] for _ in range(repeats)],
        }
    for what, seconds in waits.items():
        print(f"{what:<18}{median(seconds):8.2f} s, median of {repeats}")
    for stage, megabytes in peaks.items():
        print(
            f"peak of {stage:<14}{megabytes:8.0f} MB, {STEPS} steps of {batch_size} texts of at most {max_seq_length}"
        )
    print(f"width / finetune  {peaks['width'] / peaks['finetune']:8.2f}")
    if large_gb:
        print(f"large - small file{peaks['a large file'] - peaks['a small file']:8.0f} MB, of {large_gb:g} GB")


def write_texts(path: Path, size: float) -> None:
    """Write a training file of at least so many bytes, from the built-in task's sentences, four of a class a row."""
    sentences: dict[str, list[str]] = {}
    for line in (TEXTS / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        text, label = line.split("\t")
        sentences.setdefault(label, []).append(text)
    block = []
    for label, own in sentences.items():
        block += [f"{' '.join(own[i : i + 4])}\t{label}\n" for i in range(len(own) - 3)]
    rows = "".join(block).encode()
    with open(path, "wb") as file:
        file.write(b"sentence\tlabel\n")
        while file.tell() < size:
            file.write(rows)


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
    run_command(main)
