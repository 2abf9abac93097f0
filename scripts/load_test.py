#!/usr/bin/env python
"""Put a bundle of several sub-networks under load: do its answers keep a deadline when too many requests arrive?

Single texts of a dev set arrive at random moments (Poisson, seeded) and do not wait for each other, in three phases:
half of what the best sub-network can do, LOAD times that, and half again. Latency counts from a request's arrival.

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
from dynabert_paddle.cli.output import show_table
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.data.readers import Columns, read_rows
from dynabert_paddle.data.tasks import default_text_column

_MOST_REQUESTS = 100_000
_THREADS = 64
_AUTO_DEADLINE = 5  # times the best sub-network's latency


class Answered(NamedTuple):
    """A request: its phase and row, how long it took, and what came back."""

    phase: int
    row: int
    latency_ms: float
    subnet: str
    label: str | None


def main(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    data: Annotated[Path, typer.Option("--data", help="Texts with labels: .tsv, .csv or .jsonl.")] = Path(
        db.__file__
    ).parent
    / "data"
    / "snips"
    / "dev.tsv",
    seconds: Annotated[float, typer.Option("--seconds", min=1, max=600, help="How long all phases take.")] = 20,
    load: Annotated[float, typer.Option("--load", min=0.1, help="Requests, in the best sub-network's capacity.")] = 3,
    deadline_ms: Annotated[
        float | None,
        typer.Option("--deadline_ms", min=0.1, help="For each answer.", show_default="5 latencies of the best one"),
    ] = None,
    num_threads: Annotated[int | None, typer.Option("--num_threads", min=1, show_default="all cores but one")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Measure the capacity, run the three phases, and print what became of the requests."""
    rows = list(read_rows(data, Columns(default_text_column(data), None, "label")))
    texts, labels = [row.text for row in rows], [row.label for row in rows]
    predictor = db.AdaptivePredictor(bundle, num_threads=num_threads)
    for subnet, latency_ms in predictor.latencies_ms.items():
        print(f"{subnet}: {latency_ms:.2f} ms for one short text")
    capacity, typical_ms = measure_capacity(predictor, texts, seconds=min(3, seconds / 4))
    deadline_ms = deadline_ms or _AUTO_DEADLINE * typical_ms
    print(f"capacity of the best: {capacity:.0f} requests/s, p50 {typical_ms:.2f} ms; deadline {deadline_ms:.1f} ms")
    loads = (0.5, load, 0.5)
    arrivals = [
        poisson(capacity * times, share * seconds, seed=seed + i)
        for i, (times, share) in enumerate(zip(loads, (0.25, 0.5, 0.25), strict=True))
    ]
    answered, lost = run(predictor, texts, arrivals, deadline_ms=deadline_ms, seed=seed)
    show(answered, loads, list(predictor.latencies_ms), deadline_ms)
    print(f"requests {len(answered) + lost}, lost {lost}")
    show_accuracy(bundle, answered, texts, labels, list(predictor.latencies_ms))


def measure_capacity(predictor, texts: list[str], *, seconds: float) -> tuple[float, float]:
    """Requests a second of the best sub-network, one text after the other, and the median latency in ms."""
    latencies, began = [], time.perf_counter()
    while time.perf_counter() - began < seconds:
        latencies.append(predictor(texts[len(latencies) % len(texts)]).latency_ms)
    return len(latencies) / (time.perf_counter() - began), float(np.median(latencies))


def poisson(rate: float, seconds: float, *, seed: int) -> np.ndarray:
    """Moments, in seconds from the beginning of a phase."""
    count = min(max(1, int(rate * seconds)), _MOST_REQUESTS)
    return np.random.default_rng(seed).exponential(1 / rate, count).cumsum()


def run(predictor, texts, arrivals: list[np.ndarray], *, deadline_ms: float, seed: int) -> tuple[list[Answered], int]:
    """Send the requests; returns those that were answered, and how many were not."""
    rng, answered = np.random.default_rng(seed), []

    def request(phase: int, row: int, arrived: float) -> None:
        waited_ms = 1000 * (time.perf_counter() - arrived)  # for one of this script's threads
        found = predictor(texts[row], deadline_ms=max(deadline_ms - waited_ms, 0.1))
        latency_ms = 1000 * (time.perf_counter() - arrived)
        answered.append(Answered(phase, row, latency_ms, found.subnet, found[0].label))

    with ThreadPoolExecutor(_THREADS) as pool:
        for phase, moments in enumerate(arrivals):
            rows, began = rng.integers(len(texts), size=len(moments)), time.perf_counter()
            for row, moment in zip(rows.tolist(), (began + moments).tolist(), strict=True):
                if (wait := moment - time.perf_counter()) > 0:
                    time.sleep(wait)
                pool.submit(request, phase, row, moment)  # what it returns is not kept: collecting it makes pauses
    return answered, sum(map(len, arrivals)) - len(answered)


def show(answered: list[Answered], loads: tuple[float, ...], subnets: list[str], deadline_ms: float) -> None:
    """Print one line a phase."""
    lines = []
    for phase, times in enumerate(loads):
        own = [one for one in answered if one.phase == phase]
        latencies = np.array([one.latency_ms for one in own])
        used = Counter(one.subnet for one in own)
        quantiles = [f"{value:.1f}" for value in np.quantile(latencies, (0.5, 0.95, 0.99))]
        shares = [f"{used[subnet] / len(own):.1%}" for subnet in subnets]
        lines.append([f"{times}x", str(len(own)), f"{(latencies <= deadline_ms).mean():.2%}", *quantiles, *shares])
    show_table(["load", "requests", "on time", "p50 ms", "p95 ms", "p99 ms", *subnets], lines, title="")


def show_accuracy(bundle: str, answered: list[Answered], texts, labels, subnets: list[str]) -> None:
    """Print the accuracy of the answers, and that of each sub-network by itself on the same rows."""
    alone = {subnet: [one.label for one in db.Predictor(bundle, subnet=subnet)(texts)] for subnet in subnets}
    other = sum(one.label != alone[one.subnet][one.row] for one in answered)
    print(f"accuracy {np.mean([one.label == labels[one.row] for one in answered]):.4f} of the answers", end="")
    for subnet, found in alone.items():
        print(f", {np.mean([found[one.row] == labels[one.row] for one in answered]):.4f} of {subnet}", end="")
    print(f"\nanswers that differ from the named sub-network's own: {other}")


if __name__ == "__main__":
    run_command(main)
