#!/usr/bin/env python
"""Let threads and processes call a bundle for minutes: is every answer right, does memory stay, does Python exit?

The calls have 1 to 16 texts of any length, empty ones among them, and for an AdaptivePredictor a deadline or none. Each
answer is compared with what the same sub-network says of that text by itself: in a batch, sums are rounded in another
order, which is some 1e-6 of a probability. Memory is the processes' share of what is resident (PSS). Then processes are
started whose threads still call when the main thread ends, in four ways. The exit code is 1 where a promise is broken.

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
from dynabert_paddle.cli.output import show_table
from dynabert_paddle.cli.script import run_command

_ROWS = 200
_LONGEST = 100  # words
_MOST_TEXTS = 16  # of a call
_DEADLINES_MS = (1.0, 10.0, 50.0, float("inf"))
_SAMPLE_SECONDS = 0.5  # between two looks at the memory
_PATIENCE = 10  # seconds for a process to end

# How the main thread ends while eight others call, and the code that Python ends with then.
_EXITS = {"return": 0, "sys.exit": 3, "SIGINT": -signal.SIGINT, "SIGTERM": -signal.SIGTERM}
_LEAVE = """
import json, signal, sys, threading
import dynabert_paddle as db

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it

bundle, name, way, columns = sys.argv[1:]
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
if way == "sys.exit":
    sys.exit(3)
if way != "return":
    threading.Event().wait()
"""

Rows = list[tuple[str, ...]]
Expected = dict[str, list[Any]]


class Trial(NamedTuple):
    """Who calls what, for how long."""

    bundle: str
    predictor: str
    processes: int
    threads: int
    seconds: float
    tolerance: float


class Outcome(NamedTuple):
    """What became of a trial: answers, wrong ones, MB when its first part was over and at its end, what ended badly."""

    answers: int
    wrong: int
    before: float
    after: float
    exits: list[str]

    @property
    def growth(self) -> float:
        """Of the memory, as a share."""
        return self.after / self.before - 1


def main(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE")],
    minutes: Annotated[float, typer.Option("--minutes", min=0.01, help="For each line of the table.")] = 5,
    threads: Annotated[int, typer.Option("--threads", min=1, help="That call one predictor.")] = 8,
    processes: Annotated[int, typer.Option("--processes", min=1, help="That have one each.")] = 4,
    adaptive: Annotated[
        bool | None, typer.Option("--adaptive/--plain", help="AdaptivePredictor or Predictor.", show_default="both")
    ] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", help="Of probabilities and scores.")] = 1e-5,
    most_growth: Annotated[float, typer.Option("--most_growth", help="Of memory, in %, after a minute.")] = 5,
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Run the trials, print what became of them, and exit with 1 where an answer, the memory or an exit was wrong."""
    rows = make_rows(read_bundle(Path(bundle))["pair"], seed=seed)
    expected = answer_alone(bundle, rows)
    kinds = {"Predictor": adaptive is not True, "AdaptivePredictor": adaptive is not False}
    names = [name for name, wanted in kinds.items() if wanted]
    lines, broken = [], False
    for name, callers in product(names, ("threads", "processes")):
        counts = (1, threads) if callers == "threads" else (processes, 1)
        trial = Trial(bundle, name, *counts, 60 * minutes, tolerance)
        found = soak(trial, rows, expected, seed=seed)
        exits = found.exits + (leave_while_called(trial, rows) if callers == "threads" else [])
        lines.append(
            [
                f"{name}, {max(counts)} {callers}",
                f"{found.answers:,}",
                str(found.wrong),
                f"{found.before:.0f}",
                f"{found.after:.0f}",
                f"{found.growth:+.1%}",
                ", ".join(exits) or "clean",
            ]
        )
        broken |= bool(exits) or found.wrong > 0 or not found.answers or 100 * found.growth > most_growth
    columns = ["predictor", "answers", "wrong", "MB after a minute", "MB at the end", "growth", "exit"]
    show_table(columns, lines, title="")
    sys.exit(int(broken))


def make_rows(pairs: bool, *, seed: int) -> Rows:
    """Texts, or pairs of texts, of any length; some are empty."""
    path = Path(db.__file__).parent / "data" / "snips" / "dev.tsv"
    words = path.read_text(encoding="utf-8").split()
    rng = np.random.default_rng(seed)
    lengths = rng.geometric(1 / 12, (_ROWS, 1 + pairs)).clip(max=_LONGEST) - 1
    return [tuple(" ".join(rng.choice(words, length)) for length in row) for row in lengths]


def answer_alone(bundle: str, rows: Rows) -> Expected:
    """What each sub-network says of each row by itself."""
    subnets = members_of(read_bundle(Path(bundle)))
    return {subnet: list(db.Predictor(bundle, subnet=subnet).stream(rows, batch_size=1)) for subnet in subnets}


def soak(trial: Trial, rows: Rows, expected: Expected, *, seed: int) -> Outcome:
    """Let processes call, and watch their memory."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(trial.processes)]
    processes = [
        context.Process(target=serve, args=(trial, rows, expected, [seed, number], own))
        for number, (_, own) in enumerate(pipes)
    ]
    for process, (_, own) in zip(processes, pipes, strict=True):
        process.start()
        own.close()  # so that a process that dies is noticed
    try:
        for pipe, _ in pipes:
            pipe.recv()
        for pipe, _ in pipes:  # all have loaded the bundle
            pipe.send("begin")
        memory = watch(processes, trial.seconds)
        answers, wrong = np.sum([pipe.recv() for pipe, _ in pipes], axis=0).tolist()
    except EOFError:
        raise db.DynabertError("a process has died: its own words are above") from None
    exits = []
    for process in processes:
        process.join(_PATIENCE)
        if process.exitcode != 0:
            exits.append("hangs" if process.exitcode is None else f"code {process.exitcode}")
            process.kill()
    return Outcome(answers, wrong, *memory, exits)


def serve(trial: Trial, rows: Rows, expected: Expected, seed: Sequence[int], pipe: Connection) -> None:
    """One process: its threads call until the time is over."""
    predictor = getattr(db, trial.predictor)(trial.bundle)
    pipe.send("ready")
    pipe.recv()
    until = time.monotonic() + trial.seconds

    def call(number: int) -> tuple[int, int]:
        rng, answers, wrong = np.random.default_rng([*seed, number]), 0, 0
        while time.monotonic() < until:
            chosen = rng.integers(len(rows), size=rng.integers(1, _MOST_TEXTS + 1))
            columns = map(list, zip(*(rows[i] for i in chosen), strict=True))
            if trial.predictor == "AdaptivePredictor":
                found = predictor(*columns, deadline_ms=rng.choice(_DEADLINES_MS))
                own = expected[found.subnet]
            else:
                found = predictor(*columns, batch_size=int(rng.choice([1, 5, 32])))
                own = next(iter(expected.values()))
            answers += len(found)
            wrong += sum(not is_same(one, own[i], trial.tolerance) for one, i in zip(found, chosen, strict=True))
        return answers, wrong

    with ThreadPoolExecutor(trial.threads) as pool:
        pipe.send(np.sum(list(pool.map(call, range(trial.threads))), axis=0).tolist())


def is_same(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether two predictions are equal but for a tolerance of their numbers."""
    if isinstance(expected, float):
        return abs(found - expected) <= tolerance
    if is_dataclass(expected):
        found, expected = vars(found), vars(expected)
    if isinstance(expected, dict):
        return all(is_same(found[key], value, tolerance) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_same, found, expected, [tolerance] * len(expected)))
    return found == expected


def watch(processes: Sequence[multiprocessing.Process], seconds: float) -> tuple[float, float]:
    """MB after a minute, or after a fifth of a shorter time, and at the end: each the most of a while before."""
    began, samples = time.monotonic(), []
    while (now := time.monotonic() - began) < seconds:
        samples.append((now, sum(resident_mb(process.pid) for process in processes)))
        time.sleep(_SAMPLE_SECONDS)
    mark, window = min(60.0, seconds / 5), min(10.0, seconds / 10)
    before = [[mb for now, mb in samples if now <= end] for end in (mark, seconds)]
    return tuple(max(values[-max(1, round(window / _SAMPLE_SECONDS)) :]) for values in before)


def resident_mb(pid: int) -> float:
    """A process's share of what is resident; 0 once it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(kb) for kb in re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)) * 1024 / 1e6


def leave_while_called(trial: Trial, rows: Rows) -> list[str]:
    """End processes while their threads call; returns which of them have ended badly."""
    columns = json.dumps([list(column) for column in zip(*rows[:5], strict=True)])
    bad = []
    for way, code in _EXITS.items():
        command = [sys.executable, "-c", _LEAVE, trial.bundle, trial.predictor, way, columns]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.readline()
            if way.startswith("SIG"):
                process.send_signal(signal.Signals[way])
            try:
                process.communicate(timeout=_PATIENCE)
                if process.returncode != code:
                    bad.append(f"{way}: code {process.returncode}")
            except subprocess.TimeoutExpired:
                process.kill()
                bad.append(f"{way}: hangs")
    return bad


if __name__ == "__main__":
    run_command(main)
