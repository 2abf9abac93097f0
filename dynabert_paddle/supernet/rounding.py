"""Rounding of weights to integers times a scale, and the gradients of what they were rounded from.

Shapes: a weight `[m, n]` has a scale over one axis in common, `[1, n]` or `[m, 1]`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import paddle
from paddle import Tensor

# Of a matrix: without VNNI, x86 processors add two products of 8 bits in 16 bits, and cut off what passes 32,767:
# weights up to 127 give other answers there. 2 x 255 x 64 does not pass it.
MAX_WEIGHT_INTEGER = 64
_TERNARY_THRESHOLD = 0.7  # times the mean of |w| (Li et al., 2016)
_CANDIDATES = np.linspace(0.2, 1.0, 33)  # shares of the largest weight that an integer can stand for
_MIN_SCALE = 1e-8  # of weights that are all zero


class Gradients(NamedTuple):
    """Gradients of what a weight was rounded from.

    Args:
        weight: `[m, n]`.
        scale: `[1, n]` or `[m, 1]`; None where the scale follows from the weight.
    """

    weight: Tensor
    scale: Tensor | None


def largest_integer(bits: int, axis: int) -> int:
    """Return the largest integer that stands for a weight; its negative is the smallest.

    Args:
        bits: 8, 4 or 2.
        axis: over which the scale is common, 0 of a matrix and 1 of a table.

    Returns:
        2^(bits - 1) - 1, and for 8 bits of a matrix `MAX_WEIGHT_INTEGER`.
    """
    return MAX_WEIGHT_INTEGER if bits == 8 and axis == 0 else 2 ** (bits - 1) - 1


def starting_scale(weight: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """Choose the scale that loses least when a weight is rounded.

    Args:
        weight: `[m, n]`.
        bits: 8, 4 or 2.
        axis: over which the scale is common.

    Returns:
        For 8 and 4 bits the scale with the smallest squared error among some; for 2 that of `ternary_scale`.
    """
    if bits == 2:
        return ternary_scale(paddle.to_tensor(weight), axis).numpy()
    largest = largest_integer(bits, axis)
    most = np.maximum(np.abs(weight).max(axis=axis, keepdims=True) / largest, _MIN_SCALE).astype(np.float32)
    best, least = most, np.full_like(most, np.inf)
    for share in _CANDIDATES[::-1] if bits < 8 else _CANDIDATES[_CANDIDATES > 0.7][::-1]:
        scale = most * np.float32(share)
        errors = np.rint(weight / scale)
        np.clip(errors, -largest, largest, out=errors)
        errors *= scale
        errors -= weight
        loss = np.square(errors, out=errors).sum(axis=axis, keepdims=True)
        best, least = np.where(loss < least, scale, best), np.minimum(loss, least)
    return best


def ternary_scale(weight: Tensor, axis: int) -> Tensor:
    """The mean of |w| over the weights above a threshold, 0.7 of the mean of all |w| (Li et al., 2016).

    Args:
        weight: `[m, n]`.
        axis: over which the scale is common.

    Returns:
        `[1, n]` or `[m, 1]`.
    """
    sizes = weight.abs()
    kept = _above_threshold(sizes, axis)
    count = kept.sum(axis=axis, keepdim=True).clip(min=1)
    return ((sizes * kept).sum(axis=axis, keepdim=True) / count).clip(min=_MIN_SCALE)


def round_weight(weight: Tensor, scale: Tensor, bits: int, axis: int) -> Tensor:
    """Round a weight to integers times its scale.

    Args:
        weight: `[m, n]`.
        scale: `[1, n]` or `[m, 1]`.
        bits: 8, 4 or 2.
        axis: over which the scale is common.

    Returns:
        `[m, n]`; rounded again, it stays as it is.
    """
    scale = scale.expand(weight.shape)  # an operation on tensors of equal shape runs on all cores
    if bits == 2:
        integers = weight.sign().multiply_(_above_threshold(weight.abs(), axis))
    else:
        largest = largest_integer(bits, axis)
        integers = paddle.round(weight / scale).clip_(-largest, largest)
    # A negative zero becomes a plain one, as it does in a file of packed integers.
    return integers.multiply_(scale).add_(paddle.zeros([1]))


def gradients_before_rounding(weight: Tensor, scale: Tensor, bits: int, gradient: Tensor, axis: int) -> Gradients:
    """Turn the gradient of a rounded weight into those of what it was rounded from (straight-through estimator).

    For 8 and 4 bits rounding counts as the identity, and clipping does not, as in LSQ (Esser et al., 2020): with
    v = w / s and Q the largest integer, dw is the gradient where |v| <= Q, else 0; ds is the sum of the gradient times
    round(v) - v there, and times the sign of v times Q elsewhere, over the weights that s is for, times
    1 / sqrt(Q * their number). For 2 bits dw is the gradient.

    Args:
        weight: before rounding, `[m, n]`.
        scale: `[1, n]` or `[m, 1]`.
        bits: 8, 4 or 2.
        gradient: of the rounded weight, `[m, n]`.
        axis: over which the scale is common.

    Returns:
        The gradients of the weight and of the scale.
    """
    if bits == 2:
        return Gradients(gradient, None)
    largest = largest_integer(bits, axis)
    multiples = weight / scale.expand(weight.shape)
    clipped = multiples.clip(-largest, largest)
    within = clipped.equal(multiples).astype(weight.dtype)
    slopes = paddle.round(clipped).subtract_(multiples.multiply_(within)).multiply_(gradient)
    share = (weight.shape[axis] * largest) ** -0.5
    return Gradients(within.multiply_(gradient), slopes.sum(axis=axis, keepdim=True) * share)


def _above_threshold(sizes: Tensor, axis: int) -> Tensor:
    """1 where a weight's size is above the threshold, else 0."""
    threshold = _TERNARY_THRESHOLD * sizes.mean(axis=axis, keepdim=True)
    return sizes.greater_than(threshold.expand(sizes.shape)).astype(sizes.dtype)
