#!/usr/bin/env python
"""Fuzz the command line: damage folders and files that users load in thousands of ways, and load them.

Each case must end in success with the content that the files have, or with exit code 1 or 2 and one line on stderr that
begins with `error: `; within 30 s and 3 GB, without a traceback and without a partial output folder. The seed and the
number of a case determine its damage.

    python scripts/soak/fuzz.py --count 2000
    python scripts/soak/fuzz.py --only 137 --work_dir out/fuzz    # repeat one case of that run, and keep its folder
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

_MAX_SECONDS = 30
_MAX_BYTES = 3 * 2**30
_CASES_PER_PROCESS = 400  # Paddle keeps some memory after each case
_EXPECTED: dict[tuple, Any] = {}
_EXPECTED_LOCK = threading.Lock()


class Verdict(NamedTuple):
    """The result of a case and its reason: `verified`, `as stored` (in the damaged file), `refused` or `FAILURE`."""

    name: str
    reason: str


def main(
    *,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of cases.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the damage.")] = 0,
    only: Annotated[list[int] | None, typer.Option("--only", help="Run only this case, and keep its folder.")] = None,
    kinds: Annotated[str, typer.Option("--kinds", metavar="'A B'", help=f"Run only some of {', '.join(KINDS)}.")] = "",
    numbers: Annotated[bool, typer.Option("--numbers", help="Change numbers of JSON files only.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Number of parallel processes.")] = 2,
    work_dir: Annotated[
        Path | None,
        typer.Option("--work_dir", help="Folder for the originals and the failed cases.", show_default="temporary"),
    ] = None,
) -> None:
    """Make originals, damage copies, load them, and count the results."""
    names = kinds.split() or list(KINDS)
    if unknown := set(names) - set(KINDS):
        raise typer.BadParameter(f"no such kind: {', '.join(sorted(unknown))}")
    with contextlib.ExitStack() as stack:
        work = (work_dir or Path(stack.enter_context(TemporaryDirectory(prefix="dynabert-fuzz-")))).absolute()
        _make_originals(work / "originals", names)
        start, verdicts = time.perf_counter(), Counter()
        of_thread = threading.local()
        workers: list[_Worker] = []

        def run(number: int) -> tuple[int, str, str, Verdict]:
            if not hasattr(of_thread, "worker"):
                of_thread.worker = _Worker()
                workers.append(of_thread.worker)
            return _run_case(of_thread.worker, work, names, seed, number, keep=bool(only), only_numbers=numbers)

        stack.callback(lambda: [worker.stop() for worker in workers])
        log = stack.enter_context((work / "verdicts.jsonl").open("w", encoding="utf-8"))
        with ThreadPoolExecutor(jobs) as pool:
            for done, (number, kind, damage, verdict) in enumerate(pool.map(run, only or range(count)), start=1):
                verdicts[kind, verdict.name] += 1
                log.write(json.dumps([number, kind, damage, *verdict]) + "\n")
                if verdict.name == "FAILURE" or only:
                    print(f"case {number}: {kind}: {damage}: {verdict.name}: {verdict.reason}", flush=True)
                if done % 100 == 0:
                    print(f"{done} cases, {time.perf_counter() - start:.0f} s", flush=True)
        failures = _show(verdicts, names, time.perf_counter() - start)
    if failures:
        raise typer.Exit(1)


def _make_originals(folder: Path, names: list[str]) -> None:
    """Make the originals in a new process, because Paddle cannot be forked."""
    command = [sys.executable, Path(__file__).with_name("fuzz_originals.py"), folder, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: making the originals failed: {done.stderr[-2000:]}")


def _run_case(
    worker: _Worker, work: Path, names: list[str], seed: int, number: int, *, keep: bool, only_numbers: bool
) -> tuple[int, str, str, Verdict]:
    """Damage a copy of an original, load it, and judge."""
    rng = Random(f"{seed}-{number}")
    name = rng.choices(names, [KINDS[name].weight for name in names])[0]
    kind = KINDS[name]
    folder = work / ("only" if keep else "cases") / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "originals" / kind.original, folder / "in")
    case = Case(kind, work / "originals", folder, rng.choice(kind.commands))
    damages = []
    for repeated in range(1 if only_numbers else rng.choice((1, 1, 1, 2))):
        if not (files := find_files(folder / "in", kind)):
            break  # the only file was removed
        path, damage = mutate(files, rng, intact=not repeated, only_numbers=only_numbers)
        damages.append(f"{path.relative_to(folder / 'in')} {damage}")
    sealed = any(" sealed values" in damage for damage in damages)
    done = worker.run(case)
    verdict = judge(case, done, _expect(worker, case, work), sealed=sealed)
    if verdict.name == "FAILURE":
        shutil.copytree(folder, work / "failures" / str(number), dirs_exist_ok=True, symlinks=True, ignore=_named_pipes)
    if not keep:
        shutil.rmtree(folder)
    return number, name, "; ".join(damages), verdict


def _expect(worker: _Worker, case: Case, work: Path) -> Any:
    """Return the result for the undamaged original."""
    key = case.kind, case.command
    with _EXPECTED_LOCK:
        if key not in _EXPECTED:
            folder = work / "expected" / str(len(_EXPECTED))
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(case.originals / case.kind.original, folder / "in")
            undamaged = case._replace(folder=folder)
            done = worker.run(undamaged)
            if isinstance(done, str) or done.code:
                raise RuntimeError(f"the undamaged original fails: {case.words}: {done}")
            _EXPECTED[key] = case.kind.result(undamaged, done)
        return _EXPECTED[key]


def _named_pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_fifo()]


def judge(case: Case, done: Done | str, expected: Any, *, sealed: bool) -> Verdict:
    """Decide whether a case ended as it must; `sealed` means that its checksums agree with the damage."""
    if isinstance(done, str):
        return Verdict("FAILURE", done)
    outcome = f"exit code {done.code}, {done.err[-600:]!r}"
    if "Traceback" in done.err or "\x1b" in done.err + done.out:
        return Verdict("FAILURE", f"a traceback or control characters: {outcome}")
    if (case.folder / "hacked").exists():
        return Verdict("FAILURE", "a command from a file was run")
    if leftovers := [str(path) for path in case.folder.rglob(".*") if path.name.endswith(".partial")]:
        return Verdict("FAILURE", f"left behind: {leftovers}; {outcome}")
    if done.code == 0:
        try:
            found = case.kind.result(case, done)
        except ValueError as error:
            return Verdict("FAILURE", f"success, but its output cannot be read: {error}; {done.out[:200]!r}")
        if found == expected:
            return Verdict("verified", "")
        reason = "" if sealed else case.kind.find_error(case, expected, found)
        return Verdict("FAILURE", f"success, but {reason}") if reason else Verdict("as stored", "")
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    if done.code not in (1, 2) or len(errors) != 1 or done.err.splitlines()[-1:] != errors:
        return Verdict("FAILURE", f"not one line: {outcome}")
    if re.match(r"error: \w*(Error|Exception): ", errors[0]):
        return Verdict("FAILURE", f"an unforeseen error: {outcome}")
    # A training that diverges keeps its output, and its error names --overwrite_output_dir.
    if (case.folder / "out").exists() and "--overwrite_output_dir" not in errors[0]:
        return Verdict("FAILURE", f"an output was left behind; {outcome}")
    return Verdict("refused", errors[0])


class _Worker:
    """A process that has imported Paddle and runs one command after another."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._cases = 0

    def run(self, case: Case) -> Done | str:
        """Run the command of a case; returns the reason if the process died or was killed."""
        if self._process is None or self._cases >= _CASES_PER_PROCESS:
            self.stop()
            command = [sys.executable, Path(__file__).with_name("fuzz_worker.py")]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._process.stdout.readline()  # wait until it is ready
            self._cases = 0
        self._cases += 1
        process = self._process
        process.stdin.write(json.dumps({"folder": str(case.folder), "words": case.words, "cache": case.cache}) + "\n")
        process.stdin.flush()
        limit = time.perf_counter() + _MAX_SECONDS
        while not select.select([process.stdout], [], [], 0.05)[0]:
            if time.perf_counter() > limit:
                return self._kill(f"ran for more than {_MAX_SECONDS} s")
            with contextlib.suppress(OSError):
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                if pages * os.sysconf("SC_PAGE_SIZE") > _MAX_BYTES:
                    return self._kill(f"took more than {_MAX_BYTES / 2**30:.0f} GB")
        answer = process.stdout.readline()
        if not answer:
            return self._kill(f"the process died with {process.wait()}")
        output = [(case.folder / name).read_text("utf-8", errors="replace") for name in ("stdout", "stderr")]
        return Done(json.loads(answer)["code"], *output)

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
