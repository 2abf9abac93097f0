"""How many threads compute at once.

This file is a part of every bundle's `infer.py`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

# Where a container sees its quota: the quota and the period of version 2, then of version 1 (Linux, cgroups(7)).
_QUOTA_FILES = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


def num_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the cores that this process may use, by its affinity and its container's quota (`docker run --cpus`).

    With more threads a container spends its quota early in each period, and then stands still until the next.

    Args:
        cgroup: the folder of the container's limits.

    Returns:
        1 or more; half a core counts as one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _read_quota(cgroup))))


def _read_quota(cgroup: Path) -> float:
    """Seconds of computing a second, infinity without a quota."""
    for names in _QUOTA_FILES:
        try:
            quota, period = " ".join((cgroup / name).read_text(encoding="ascii") for name in names).split()
            return math.inf if quota in ("max", "-1") else int(quota) / int(period)
        except (OSError, ValueError):
            continue
    return math.inf
