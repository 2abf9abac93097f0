"""Long benchmarks in parts of minutes: each part is run once, on any machine, and leaves a record in a result file.

A record is found by its key, such as its task and seed. Several processes can write one file; the files of several
machines are merged.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.files.atomic import write_text

ROOT = Path(__file__).resolve().parents[2]

Record = dict[str, Any]


def read_records(result_file: Path) -> list[Record]:
    """Read the records of a result file; none if there is no file."""
    return json.loads(result_file.read_text(encoding="utf-8")) if result_file.is_file() else []


def find_records(records: Iterable[Record], key: Mapping[str, Any]) -> list[Record]:
    """Return the records that have all of a key's values."""
    return [record for record in records if all(record.get(name) == value for name, value in key.items())]


def add_records(result_file: Path, records: Iterable[Record], key_names: Iterable[str]) -> None:
    """Add records to a file, in the order of their keys; a record of the same key is replaced.

    Args:
        result_file: the file, which other processes may write meanwhile.
        records: new ones.
        key_names: the names of a key's values.
    """
    names = tuple(key_names)
    result_file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(result_file.parent, os.O_RDONLY)  # the file itself is replaced
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        found = {tuple(record[name] for name in names): record for record in (*read_records(result_file), *records)}
        lines = ",\n".join(json.dumps(found[key]) for key in sorted(found))  # a record a line, so that Git merges them
        write_text(result_file, f"[\n{lines}\n]\n")
    finally:
        os.close(folder)


def hash_settings(settings: Mapping[str, Any]) -> str:
    """Return eight digits that name the settings of a benchmark, as a value of its records' keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def split_rows(source: Path, num_rows: int, num_held_out: int) -> tuple[str, str]:
    """Split the first rows of a training file.

    Args:
        source: a file with a header.
        num_rows: rows to use, from the first on.
        num_held_out: how many of them, the last ones, are held out.

    Returns:
        The text of a file to train on, and that of a file with the rows held out.
    """
    header, *rows = source.read_text(encoding="utf-8").splitlines()
    rows = rows[:num_rows]
    trained = len(rows) - num_held_out
    train, held_out = ("".join(f"{line}\n" for line in (header, *part)) for part in (rows[:trained], rows[trained:]))
    return train, held_out


def describe_commit() -> str:
    """Name the commit of the checkout, with a plus sign where the code was changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "dynabert_paddle", "scripts")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def dynabert(*words: object) -> float:
    """Run a command; returns the CPU seconds of it and of the processes that it starts."""
    process = subprocess.Popen([sys.executable, "-m", "dynabert_paddle", *map(str, words)], stdout=subprocess.DEVNULL)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:  # it saves what it has, and its CPU time counts for this process
        process.terminate()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise DynabertError(f"'dynabert {shlex.join(map(str, words))}' failed: see the line above")
    return usage.ru_utime + usage.ru_stime
