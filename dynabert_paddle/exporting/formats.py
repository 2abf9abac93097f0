"""The formats and precisions of exports, their tolerances, and what each requires."""

from __future__ import annotations

import importlib.util

from dynabert_paddle.bundle.openvino import has_openvino
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, UsageError, did_you_mean
from dynabert_paddle.exporting.lite_converter import find_converter
from dynabert_paddle.runtime.machine import INSTRUCTION_SETS, instruction_sets
from dynabert_paddle.runtime.paddle_versions import can_write, check_can_write

# Format -> precision -> tolerance of the check against the model. For int8: loss of the task's first metric on the dev
# set. For other precisions: difference between logits, relative to the largest logit if that exceeds 1.
TOLERANCES = {
    "paddle": {"fp32": 1e-5, "bf16": 0.05, "int8": 0.005},
    "pir": {"fp32": 1e-5, "bf16": 0.05},
    "openvino": {"fp32": 1e-5, "bf16": 0.05, "int8": 0.005},
    "onnx": {"fp32": 1e-4, "int8": 0.005},
    "lite": {"fp32": 1e-4, "int16": 1e-3, "int8": 0.005},
}
AUTO = "auto"  # the format, and the precision, that are the fastest on this machine
_GAINS = {
    "AVX2": "fp32 of every format; int8 of onnx takes about half of its fp32's time",
    "AVX-512": "fp32 of every format",
    "VNNI": "int8 of paddle, openvino and onnx takes 0.4 to 0.6 of fp32's time; without it int8 of paddle and openvino "
    "gains nothing",
    "bf16": "bf16 of paddle, pir and openvino takes 0.5 to 0.7 of fp32's time; without it bf16 gains nothing",
    "AMX": "int8 and bf16 of paddle, pir and openvino in large batches",
}
PADDLE_FORMATS = ("paddle", "pir", "openvino")  # run by Paddle Inference


def needs_legacy(format: str) -> bool:
    """Whether an export goes through Paddle's legacy static format.

    Args:
        format: one of `TOLERANCES`.

    Returns:
        True for the legacy format, False for PIR.
    """
    return format in ("paddle", "openvino", "lite") or (format == "onnx" and can_write("legacy"))


def paddle_format() -> str:
    """Return the default format for Paddle Inference: paddle, or pir if the installed Paddle cannot write that."""
    return "paddle" if can_write("legacy") else "pir"


def check_request(format: str, precision: str) -> None:
    """Check, before any work, that a format and precision exist and that this environment can export to them.

    Args:
        format: the format to export to.
        precision: the number format that the bundle computes in or is stored in.

    Raises:
        UsageError: unknown format or precision.
        DynabertError: the installed Paddle cannot write the format, or a package is missing.
    """
    if format not in TOLERANCES:
        allowed = (*TOLERANCES, AUTO)
        raise UsageError(f"format '{format}' is not one of {', '.join(allowed)}.{did_you_mean(format, allowed)}")
    if precision not in TOLERANCES[format]:
        formats = [name for name, precisions in TOLERANCES.items() if precision in precisions]
        if formats:
            hint = f"; {precision} is available for {', '.join(formats)}"
        else:
            hint = did_you_mean(precision, TOLERANCES[format])
        raise UsageError(f"format {format} has the precisions {', '.join(TOLERANCES[format])}, not '{precision}'{hint}")
    int8 = "int8 in " if precision == "int8" else ""
    file = {"paddle": " (model.pdmodel)", "openvino": " (model.pdmodel)", "pir": " (model.json)"}.get(format, "")
    instead = "onnx" if int8 or format == "lite" else paddle_format()
    check_can_write(
        "legacy" if needs_legacy(format) else "pir",
        what=f"{int8}format {format}{file}",
        instead=f"use {setting('format')} {instead}",
    )
    if format == "onnx":
        for package in ("paddle2onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise DynabertError(f"format onnx needs {package}: run 'pip install \"dynabert-paddle[onnx]\"'")
    if format == "openvino" and not has_openvino():
        raise DynabertError("format openvino needs the OpenVINO that paddlepaddle 3 brings for x86 CPUs: install that")
    if format == "lite":
        find_converter()


def list_instruction_sets() -> dict[str, str]:
    """List the instruction sets that decide which format is fast, and what each format gains from them.

    Returns:
        For each set `yes`, `no` or `unknown` on this processor, and its gains; docs/performance.md has those with VNNI.
    """
    found = instruction_sets()

    def answer(name: str) -> str:
        return "unknown" if found is None else "yes" if name in found else "no"

    return {name: f"{answer(name)}: {_GAINS[name]}" for name in INSTRUCTION_SETS}


def list_format_support() -> dict[str, str]:
    """List which formats this environment can export to.

    Returns:
        For each format `yes` and its precisions, or `no` and the remedy.
    """
    support = {}
    for format, precisions in TOLERANCES.items():
        try:
            # All precisions of a format need the same Paddle and packages.
            check_request(format, next(iter(precisions)))
            support[f"export to {format}"] = f"yes: {', '.join(precisions)}"
        except DynabertError as error:
            support[f"export to {format}"] = f"no: {error}"
    return support
