#!/usr/bin/env python
"""Kill and resume a run of all stages, a search and an export many times, and compare the results with an unkilled run.

The commands first run without a kill, to record their log lines and when they appear. Kills (SIGKILL of the process
group) then come at random times, spread evenly over the parts of the work; in the stages, every other one waits until
the next checkpoint or model is being written. After each kill the same command is started again.

    python scripts/soak/resume.py
    python scripts/soak/resume.py --kills 100 --seed 3
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.config.settings import STAGES
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.metadata import METADATA_FILE, read_metadata

CONFIG = f"""
model_name_or_path: ../tiny
stages: [{", ".join(STAGES)}]
task: {{max_seq_length: 16}}
space: {{width_mult_list: [1.0, 0.5], depth_mult_list: [1.0, 0.5]}}
train:
  max_steps: 12
  save_steps: 2
  eval_steps: 3
  logging_steps: 1
  learning_rate: 1e-3
  per_device_train_batch_size: 16
depth: {{subnets_per_step: sandwich, num_random_subnets: 1, gradient_accumulation_steps: 2}}
"""
COMMANDS = {
    "run": "run ../soak.yaml --output_dir out --json",
    "search": "search out/final --num_evaluations 24 --population_size 6 --seq_length 16 --max_macs 22e6 --json",
    "export": "export out/final --subnet w0.50d0.50 --output_dir bundle --overwrite_output_dir",
}
# The prefix of the log line with which a part of the work begins -> the name of the part.
PARTS = {**{f"{stage}: ": stage for stage in STAGES}, "evaluating ": "grid", "search ": "search", "exporting": "export"}
START = "start-up"
TINY_MODEL = Path(__file__).parents[1] / "lib" / "tiny_model.py"
WRITING = {"checkpoint": "**/.checkpoint-*partial", "model": "**/.*partial"}
MAX_WRITING_DELAY = 0.03  # seconds from the start of writing to a kill that waits for it


class LogLine(NamedTuple):
    """A line that a command has logged, and when, in seconds after its start."""

    line: str
    seconds: float


class Kill(NamedTuple):
    """When to kill: `delay` seconds after a log line (None: the start), then, if `while_writing`, at the next write.

    `at` is this time in the unkilled run; it only orders the kills.
    """

    at: float
    line: str | None
    delay: float
    while_writing: bool


def main(
    kills: Annotated[int, typer.Option("--kills", min=1, help="Number of kills.")] = 30,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random times.")] = 0,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder for the runs.")] = Path("out/soak"),
    run_only: Annotated[bool, typer.Option("--run_only", help="Leave out the search and the export.")] = False,
) -> None:
    """Kill, resume, compare; the exit code is 1 if a result differs."""
    output_dir.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, TINY_MODEL, output_dir / "tiny"], check=True)
    (output_dir / "soak.yaml").write_text(CONFIG, encoding="utf-8")
    unkilled, killed = (output_dir / name for name in ("whole", "killed"))
    for folder in (unkilled, killed):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    commands = ["run"] if run_only else list(COMMANDS)
    logs = {command: Process(command, unkilled).finish() for command in commands}
    hits: Counter[tuple[str, str]] = Counter()
    for command, planned in plan(logs, kills, random.Random(seed)).items():
        for kill in planned:
            hits[Process(command, killed).kill(kill)] += 1
        Process(command, killed).finish()
    show_hits(hits)
    differing = compare(results(unkilled), results(killed))
    print(f"different: {', '.join(differing)}" if differing else "identical")
    raise typer.Exit(bool(differing))


class Process:
    """A process that runs a command in a folder; stdout and stderr go to files there."""

    def __init__(self, command: str, folder: Path) -> None:
        self._command, self._folder = command, folder
        self._error_file = folder / f"{command}.err"
        self._partial_before = self._find_partial()
        self._begin = time.monotonic()
        with (folder / f"{command}.out").open("w") as out, self._error_file.open("w") as error:
            words = [sys.executable, "-m", "dynabert_paddle", *COMMANDS[command].split()]
            self._process = subprocess.Popen(words, stdout=out, stderr=error, cwd=folder, start_new_session=True)

    def finish(self) -> list[LogLine]:
        """Wait until it ends; returns its log."""
        log: list[LogLine] = []
        while self._runs():
            now = time.monotonic() - self._begin
            log += [LogLine(line, now) for line in self._lines()[len(log) :]]
        self._check()
        return log

    def kill(self, kill: Kill) -> tuple[str, str]:
        """Kill it as planned; returns the part of the work that it was in, and the kind of file that it was writing."""
        while kill.line and kill.line not in self._lines() and self._runs():
            pass
        end = time.monotonic() + kill.delay
        while time.monotonic() < end and self._runs():
            pass
        if kill.while_writing:
            while not self._writing() and self._runs():
                pass
            time.sleep(kill.delay % MAX_WRITING_DELAY)
        if not self._runs():
            self._check()
            return "after the end", ""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return self._part(), self._writing()

    def _check(self) -> None:
        if self._process.returncode:
            sys.exit(f"{self._command} failed:\n{self._error_file.read_text(encoding='utf-8')}")

    def _runs(self) -> bool:
        time.sleep(0.001)
        return self._process.poll() is None

    def _lines(self) -> list[str]:
        """Return the complete log lines so far."""
        return self._error_file.read_text(encoding="utf-8").split("\n")[:-1]

    def _find_partial(self) -> dict[str, dict[Path, int]]:
        """Find partly written folders and files, also those that earlier kills left behind, with their change times."""
        found: dict[str, dict[Path, int]] = {}
        for what, pattern in WRITING.items():
            for path in self._folder.glob(pattern):
                if not any(path in paths for paths in found.values()):
                    try:
                        found.setdefault(what, {})[path] = path.stat().st_ctime_ns
                    except FileNotFoundError:  # renamed: it is complete now
                        continue
        return found

    def _writing(self) -> str:
        """Return the kind of file that this process is writing, or was writing when it was killed."""
        for what, paths in self._find_partial().items():
            if paths.items() - self._partial_before.get(what, {}).items():
                return what
        return ""

    def _part(self) -> str:
        if not self._lines():
            return START
        if self._command != "run":
            return self._command
        unfinished = (stage for stage in STAGES if not (self._folder / "out" / stage / METADATA_FILE).exists())
        return next(unfinished, "grid")


def plan(logs: dict[str, list[LogLine]], kills: int, rng: random.Random) -> dict[str, list[Kill]]:
    """Choose the kills of each command, in order of time: equally many for each part, the remainder at random."""
    spans = {}
    for command, log in logs.items():
        begins = {START: 0.0} if command == "run" else {}
        for line, seconds in log:
            part = next((part for begin, part in PARTS.items() if line.startswith(begin)), None)
            if part:
                begins.setdefault(part, seconds)
        ends = [*list(begins.values())[1:], log[-1].seconds]
        spans |= {(command, part): (begin, end) for (part, begin), end in zip(begins.items(), ends, strict=True)}
    parts = [*list(spans) * (kills // len(spans)), *rng.sample(list(spans), kills % len(spans))]
    planned: dict[str, list[Kill]] = {command: [] for command in logs}
    while_writing = cycle((True, False))
    for command, part in parts:
        at = rng.uniform(*spans[command, part])
        if part == START:  # at the start of any process, not only of the first one
            planned[command].append(Kill(rng.uniform(0, logs[command][-1].seconds), None, at, while_writing=False))
            continue
        last = [entry for entry in logs[command] if entry.seconds <= at][-1]
        planned[command].append(Kill(at, last.line, at - last.seconds, part in STAGES and next(while_writing)))
    return {command: sorted(chosen) for command, chosen in planned.items()}


def show_hits(hits: Counter[tuple[str, str]]) -> None:
    """Print how many kills hit each part of the work, and which of them interrupted a write."""
    columns = ["checkpoint", "model", ""]
    lines = [
        [part, *(str(hits[part, what]) for what in columns), str(sum(hits[part, what] for what in columns))]
        for part in dict.fromkeys([START, *STAGES, "grid", *COMMANDS, "after the end"])
        if any(hits[part, what] for what in columns)
    ]
    names = ["killed in", "writing a checkpoint", "writing a model", "else", "kills"]
    show_table(names, lines, title=f"{hits.total()} kills")


def results(folder: Path) -> dict[str, object]:
    """Collect the results of the commands by name, without provenance, which contains times."""
    names = [f"out/{stage}/{name}" for stage in STAGES for name in ("model.safetensors", "config.json", "train.jsonl")]
    names += ["out/grid.json", "out/final/search/search.json", "out/final/search/pareto.csv"]
    names += ["bundle/model.pdmodel", "bundle/model.pdiparams", *(f"{command}.out" for command in COMMANDS)]
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    for stage in STAGES:
        metadata = read_metadata(folder / "out" / stage)
        found |= {f"{stage}'s metrics": metadata.metrics, f"{stage}'s importance": metadata.importance}
    if (folder / "bundle").exists():
        found["the bundle's check"] = read_json(folder / "bundle" / "bundle.json")["verification"]
    left = (path for pattern in ("checkpoint-*", ".*partial", "*.tmp") for path in folder.rglob(pattern))
    return found | {"half-written files": sorted(re.sub(r"\d+", "N", path.name) for path in left)}


def compare(unkilled: dict[str, object], killed: dict[str, object]) -> list[str]:
    """Return the names of results that differ."""
    return [name for name in {**unkilled, **killed} if unkilled.get(name) != killed.get(name)]


if __name__ == "__main__":
    run_command(main)
