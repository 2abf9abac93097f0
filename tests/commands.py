"""The `dynabert` command, run in the process of the tests."""

import dataclasses
import sys

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
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["dynabert", *map(str, words)])
    patch.setenv("COLUMNS", "200")
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as caught:
            main.main()
    finally:
        patch.undo()
    out, err = capsys.readouterr()
    return Done(caught.value.code or 0, out, err)
