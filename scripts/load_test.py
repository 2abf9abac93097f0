#!/usr/bin/env python
"""Load test of a bundle with several sub-networks: does it meet a deadline when too many requests arrive?

Single texts of a file arrive as a seeded Poisson process, independent of the answers, in three phases: at half the
capacity of the best sub-network, at LOAD times its capacity, and at half again. Latency counts from the arrival.

    python scripts/load_test.py bundle --data dev.tsv
    python scripts/load_test.py bundle --load 3 --seconds 20 --deadline_ms 25     # of snips, whose dev set is built in
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import dynabert_paddle as db
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.tables import read_texts, task_columns
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.data.readers import Columns, read_column_names, read_rows
from dynabert_paddle.data.records import DATA_FILE_ENDINGS
from dynabert_paddle.data.task_files import default_text_column
from dynabert_paddle.errors import UsageError
from dynabert_paddle.text.decode import AnyPrediction

MAX_REQUESTS = 100_000  # per phase
CLIENT_THREADS = 64
DEADLINE_FACTOR = 5  # default deadline, in latencies of the best sub-network
SNIPS_DEV = Path(db.__file__).parent / "data" / "snips" / "dev.tsv"

Row = tuple[Any, ...]  # a text, or a list of words; two texts for a task of pairs


class Answer(NamedTuple):
    """The answer to a request: the phase and row of the request, its latency, and what the prediction decides."""

    phase: int
    row: int
    latency_ms: float
    subnet: str
    decision: Any


def main(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle with several sub-networks.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Texts of the bundle's task, in a file that its infer.py reads; with labels, accuracy is printed.",
            show_default="the built-in dev set, for a bundle of snips",
        ),
    ] = None,
    label_column: Annotated[
        str | None, typer.Option("--label_column", help="Column of the classes in --data.", show_default="label")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=600, help="Duration of all phases together.")] = 20,
    load: Annotated[
        float, typer.Option("--load", min=0.1, help="Request rate, relative to the capacity of the best sub-network.")
    ] = 3,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            "--deadline_ms",
            min=0.1,
            help="Deadline of each answer.",
            show_default="5 latencies of the best sub-network",
        ),
    ] = None,
    num_threads: Annotated[int | None, typer.Option("--num_threads", min=1, show_default="all cores but one")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the arrivals and texts.")] = 0,
) -> None:
    """Measure the capacity, run the three phases, and print latencies, lost requests and accuracy."""
    description = read_bundle(Path(bundle))
    rows, labels = read_data(find_data(data, description), description, label_column=label_column)
    predictor = db.AdaptivePredictor(bundle, num_threads=num_threads)
    for subnet, latency_ms in predictor.latencies_ms.items():
        print(f"{subnet}: {latency_ms:.2f} ms for one short text")
    capacity, typical_ms = measure_capacity(predictor, rows, seconds=min(3, seconds / 4))
    deadline_ms = deadline_ms or DEADLINE_FACTOR * typical_ms
    print(f"capacity of the best: {capacity:.0f} requests/s, p50 {typical_ms:.2f} ms; deadline {deadline_ms:.1f} ms")
    loads = (0.5, load, 0.5)
    arrivals = [
        arrival_times(capacity * factor, share * seconds, seed=seed + i)
        for i, (factor, share) in enumerate(zip(loads, (0.25, 0.5, 0.25), strict=True))
    ]
    answers, lost = run(predictor, rows, arrivals, deadline_ms=deadline_ms, seed=seed)
    show(answers, loads, list(predictor.latencies_ms), deadline_ms)
    print(f"requests {len(answers) + lost}, lost {lost}")
    show_agreement(bundle, answers, rows, labels, list(predictor.latencies_ms))


def find_data(data: Path | None, description: dict[str, Any]) -> Path:
    """Return the file of the texts: the user's, or the built-in dev set for a bundle of its task."""
    task = description["task"].get("name", "custom")
    if data is None and task != "snips":
        raise UsageError(
            f"the bundle is of task '{task}', whose data is not built in: name a file of its texts with --data"
        )
    return data or SNIPS_DEV


def read_data(
    path: Path, description: dict[str, Any], *, label_column: str | None = None
) -> tuple[list[Row], list[str | None] | None]:
    """Read a file's rows, and their labels if it has a column of them and the task has classes.

    Args:
        path: the file.
        description: the content of `bundle.json`.
        label_column: the labels' column, which the file then must have; by default `label`.

    Returns:
        For each row its text, or its two; and their classes, or None.

    Raises:
        UsageError: no row, no such column, or the labels are those of another task.
    """
    text, pair = task_columns(description)
    label = label_column or "label"
    names = read_column_names(path) if path.suffix.lower() in DATA_FILE_ENDINGS and path.is_file() else []
    if label_column and label_column not in names:
        raise UsageError(f"{path}: has no column '{label_column}'; its columns are {', '.join(names) or 'not named'}")
    if description["task"].get("kind", "classification") != "classification" or label not in names:
        rows = [tuple(row) for row in read_texts(str(path), description)]
        labels = None
    else:
        columns = Columns(text if text in names else default_text_column(path), pair, label)
        read = list(read_rows(path, columns))
        rows, labels = [row.texts for row in read], [row.label for row in read]
        if not set(labels) & set(description["labels"]):
            raise UsageError(
                f"{path}: its labels, such as '{labels[0]}', are none of the bundle's, such as "
                f"'{description['labels'][0]}': name a file of the bundle's task with --data"
            )
    if not rows:
        raise UsageError(f"{path}: no texts in it: name another file with --data")
    return rows, labels


def measure_capacity(predictor, rows: list[Row], *, seconds: float) -> tuple[float, float]:
    """Return requests per second of the best sub-network, one text at a time, and its median latency in ms."""
    latencies, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        row = rows[len(latencies) % len(rows)]
        latencies.append(predictor(*([part] for part in row)).latency_ms)
    return len(latencies) / (time.perf_counter() - start), float(np.median(latencies))


def arrival_times(rate: float, seconds: float, *, seed: int) -> np.ndarray:
    """Return arrival times of a Poisson process, in seconds from the start of the phase."""
    count = min(max(1, int(rate * seconds)), MAX_REQUESTS)
    return np.random.default_rng(seed).exponential(1 / rate, count).cumsum()


def run(
    predictor, data: list[Row], arrivals: list[np.ndarray], *, deadline_ms: float, seed: int
) -> tuple[list[Answer], int]:
    """Send the requests; returns the answers, and the number of requests without one."""
    rng, answers = np.random.default_rng(seed), []

    def request(phase: int, row: int, arrived: float) -> None:
        waited_ms = 1000 * (time.perf_counter() - arrived)  # for a free client thread
        prediction = predictor(*([part] for part in data[row]), deadline_ms=max(deadline_ms - waited_ms, 0.1))
        latency_ms = 1000 * (time.perf_counter() - arrived)
        answers.append(Answer(phase, row, latency_ms, prediction.subnet, decide(prediction[0])))

    with ThreadPoolExecutor(CLIENT_THREADS) as pool:
        for phase, times in enumerate(arrivals):
            rows, start = rng.integers(len(data), size=len(times)), time.perf_counter()
            for row, arrived in zip(rows.tolist(), (start + times).tolist(), strict=True):
                if (wait := arrived - time.perf_counter()) > 0:
                    time.sleep(wait)
                pool.submit(request, phase, row, arrived)  # the future is not kept: collecting many causes pauses
    return answers, sum(map(len, arrivals)) - len(answers)


def show(answers: list[Answer], loads: tuple[float, ...], subnets: list[str], deadline_ms: float) -> None:
    """Print one line for each phase."""
    lines = []
    for phase, load in enumerate(loads):
        in_phase = [answer for answer in answers if answer.phase == phase]
        latencies = np.array([answer.latency_ms for answer in in_phase])
        used = Counter(answer.subnet for answer in in_phase)
        quantiles = [f"{value:.1f}" for value in np.quantile(latencies, (0.5, 0.95, 0.99))]
        shares = [f"{used[subnet] / len(in_phase):.1%}" for subnet in subnets]
        lines.append([f"{load}x", str(len(in_phase)), f"{(latencies <= deadline_ms).mean():.2%}", *quantiles, *shares])
    show_table(["load", "requests", "on time", "p50 ms", "p95 ms", "p99 ms", *subnets], lines, title="")


def decide(prediction: AnyPrediction) -> Any:
    """Return what a prediction decides: a class, the labels of words, or an answer; None for a value."""
    if isinstance(prediction, db.WordLabels):
        return tuple(prediction.labels)
    return prediction.answer if isinstance(prediction, db.Answer) else prediction.label


def show_agreement(
    bundle: str, answers: list[Answer], rows: list[Row], labels: list[str | None] | None, subnets: list[str]
) -> None:
    """Print how many answers differ from each sub-network's alone, and with labels the accuracy of both."""
    columns = list(map(list, zip(*rows, strict=True)))
    alone = {name: list(map(decide, db.Predictor(bundle, subnet=name)(*columns))) for name in subnets}
    if labels is not None:
        truth = [labels[answer.row] for answer in answers]
        shown = [f"{share_of_equal([answer.decision for answer in answers], truth):.4f} of the answers"]
        for name, decisions in alone.items():
            shown.append(f"{share_of_equal([decisions[answer.row] for answer in answers], truth):.4f} of {name}")
        print("accuracy " + ", ".join(shown))
    if any(answer.decision is not None for answer in answers):
        differing = sum(answer.decision != alone[answer.subnet][answer.row] for answer in answers)
        print(f"answers that differ from the prediction of the same sub-network alone: {differing}")


def share_of_equal(decisions: list[Any], truth: list[str | None]) -> float:
    """Return the share of decisions that are equal to the labels."""
    return mean(found == label for found, label in zip(decisions, truth, strict=True))


if __name__ == "__main__":
    run_command(main)
