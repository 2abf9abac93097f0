"""Collectives between the processes of `paddle.distributed.launch`: they share the work, and the first one writes.

A process that waits in one of Paddle's collectives gives up after half a minute on a CPU. So `barrier` comes first
where another process may be busy for longer.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import paddle
from paddle import Tensor, distributed

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.ranks import is_rank_zero, num_processes, rank
from dynabert_paddle.runtime.streams import TERMINATING

_POLL_SECONDS = 0.02
_LEAVE_SECONDS = 10.0  # at most, in case the others have ended long ago
_barriers = itertools.count()


def barrier() -> None:
    """Wait, without a time limit, until all processes have reached this call.

    Raises:
        DynabertError: one of them has ended.
    """
    if num_processes() == 1:
        return
    with _process_group():
        store, key = paddle.base.core.create_or_get_global_tcp_store(), f"dynabert/barrier-{next(_barriers)}"
        store.add(key, 1)
        while store.add(key, 0) < num_processes():
            time.sleep(_POLL_SECONDS)


def on_rank_zero(function: Callable[[], Any]) -> None:
    """Call a function in the first process; the others wait for it.

    Args:
        function: takes no arguments; its result is dropped.

    Raises:
        DynabertError: the first process has ended.
    """
    if is_rank_zero():
        function()
    barrier()


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by the sum over the processes, all of them in one reduction.

    Args:
        parameters: the model's, in the same order in every process.

    Raises:
        DynabertError: another process has ended.
    """
    if num_processes() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = paddle.concat([gradient.reshape([-1]) for gradient in gradients])
    with _process_group():
        distributed.all_reduce(flat)
    parts = paddle.split(flat, [gradient.size for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        paddle.assign(part.reshape(gradient.shape), gradient)


def sum_values(values: Mapping[str, float]) -> dict[str, float]:
    """Sum numbers over the processes.

    Args:
        values: by name, the same names in every process.

    Returns:
        The sums.

    Raises:
        DynabertError: another process has ended.
    """
    if num_processes() == 1:
        return dict(values)
    total = paddle.to_tensor(list(values.values()), dtype="float64")
    with _process_group():
        distributed.all_reduce(total)
    return dict(zip(values, total.numpy().tolist(), strict=True))


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, in every process.

    Args:
        value: this process's, of any type that can be pickled.

    Returns:
        The values, in the order of the processes.

    Raises:
        DynabertError: another process has ended.
    """
    if num_processes() == 1:
        return [value]
    values: list[Any] = []
    barrier()
    with _process_group():
        distributed.all_gather_object(values, value)
    return values


def check_equal(value: str, message: str) -> None:
    """Refuse to go on where the processes have read different models or data.

    Args:
        value: a hash of what this process has read.
        message: the error's.

    Raises:
        DynabertError: another process has another value, or has ended.
    """
    if len(set(gather(value))) > 1:
        raise DynabertError(message)


def collect(own: Sequence[Any]) -> list[Any]:
    """Join the results for a list that the processes divided by `[rank()::num_processes()]`.

    Args:
        own: this process's results.

    Returns:
        All results, in the list's order.

    Raises:
        DynabertError: another process has ended.
    """
    parts = gather(own)
    return [parts[index % len(parts)][index // len(parts)] for index in range(sum(map(len, parts)))]


def broadcast(value: Any) -> Any:
    """Return the first process's value, in every process.

    Args:
        value: of any type that can be pickled; only the first process's counts.

    Returns:
        The first process's value.

    Raises:
        DynabertError: another process has ended.
    """
    if num_processes() == 1:
        return value
    box = [value]
    barrier()
    with _process_group():
        distributed.broadcast_object_list(box, src=0)
    return box[0]


def _leave() -> None:
    """Let the first process end last: it has the store, which the others may still read.

    The launcher asks all processes to end as soon as one has; that must not change the exit code of a finished one.
    """
    for number in TERMINATING:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(RuntimeError, ValueError):
        store, until = paddle.base.core.create_or_get_global_tcp_store(), time.monotonic() + _LEAVE_SECONDS
        store.add("dynabert/left", 1)
        while is_rank_zero() and store.add("dynabert/left", 0) < num_processes() and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _process_group() -> Iterator[None]:
    """Join the process group at the first use; turn the error of a broken connection into one line."""
    try:
        if not distributed.is_initialized():
            if paddle.get_device() == "cpu":
                os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
            with contextlib.redirect_stderr(io.StringIO()):  # Paddle prints its flags there
                distributed.init_parallel_env()
            atexit.register(_leave)
        yield
    except (RuntimeError, ValueError) as error:  # a broken connection raises either
        raise DynabertError(
            f"process {rank()} of {num_processes()} stops: another one has ended or does not answer; "
            f"that one's log says why ({str(error).splitlines()[-1][:200]})"
        ) from None
