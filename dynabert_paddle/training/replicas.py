"""Replicas of a model that share its weights: each computes a shard of a batch, in a thread of its own.

On a CPU Paddle uses all cores for products, and one core for most of the rest, such as softmax. Threads that each have
a shard and a share of the cores keep all cores busy with everything.
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
from dynabert_paddle.supernet.slices import SliceCache, add_gradients
from dynabert_paddle.supernet.supernet import Supernet

T = TypeVar("T")

MAX_REPLICAS = 4  # each has gradients of its own, as large as the model
_SIGNAL_POLL_SECONDS = 0.05  # Python handles Ctrl-C when the main thread's wait ends, not within it


def count_replicas() -> int:
    """Return how many replicas use this process's threads best; 1 on a GPU, or if thread counts cannot be set."""
    threads = num_threads()
    if threads == 1 or paddle.get_device() != "cpu" or not can_limit_threads():
        return 1
    # All have equally many threads: of 6, three replicas use all (2 each), four would use 4 (1 each).
    return max(range(2, MAX_REPLICAS + 1), key=lambda count: (threads // count * count, count))


class Replicas:
    """A model and copies that share its weights and have gradients of their own; a context manager.

    Args:
        supernet: the model.
        count: how many there are, the model itself included.
    """

    def __init__(self, supernet: Supernet, count: int) -> None:
        self.supernet = supernet
        self._replicas = [supernet, *(_copy(supernet) for _ in range(1, count))]
        threads = max(1, num_threads() // count)
        self._pool = ThreadPoolExecutor(count, "replica", limit_threads, (threads,)) if count > 1 else None

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def __len__(self) -> int:
        return len(self._replicas)

    def map(self, function: Callable[[Supernet, int], T]) -> list[T]:
        """Call a function for each replica, for all of them at once.

        Args:
            function: takes the replica and its number.

        Returns:
            Its results, in the replicas' order.
        """
        return self._at_once([partial(function, replica, number) for number, replica in enumerate(self._replicas)])

    def sum_gradients(self, caches: Sequence[SliceCache | None]) -> None:
        """Add the replicas' gradients, and those of slices, to the model's, always in the same order.

        Args:
            caches: the slices that each replica has used; none of its parameters may have changed since.
        """
        nested = [
            [
                [*(cache.slices_with_gradients(parameter) if cache else ()), parameter]
                for parameter in replica.model.parameters()
            ]
            for replica, cache in zip(self._replicas, caches, strict=True)
        ]
        parameters = list(zip(*nested, strict=True))
        # In the threads that compute the passes: the main thread's own would spin beside the next passes.
        self._at_once([partial(_sum_gradients, parameters[number :: len(self)]) for number in range(len(self))])

    def _at_once(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Call each task in a thread of its own."""
        if not self._pool:
            return [task() for task in tasks]
        futures = [self._pool.submit(task) for task in tasks]
        while wait(futures, timeout=_SIGNAL_POLL_SECONDS).not_done:
            pass
        return [future.result() for future in futures]


def _sum_gradients(parameters: Sequence[tuple[list[Tensor], ...]]) -> None:
    """Sum the gradients of each parameter, given for each replica as its slices and itself."""
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
