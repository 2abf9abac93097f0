#!/usr/bin/env python
"""Start-up time and peak memory of training, measured on whole processes.

Start-up: `dynabert --help`, and Python until a `Predictor` is ready. Memory: the peak of 20 training steps of the
stages finetune and width on the same data (the goal is at most 1.5 times as much for width), and of finetune on a small
and on a large file of rows with four sentences each. The large file takes twice its size on disk.

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
    model_name_or_path: Annotated[str, typer.Option("--model_name_or_path", help="Backbone to train.")] = "minilm-l6",
    max_seq_length: Annotated[
        int, typer.Option("--max_seq_length", help="Texts are cut to this number of tokens.")
    ] = 64,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Texts in a batch.")] = 32,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Starts to take the median of.")] = 5,
    large_gb: Annotated[float, typer.Option("--large_gb", help="Size of the large file in GB; 0 to skip it.")] = 5,
) -> None:
    """Print start-up times in seconds and peak memory in MB."""
    steps = ["--max_steps", STEPS, "--per_device_train_batch_size", batch_size]
    finetune = [*DYNABERT, "finetune", "--model_name_or_path", model_name_or_path, *steps,
                "--max_seq_length", max_seq_length]  # fmt: skip
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tuned, rewired, width, bundle = (folder / part for part in ("finetune", "rewire", "width", "bundle"))
        peaks = {"finetune": measure([*finetune, "--output_dir", tuned])[1]}
        measure([*DYNABERT, "rewire", tuned, "--output_dir", rewired])
        peaks["width"] = measure([*DYNABERT, "train_width", rewired, *steps, "--output_dir", width])[1]
        measure([*DYNABERT, "export", tuned, "--output_dir", bundle])
        for name, num_bytes in {"a small file": 1e7, "a large file": large_gb * 1e9}.items() if large_gb else ():
            write_texts(folder / "train.tsv", num_bytes)
            files = ["--task_name", "custom", "--train_file", folder / "train.tsv", "--dev_file", TEXTS / "dev.tsv"]
            peaks[name] = measure([*finetune, *files, "--output_dir", folder / name])[1]
        startup = {
            "dynabert --help": [measure([*DYNABERT, "--help"])[0] for _ in range(repeats)],
            "Predictor ready": [measure([sys.executable, "-c", READY, bundle])[0] for _ in range(repeats)],
        }
    for name, seconds in startup.items():
        print(f"{name:<18}{median(seconds):8.2f} s, median of {repeats}")
    for name, megabytes in peaks.items():
        print(f"peak of {name:<14}{megabytes:8.0f} MB, {STEPS} steps of {batch_size} texts of at most {max_seq_length}")
    print(f"width / finetune  {peaks['width'] / peaks['finetune']:8.2f}")
    if large_gb:
        print(f"large - small file{peaks['a large file'] - peaks['a small file']:8.0f} MB, of {large_gb:g} GB")


def write_texts(path: Path, num_bytes: float) -> None:
    """Write a training file of at least `num_bytes`: each row has four sentences of one class of the built-in task."""
    sentences: dict[str, list[str]] = {}
    for line in (TEXTS / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        text, label = line.split("\t")
        sentences.setdefault(label, []).append(text)
    block = []
    for label, texts in sentences.items():
        block += [f"{' '.join(texts[i : i + 4])}\t{label}\n" for i in range(len(texts) - 3)]
    rows = "".join(block).encode()
    with open(path, "wb") as file:
        file.write(b"sentence\tlabel\n")
        while file.tell() < num_bytes:
            file.write(rows)


def measure(command: Sequence[object]) -> tuple[float, float]:
    """Run a command; returns its seconds and its peak memory in MB."""
    begin = time.perf_counter()
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"error: {' '.join(map(str, command))} failed with {process.returncode}: run it by itself to see why"
        )
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


if __name__ == "__main__":
    run_command(main)
