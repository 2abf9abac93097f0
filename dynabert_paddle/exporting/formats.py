"""What a model can be exported to: formats, precisions, how far each may be from its source, and what each needs."""

from __future__ import annotations

import importlib.util

from dynabert_paddle.bundle.openvino import has_openvino
from dynabert_paddle.errors import DynabertError, UsageError, did_you_mean
from dynabert_paddle.exporting.lite import find_converter
from dynabert_paddle.runtime.paddle_versions import can_write, check_can_write

# Format -> precision -> how far the bundle may be from its source. Floating-point formats are compared by their logits:
# the largest difference, as a share of the largest logit where that is more than 1. What is rounded to int8 is compared
# by the task's first metric on the dev set: how much it may lose.
TOLERANCES = {
    "paddle": {"fp32": 1e-5, "bf16": 0.05, "int8": 0.005},
    "pir": {"fp32": 1e-5, "bf16": 0.05},
    "openvino": {"fp32": 1e-5, "bf16": 0.05, "int8": 0.005},
    "onnx": {"fp32": 1e-4, "int8": 0.005},
    "lite": {"fp32": 1e-4, "int16": 1e-3, "int8": 0.005},
}
PADDLE_FORMATS = ("paddle", "pir", "openvino")  # what Paddle Inference runs


def needs_legacy(format: str) -> bool:
    """Whether an export goes through Paddle's legacy static format.

    Args:
        format: one of `TOLERANCES`.

    Returns:
        False for what goes through PIR.
    """
    return format in ("paddle", "openvino", "lite") or (format == "onnx" and can_write("legacy"))


def paddle_format() -> str:
    """The format for Paddle Inference that the installed Paddle writes: paddle, or pir where that is gone."""
    return "paddle" if can_write("legacy") else "pir"


def check_request(format: str, precision: str) -> None:
    """Refuse an export that does not exist, or that this environment cannot do, before any work is done.

    Args:
        format: what to export to.
        precision: in which numbers the bundle computes or is stored.

    Raises:
        UsageError: no such format or precision.
        DynabertError: this Paddle cannot write it, or a package is missing; the message says which can, or what to do.
    """
    if format not in TOLERANCES:
        raise UsageError(f"format '{format}' is not one of {', '.join(TOLERANCES)}.{did_you_mean(format, TOLERANCES)}")
    if precision not in TOLERANCES[format]:
        able = [name for name, precisions in TOLERANCES.items() if precision in precisions]
        hint = f"; {precision} is there for {', '.join(able)}" if able else did_you_mean(precision, TOLERANCES[format])
        raise UsageError(f"format {format} has the precisions {', '.join(TOLERANCES[format])}, not '{precision}'{hint}")
    int8 = "int8 in " if precision == "int8" else ""
    file = {"paddle": " (model.pdmodel)", "openvino": " (model.pdmodel)", "pir": " (model.json)"}.get(format, "")
    instead = "onnx" if int8 or format == "lite" else paddle_format()
    check_can_write(
        "legacy" if needs_legacy(format) else "pir",
        what=f"{int8}format {format}{file}",
        instead=f"use --format {instead}",
    )
    if format == "onnx":
        for package in ("paddle2onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise DynabertError(f"format onnx needs {package}: run 'pip install \"dynabert-paddle[onnx]\"'")
    if format == "openvino" and not has_openvino():
        raise DynabertError("format openvino needs the OpenVINO that paddlepaddle 3 brings for x86 CPUs: install that")
    if format == "lite":
        find_converter()


def list_abilities() -> dict[str, str]:
    """Tell which formats this environment can export to.

    Returns:
        For each format `yes` and its precisions, or `no` and what to do.
    """
    found = {}
    for format, precisions in TOLERANCES.items():
        try:
            # What is missing for one precision of a format is missing for all.
            check_request(format, next(iter(precisions)))
            found[f"export to {format}"] = f"yes: {', '.join(precisions)}"
        except DynabertError as error:
            found[f"export to {format}"] = f"no: {error}"
    return found
