#!/usr/bin/env python
"""The recipe against the paper's and against models of a fixed size: the program behind results.sh.

Each part is one training or one search. A part leaves a record and its logits beside the result file, in results/, and
is not run again. Labels of development rows are read by `score` alone.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from parts import ROOT, find_records, read_records
from results_plan import SEEDS, Part, Rows, plan_parts
from results_rows import Split, write_split
from results_run import Bench, merge, run_part
from results_score import score_parts
from results_shapes import TASKS, Backbone
from results_tables import write_tables
from results_trial import try_settings

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.atomic import write_text
from dynabert_paddle.runtime.environment import set_cpu_environment

ACTIONS = ("plan", "run", "trial", "merge", "score", "tables")
NUM_USED = {"sst-2": 10_000}  # first rows of the training file; of the other tasks all


@dataclass(frozen=True)
class Scope:
    """What is run: tasks with their rows, backbones and seeds."""

    splits: dict[str, Split]
    backbones: tuple[Backbone, ...]
    seeds: tuple[int, ...]

    def plan(self, parts_file: Path) -> list[tuple[Part, Split]]:
        """All parts that can be planned now, the first seed's first."""
        records = read_records(parts_file)
        return [
            (part, split)
            for seed in self.seeds
            for backbone in self.backbones
            for task, split in self.splits.items()
            if task in backbone.tasks
            for part in plan_parts(task, backbone, seed, Rows(split.num_train, split.digest), records)
        ]


def main(
    actions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ACTION]...", help="plan, run, trial, merge, score or tables; default: run."),
    ] = None,
    glue_dir: Annotated[Path, typer.Option("--glue_dir", help="Folder that contains the tasks'.")] = Path("glue_data"),
    bge_dir: Annotated[
        Path | None, typer.Option("--bge_dir", help="bge-small-en-v1.5, the 12-layer backbone; none without it.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; repeat for more.")] = None,
    backbone: Annotated[list[str] | None, typer.Option("--backbone", help="minilm-l6 or bge-small; repeat.")] = None,
    seed: Annotated[list[int], typer.Option("--seed", help="Only this seed; repeat for more.")] = [1, 2, 3],  # noqa: B006 - typer copies it
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Only parts whose labels begin so, such as teacher or distilbert; repeat."),
    ] = None,
    other: Annotated[
        list[Path] | None, typer.Option("--other", help="merge: another machine's results/parts.json; repeat.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="trial: another setting, such as depth.temperature=2; repeat."),
    ] = None,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder for the models.")] = Path("out/results"),
    result_file: Annotated[
        Path, typer.Option("--result_file", help="The parts are beside it in results/, the tables in results.md.")
    ] = ROOT / "docs/results.json",
    smoke: Annotated[bool, typer.Option("--smoke", help="A tiny model on a few rows, into OUTPUT_DIR.")] = False,
) -> None:
    """Run, merge or score parts; write the tables."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the training saves what it has
    set_cpu_environment()
    for action in actions or ():
        if action not in ACTIONS:
            raise UsageError(f"'{action}' is none of {', '.join(ACTIONS)}")
    actions = actions or ["run"]
    if smoke:
        glue_dir, result_file = ROOT / "tests/samples/glue", output_dir / "results.json"
    bench = Bench(glue_dir, output_dir, result_file.parent / "results" / "parts.json")
    if "merge" in actions:
        for path in other or ():
            if not path.is_file():
                raise UsageError(f"--other {path}: no such file: name another machine's results/parts.json")
            print(f"{path}: {merge(bench, path)} new parts")
    if {"plan", "run", "trial", "score"} & {*actions}:
        scope = find_scope(bench, task, backbone, tuple(seed), bge_dir, smoke=smoke)
        if "plan" in actions:
            show_plan(bench, scope, part)
        if "run" in actions:
            run(bench, scope, part)
        if "trial" in actions:
            try_settings(bench, scope.plan(bench.parts_file), set or [])
        if "score" in actions:
            write_scores(bench, find_scope(bench, None, None, SEEDS, bge_dir, smoke=smoke), result_file)
    if {"score", "tables"} & {*actions}:
        print(f"wrote {write_tables(result_file)}")


def find_scope(
    bench: Bench,
    tasks: list[str] | None,
    backbones: list[str] | None,
    seeds: tuple[int, ...],
    bge_dir: Path | None,
    *,
    smoke: bool,
) -> Scope:
    """Find the backbones, and divide the training rows of the tasks."""
    if smoke:
        known = {"tiny": Backbone("tiny", str(make_tiny(bench.output_dir)), 4, 64, 4, 128)}
    else:
        known = {"minilm-l6": Backbone("minilm-l6", "minilm-l6", 6)}
        # Its folder is no part of any name; without it, it can be scored, but not trained.
        known["bge-small"] = Backbone("bge-small", str(bge_dir), 12)
    for name, values, allowed in (("task", tasks, TASKS), ("backbone", backbones, (*known,))):
        for value in values or ():
            if value not in allowed:
                raise UsageError(f"--{name} {value} is none of {', '.join(allowed)}")
    num_used = {} if smoke else NUM_USED
    splits = {
        name: write_split(name, bench.glue_dir, bench.output_dir / name / "rows", num_used.get(name))
        for name in tasks or TASKS
    }
    return Scope(splits, tuple(known[name] for name in backbones or known), seeds)


def make_tiny(output_dir: Path) -> Path:
    """Write a model with random weights."""
    from tiny_model import main as write_model

    write_model(output_dir / "tiny")
    return output_dir / "tiny"


def run(bench: Bench, scope: Scope, labels: list[str] | None) -> None:
    """Run what is missing; the first seed's results decide what further seeds have, and so are planned anew."""
    for number in scope.seeds:
        one = Scope(scope.splits, scope.backbones, (number,))
        for part, split in select(one.plan(bench.parts_file), labels):
            if part.backbone.source == "None":
                print(f"{part.backbone.name}: name its folder with --bge_dir")
                continue
            run_part(bench, part, split)


def select(parts: list[tuple[Part, Split]], labels: list[str] | None) -> list[tuple[Part, Split]]:
    """The parts whose labels begin in one of some ways."""
    return [(part, split) for part, split in parts if part.label.startswith(tuple(labels or [""]))]


def show_plan(bench: Bench, scope: Scope, labels: list[str] | None) -> None:
    """Print a line for each part: done or missing."""
    records = read_records(bench.parts_file)
    for part, _ in select(scope.plan(bench.parts_file), labels):
        found = find_records(records, part.key)
        print("done   " if found else "missing", *part.key.values(), f"{found[0]['seconds']:g} s" if found else "")


def write_scores(bench: Bench, scope: Scope, result_file: Path) -> None:
    """Score all finished parts that the plan has."""
    parts = [part for part, _ in scope.plan(bench.parts_file)]
    records = read_records(bench.parts_file)
    scores, differences = score_parts(bench, parts, records)
    if left_out := len(records) - sum(bool(find_records(records, part.key)) for part in parts):
        print(f"{bench.parts_file}: {left_out} parts of other settings, rows or seeds are left out")
    for path, records in ((result_file, scores), (bench.parts_file.with_name("differences.json"), differences)):
        lines = ",\n".join(map(json.dumps, records))
        write_text(path, f"[\n{lines}\n]\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main)
