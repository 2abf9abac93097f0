#!/usr/bin/env python
"""Damage what users load, in thousands of ways, and let the command line load it.

Every case ends in success with the content that the files say, or in one line on stderr that begins with `error: ` and
exit code 1 or 2, within 30 s and 3 GB, without a traceback and without a part of an output folder. What a case does
follows from its seed and number.

    python scripts/soak/fuzz.py --count 2000
    python scripts/soak/fuzz.py --only 137 --work_dir out/fuzz    # the originals of that run, one case, which is kept
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer
from fuzz_kinds import KINDS, Case, Done, find_files
from fuzz_mutations import mutate

from dynabert_paddle.cli.script import run_command

_SECONDS = 30
_BYTES = 3 * 2**30
_CASES_A_PROCESS = 400  # Paddle keeps some memory of each
_EXPECTED: dict[tuple, Any] = {}
_EXPECTED_LOCK = threading.Lock()


class Verdict(NamedTuple):
    """What became of a case: `verified`, `as stored`, `refused` or `FAILURE`, and why."""

    name: str
    reason: str


def main(
    *,
    count: Annotated[int, typer.Option("--count", min=1, help="Cases.")] = 2000,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    only: Annotated[list[int] | None, typer.Option("--only", help="Run this case alone, and keep its folder.")] = None,
    kinds: Annotated[str, typer.Option("--kinds", metavar="'A B'", help=f"Some of {', '.join(KINDS)}.")] = "",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Cases at a time.")] = 2,
    work_dir: Annotated[
        Path | None, typer.Option("--work_dir", help="Keeps the originals and what fails.", show_default="temporary")
    ] = None,
) -> None:
    """Make originals, damage copies of them, load these, and count how it ended."""
    names = kinds.split() or list(KINDS)
    if unknown := set(names) - set(KINDS):
        raise typer.BadParameter(f"no such kind: {', '.join(sorted(unknown))}")
    with contextlib.ExitStack() as stack:
        work = (work_dir or Path(stack.enter_context(TemporaryDirectory(prefix="dynabert-fuzz-")))).absolute()
        _make_originals(work / "originals", names)
        began, verdicts = time.perf_counter(), Counter()
        worker = threading.local()
        workers: list[_Worker] = []

        def run(number: int) -> tuple[int, str, str, Verdict]:
            if not hasattr(worker, "own"):
                worker.own = _Worker()
                workers.append(worker.own)
            return _run_case(worker.own, work, names, seed, number, keep=bool(only))

        stack.callback(lambda: [one.stop() for one in workers])
        log = stack.enter_context((work / "verdicts.jsonl").open("w", encoding="utf-8"))
        with ThreadPoolExecutor(jobs) as pool:
            for done, (number, kind, what, verdict) in enumerate(pool.map(run, only or range(count)), start=1):
                verdicts[kind, verdict.name] += 1
                log.write(json.dumps([number, kind, what, *verdict]) + "\n")
                if verdict.name == "FAILURE" or only:
                    print(f"case {number}: {kind}: {what}: {verdict.name}: {verdict.reason}", flush=True)
                if done % 100 == 0:
                    print(f"{done} cases, {time.perf_counter() - began:.0f} s", flush=True)
        failures = _show(verdicts, names, time.perf_counter() - began)
    if failures:
        raise typer.Exit(1)


def _make_originals(folder: Path, names: list[str]) -> None:
    """In a process of its own, as Paddle cannot be forked."""
    command = [sys.executable, Path(__file__).with_name("fuzz_originals.py"), folder, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the originals cannot be made: {done.stderr[-2000:]}")


def _run_case(
    worker: _Worker, work: Path, names: list[str], seed: int, number: int, *, keep: bool
) -> tuple[int, str, str, Verdict]:
    """Damage a copy of an original, load it, and judge."""
    rng = Random(f"{seed}-{number}")
    name = rng.choices(names, [KINDS[name].weight for name in names])[0]
    kind = KINDS[name]
    folder = work / ("only" if keep else "cases") / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "originals" / kind.original, folder / "in")
    case = Case(kind, work / "originals", folder, rng.choice(kind.commands))
    done = []
    for repeated in range(rng.choice((1, 1, 1, 2))):
        if not (files := find_files(folder / "in", kind)):
            break  # the only one is gone
        path, what = mutate(files, rng, whole=not repeated)
        done.append(f"{path.relative_to(folder / 'in')} {what}")
    sealed = any(" sealed values" in what for what in done)
    ended = worker.run(case)
    verdict = judge(case, ended, _expect(worker, case, work), sealed=sealed)
    if verdict.name == "FAILURE":
        shutil.copytree(folder, work / "failures" / str(number), dirs_exist_ok=True, symlinks=True, ignore=_pipes)
    if not keep:
        shutil.rmtree(folder)
    return number, name, "; ".join(done), verdict


def _expect(worker: _Worker, case: Case, work: Path) -> Any:
    """What the whole original gives."""
    key = case.kind, case.command
    with _EXPECTED_LOCK:
        if key not in _EXPECTED:
            folder = work / "expected" / str(len(_EXPECTED))
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(case.originals / case.kind.original, folder / "in")
            whole = case._replace(folder=folder)
            ended = worker.run(whole)
            if isinstance(ended, str) or ended.code:
                raise RuntimeError(f"the whole original fails: {case.words}: {ended}")
            _EXPECTED[key] = case.kind.result(whole, ended)
        return _EXPECTED[key]


def _pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_fifo()]


def judge(case: Case, ended: Done | str, expected: Any, *, sealed: bool) -> Verdict:
    """Say whether a case ended as it should."""
    if isinstance(ended, str):
        return Verdict("FAILURE", ended)
    seen = f"exit code {ended.code}, {ended.err[-600:]!r}"
    if "Traceback" in ended.err or "\x1b" in ended.err + ended.out:
        return Verdict("FAILURE", f"a traceback or control characters: {seen}")
    if (case.folder / "hacked").exists():
        return Verdict("FAILURE", "a command was run")
    if leftovers := [str(path) for path in case.folder.rglob(".*") if path.name.endswith(".partial")]:
        return Verdict("FAILURE", f"left behind: {leftovers}; {seen}")
    if ended.code == 0:
        found = case.kind.result(case, ended)
        if found == expected:
            return Verdict("verified", "")
        reason = "" if sealed else case.kind.agree(case, expected, found)
        return Verdict("FAILURE", f"success, but {reason}") if reason else Verdict("as stored", "")
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    if ended.code not in (1, 2) or len(errors) != 1 or ended.err.splitlines()[-1:] != errors:
        return Verdict("FAILURE", f"not one line: {seen}")
    if re.match(r"error: \w*(Error|Exception): ", errors[0]):
        return Verdict("FAILURE", f"an error that nobody has foreseen: {seen}")
    if (case.folder / "out").exists() and "--overwrite_output_dir" not in errors[0]:  # a training that diverged stays
        return Verdict("FAILURE", f"an output was left behind; {seen}")
    return Verdict("refused", errors[0])


class _Worker:
    """A process that has Paddle imported, and runs commands one after the other."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._cases = 0

    def run(self, case: Case) -> Done | str:
        """Run a case's command; returns what went wrong where the process did not survive it."""
        if self._process is None or self._cases >= _CASES_A_PROCESS:
            self.stop()
            command = [sys.executable, Path(__file__).with_name("fuzz_worker.py")]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._process.stdout.readline()  # it is ready
            self._cases = 0
        self._cases += 1
        process = self._process
        process.stdin.write(json.dumps({"folder": str(case.folder), "words": case.words, "cache": case.cache}) + "\n")
        process.stdin.flush()
        limit = time.perf_counter() + _SECONDS
        while not select.select([process.stdout], [], [], 0.05)[0]:
            if time.perf_counter() > limit:
                return self._kill(f"ran for more than {_SECONDS} s")
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                if pages * os.sysconf("SC_PAGE_SIZE") > _BYTES:
                    return self._kill(f"took more than {_BYTES / 2**30:.0f} GB")
        answer = process.stdout.readline()
        if not answer:
            return self._kill(f"the process died with {process.wait()}")
        said = [(case.folder / name).read_text("utf-8", errors="replace") for name in ("stdout", "stderr")]
        return Done(json.loads(answer)["code"], *said)

    def _kill(self, reason: str) -> str:
        self._process.kill()
        self._process.wait()
        self._process = None
        return reason

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None


def _show(verdicts: Counter, names: list[str], seconds: float) -> int:
    columns = ("verified", "as stored", "refused", "FAILURE")
    rows: list[list[Any]] = [[name, *(verdicts[name, column] for column in columns)] for name in names]
    rows.append(["all", *(sum(verdicts[name, column] for name in names) for column in columns)])
    for row in [["", *columns], *rows]:
        print(f"{row[0]:12}" + "".join(f"{cell:>12}" for cell in row[1:]))
    print(f"{sum(rows[-1][1:])} cases in {seconds:.0f} s")
    return rows[-1][-1]


if __name__ == "__main__":
    run_command(main)
