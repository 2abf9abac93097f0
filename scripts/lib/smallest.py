#!/usr/bin/env python
"""Used by phone.sh and bench/smallest.sh: the length of a model's inputs; data, parts and results of the benchmark."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Annotated

import typer
from guides import markdown, update
from parts import Record, add_records, find_records, read_records, split_rows

from dynabert_paddle.cli.table import show_table
from dynabert_paddle.files.atomic import read_json, write_text
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.runtime.machine import describe_processor

# A guide beside the result file, and the headings of the table in it.
GUIDES = {
    "compression.md": "task|seeds|`.nb` for ARM|ONNX int8 graph|full model|`.nb`|points lost|memory|loads in",
    "compression_cn.md": "任务|种子|ARM 的 `.nb`|ONNX int8 计算图|完整模型|`.nb`|损失的百分点|内存|加载",
}
BEGIN = "<!-- made by scripts/bench/smallest.sh -->"
MEANS = ("nb_bytes", "onnx_graph_bytes", "score_full", "score", "points_lost", "memory_mb", "load_ms")

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def length(model_dir: Path) -> None:
    """Print the longest input, in tokens, that a model was trained for."""
    print(read_metadata(model_dir).task["max_seq_length"])


@app.command()
def data(
    source: Path,
    folder: Path,
    rows: Annotated[int, typer.Option("--rows", help="Training rows to use, from the first on.")],
    held_out: Annotated[bool, typer.Option("--held_out", help="The last tenth of them is the dev set.")] = False,
) -> None:
    """Write the first training rows of a task, and its dev set, into a folder."""
    train, dev = split_rows(source / "train.tsv", rows, rows // 10 if held_out else 0)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "dev.tsv", dev if held_out else (source / "dev.tsv").read_text(encoding="utf-8"))
    write_text(folder / "train.tsv", train)  # last: the script looks for it


@app.command()
def state(result_file: Path, task: str, seed: int) -> None:
    """Print whether the result file has a part: `present` or `missing`."""
    print("present" if find_records(parts_of(result_file, task), {"seed": seed}) else "missing")


@app.command()
def record(result_file: Path, task: str, seed: int, folder: Path) -> None:
    """Add a finished part to the result file, and compute the task's means again."""
    lite, onnx = (read_json(folder / format / "bundle.json") for format in ("lite", "onnx"))
    (done,) = read_metadata(folder / "pieces").compression  # it scored the fine-tuned model on dev
    full = done["before"]["metrics"][lite["verification"]["metric"]]
    part = {
        "seed": seed,
        "nb_bytes": lite["files"]["model_arm.nb"]["bytes"],
        "onnx_graph_bytes": onnx["files"]["model.onnx"]["bytes"],
        "score_full": full,
        "score": lite["verification"]["exported"],
        "score_onnx": onnx["verification"]["exported"],
        "points_lost": 100 * (full - lite["verification"]["exported"]),
        "memory_mb": lite["footprint"]["memory_mb"],
        "load_ms": lite["footprint"]["load_ms"],
        "subnet": lite["subnet"],
        "num_params": lite["num_params"],
        "processor": describe_processor(),
    }
    parts = {part["seed"]: part for part in (*parts_of(result_file, task), part)}
    add_records(result_file, [summarize(task, [parts[seed] for seed in sorted(parts)])], ["task"])


@app.command()
def show(result_file: Path) -> None:
    """Print the table of the result file, and write it into the guides beside the file."""
    columns = ["task", "seeds", ".nb MB", "ONNX MB", "full", "small", "points lost", "memory MB", "load ms"]
    units = ["", "", " MB", " MB", "", "", "", " MB", " ms"]
    lines = [
        [
            record["task"],
            ", ".join(map(str, record["seeds"])),
            f"{record['nb_bytes'] / 1e6:.2f}",
            f"{record['onnx_graph_bytes'] / 1e6:.2f}",
            f"{record['score_full']:.4f}",
            f"{record['score']:.4f}",
            f"{record['points_lost']:.2f}",
            f"{record['memory_mb']:.1f}",
            f"{record['load_ms']:.0f}",
        ]
        for record in read_records(result_file)
    ]
    show_table(columns, lines, title="means over the seeds; accuracy on dev, of the small model on Lite's x86 runtime")
    for name, headings in GUIDES.items():
        guide = result_file.with_name(name)
        if guide.is_file():
            cells = [[f"{cell}{unit}" for cell, unit in zip(line, units, strict=True)] for line in lines]
            update(guide, BEGIN, markdown(headings.split("|"), cells))
            print(f"wrote {guide}")
    print(f"wrote {result_file}")


def parts_of(result_file: Path, task: str) -> list[Record]:
    """Read the parts of a task."""
    return [part for record in find_records(read_records(result_file), {"task": task}) for part in record["parts"]]


def summarize(task: str, parts: list[Record]) -> Record:
    """Make a task's record: the means of its parts, and the parts."""
    means = {name: mean(part[name] for part in parts) for name in MEANS}
    processors = dict.fromkeys(part["processor"] for part in parts)
    seeds = [part["seed"] for part in parts]
    return {"task": task, **means, "seeds": seeds, "processor": "; ".join(processors), "parts": parts}


if __name__ == "__main__":
    app()
