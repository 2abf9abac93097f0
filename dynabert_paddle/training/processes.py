"""Several processes under `paddle.distributed.launch`: each has a share of the work, and the first one writes.

A process that waits for another in one of Paddle's collectives gives up after half a minute on a CPU. Where one may be
busy for longer, `meet` comes before.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import paddle
from paddle import Tensor, distributed

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.ranks import is_rank_zero, num_processes, rank

_POLL_SECONDS = 0.02
_PART_SECONDS = 10.0  # in case the others have ended long ago
_meetings = itertools.count()


def meet() -> None:
    """Wait, for as long as it takes, until all processes have come here.

    Raises:
        DynabertError: one of them has ended.
    """
    if num_processes() == 1:
        return
    with _together():
        store, key = paddle.base.core.create_or_get_global_tcp_store(), f"dynabert/meeting-{next(_meetings)}"
        store.add(key, 1)
        while store.add(key, 0) < num_processes():
            time.sleep(_POLL_SECONDS)


def lead(do: Callable[[], Any]) -> None:
    """Do something in the first process; the others wait for it.

    Args:
        do: what to do.

    Raises:
        DynabertError: the first process has ended.
    """
    if is_rank_zero():
        do()
    meet()


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
    with _together():
        distributed.all_reduce(flat)
    parts = paddle.split(flat, [gradient.size for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        paddle.assign(part.reshape(gradient.shape), gradient)


def sum_values(values: Mapping[str, float]) -> dict[str, float]:
    """Add numbers up over the processes.

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
    with _together():
        distributed.all_reduce(total)
    return dict(zip(values, total.tolist(), strict=True))


def gather(value: Any) -> list[Any]:
    """Bring a value of each process to all of them.

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
    meet()
    with _together():
        distributed.all_gather_object(values, value)
    return values


def collect(own: Sequence[Any]) -> list[Any]:
    """Put together what the processes have made of a list of which each has taken `[rank()::num_processes()]`.

    Args:
        own: what this process has made of its part.

    Returns:
        All of it, in the list's order.

    Raises:
        DynabertError: another process has ended.
    """
    parts = gather(own)
    return [parts[index % len(parts)][index // len(parts)] for index in range(sum(map(len, parts)))]


def broadcast(value: Any) -> Any:
    """Bring a value of the first process to all of them.

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
    meet()
    with _together():
        distributed.broadcast_object_list(box, src=0)
    return box[0]


def _part() -> None:
    """End last where this process is the first one: it has the store, which another may still look into."""
    with contextlib.suppress(RuntimeError, ValueError):
        store, until = paddle.base.core.create_or_get_global_tcp_store(), time.monotonic() + _PART_SECONDS
        store.add("dynabert/parted", 1)
        while is_rank_zero() and store.add("dynabert/parted", 0) < num_processes() and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Join the other processes where that has not been done; say in one line that one of them has ended."""
    try:
        if not distributed.is_initialized():
            if paddle.get_device() == "cpu":
                os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
            with contextlib.redirect_stderr(io.StringIO()):  # which Paddle prints flags to
                distributed.init_parallel_env()
            atexit.register(_part)
        yield
    except (RuntimeError, ValueError) as error:  # a broken connection is either, by what was being read
        raise DynabertError(
            f"process {rank()} of {num_processes()} stops, for another one has ended or does not answer; "
            f"that one's log says why ({str(error).splitlines()[-1][:200]})"
        ) from None
