#!/usr/bin/env python
"""Fewer steps for the same supernet: the sandwich schedule against the one that trains every sub-network in each step.

For every task and seed the backbone is fine-tuned and rewired once. From there it becomes a supernet twice: in the
stages width and depth with all sub-networks in each step; and with a sandwich of the largest, the smallest and random
others (Yu and Huang, 2019), by default in the stage depth alone, whose teacher is then the fine-tuned model, and with
twice the learning rate for its fewer steps. Both train by turns, three minutes and one, so that a machine whose speed
drifts favours neither. The seconds are those of the steps; the metric is the mean over the grid on the dev set.
Finished parts are skipped, an interrupted one is resumed; and what the result file has of the same settings is not run
again, so that several machines can share the work.

    python scripts/bench/schedule.py glue_data --result_file docs/schedule.json
    python scripts/bench/schedule.py glue_data --task mrpc --seed 1 --num_examples 500
"""

from __future__ import annotations

import json
import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import numpy as np
import typer

from dynabert_paddle.cli.output import show_table
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.atomic import read_json, write_json, write_text
from dynabert_paddle.files.folder import GRID_FILE
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.runtime.environment import describe_environment, import_paddle, package_versions

STAGES = ("width", "depth")
TURNS = {"all": 3, "sandwich": 1}  # about what the whole takes, so that both end together


def main(
    data_dir: Annotated[str, typer.Argument(help="The folder that has the tasks' folders.")],
    task: Annotated[list[str], typer.Option("--task")] = ["sst-2", "mrpc"],  # noqa: B006 - typer copies it
    seed: Annotated[list[int], typer.Option("--seed")] = [1, 2, 3],  # noqa: B006
    num_examples: Annotated[int, typer.Option("--num_examples", help="First rows of the training file.")] = 10_000,
    epochs: Annotated[tuple[float, float], typer.Option("--epochs", help="Of the stages width and depth.")] = (3, 3),
    sandwich_epochs: Annotated[
        tuple[float, float], typer.Option("--sandwich_epochs", help="Likewise; 0 leaves a stage out.")
    ] = (0, 3.4),
    num_random_subnets: Annotated[int, typer.Option("--num_random_subnets", min=0)] = 2,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="Of every stage but the sandwich's.")] = 1e-4,
    sandwich_learning_rate: Annotated[
        float, typer.Option("--sandwich_learning_rate", help="Of the sandwich's stages.")
    ] = 2e-4,
    max_seq_length: Annotated[int, typer.Option("--max_seq_length")] = 128,
    model: Annotated[str, typer.Option("--model")] = "minilm-l6",
    turn: Annotated[
        float, typer.Option("--turn", min=1, help="Seconds of a turn of the sandwich; the other has three times that.")
    ] = 60,
    output_dir: Annotated[Path, typer.Option("--output_dir")] = Path("out/schedule"),
    result_file: Annotated[Path | None, typer.Option("--result_file", help="By default schedule.json there.")] = None,
) -> None:
    """Train; print a row for every task and seed, and the medians over seeds; write them to the result file."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no process is left behind, stopped
    import_paddle()
    sandwich = {"subnets_per_step": "sandwich", "num_random_subnets": num_random_subnets}
    schedules = {"all": schedule_flags(epochs), "sandwich": schedule_flags(sandwich_epochs, **sandwich)}
    schedules["sandwich"]["train.learning_rate"] = sandwich_learning_rate
    shared = {
        "task.max_seq_length": max_seq_length,
        "train.learning_rate": learning_rate,
        "train.eval_steps": 10**9,  # at the end alone
    }

    def run_flags(folder: Path, source: str | Path, **flags: Any) -> dict[str, Any]:
        # A line a step: what a turn's end falls into is then a small part of them, which training_seconds leaves out.
        own = {"model_name_or_path": str(source), "output_dir": str(folder), "train.logging_steps": 1}
        return {**shared, **own, **flags}

    result_file = result_file or output_dir / "schedule.json"
    settings = {"epochs": epochs, "sandwich_epochs": sandwich_epochs, "num_examples": num_examples,
                "sandwich_learning_rate": sandwich_learning_rate, **sandwich, **shared, "model": model}  # fmt: skip
    rows = read_rows(result_file, settings)
    for name in task:
        files = shorten(name, data_dir, num_examples, output_dir / name)
        for number in seed:
            if any((row["task"], row["seed"]) == (name, number) for row in rows):
                continue
            folder, own = output_dir / name / f"seed-{number}", {**files, "train.seed": number}
            start = folder / "start"
            train(run_flags(start, model, stages=("finetune", "rewire"), **own))
            train_by_turns(
                {part: run_flags(folder / part, start / "rewire", **flags, **own) for part, flags in schedules.items()},
                {part: share * turn for part, share in TURNS.items()},
            )
            rows.append(compare(name, number, {part: measure(folder / part) for part in schedules}))
            write_json(result_file, {"versions": package_versions(), "settings": settings, "rows": rows})
    show([row for row in rows if row["task"] in task and row["seed"] in seed])
    print(f"wrote {result_file}")


def read_rows(result_file: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that the result file has of the same settings."""
    if not result_file.is_file():
        return []
    result = read_json(result_file)
    if result["settings"] != json.loads(json.dumps(settings)):
        raise UsageError(f"{result_file}: has results of other settings: name another file with --result_file")
    return result["rows"]


def schedule_flags(epochs: tuple[float, float], **settings: Any) -> dict[str, Any]:
    """The flags that say which of the stages run, for how long, and with which sub-networks in a step."""
    lengths = {stage: count for stage, count in zip(STAGES, epochs, strict=True) if count}
    flags = {f"{stage}.num_train_epochs": count for stage, count in lengths.items()}
    flags |= {f"{stage}.{key}": value for stage in lengths for key, value in settings.items()}
    return {"stages": tuple(lengths), **flags}


def shorten(task: str, data_dir: str, num_examples: int, folder: Path) -> dict[str, str]:
    """Write the first rows of a task's training file; returns the flags that name its files."""
    import dynabert_paddle as db

    files = db.load_task(task, data_dir=data_dir).files
    source = Path(files["train_file"])
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    short = folder / f"train-{num_examples}{source.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(short, "".join(lines[: num_examples + 1]))  # the heading, then one line a row
    return {"task.name": task, "task.train_file": str(short), "task.dev_file": files["dev_file"]}


def train(flags: dict[str, Any]) -> None:
    """Run what the flags of `dynabert run` say."""
    import_paddle()
    import dynabert_paddle as db

    db.run(db.load_config(flags=flags))


def train_alone(flags: dict[str, Any]) -> None:
    """Likewise, as all that a process does: what goes wrong is one line, and an exit code."""
    try:
        train(flags)
    except DynabertError as error:
        sys.exit(f"error: {error}")


def train_by_turns(flags: dict[str, dict[str, Any]], seconds: dict[str, float]) -> None:
    """Run several trainings, each in a process that is stopped while it is another one's turn.

    Args:
        flags: of each training.
        seconds: how long its turns are.

    Raises:
        DynabertError: one failed; the others are ended, and can be resumed.
    """
    context = get_context("spawn")
    processes = {part: context.Process(target=train_alone, args=(own,)) for part, own in flags.items()}
    try:
        for process in processes.values():
            process.start()
            os.kill(process.pid, signal.SIGSTOP)
        while any(process.is_alive() for process in processes.values()):
            for part, process in processes.items():
                if process.is_alive():
                    os.kill(process.pid, signal.SIGCONT)
                    process.join(seconds[part])
                if process.is_alive():
                    os.kill(process.pid, signal.SIGSTOP)
                elif process.exitcode:
                    raise DynabertError(f"{flags[part]['output_dir']}: its training failed: the line above says why")
    finally:
        for process in processes.values():
            if process.is_alive():
                process.terminate()
                os.kill(process.pid, signal.SIGCONT)


def measure(run: Path) -> dict[str, Any]:
    """What one schedule took and reached."""
    stages = [run / stage for stage in STAGES if (run / stage).exists()]
    rows = read_json(run / GRID_FILE)["rows"]
    metric = next(key for key in rows[0] if key != "subnet")
    return {
        "steps": sum(read_metadata(stage).metrics["steps"] for stage in stages),
        "seconds": sum(map(training_seconds, stages)),
        "metric": metric,
        "mean": mean(row[metric] for row in rows),
        "grid": {row["subnet"]: row[metric] for row in rows},
    }


def training_seconds(stage: Path) -> float:
    """What a stage's steps take: their number times the interquartile mean of the seconds between lines of its log.

    Of four or more intervals, what comes now and then, as an interruption, a checkpoint or another process on the
    machine, does not count. A run too short for two lines is taken as a whole.
    """
    from scipy.stats import trim_mean
    from visualdl import LogReader

    metadata = read_metadata(stage)
    ends = {}  # ms by step
    for path in (stage / "vdl").iterdir():  # one file, and another one for each time that the stage was resumed
        lines = LogReader(file_path=str(path)).get_data("scalar", "train/loss")
        ends |= {line.id: line.timestamp for line in lines}
    if len(ends) < 2:
        return metadata.provenance["spent"]["seconds"]
    steps, times = zip(*sorted(ends.items()), strict=True)
    return metadata.metrics["steps"] * float(trim_mean(np.diff(times) / np.diff(steps), 0.25)) / 1000


def compare(task: str, seed: int, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One row of the result: both schedules, and what the sandwich takes and loses beside the other."""
    every, sandwich = found["all"], found["sandwich"]
    return {
        "task": task,
        "seed": seed,
        **found,
        "time_ratio": sandwich["seconds"] / every["seconds"],
        "points": 100 * (sandwich["mean"] - every["mean"]),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows, and below them each task's medians."""
    lines = [
        [
            f"{row['task']}, seed {row['seed']}",
            row["all"]["metric"],
            *(f"{row[part]['steps']}" for part in ("all", "sandwich")),
            *(f"{row[part]['seconds']:.0f}" for part in ("all", "sandwich")),
            *(f"{row[part]['mean']:.4f}" for part in ("all", "sandwich")),
            f"{row['time_ratio']:.3f}",
            f"{row['points']:+.2f}",
        ]
        for row in rows
    ]
    pairs = [f"{what} {part}" for what in ("steps", "s", "mean") for part in ("all", "sandwich")]
    versions, threads = package_versions(), os.environ["OMP_NUM_THREADS"]
    machine = f"{describe_environment()['processor']}, {threads} threads, paddle {versions.get('paddlepaddle')}"
    show_table(["", "metric", *pairs, "time ratio", "points"], lines, title=machine)
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        ratio, points = (median(row[key] for row in own) for key in ("time_ratio", "points"))
        print(f"{task}: median time ratio {ratio:.3f}, median difference {points:+.2f} points, {len(own)} seeds")


if __name__ == "__main__":
    run_command(main)
