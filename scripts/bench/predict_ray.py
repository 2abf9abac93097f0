#!/usr/bin/env python
"""Rows per second of `scripts/predict_ray.py` against `dynabert predict` on the same cores.

Both label the same JSON lines, all rows and a tenth of them; the difference of the two times counts, so
that starting the cluster, the workers and the command does not. They alternate.

    pip install -e '.[ray]'
    python scripts/bench/predict_ray.py bundle texts.jsonl                 # of the task's column, such as sentence
    python scripts/bench/predict_ray.py bundle texts.jsonl --num_rows 5000 --rounds 1
"""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from timing import describe_machine

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.errors import DataError
from dynabert_paddle.runtime.cores import num_cores

SCRIPT = Path(__file__).parents[1] / "predict_ray.py"
ROWS_PER_PART = 512  # small, so that the last part leaves no worker idle for long


def main(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that 'dynabert export' has made.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="Texts as .jsonl.")],
    num_rows: Annotated[
        int, typer.Option("--num_rows", min=10, help="Rows to label; the file's are repeated.")
    ] = 20_000,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds to take the median of.")] = 3,
) -> None:
    """Print rows per second of both, and their ratio."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    if not lines:
        raise DataError(f"{file}: no rows; add at least one")
    rates: dict[str, list[float]] = {"dynabert predict": [], "predict_ray.py": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        inputs = [folder / "all.jsonl", folder / "tenth.jsonl"]
        for path, count in zip(inputs, (num_rows, num_rows // 10), strict=True):
            repeated = lines * (count // len(lines) + 1)
            path.write_text("".join(islice(repeated, count)), encoding="utf-8")
        for number in range(rounds):
            for command, found in rates.items():
                seconds = [label(command, bundle, path, folder / f"{path.stem}-{number}") for path in inputs]
                found.append((num_rows - num_rows // 10) / (seconds[0] - seconds[1]))
    print(f"{num_rows} rows, {num_cores()} cores, {describe_machine()}, median of {rounds}")
    for command, found in rates.items():
        print(f"  {command:<18}{median(found):>9.0f} rows a second")
    ratios = [ours / theirs for theirs, ours in zip(*rates.values(), strict=True)]
    print(f"  ratio {median(ratios):.2f}")


def label(command: str, bundle: Path, path: Path, output: Path) -> float:
    """Label a file; returns the seconds."""
    if command == "dynabert predict":
        words = ["-m", "dynabert_paddle", "predict", bundle, "-i", path, "-o", output.with_suffix(".tsv")]
    else:
        words = [SCRIPT, path, output, bundle, "--rows_per_part", ROWS_PER_PART]
    began = time.perf_counter()
    subprocess.run([sys.executable, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    run_command(main)
