"""The processor, as Linux describes it.

This file is part of every bundle's `infer.py`.
"""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_FILE = Path("/proc/cpuinfo")
# Precision -> instructions that compute in it; any one is enough. Without them a runtime converts to float32, or
# needs several instructions for one.
_INSTRUCTIONS = {
    "bf16": ("avx512_bf16", "amx_bf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8"),
}
# The sets by which processors are of one kind, and Linux's names for them; any one is enough.
_KIND = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "amx_bf16"),
    "AMX": ("amx_tile", "amx_int8", "amx_bf16"),
}
INSTRUCTION_SETS = tuple(_KIND)
_SPEED = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def is_amd() -> bool:
    """Whether the processor is one of AMD."""
    return "AuthenticAMD" in _cpuinfo()


def processor_name() -> str:
    """The processor's name."""
    names = (line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def describe_processor() -> str:
    """The processor's name and, of the instructions that decide how fast models run, those that it has."""
    flags = _flags() or []
    return ", ".join([processor_name(), *(name for name in _SPEED if name in flags)])


def instruction_sets() -> list[str] | None:
    """List the processor's instruction sets that decide which format is fast: its kind.

    Returns:
        Those of `INSTRUCTION_SETS` that it has, none for a processor that is not x86; None if the system does not tell.
    """
    flags = _flags()
    if flags is None:
        return None if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686") else []
    return [name for name, flags_of_set in _KIND.items() if any(flag in flags for flag in flags_of_set)]


def find_instructions(precision: str) -> list[str] | None:
    """List the processor's instructions that compute in a precision.

    Args:
        precision: `bf16` or `int8`.

    Returns:
        Their names; None if Linux does not tell them.
    """
    flags = _flags()
    return None if flags is None else [name for name in _INSTRUCTIONS[precision] if name in flags]


def slow_precision(precision: str, format: str | None = None) -> str | None:
    """Explain why a precision is not faster than fp32 on this processor.

    Args:
        precision: any; only `bf16` and `int8` need instructions of their own.
        format: of the bundle. ONNX Runtime multiplies int8 with AVX2 alone, too, where others gain nothing.

    Returns:
        One line; None if the processor has the instructions, or if Linux does not tell them.
    """
    if precision not in _INSTRUCTIONS or find_instructions(precision) != []:
        return None
    if (format, precision) == ("onnx", "int8") and "avx2" in (_flags() or []):
        return None
    names = ", ".join(_INSTRUCTIONS[precision])
    return f"{precision} is little or no faster than fp32 on this machine: its processor has none of {names}"


def _flags() -> list[str] | None:
    flags = (line.partition(":")[2].split() for line in _cpuinfo().splitlines() if line.startswith("flags"))
    return next(flags, None)


def _cpuinfo() -> str:
    try:
        return _CPU_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
