"""Activations as int8: the inputs of linear layers are rounded to multiples of a scale that is trained.

Shapes: any; the last axis has n features.
"""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from dynabert_paddle.supernet.calls import current_call
from dynabert_paddle.supernet.cpu_operations import is_supported

LOWEST, HIGHEST = -128, 127


class ActivationRange(nn.Layer):
    """Rounds a tensor to int8 times a scale, as the int8 kernels of the runtimes do: one scale for the whole tensor.

    Args:
        scale: of the tensor, until training changes it.
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = self.create_parameter([1], default_initializer=nn.initializer.Constant(scale))

    @paddle.jit.not_to_static  # an export traces it unchanged
    def forward(self, x: Tensor) -> Tensor:
        """Round x; within a call that measures ranges, only show it to that."""
        call = current_call()
        if call is not None and call.state.observe_range is not None:
            call.state.observe_range(self, x)
            return x
        if is_supported(x, None if call is None else call.state.dropout_bits):
            return _Rounding.apply(x, self.scale)
        return _round(x, self.scale)


class RangedLinear(nn.Linear):
    """A linear layer outside the encoder that rounds its input; the encoder itself rounds those of its own layers.

    Args:
        stock: the layer to take over, with its parameters under their names.
        input_range: rounds the input.
    """

    def __init__(self, stock: nn.Linear, input_range: ActivationRange) -> None:
        nn.Layer.__init__(self)  # the parent's would draw random numbers
        self.weight, self.bias, self.name = stock.weight, stock.bias, stock.name
        self.input_range: nn.Layer | None = input_range

    def forward(self, input: Tensor) -> Tensor:
        """Compute y = xW + b, `[..., outputs]`."""
        return F.linear(round_input(self, input), self.weight, self.bias)


def round_input(layer: nn.Layer, x: Tensor, name: str = "input_range") -> Tensor:
    """Round a layer's input, if the layer has a range for it.

    Args:
        layer: a layer.
        x: its input.
        name: of the range among the layer's own.

    Returns:
        The same shape.
    """
    rounding = getattr(layer, name, None)
    return x if rounding is None else rounding(x)


def _round(x: Tensor, scale: Tensor) -> Tensor:
    """y = s clip(round(x / s)) in Paddle's own operations, with the gradients of `_Rounding`."""
    share = _gradient_share(x)
    scale = scale.detach() + (scale - scale.detach()) * share
    clipped = (x.astype(scale.dtype) * scale.reciprocal()).clip(LOWEST, HIGHEST)
    rounded = clipped + (paddle.round(clipped) - clipped).detach()
    return (rounded * scale).astype(x.dtype)


class _Rounding(PyLayer):
    """y = s clip(round(x / s)); rounding counts as the identity for the gradients (Esser et al., 2020).

    dy/dx is 1 within the range, and 0 outside; dy/ds is round(x / s) - x / s within, and the nearer end outside,
    times 1 / sqrt(127 n).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        multiples = x.scale(float(scale.reciprocal().numpy()[0]))
        ctx.save_for_backward(multiples)
        ctx.wanted = [not tensor.stop_gradient for tensor in (x, scale)]
        return paddle.round(multiples).clip_(LOWEST, HIGHEST).scale_(float(scale.numpy()[0]))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        (multiples,) = ctx.saved_tensor()
        within = multiples.clip(LOWEST, HIGHEST).equal(multiples).astype(dy.dtype)
        dscale = None
        if ctx.wanted[1]:
            slope = paddle.round(multiples).clip_(LOWEST, HIGHEST).subtract_(multiples.multiply(within))
            dscale = (slope.multiply_(dy).sum() * _gradient_share(dy)).reshape([1])
        return within.multiply_(dy) if ctx.wanted[0] else None, dscale


def _gradient_share(x: Tensor) -> float:
    return float((x.shape[-1] * HIGHEST) ** -0.5)
