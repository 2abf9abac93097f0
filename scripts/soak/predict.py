#!/usr/bin/env python
"""Soak test of predictors: threads and processes call a bundle for minutes. Checks answers, memory and exit.

A call has 1 to 16 texts of any length, also empty ones, and for an AdaptivePredictor a deadline or none. Each answer is
compared with the answer of the same sub-network for that text alone, within a tolerance: in a batch, sums are rounded
in another order, which changes probabilities by about 1e-6. Memory is the processes' proportional set size (PSS). Then
processes whose threads still call the predictor end their main thread in four ways. The exit code is 1 if an answer is
wrong, memory grows too much or a process does not exit cleanly.

    python scripts/soak/predict.py bundle
    python scripts/soak/predict.py bundle --minutes 1 --adaptive
"""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import dynabert_paddle as db
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.members import members_of
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table

_NUM_ROWS = 200
_MAX_WORDS = 100  # in a text
_MAX_TEXTS = 16  # in a call
_DEADLINES_MS = (1.0, 10.0, 50.0, float("inf"))
_SAMPLE_SECONDS = 0.5  # between two measurements of memory
_EXIT_TIMEOUT = 10  # seconds

# How the main thread ends while eight other threads call the predictor, and the expected exit code.
_EXITS = {"return": 0, "sys.exit": 3, "SIGINT": -signal.SIGINT, "SIGTERM": -signal.SIGTERM}
_EXIT_SCRIPT = """
import json, signal, sys, threading
import dynabert_paddle as db

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells make background processes ignore it

bundle, name, how, columns = sys.argv[1:]
predictor, columns, answered = getattr(db, name)(bundle), json.loads(columns), threading.Semaphore(0)

def call():
    try:
        while True:
            predictor(*columns)
            answered.release()
    except db.DynabertError as error:
        print(error)

for _ in range(8):
    threading.Thread(target=call, daemon=True).start()
for _ in range(24):
    answered.acquire()
print("calling", flush=True)
if how == "sys.exit":
    sys.exit(3)
if how != "return":
    threading.Event().wait()
"""

Rows = list[tuple[str, ...]]
Expected = dict[str, list[Any]]


class Trial(NamedTuple):
    """The predictor under test, its callers, and for how long they call it."""

    bundle: str
    predictor: str
    processes: int
    threads: int
    seconds: float
    tolerance: float


class Outcome(NamedTuple):
    """The result of a trial: answers, wrong answers, MB after the warm-up and at the end, unclean exits."""

    answers: int
    wrong: int
    before: float
    after: float
    exit_errors: list[str]

    @property
    def growth(self) -> float:
        """Relative growth of the memory."""
        return self.after / self.before - 1


def main(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of an exported bundle.")],
    minutes: Annotated[float, typer.Option("--minutes", min=0.01, help="Minutes for each row of the table.")] = 5,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads that share one predictor.")] = 8,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes with one predictor each.")] = 4,
    adaptive: Annotated[
        bool | None,
        typer.Option("--adaptive/--plain", help="Test only AdaptivePredictor or only Predictor.", show_default="both"),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Allowed difference of probabilities and scores.")
    ] = 1e-5,
    max_growth: Annotated[
        float, typer.Option("--max_growth", help="Allowed growth of memory after the first minute, in %.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the texts and calls.")] = 0,
) -> None:
    """Run the trials and print their results; exit with 1 if an answer, the memory or an exit is wrong."""
    rows = make_rows(read_bundle(Path(bundle))["pair"], seed=seed)
    expected = answer_alone(bundle, rows)
    selected = {"Predictor": adaptive is not True, "AdaptivePredictor": adaptive is not False}
    names = [name for name, is_selected in selected.items() if is_selected]
    lines, failed = [], False
    for name, callers in product(names, ("threads", "processes")):
        counts = (1, threads) if callers == "threads" else (processes, 1)
        trial = Trial(bundle, name, *counts, 60 * minutes, tolerance)
        outcome = run_trial(trial, rows, expected, seed=seed)
        exit_errors = outcome.exit_errors + (exit_while_called(trial, rows) if callers == "threads" else [])
        lines.append(
            [
                f"{name}, {max(counts)} {callers}",
                f"{outcome.answers:,}",
                str(outcome.wrong),
                f"{outcome.before:.0f}",
                f"{outcome.after:.0f}",
                f"{outcome.growth:+.1%}",
                ", ".join(exit_errors) or "clean",
            ]
        )
        failed |= bool(exit_errors) or outcome.wrong > 0 or not outcome.answers or 100 * outcome.growth > max_growth
    columns = ["predictor", "answers", "wrong", "MB after a minute", "MB at the end", "growth", "exit"]
    show_table(columns, lines, title="")
    sys.exit(int(failed))


def make_rows(pairs: bool, *, seed: int) -> Rows:
    """Make random texts or pairs of texts of any length; some are empty."""
    path = Path(db.__file__).parent / "data" / "snips" / "dev.tsv"
    words = path.read_text(encoding="utf-8").split()
    rng = np.random.default_rng(seed)
    lengths = rng.geometric(1 / 12, (_NUM_ROWS, 1 + pairs)).clip(max=_MAX_WORDS) - 1
    return [tuple(" ".join(rng.choice(words, length)) for length in row) for row in lengths]


def answer_alone(bundle: str, rows: Rows) -> Expected:
    """Predict each row alone with each sub-network."""
    subnets = members_of(read_bundle(Path(bundle)))
    return {subnet: list(db.Predictor(bundle, subnet=subnet).stream(rows, batch_size=1)) for subnet in subnets}


def run_trial(trial: Trial, rows: Rows, expected: Expected, *, seed: int) -> Outcome:
    """Run the calling processes, and measure their memory."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(trial.processes)]
    processes = [
        context.Process(target=call_repeatedly, args=(trial, rows, expected, [seed, number], end))
        for number, (_, end) in enumerate(pipes)
    ]
    for process, (_, end) in zip(processes, pipes, strict=True):
        process.start()
        end.close()  # so that recv() below fails if the process dies
    try:
        for pipe, _ in pipes:
            pipe.recv()
        for pipe, _ in pipes:  # after all have loaded the bundle
            pipe.send("begin")
        memory = measure_memory(processes, trial.seconds)
        answers, wrong = np.sum([pipe.recv() for pipe, _ in pipes], axis=0).tolist()
    except EOFError:
        raise db.DynabertError("a process has died: see its messages above") from None
    exit_errors = []
    for process in processes:
        process.join(_EXIT_TIMEOUT)
        if process.exitcode != 0:
            exit_errors.append("hangs" if process.exitcode is None else f"code {process.exitcode}")
            process.kill()
    return Outcome(answers, wrong, *memory, exit_errors)


def call_repeatedly(trial: Trial, rows: Rows, expected: Expected, seed: Sequence[int], pipe: Connection) -> None:
    """Call the predictor in several threads until the time is over; runs in a process of its own."""
    predictor = getattr(db, trial.predictor)(trial.bundle)
    pipe.send("ready")
    pipe.recv()
    end = time.monotonic() + trial.seconds

    def call(number: int) -> tuple[int, int]:
        rng, answers, wrong = np.random.default_rng([*seed, number]), 0, 0
        while time.monotonic() < end:
            chosen = rng.integers(len(rows), size=rng.integers(1, _MAX_TEXTS + 1))
            columns = map(list, zip(*(rows[i] for i in chosen), strict=True))
            if trial.predictor == "AdaptivePredictor":
                found = predictor(*columns, deadline_ms=rng.choice(_DEADLINES_MS))
                reference = expected[found.subnet]
            else:
                found = predictor(*columns, batch_size=int(rng.choice([1, 5, 32])))
                reference = next(iter(expected.values()))
            answers += len(found)
            wrong += sum(not is_same(one, reference[i], trial.tolerance) for one, i in zip(found, chosen, strict=True))
        return answers, wrong

    with ThreadPoolExecutor(trial.threads) as pool:
        pipe.send(np.sum(list(pool.map(call, range(trial.threads))), axis=0).tolist())


def is_same(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether two predictions are equal, numbers within the tolerance."""
    if isinstance(expected, float):
        return abs(found - expected) <= tolerance
    if is_dataclass(expected):
        found, expected = vars(found), vars(expected)
    if isinstance(expected, dict):
        return all(is_same(found[key], value, tolerance) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_same, found, expected, [tolerance] * len(expected)))
    return found == expected


def measure_memory(processes: Sequence[multiprocessing.Process], seconds: float) -> tuple[float, float]:
    """Return peak MB near the end of the warm-up (a minute, or a fifth of a shorter time) and near the end."""
    start, samples = time.monotonic(), []
    while (now := time.monotonic() - start) < seconds:
        samples.append((now, sum(resident_mb(process.pid) for process in processes)))
        time.sleep(_SAMPLE_SECONDS)
    warm_up, window = min(60.0, seconds / 5), min(10.0, seconds / 10)
    windows = [[mb for now, mb in samples if now <= end] for end in (warm_up, seconds)]
    return tuple(max(values[-max(1, round(window / _SAMPLE_SECONDS)) :]) for values in windows)


def resident_mb(pid: int) -> float:
    """Return the proportional set size of a process; 0 after it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)) * 1024 / 1e6


def exit_while_called(trial: Trial, rows: Rows) -> list[str]:
    """End processes while their threads call the predictor; returns descriptions of unclean exits."""
    columns = json.dumps([list(column) for column in zip(*rows[:5], strict=True)])
    errors = []
    for how, code in _EXITS.items():
        command = [sys.executable, "-c", _EXIT_SCRIPT, trial.bundle, trial.predictor, how, columns]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.readline()
            if how.startswith("SIG"):
                process.send_signal(signal.Signals[how])
            try:
                process.communicate(timeout=_EXIT_TIMEOUT)
                if process.returncode != code:
                    errors.append(f"{how}: code {process.returncode}")
            except subprocess.TimeoutExpired:
                process.kill()
                errors.append(f"{how}: hangs")
    return errors


if __name__ == "__main__":
    run_command(main)
