"""Runs a function as a command with the errors and exit codes of `dynabert`: the Python programs in scripts/ use it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.cli.names import option_name
from dynabert_paddle.config.names import settings_named_by
from dynabert_paddle.errors import DynabertError


def run_command(function: Callable[..., None]) -> None:
    """Parse the command line with Typer and call the function; an error is one line on stderr and an exit code.

    Args:
        function: its parameters are annotated with `typer.Option` and `typer.Argument`.
    """
    try:
        with settings_named_by(option_name):
            typer.run(function)
    except (DynabertError, BundleError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
