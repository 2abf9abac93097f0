"""Paddle Lite's converter and x86 runtime, for models on phones.

Paddle Lite's wheels need an older Python than Paddle's, so both run in another interpreter, through `lite_runner.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.exporting.scripts import write_lite_script

# One file serves armv7 and armv8: the converter only knows `arm`, and picks kernels that both builds of Lite have.
TARGETS = ("arm", "x86")
PRECISIONS = ("fp32", "int16", "int8")

_CHECKOUT, _PACKAGE = Path(__file__).parents[2], Path(__file__).parents[1]
_PYTHON_VARIABLE = "DYNABERT_LITE_PYTHON"
_SETUP_HINT = (
    "run 'bash scripts/setup_lite.sh' in the checkout, or run 'pip install paddlelite==2.13rc0 \"numpy<2\"' with "
    f"Python 3.10 or 3.7 and name that interpreter with {_PYTHON_VARIABLE}=..."
)
_TIMEOUT = 1800  # seconds; 12 layers of hidden size 768 take 4
_LOG_PREFIX = re.compile(r"^\[[A-Z] [^\]]*\]\s*")


def find_converter() -> Path:
    """Find a Python interpreter that has Paddle Lite.

    Returns:
        The one that DYNABERT_LITE_PYTHON names, otherwise the checkout's `.venv-lite`.

    Raises:
        DynabertError: there is none, or it does not work.
    """
    named = os.environ.get(_PYTHON_VARIABLE)
    if named:
        reason = _why_unusable(Path(named))
        if reason:
            raise DynabertError(f"{_PYTHON_VARIABLE}={named}: {reason}: {_SETUP_HINT}")
        return Path(named).absolute()
    python = _CHECKOUT / ".venv-lite" / "bin" / "python"
    if not (python.exists() or python.is_symlink()):
        raise DynabertError(f"Paddle Lite's converter is not set up: {_SETUP_HINT}")
    reason = _why_unusable(python)
    if reason:
        raise DynabertError(f"{python}: {reason}: {_SETUP_HINT}")
    return python


def converter_version(python: Path) -> str:
    """Return Paddle Lite's version; the app's library must have the same one.

    Args:
        python: the interpreter that has paddlelite.

    Returns:
        For example `v2.13-rc`.

    Raises:
        DynabertError: the interpreter does not run, or has no paddlelite.
    """
    version = _last_line(_run_in(python, "version", timeout=60))
    if not re.match(r"v?\d", version):
        raise DynabertError("is not a Python with paddlelite")
    return version


def convert(graph: Path, output: Path, *, target: str, precision: str, python: Path) -> None:
    """Convert a legacy graph to a `.nb` file.

    Args:
        graph: folder with `model.pdmodel`, in which matmuls with weights are `mul` operators, and `model.pdiparams`.
        output: the `.nb` file to write.
        target: `arm`, for armv7 and armv8, or `x86`.
        precision: `fp32`; or `int16` or `int8` to store the matmuls' weights so; all compute in fp32.
        python: the interpreter that has paddlelite.

    Raises:
        UsageError: unknown target or precision.
        DynabertError: the converter failed; no file is left.
    """
    if target not in TARGETS:
        raise UsageError(f"target '{target}' is not one of {', '.join(TARGETS)}; arm is for armv7 and armv8")
    if precision not in PRECISIONS:
        raise UsageError(f"precision '{precision}' is not one of {', '.join(PRECISIONS)} for Paddle Lite")
    for name in ("model.pdmodel", "model.pdiparams"):
        if not (graph / name).is_file():
            raise DynabertError(f"{graph}: no {name} in it: Paddle Lite converts only the legacy format")
    try:
        # In the output's folder, because a rename across file systems fails.
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".lite-") as folder:
            converted = Path(folder) / "model.nb"
            try:
                log = _run_in(
                    python, "convert", graph.absolute(), converted.absolute().with_suffix(""), target, precision
                )
            except DynabertError as error:
                raise DynabertError(f"{graph}: {error}: export this model in another format") from None
            if not converted.is_file():
                raise DynabertError(f"{graph}: Paddle Lite's converter wrote no file: {_last_line(log)}")
            input_names(converted, python=python)  # loads the file, which fails if it is truncated
            converted.replace(output)
    except OSError as error:
        raise DynabertError(
            f"{output}: cannot be written ({error.strerror}): make room or name another folder"
        ) from None


def input_names(model: Path, *, python: Path) -> list[str]:
    """List a model's inputs in the order of their indices in Lite's Java interface.

    Args:
        model: a `.nb` file for any target.
        python: the interpreter that has paddlelite.

    Returns:
        The inputs' names.
    """
    return _last_line(_run_in(python, "inputs", model.absolute())).split(",")


def run_x86(model: Path, batches: list[dict[str, np.ndarray]], *, python: Path) -> list[np.ndarray]:
    """Run a model on Lite's x86 runtime, with the code of `infer_lite.py`.

    Args:
        model: a `.nb` file for x86; one for ARM computes garbage.
        batches: inputs by name, int64 `[b, s]`; their shapes may differ, and one predictor runs them all.
        python: the interpreter that has paddlelite.

    Returns:
        The output of each batch.

    Raises:
        DynabertError: the runtime failed.
    """
    with tempfile.TemporaryDirectory(prefix="dynabert-lite-") as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(inputs, **{f"{i}.{name}": array for i, batch in enumerate(batches) for name, array in batch.items()})
        log = _run_in(python, "run", model.absolute(), inputs, outputs, write_lite_script(Path(folder)))
        if not outputs.is_file():
            raise DynabertError(f"{model}: Paddle Lite's x86 runtime wrote no output: {_last_line(log)}")
        with np.load(outputs) as arrays:
            return [arrays[str(i)] for i in range(len(batches))]


def measure_x86(model: Path, *, seq_length: int, python: Path) -> dict[str, float]:
    """Measure what a model costs on Lite's x86 runtime, in a process of its own with one thread.

    Args:
        model: a `.nb` file for x86.
        seq_length: tokens of the one text that is run.
        python: the interpreter that has paddlelite.

    Returns:
        `load_ms`, the time to load the file, and `memory_mb`, the process's peak in MB (10^6 bytes) while it loads the
        model and runs it, above the memory of a process that has only imported paddlelite.

    Raises:
        DynabertError: the runtime failed.
    """
    with tempfile.TemporaryDirectory(prefix="dynabert-lite-") as folder:
        script = write_lite_script(Path(folder))
        measured: dict[str, float] = json.loads(
            _last_line(_run_in(python, "measure", model.absolute(), str(seq_length), script))
        )
    return measured


def _why_unusable(python: Path) -> str:
    """Return the reason why an interpreter cannot convert; empty if it can."""
    try:
        converter_version(python)
    except DynabertError as error:
        return str(error)
    return ""


def _run_in(python: Path, *arguments: str | Path, timeout: int = _TIMEOUT) -> str:
    """Run `lite_runner.py` in another interpreter, and return what it printed."""
    with tempfile.TemporaryDirectory(prefix="dynabert-lite-") as folder:  # a crash may leave files there
        try:
            done = subprocess.run(
                [str(python.absolute()), "-E", str(_PACKAGE / "exporting" / "lite_runner.py"), *map(str, arguments)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
            )
        except OSError as error:
            raise DynabertError(f"does not run ({error.strerror})") from None
        except subprocess.TimeoutExpired:
            raise DynabertError(f"Paddle Lite did not finish in {timeout} seconds") from None
    if done.returncode != 0:
        # A failed check makes Paddle Lite abort the process.
        raise DynabertError(
            f"Paddle Lite failed (exit code {done.returncode}): {_last_line(done.stderr + done.stdout)}"
        )
    return done.stdout


def _last_line(log: str) -> str:
    """Return the last line that reports an error, otherwise the last line, without Lite's log prefix."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("[F ", "[E ", "Wrong")) or "Error" in line]
    line = (errors or lines or ["no reason was printed"])[-1]
    return _LOG_PREFIX.sub("", line)[:300]
