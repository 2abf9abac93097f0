"""A process of its own for what writes static graphs: which format Paddle writes is decided when it is imported."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.runtime.device import set_device
from dynabert_paddle.runtime.environment import import_paddle

logger = logging.getLogger(__name__)

_PROGRESS = "dynabert progress: "


def run_apart(
    work: Callable[[dict[str, Any]], dict[str, Any]],
    job: Mapping[str, Any],
    *,
    legacy: bool,
    name: str,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run a function in a fresh process, in which Paddle has not been imported yet.

    Args:
        work: a module's function of one argument, the job.
        job: its argument, in JSON types.
        legacy: whether Paddle shall write its legacy static format there, or PIR.
        name: what is done, for the message of a process that dies.
        environment: variables to set there.

    Returns:
        What the function returns, as JSON knows it.

    Raises:
        DynabertError: the function's own, or the process died without a result.
    """
    variables = {**os.environ, **(environment or {}), "FLAGS_enable_pir_api": "0" if legacy else "1"}
    with TemporaryDirectory(prefix="dynabert-job-") as scratch:
        path = Path(scratch) / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        command = python_command(f"{__name__}:run_job", f"{work.__module__}:{work.__name__}", path)
        code, said = _follow(command, variables)
        result_file = Path(scratch) / "result.json"
        if not result_file.exists():
            raise DynabertError(f"{name} failed with exit code {code}: {said[:500]}")
        result = json.loads(result_file.read_text(encoding="utf-8"))
    if "error" in result:
        raise (UsageError if result["exit_code"] == UsageError.exit_code else DynabertError)(result["error"])
    return result["value"]


def python_command(function: str, *arguments: object) -> list[str]:
    """The command that calls a function of this package in a fresh interpreter.

    Unlike `python -m` it imports nothing from the working folder, which may be a model's.

    Args:
        function: `module:function`; it takes nothing, and finds its arguments in `sys.argv`.
        arguments: what they are.

    Returns:
        The words.
    """
    module, _, name = function.partition(":")
    # The package's own folder comes last, as that of an installed package does.
    start = f"import sys; sys.path[:] = [*sys.path[1:], sys.argv.pop(1)]; from {module} import {name}; {name}()"
    return [sys.executable, "-c", start, str(Path(__file__).parents[2]), *map(str, arguments)]


def report_progress(text: str) -> None:
    """Have the process that called `run_apart` log a line.

    Args:
        text: the line.
    """
    print(_PROGRESS + text, flush=True)


def _follow(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command and log what it says while it runs; returns its exit code and its last line."""
    last = "it said nothing"
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.PIPE,  # it closes when this process ends, killed or not
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            assert process.stdout is not None  # a pipe
            for line in filter(None, map(str.strip, process.stdout)):
                if line.startswith(_PROGRESS):
                    logger.info("%s", line.removeprefix(_PROGRESS))
                else:
                    logger.debug("%s", line)
                    last = line
        except BaseException:
            process.kill()
            raise
    return process.returncode, last


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def run_job() -> None:
    """Do what `run_apart` asks for: the function and the job's file are the arguments of this process."""
    Thread(target=_end_with_parent, daemon=True).start()
    work, path = sys.argv[1], Path(sys.argv[2])
    module, _, function = work.partition(":")
    job = json.loads(path.read_text(encoding="utf-8"))
    try:
        import_paddle()
        set_device("cpu")
        result = {"value": getattr(import_module(module), function)(job)}
    except DynabertError as error:
        result = {"error": str(error), "exit_code": error.exit_code}
    path.with_name("result.json").write_text(json.dumps(result), encoding="utf-8")
