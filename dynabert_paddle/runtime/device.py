"""The device that Paddle computes on."""

from __future__ import annotations

import os

from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.memory import raise_memory_error

_OWN_GPU = "FLAGS_selected_gpus"  # set by paddle.distributed.launch for each process


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
        raise UsageError(f"device '{device}': the installed Paddle {build}; use cpu")
    index = index or os.environ.get(_OWN_GPU, "0")
    if name == "gpu" and int(index) >= paddle.device.cuda.device_count():
        raise UsageError(f"device '{device}': this machine has {paddle.device.cuda.device_count()} GPU(s), from gpu:0")
    try:
        paddle.set_device(f"gpu:{index}" if name == "gpu" else device)
    except Exception as error:  # Paddle's own errors are C++ traces of many lines
        raise_memory_error(error)
        raise UsageError(f"device '{device}' cannot be used: {type(error).__name__}; try cpu") from None
    return paddle.get_device()
