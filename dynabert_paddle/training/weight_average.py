"""An exponential moving average of the weights, which is scored and kept in place of the last step's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.errors import ModelError


class WeightAverage:
    """The average of a model's parameters over the steps of its training.

    After step t it is d * average + (1 - d) * weights with d = min(decay, (1 + t) / (10 + t)), so that the weights that
    training began with do not count for long (as in TensorFlow's ExponentialMovingAverage).

    Args:
        model: the model that trains; the average begins with its weights.
        decay: how much of the average stays in a step, below 1.
    """

    def __init__(self, model: nn.Layer, decay: float) -> None:
        self._decay = decay
        parameters = dict(model.named_parameters())
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._averages = [_copy(parameter) for parameter in self._parameters]

    def update(self, step: int) -> None:
        """Take in the weights after a step.

        Args:
            step: steps done, from 1.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        with paddle.no_grad():
            for average, parameter in zip(self._averages, self._parameters, strict=True):
                paddle.assign(average + (parameter - average) * (1 - decay), average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averages within a `with` block.

        Yields:
            Nothing.
        """
        weights = [_copy(parameter) for parameter in self._parameters]
        try:
            self._set(self._averages)
            yield
        finally:
            self._set(weights)

    def _set(self, tensors: list[Tensor]) -> None:
        with paddle.no_grad():
            for tensor, parameter in zip(tensors, self._parameters, strict=True):
                paddle.assign(tensor, parameter)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the averages by the names of the model's parameters, for a checkpoint."""
        return {name: average.numpy() for name, average in zip(self._names, self._averages, strict=True)}

    def set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to the averages of a checkpoint.

        Args:
            arrays: from `to_arrays`.

        Raises:
            ModelError: they are of another model.
        """
        if {name: array.shape for name, array in arrays.items()} != {
            name: tuple(average.shape) for name, average in zip(self._names, self._averages, strict=True)
        }:
            raise ModelError("the averages are those of another model")
        for name, average in zip(self._names, self._averages, strict=True):
            average.set_value(arrays[name])


def _copy(parameter: Tensor) -> Tensor:
    return parameter.detach().clone()
