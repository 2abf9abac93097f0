"""Jobs in a fresh interpreter: Paddle's static graph format is fixed when Paddle is imported."""

from __future__ import annotations

import dataclasses
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
from typing import Any, TypeVar

from dynabert_paddle.config.names import name_later, name_marked, settings_named_by
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.runtime.device import set_device
from dynabert_paddle.runtime.environment import import_paddle
from dynabert_paddle.runtime.memory import MEMORY_ADVICE, is_memory_error

logger = logging.getLogger(__name__)

Job = TypeVar("Job")
Result = TypeVar("Result")

_PROGRESS_PREFIX, _WARNING_PREFIX = "dynabert progress: ", "dynabert warning: "


def run_apart(
    work: Callable[[Job], Result],
    job: Job,
    *,
    legacy: bool,
    name: str,
    environment: Mapping[str, str] | None = None,
    report: Callable[[str], None] = logger.info,
) -> Result:
    """Run a function in a fresh process, in which Paddle has not been imported yet.

    The job and the result travel as JSON files: each is a dataclass, or made of JSON's own types. What the process logs
    as a warning, or worse, is logged in this one.

    Args:
        work: a module-level function of one argument, the job.
        job: its argument.
        legacy: whether Paddle writes its legacy static graph format in that process, or PIR.
        name: the job's name in the error message about a process that died.
        environment: variables to set in the process.
        report: called with each text that the function passes to `report_progress`.

    Returns:
        The function's result.

    Raises:
        DynabertError: raised by the function, or the process died without a result.
    """
    variables = {**os.environ, **(environment or {}), "FLAGS_enable_pir_api": "0" if legacy else "1"}
    with TemporaryDirectory(prefix="dynabert-job-") as scratch:
        path = Path(scratch) / "job.json"
        path.write_text(_to_json(job), encoding="utf-8")
        command = python_command(f"{__name__}:run_job", f"{work.__module__}:{work.__name__}", path)
        exit_code, last_line = _follow(command, variables, report)
        result_file = Path(scratch) / "result.json"
        if not result_file.exists():
            if is_memory_error(last_line):
                raise DynabertError(f"{name}: {MEMORY_ADVICE}")
            raise DynabertError(f"{name} failed with exit code {exit_code}: {last_line[:500]}")
        result = _from_json(result_file.read_text(encoding="utf-8"))
    if isinstance(result, _Failure):
        error = UsageError if result.exit_code == UsageError.exit_code else DynabertError
        raise error(name_marked(result.message))
    return result


def python_command(function: str, *arguments: object) -> list[str]:
    """Build the command line that calls a function of this package in a fresh interpreter.

    Unlike `python -m` it imports nothing from the working folder, which may be a model's.

    Args:
        function: `module:function`; it takes no parameters and reads its arguments from `sys.argv`.
        arguments: the command-line arguments, converted with `str`.

    Returns:
        The command line for `subprocess`.
    """
    module, _, name = function.partition(":")
    # The package's own folder comes last, as that of an installed package does.
    start = f"import sys; sys.path[:] = [*sys.path[1:], sys.argv.pop(1)]; from {module} import {name}; {name}()"
    return [sys.executable, "-c", start, str(Path(__file__).parents[2]), *map(str, arguments)]


def report_progress(text: str) -> None:
    """Report a line to the process that called `run_apart`."""
    print(_PROGRESS_PREFIX + text, flush=True)


@dataclasses.dataclass(frozen=True)
class _Failure:
    """A `DynabertError` of a job."""

    message: str
    exit_code: int


def _to_json(value: object) -> str:
    """A dataclass with its class, so that `_from_json` builds it again; other values as they are."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return json.dumps({"value": value})
    cls = type(value)
    content = {"class": f"{cls.__module__}:{cls.__qualname__}", "value": dataclasses.asdict(value)}
    return json.dumps(content, default=os.fspath)


def _from_json(text: str) -> Any:
    content = json.loads(text)
    if "class" not in content:
        return content["value"]
    from pydantic import TypeAdapter  # builds nested dataclasses, tuples and paths from their annotations

    return TypeAdapter(_resolve(content["class"])).validate_python(content["value"])


def _resolve(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _follow(command: list[str], environment: dict[str, str], report: Callable[[str], None]) -> tuple[int, str]:
    """Run a command and log its output while it runs; returns its exit code and its last line."""
    last_line = "no output"
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
            for line in filter(None, map(str.strip, process.stdout or ())):
                if line.startswith(_PROGRESS_PREFIX):
                    report(name_marked(line.removeprefix(_PROGRESS_PREFIX)))
                elif line.startswith(_WARNING_PREFIX):
                    logger.warning("%s", name_marked(line.removeprefix(_WARNING_PREFIX)))
                else:
                    logger.debug("%s", line)
                    last_line = line
        except BaseException:
            process.kill()
            raise
    return process.returncode, last_line


class _ToParent(logging.Handler):
    """Sends warnings to the process that called `run_apart`, each as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        print(_WARNING_PREFIX + " ".join(record.getMessage().splitlines()), flush=True)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def run_job() -> None:
    """Run one job of `run_apart`: the function and the job's file are this process's arguments."""
    Thread(target=_end_with_parent, daemon=True).start()
    work, path = sys.argv[1], Path(sys.argv[2])
    result: object
    try:
        import_paddle(models_only=True)
        set_device("cpu")
        logging.getLogger("dynabert_paddle").addHandler(_ToParent(logging.WARNING))
        with settings_named_by(name_later):
            result = _resolve(work)(_from_json(path.read_text(encoding="utf-8")))
    except DynabertError as error:
        result = _Failure(str(error), error.exit_code)
    path.with_name("result.json").write_text(_to_json(result), encoding="utf-8")
