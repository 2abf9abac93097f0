"""A model several times over, with one set of weights: each takes a part of a batch, in a thread of its own.

On a CPU Paddle computes products with all cores, and most of the rest, such as softmax, with one. Threads that each
have a part of the batch and of the cores do all of it with all cores.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import paddle
from paddle import Tensor

from dynabert_paddle import runtime
from dynabert_paddle.supernet.supernet import Supernet

T = TypeVar("T")

_MOST = 4  # each has gradients of its own, as large as the model
_SECONDS_TO_SIGNALS = 0.05  # Python handles a Ctrl-C when the main thread's wait ends, not within it


def count_replicas() -> int:
    """Count the replicas that make good use of this process's threads.

    Returns:
        1 on a GPU, and where the number of threads cannot be set.
    """
    threads = runtime.num_threads()
    if threads == 1 or paddle.get_device() != "cpu" or not runtime.can_limit_threads():
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
        self._copies = [_copy(supernet) for _ in range(1, count)]
        threads = max(1, runtime.num_threads() // count)
        self._pool = ThreadPoolExecutor(count, "replica", runtime.limit_threads, (threads,)) if count > 1 else None

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def __len__(self) -> int:
        return 1 + len(self._copies)

    def map(self, do: Callable[[Supernet, int], T]) -> list[T]:
        """Do something with each replica, with all of them at once.

        Args:
            do: is given the replica and its number.

        Returns:
            What it has returned, in the replicas' order.
        """
        if not self._pool:
            return [do(self.supernet, 0)]
        futures = [self._pool.submit(do, replica, i) for i, replica in enumerate([self.supernet, *self._copies])]
        while wait(futures, timeout=_SECONDS_TO_SIGNALS).not_done:
            pass
        return [future.result() for future in futures]

    def sum_gradients(self) -> None:
        """Add the copies' gradients to the model's, always in the same order, and clear them."""
        parameters = list(zip(*(replica.model.parameters() for replica in [self.supernet, *self._copies]), strict=True))
        # Of the threads that compute the passes each sums some: the main thread's would spin beside the next passes.
        self.map(lambda _, number: _sum_gradients(parameters[number :: len(self)]))


def _sum_gradients(parameters: Sequence[tuple[Tensor, ...]]) -> None:
    """Add to the gradient of the first of each tuple those of the others."""
    for parameter, *copies in parameters:
        for copied in copies:
            if copied.grad is not None:
                parameter.grad.detach().add_(copied.grad)
                copied.clear_gradient(False)  # which frees it


def _copy(supernet: Supernet) -> Supernet:
    model = copy.deepcopy(supernet.model)
    for copied, parameter in zip(model.parameters(), supernet.model.parameters(), strict=True):
        copied.get_tensor()._share_data_with(parameter.get_tensor())
    return Supernet(model)
