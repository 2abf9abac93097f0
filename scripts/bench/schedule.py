#!/usr/bin/env python
"""The sandwich schedule against the schedule that trains all sub-networks in each step: training time and dev score.

For every task and seed the backbone is fine-tuned and rewired once. Two supernets are trained from this model. "all":
the stages width and depth with all sub-networks in each step. "sandwich": the largest, the smallest and random others
in each step (Yu and Huang, 2019), by default in the stage depth alone, whose teacher is then the fine-tuned model, and
with twice the learning rate because it takes fewer steps. The two trainings alternate, three minutes and one minute, so
that drift in the machine's speed affects both alike. Seconds are those of the training steps; the score is the mean
over the grid on the dev set. Finished parts are skipped and interrupted ones resumed. A task and seed that the result
file has for the same settings is not run again, so that several machines can share the work.

    python scripts/bench/schedule.py glue_data --result_file docs/schedule.json
    python scripts/bench/schedule.py glue_data --task mrpc --seed 1 --num_examples 500
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import numpy as np
import typer
from timing import describe_machine

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.files.atomic import read_json, write_text
from dynabert_paddle.files.folder import GRID_FILE
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.runtime.environment import import_paddle, package_versions

sys.path.append(str(Path(__file__).parents[1] / "lib"))
from parts import add_records, describe_commit, find_records, hash_settings, read_records

KEY = ("task", "seed", "settings")  # of a record; the settings by their hash
STAGES = ("width", "depth")
# How long each schedule trains before the other resumes; about the ratio of their total times, so that both end
# together.
TURN_RATIOS = {"all": 3, "sandwich": 1}


def main(
    data_dir: Annotated[str, typer.Argument(help="Folder that contains the folders of the tasks.")],
    task: Annotated[list[str], typer.Option("--task", help="Task of GLUE; may be repeated.")] = ["sst-2", "mrpc"],  # noqa: B006 - typer copies it
    seed: Annotated[list[int], typer.Option("--seed", help="Random seed; may be repeated.")] = [1, 2, 3],  # noqa: B006
    num_examples: Annotated[int, typer.Option("--num_examples", help="Rows of the training file to use.")] = 10_000,
    epochs: Annotated[
        tuple[float, float],
        typer.Option("--epochs", help="Epochs of the stages width and depth with all sub-networks in each step."),
    ] = (3, 3),
    sandwich_epochs: Annotated[
        tuple[float, float],
        typer.Option("--sandwich_epochs", help="The same with the sandwich schedule; 0 skips a stage."),
    ] = (0, 3.4),
    num_random_subnets: Annotated[
        int, typer.Option("--num_random_subnets", min=0, help="Random sub-networks in each sandwich step.")
    ] = 2,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="Learning rate of all other stages.")] = 1e-4,
    sandwich_learning_rate: Annotated[
        float, typer.Option("--sandwich_learning_rate", help="Learning rate of the sandwich schedule.")
    ] = 2e-4,
    max_seq_length: Annotated[
        int, typer.Option("--max_seq_length", help="Texts are cut to this number of tokens.")
    ] = 128,
    model: Annotated[str, typer.Option("--model", help="Backbone to train.")] = "minilm-l6",
    turn: Annotated[
        float,
        typer.Option("--turn", min=1, help="Seconds until the sandwich training pauses; 3 times that for the other."),
    ] = 60,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder for the models.")] = Path("out/schedule"),
    result_file: Annotated[
        Path | None, typer.Option("--result_file", help="Default: OUTPUT_DIR/schedule.json.")
    ] = None,
) -> None:
    """Train; print a row for each task and seed and the medians over seeds; add each to the result file."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: leave no stopped process behind
    import_paddle()
    sandwich = {"subnets_per_step": "sandwich", "num_random_subnets": num_random_subnets}
    schedules = {"all": schedule_flags(epochs), "sandwich": schedule_flags(sandwich_epochs, **sandwich)}
    schedules["sandwich"]["train.learning_rate"] = sandwich_learning_rate
    shared = {
        "task.max_seq_length": max_seq_length,
        "train.learning_rate": learning_rate,
        "train.eval_steps": 10**9,  # evaluate only at the end
    }

    def run_flags(folder: Path, source: str | Path, **flags: Any) -> dict[str, Any]:
        # One log line per step: intervals with a pause are then few, and training_seconds leaves them out.
        folders = {"model_name_or_path": str(source), "output_dir": str(folder), "train.logging_steps": 1}
        return {**shared, **folders, **flags}

    result_file = result_file or output_dir / "schedule.json"
    settings = {"epochs": epochs, "sandwich_epochs": sandwich_epochs, "num_examples": num_examples,
                "sandwich_learning_rate": sandwich_learning_rate, **sandwich, **shared, "model": model}  # fmt: skip
    label = hash_settings(settings)
    for name in task:
        files = write_short_task(name, data_dir, num_examples, output_dir / name)
        for number in seed:
            key = dict(zip(KEY, (name, number, label), strict=True))
            if find_records(read_records(result_file), key):
                continue
            commit = describe_commit()  # before: the checkout may change meanwhile
            folder, task_flags = output_dir / name / f"seed-{number}", {**files, "train.seed": number}
            start = folder / "start"
            train(run_flags(start, model, stages=("finetune", "rewire"), **task_flags))
            train_alternately(
                {
                    schedule: run_flags(folder / schedule, start / "rewire", **flags, **task_flags)
                    for schedule, flags in schedules.items()
                },
                {schedule: ratio * turn for schedule, ratio in TURN_RATIOS.items()},
            )
            figures = compare({schedule: measure(folder / schedule) for schedule in schedules})
            origin = {"configuration": settings, "versions": package_versions(), "commit": commit}
            add_records(result_file, [{**key, **figures, **origin}], KEY)
    rows = find_records(read_records(result_file), {"settings": label})
    show([row for row in rows if row["task"] in task and row["seed"] in seed])
    print(f"wrote {result_file}")


def schedule_flags(epochs: tuple[float, float], **settings: Any) -> dict[str, Any]:
    """Return the flags of `dynabert run` for the stages with epochs, their lengths and their settings."""
    stages = {stage: num_epochs for stage, num_epochs in zip(STAGES, epochs, strict=True) if num_epochs}
    flags = {f"{stage}.num_train_epochs": num_epochs for stage, num_epochs in stages.items()}
    flags |= {f"{stage}.{key}": value for stage in stages for key, value in settings.items()}
    return {"stages": tuple(stages), **flags}


def write_short_task(task: str, data_dir: str, num_examples: int, folder: Path) -> dict[str, str]:
    """Write the first rows of a task's training file; returns the flags for the task and its files."""
    import dynabert_paddle as db

    files = db.load_task(task, data_dir=data_dir).files
    source = Path(files["train_file"])
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    short = folder / f"train-{num_examples}{source.suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(short, "".join(lines[: num_examples + 1]))  # a header line, then one line per row
    return {"task.name": task, "task.train_file": str(short), "task.dev_file": files["dev_file"]}


def train(flags: dict[str, Any]) -> None:
    """Run `dynabert run` with these flags."""
    import_paddle()
    import dynabert_paddle as db

    db.run(db.load_config(flags=flags))


def train_in_process(flags: dict[str, Any]) -> None:
    """Train as the main function of a process: an error is one line on stderr and exit code 1."""
    try:
        train(flags)
    except DynabertError as error:
        sys.exit(f"error: {error}")


def train_alternately(flags: dict[str, dict[str, Any]], seconds: dict[str, float]) -> None:
    """Run several trainings, each in a process; all but one are stopped (SIGSTOP) at any time.

    Args:
        flags: the flags of each training, by the name of its schedule.
        seconds: how long each trains before the next one continues.

    Raises:
        DynabertError: one training failed; the others are terminated and can be resumed.
    """
    context = get_context("spawn")
    processes = {name: context.Process(target=train_in_process, args=(values,)) for name, values in flags.items()}
    try:
        for process in processes.values():
            process.start()
            os.kill(process.pid, signal.SIGSTOP)
        while any(process.is_alive() for process in processes.values()):
            for name, process in processes.items():
                if process.is_alive():
                    os.kill(process.pid, signal.SIGCONT)
                    process.join(seconds[name])
                if process.is_alive():
                    os.kill(process.pid, signal.SIGSTOP)
                elif process.exitcode:
                    raise DynabertError(f"{flags[name]['output_dir']}: the training failed: see the line above")
    finally:
        for process in processes.values():
            if process.is_alive():
                process.terminate()
                os.kill(process.pid, signal.SIGCONT)


def measure(run: Path) -> dict[str, Any]:
    """Return the steps, the seconds and the scores of one schedule."""
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
    """Return the seconds of a stage's steps: their number times the interquartile mean of the intervals in its log.

    With four or more intervals this leaves out rare events, such as interruptions, checkpoints and other processes on
    the machine. For a run with fewer than two log lines it is the time of the whole stage.
    """
    from scipy.stats import trim_mean
    from visualdl import LogReader

    metadata = read_metadata(stage)
    timestamps = {}  # step -> ms
    for path in (stage / "vdl").iterdir():  # one file, and one more for each resumption
        lines = LogReader(file_path=str(path)).get_data("scalar", "train/loss")
        timestamps |= {line.id: line.timestamp for line in lines}
    if len(timestamps) < 2:
        return metadata.provenance["spent"]["seconds"]
    steps, times = zip(*sorted(timestamps.items()), strict=True)
    return metadata.metrics["steps"] * float(trim_mean(np.diff(times) / np.diff(steps), 0.25)) / 1000


def compare(measured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of both schedules, the ratio of their times and the difference of their scores."""
    every, sandwich = measured["all"], measured["sandwich"]
    return {
        **measured,
        "time_ratio": sandwich["seconds"] / every["seconds"],
        "points": 100 * (sandwich["mean"] - every["mean"]),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows, then the medians of each task."""
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
    show_table(["", "metric", *pairs, "time ratio", "points"], lines, title=describe_machine())
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        ratio, points = (median(row[key] for row in own) for key in ("time_ratio", "points"))
        print(f"{task}: median time ratio {ratio:.3f}, median difference {points:+.2f} points, {len(own)} seeds")


if __name__ == "__main__":
    run_command(main)
