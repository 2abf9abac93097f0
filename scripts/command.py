"""Runs a script as a command: what is wrong with its input is one line and an exit code, as in `dynabert` itself."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.errors import DynabertError


def run_command(main: Callable[..., None]) -> None:
    """Run a script's function with the arguments of the command line.

    Args:
        main: the function; its parameters are Typer's.
    """
    try:
        typer.run(main)
    except (DynabertError, BundleError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))
