"""How many CPU threads Paddle computes with, in the process and in one of its threads."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# Paddle's libraries of CPU threads, and the function of each that sets the number for the calling thread.
_THREAD_LIBRARIES = {"libiomp5.so": "omp_set_num_threads", "libmklml_intel.so": "MKL_Set_Num_Threads_Local"}


def num_threads() -> int:
    """How many threads Paddle computes with on a CPU."""
    return int(os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0])


def can_limit_threads() -> bool:
    """Whether `limit_threads` works with the installed Paddle."""
    return all((_libraries() / name).is_file() for name in _THREAD_LIBRARIES)


def limit_threads(count: int) -> None:
    """Set how many threads Paddle's operations in the calling thread use.

    Args:
        count: threads.
    """
    for name, function in _THREAD_LIBRARIES.items():
        getattr(ctypes.CDLL(str(_libraries() / name)), function)(count)


def _libraries() -> Path:
    import paddle

    return Path(paddle.__file__).parent / "libs"
