"""Parts of parameters, each cut once for many passes.

A cut copies, and Paddle pads its gradient to the parameter's size. Where no parameter changes for a while, as in an
evaluation or in the passes of a training step, a part is cut once, and is a tensor with a gradient of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise

import paddle
import paddle.nn.functional as F
from paddle import Tensor


class Slices:
    """The parts that have been cut.

    Args:
        room: how many values they may have; what is beyond it is cut anew each time.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._parts: dict[int, dict[int, Tensor]] = {}  # by the parameter and the part's size

    def cut(self, parameter: Tensor, axis: int, size: int) -> Tensor:
        """As the function `cut`; the same tensor each time.

        Args:
            parameter: any shape.
            axis: what to cut along.
            size: what to keep of it.

        Returns:
            The part. It needs a gradient if the parameter does, and keeps it to itself.
        """
        parts = self._parts.setdefault(id(parameter), {})
        if size not in parts:
            num_values = parameter.size // parameter.shape[axis] * size
            if num_values > self._room:
                return _crop(parameter, axis, size)
            self._room -= num_values
            with paddle.no_grad():  # the first rows are no copy
                parts[size] = parameter[:size] if axis == 0 else _crop(parameter, axis, size)
            parts[size].stop_gradient = parameter.stop_gradient
        return parts[size]

    def with_gradients(self, parameter: Tensor) -> list[Tensor]:
        """A parameter's parts that have a gradient.

        Args:
            parameter: any parameter.

        Returns:
            The parts, the smallest first.
        """
        parts = sorted(self._parts.get(id(parameter), {}).items())
        return [part for _, part in parts if part.grad is not None]


_SLICES: ContextVar[Slices | None] = ContextVar("dynabert_slices", default=None)


@contextmanager
def keep_slices(slices: Slices) -> Iterator[None]:
    """Cut each part of a parameter only once, for the length of `with` blocks in which no parameter changes.

    Args:
        slices: gets the parts.

    Yields:
        Nothing.
    """
    token = _SLICES.set(slices)
    try:
        yield
    finally:
        _SLICES.reset(token)


def cut(parameter: Tensor, axis: int, size: int) -> Tensor:
    """Take the first rows or columns of a parameter.

    Args:
        parameter: any shape.
        axis: what to cut along.
        size: what to keep of it.

    Returns:
        The part; the parameter itself where that is all of it.
    """
    if parameter.shape[axis] == size:
        return parameter
    slices = _SLICES.get()
    return _crop(parameter, axis, size) if slices is None else slices.cut(parameter, axis, size)


def add_gradients(nested: Sequence[Tensor]) -> None:
    """Add the gradients of a parameter's parts to its own.

    Args:
        nested: the parts that have a gradient, the smallest first, and the parameter: each of the same axis, and the
            first rows or columns of the next.
    """
    for part, whole in pairwise(nested):
        if whole.grad is not None and part.shape[1:] == whole.shape[1:]:
            whole.grad.detach()[: part.shape[0]].add_(part.grad)
            continue
        padding = [n for kept, size in zip(part.shape, whole.shape, strict=True) for n in (0, size - kept)]
        padded = F.pad(part.grad, padding)
        if whole.grad is None:
            whole.grad = padded
        else:
            whole.grad.detach().add_(padded)


def _crop(parameter: Tensor, axis: int, size: int) -> Tensor:
    """A copy of the first rows or columns."""
    shape = list(parameter.shape)
    shape[axis] = size
    # Indexing gives a strided view, which Paddle copies for the product, and pads for the gradient, three times slower.
    return paddle.crop(parameter, shape)
