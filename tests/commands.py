"""The `dynabert` command and the Python programs of scripts/, run in the process of the tests."""

import dataclasses
import runpy
import sys
from pathlib import Path

import pytest

from dynabert_paddle.cli import main


@dataclasses.dataclass
class Done:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


def run_command(capsys, *words):
    """Run the `dynabert` command in this process, through the entry point that the shell calls."""
    return _run(capsys, main.main, "dynabert", *words)


def run_script(capsys, name, *words):
    """Run a Python program of scripts/ in this process, as `python scripts/NAME` does."""
    path = str(Path(__file__).parents[1] / "scripts" / name)
    return _run(capsys, lambda: runpy.run_path(path, run_name="__main__"), path, *words)


def _run(capsys, start, *words):
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", list(map(str, words)))
    patch.setenv("COLUMNS", "200")
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as caught:
            start()
    finally:
        patch.undo()
    out, err = capsys.readouterr()
    return Done(caught.value.code or 0, out, err)
