"""The float weights behind the rounded ones of a quantized model: what its training changes.

A quantized model has rounded weights. All passes of a step compute with them, and an optimizer's step changes the float
weights that they were rounded from, and the logarithm of each scale: Adam's steps have the size of the learning rate,
so that a scale changes in proportion to itself (Jain et al., 2020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.errors import ModelError
from dynabert_paddle.supernet.quantized import find_quantized, find_ranges
from dynabert_paddle.supernet.rounding import gradients_before_rounding, round_weight, ternary_scale


class LatentWeights:
    """The float weights of a quantized model, and the logarithms of its scales.

    Args:
        model: a quantized PaddleNLP model; its weights as they are become the float ones, and are rounded.
    """

    def __init__(self, model: nn.Layer) -> None:
        self._weights = find_quantized(model)
        ranges = {id(part.scale): part.scale for part in find_ranges(model)}
        self._scales = [weight.scale for weight in self._weights if weight.bits > 2] + list(ranges.values())
        paths = {id(parameter): name for name, parameter in model.named_parameters()}
        self._names = [paths[id(tensor)] for tensor in self._changed]
        with paddle.no_grad():
            self._latent = [
                *(weight.weight.detach().clone() for weight in self._weights),
                *(scale.detach().log2() for scale in self._scales),
            ]
            self._round()

    @property
    def _changed(self) -> list[Tensor]:
        """The parameters of the model that a step changes by way of the latent tensors, in their order."""
        return [*(weight.weight for weight in self._weights), *self._scales]

    @contextmanager
    def step(self) -> Iterator[None]:
        """Let an optimizer take a step within a `with` block: the model has the float weights and their gradients.

        Yields:
            Nothing.
        """
        with paddle.no_grad():
            for weight, latent in zip(self._weights, self._latent, strict=False):
                if weight.weight.grad is not None:
                    gradients = gradients_before_rounding(
                        latent, weight.scale, weight.bits, weight.weight.grad, weight.axis
                    )
                    weight.weight.grad = gradients.weight
                    if gradients.scale is not None:
                        weight.scale.grad = gradients.scale
            for scale in self._scales:
                if scale.grad is not None:
                    scale.grad = scale.grad * scale * math.log(2)
            for parameter, latent in zip(self._changed, self._latent, strict=True):
                paddle.assign(latent, parameter)
        yield
        with paddle.no_grad():
            for parameter, latent in zip(self._changed, self._latent, strict=True):
                paddle.assign(parameter, latent)
            for scale in self._scales:
                paddle.assign(paddle.pow(paddle.full_like(scale, 2.0), scale), scale)
            self._round()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the latent tensors by the names of the model's parameters, for a checkpoint."""
        return {name: latent.numpy() for name, latent in zip(self._names, self._latent, strict=True)}

    def set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Put back what `to_arrays` gave.

        Args:
            arrays: by the names of the same model's parameters.

        Raises:
            ModelError: they are another model's.
        """
        for name, latent in zip(self._names, self._latent, strict=True):
            if name not in arrays or list(arrays[name].shape) != latent.shape:
                raise ModelError(f"'{name}' is missing or not of shape {latent.shape}")
        for name, latent in zip(self._names, self._latent, strict=True):
            latent.set_value(arrays[name])

    def _round(self) -> None:
        for weight, latent in zip(self._weights, self._latent, strict=False):
            if weight.bits == 2:
                paddle.assign(ternary_scale(latent, weight.axis), weight.scale)
            paddle.assign(round_weight(latent, weight.scale, weight.bits, weight.axis), weight.weight)
