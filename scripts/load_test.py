#!/usr/bin/env python
"""Load test of a bundle with several sub-networks: does it meet a deadline when too many requests arrive?

Single texts of a dev set arrive as a seeded Poisson process, independent of the answers, in three phases: at half the
capacity of the best sub-network, at LOAD times its capacity, and at half again. Latency counts from the arrival.

    python scripts/load_test.py bundle
    python scripts/load_test.py bundle --load 3 --seconds 20 --deadline_ms 25
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

import dynabert_paddle as db
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.data.readers import Columns, read_rows
from dynabert_paddle.data.task_files import default_text_column

MAX_REQUESTS = 100_000  # per phase
CLIENT_THREADS = 64
DEADLINE_FACTOR = 5  # default deadline, in latencies of the best sub-network
SNIPS_DEV = Path(db.__file__).parent / "data" / "snips" / "dev.tsv"


class Answer(NamedTuple):
    """The answer to a request: the phase and row of the request, its latency, and the prediction."""

    phase: int
    row: int
    latency_ms: float
    subnet: str
    label: str | None


def main(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    data: Annotated[
        Path,
        typer.Option("--data", help="Texts with labels: .tsv, .csv or .jsonl.", show_default="the built-in dev set"),
    ] = SNIPS_DEV,
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
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Measure the capacity, run the three phases, and print latencies, lost requests and accuracy."""
    rows = list(read_rows(data, Columns(default_text_column(data), None, "label")))
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    predictor = db.AdaptivePredictor(bundle, num_threads=num_threads)
    for subnet, latency_ms in predictor.latencies_ms.items():
        print(f"{subnet}: {latency_ms:.2f} ms for one short text")
    capacity, typical_ms = measure_capacity(predictor, texts, seconds=min(3, seconds / 4))
    deadline_ms = deadline_ms or DEADLINE_FACTOR * typical_ms
    print(f"capacity of the best: {capacity:.0f} requests/s, p50 {typical_ms:.2f} ms; deadline {deadline_ms:.1f} ms")
    loads = (0.5, load, 0.5)
    arrivals = [
        arrival_times(capacity * factor, share * seconds, seed=seed + i)
        for i, (factor, share) in enumerate(zip(loads, (0.25, 0.5, 0.25), strict=True))
    ]
    answers, lost = run(predictor, texts, arrivals, deadline_ms=deadline_ms, seed=seed)
    show(answers, loads, list(predictor.latencies_ms), deadline_ms)
    print(f"requests {len(answers) + lost}, lost {lost}")
    show_accuracy(bundle, answers, texts, labels, list(predictor.latencies_ms))


def measure_capacity(predictor, texts: list[str], *, seconds: float) -> tuple[float, float]:
    """Return requests per second of the best sub-network, one text at a time, and its median latency in ms."""
    latencies, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        latencies.append(predictor(texts[len(latencies) % len(texts)]).latency_ms)
    return len(latencies) / (time.perf_counter() - start), float(np.median(latencies))


def arrival_times(rate: float, seconds: float, *, seed: int) -> np.ndarray:
    """Return arrival times of a Poisson process, in seconds from the start of the phase."""
    count = min(max(1, int(rate * seconds)), MAX_REQUESTS)
    return np.random.default_rng(seed).exponential(1 / rate, count).cumsum()


def run(predictor, texts, arrivals: list[np.ndarray], *, deadline_ms: float, seed: int) -> tuple[list[Answer], int]:
    """Send the requests; returns the answers, and the number of requests without one."""
    rng, answers = np.random.default_rng(seed), []

    def request(phase: int, row: int, arrived: float) -> None:
        waited_ms = 1000 * (time.perf_counter() - arrived)  # for a free client thread
        prediction = predictor(texts[row], deadline_ms=max(deadline_ms - waited_ms, 0.1))
        latency_ms = 1000 * (time.perf_counter() - arrived)
        answers.append(Answer(phase, row, latency_ms, prediction.subnet, prediction[0].label))

    with ThreadPoolExecutor(CLIENT_THREADS) as pool:
        for phase, times in enumerate(arrivals):
            rows, start = rng.integers(len(texts), size=len(times)), time.perf_counter()
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


def show_accuracy(bundle: str, answers: list[Answer], texts, labels, subnets: list[str]) -> None:
    """Print the accuracy of the answers, and of each sub-network alone on the same rows."""
    alone = {subnet: [found.label for found in db.Predictor(bundle, subnet=subnet)(texts)] for subnet in subnets}
    differing = sum(answer.label != alone[answer.subnet][answer.row] for answer in answers)
    truth = np.array([labels[answer.row] for answer in answers])
    print(f"accuracy {np.mean([answer.label for answer in answers] == truth):.4f} of the answers", end="")
    for subnet, predicted in alone.items():
        print(f", {np.mean([predicted[answer.row] for answer in answers] == truth):.4f} of {subnet}", end="")
    print(f"\nanswers that differ from the prediction of the same sub-network alone: {differing}")


if __name__ == "__main__":
    run_command(main)
