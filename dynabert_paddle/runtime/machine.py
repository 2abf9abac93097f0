"""The processor, as Linux describes it."""

from __future__ import annotations

import platform
from pathlib import Path


def is_amd() -> bool:
    """Whether the processor is one of AMD."""
    return "AuthenticAMD" in _cpuinfo()


def processor_name() -> str:
    """The processor's name."""
    names = (line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
