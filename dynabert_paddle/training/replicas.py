"""A model several times over, with one set of weights: each takes a part of a batch, in a thread of its own.

On a CPU Paddle computes products with all cores, and most of the rest, such as softmax, with one. Threads that each
have a part of the batch and of the cores do all of it with all cores.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import TypeVar

import paddle
from paddle import Tensor

from dynabert_paddle.runtime.threads import can_limit_threads, limit_threads, num_threads
from dynabert_paddle.supernet.slices import Slices, add_gradients, keep_slices
from dynabert_paddle.supernet.supernet import Supernet

T = TypeVar("T")

_MOST = 4  # each has gradients of its own, as large as the model
_ROOM = 2**25  # values of weights that each keeps cut: with their gradients at most 256 MB
_SECONDS_TO_SIGNALS = 0.05  # Python handles a Ctrl-C when the main thread's wait ends, not within it


def count_replicas() -> int:
    """Count the replicas that make good use of this process's threads.

    Returns:
        1 on a GPU, and where the number of threads cannot be set.
    """
    threads = num_threads()
    if threads == 1 or paddle.get_device() != "cpu" or not can_limit_threads():
        return 1
    # Each has as many threads: of 6, three have 2 of them, where four would have 1.
    return max(range(2, _MOST + 1), key=lambda count: (threads // count * count, count))


class Replicas:
    """A model and copies of it that have its weights, and gradients of their own, for the length of a `with` block.

    Args:
        supernet: the model.
        count: how many there are, itself included.
    """

    def __init__(self, supernet: Supernet, count: int) -> None:
        self.supernet = supernet
        self._replicas = [supernet, *(_copy(supernet) for _ in range(1, count))]
        self._slices = [Slices(_ROOM) for _ in self._replicas]
        threads = max(1, num_threads() // count)
        self._pool = ThreadPoolExecutor(count, "replica", limit_threads, (threads,)) if count > 1 else None

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def __len__(self) -> int:
        return len(self._replicas)

    def map(self, do: Callable[[Supernet, int], T]) -> list[T]:
        """Do something with each replica, with all of them at once.

        Parts of parameters are cut once, and have gradients of their own, until `sum_gradients`: no parameter may
        change before it.

        Args:
            do: is given the replica and its number.

        Returns:
            What it has returned, in the replicas' order.
        """

        def run(number: int, replica: Supernet) -> T:
            with keep_slices(self._slices[number]):
                return do(replica, number)

        return self._at_once([partial(run, number, replica) for number, replica in enumerate(self._replicas)])

    def sum_gradients(self) -> None:
        """Add the copies' gradients to the model's, and those of parts to the parameters', always in the same order."""
        nested = [
            [[*slices.with_gradients(parameter), parameter] for parameter in replica.model.parameters()]
            for replica, slices in zip(self._replicas, self._slices, strict=True)
        ]
        self._slices = [Slices(_ROOM) for _ in self._slices]
        parameters = list(zip(*nested, strict=True))
        # Of the threads that compute the passes each sums some: the main thread's would spin beside the next passes.
        self._at_once([partial(_sum_gradients, parameters[number :: len(self)]) for number in range(len(self))])

    def _at_once(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Call each in a thread of its own."""
        if not self._pool:
            return [task() for task in tasks]
        futures = [self._pool.submit(task) for task in tasks]
        while wait(futures, timeout=_SECONDS_TO_SIGNALS).not_done:
            pass
        return [future.result() for future in futures]


def _sum_gradients(parameters: Sequence[tuple[list[Tensor], ...]]) -> None:
    """Add up the gradients of each parameter; it is given as its parts and itself, once for each replica."""
    for nested in parameters:
        for own, *copies in zip(*nested, strict=True):
            for copied in copies:
                if copied.grad is not None:
                    own.grad.detach().add_(copied.grad)
                    copied.clear_gradient(False)  # which frees it
        add_gradients(nested[0])


def _copy(supernet: Supernet) -> Supernet:
    model = copy.deepcopy(supernet.model)
    for copied, parameter in zip(model.parameters(), supernet.model.parameters(), strict=True):
        copied.get_tensor()._share_data_with(parameter.get_tensor())
    return Supernet(model)
