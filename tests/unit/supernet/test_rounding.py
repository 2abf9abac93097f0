"""Rounding of weights and activations, and its gradients, against NumPy."""

import numpy as np
import paddle
import pytest

from dynabert_paddle.supernet.activation_range import ActivationRange
from dynabert_paddle.supernet.calls import EncoderCall, PassState, encoder_call
from dynabert_paddle.supernet.cpu_operations import random_bits
from dynabert_paddle.supernet.rounding import (
    gradients_before_rounding,
    round_weight,
    starting_scale,
    ternary_scale,
)

# Of a matrix and of a table: vpmaddubsw adds two products of bytes in 16 bits, 2 * 255 * 64 < 2^15.
LARGEST = {(8, 0): 64, (8, 1): 127, (4, 0): 7, (4, 1): 7}


@pytest.fixture
def weight():
    """A matrix whose columns differ in size; one is all zeros."""
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(40, 12)) * rng.uniform(0.01, 3, 12)).astype(np.float32)
    matrix[:, 5] = 0
    return matrix


def rounded(weight, scale, bits, axis):
    return round_weight(*map(paddle.to_tensor, (weight, scale)), bits, axis).numpy()


def expected_ternary(weight, axis):
    sizes = np.abs(weight)
    kept = sizes > 0.7 * sizes.mean(axis=axis, keepdims=True)
    scale = (sizes * kept).sum(axis=axis, keepdims=True) / np.maximum(kept.sum(axis=axis, keepdims=True), 1)
    return np.sign(weight) * kept * scale, scale


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_are_the_nearest_multiples_within_the_range(weight, bits, axis):
    largest = LARGEST[bits, axis]
    scale = starting_scale(weight, bits, axis)
    assert scale.shape == ((1, 12) if axis == 0 else (40, 1))
    expected = np.clip(np.rint(weight / scale), -largest, largest) * scale
    found = rounded(weight, scale, bits, axis)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(rounded(found, scale, bits, axis), found)
    assert not np.signbit(found[found == 0]).any()


@pytest.mark.parametrize("axis", [0, 1])
def test_two_bits_are_the_mean_of_what_is_above_the_threshold(weight, axis):
    expected, scale = expected_ternary(weight, axis)
    found = starting_scale(weight, 2, axis)
    np.testing.assert_allclose(found, np.maximum(scale, 1e-8), rtol=1e-6)
    np.testing.assert_allclose(rounded(weight, found, 2, axis), expected, rtol=1e-6)
    assert len(np.unique(rounded(weight, found, 2, axis)[:, 0] / np.broadcast_to(found, weight.shape)[:, 0])) == 3


def test_rounded_again_a_ternary_weight_keeps_its_places_and_its_scale(weight):
    scale = starting_scale(weight, 2, 0)
    once = rounded(weight, scale, 2, 0)
    again = ternary_scale(paddle.to_tensor(once), 0).numpy()
    np.testing.assert_allclose(again, scale, rtol=1e-6)
    np.testing.assert_array_equal(rounded(once, scale, 2, 0), once)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_starting_scale_loses_no_more_than_that_of_the_largest_weight(weight, bits):
    largest = LARGEST[bits, 0]
    plain = np.maximum(np.abs(weight).max(axis=0, keepdims=True) / largest, 1e-8)
    errors = [
        ((rounded(weight, scale.astype(np.float32), bits, 0) - weight) ** 2).sum(axis=0)
        for scale in (starting_scale(weight, bits, 0), plain)
    ]
    assert (errors[0] <= errors[1]).all()
    if bits == 4:
        assert errors[0].sum() < 0.95 * errors[1].sum()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", [8, 4])
def test_gradients_are_those_of_lsq(weight, bits, axis):
    """Esser et al. (2020), equations 3 and 5, one weight at a time."""
    largest = LARGEST[bits, axis]
    scale = starting_scale(weight, bits, axis) * np.float32(0.8)  # so that some weights are clipped
    upstream = np.random.default_rng(1).normal(size=weight.shape).astype(np.float32)
    dweight, dscale = np.zeros_like(weight), np.zeros_like(scale)
    for i, j in np.ndindex(weight.shape):
        place = (0, j) if axis == 0 else (i, 0)
        v = weight[i, j] / scale[place]
        if abs(v) <= largest:
            dweight[i, j] = upstream[i, j]
            dscale[place] += upstream[i, j] * (np.rint(v) - v)
        else:
            dscale[place] += upstream[i, j] * np.sign(v) * largest
    dscale /= np.sqrt(weight.shape[axis] * largest)
    assert (dweight == 0).any()
    tensors = map(paddle.to_tensor, (weight, scale))
    found = gradients_before_rounding(*tensors, bits, paddle.to_tensor(upstream), axis)
    np.testing.assert_array_equal(found.weight.numpy(), dweight)
    np.testing.assert_allclose(found.scale.numpy(), dscale, atol=1e-4 * np.abs(dscale).max())


def test_the_gradient_of_a_ternary_weight_is_that_of_the_rounded_one(weight):
    upstream = paddle.to_tensor(np.ones_like(weight))
    found = gradients_before_rounding(paddle.to_tensor(weight), paddle.ones([1, 12]), 2, upstream, 0)
    np.testing.assert_array_equal(found.weight.numpy(), 1)
    assert found.scale is None


def run_range(x, scale, state):
    """A range's output, and the gradients of its product with other numbers."""
    layer = ActivationRange(scale)
    x = paddle.to_tensor(x)
    x.stop_gradient = False
    with encoder_call(EncoderCall(None, None, state=state)):
        output = layer(x)
    weights = np.random.default_rng(9).normal(size=x.shape).astype(np.float32)
    (output * paddle.to_tensor(weights)).sum().backward()
    return output.numpy(), x.grad.numpy(), layer.scale.grad.numpy(), weights


@pytest.mark.parametrize("is_fast", [True, False])
def test_activations_are_rounded_as_int8_and_their_gradients_are_those_of_lsq(is_fast):
    scale = np.float32(0.013)
    x = np.random.default_rng(0).normal(size=(2, 3, 64)).astype(np.float32)
    state = PassState(dropout_bits=random_bits(0) if is_fast else None)
    output, dx, dscale, upstream = run_range(x, float(scale), state)
    v = x * (1 / scale)
    within = (v >= -128) & (v <= 127)
    assert 0 < within.mean() < 1
    integers = np.clip(np.rint(v), -128, 127)
    np.testing.assert_array_equal(output, integers * scale)
    np.testing.assert_allclose(dx, upstream * within, rtol=1e-6)
    expected = (upstream * np.where(within, integers - v, integers)).sum() / np.sqrt(64 * 127)
    np.testing.assert_allclose(dscale, [expected], rtol=1e-4)


def test_where_ranges_are_measured_nothing_is_rounded():
    seen = []
    state = PassState(observe_range=lambda layer, x: seen.append((layer, x)))
    layer, x = ActivationRange(0.5), paddle.to_tensor([0.3, 7.7])
    with encoder_call(EncoderCall(None, None, state=state)):
        assert layer(x) is x
    assert seen[0][0] is layer and seen[0][1] is x
    np.testing.assert_array_equal(layer(x).numpy(), [0.5, 7.5])
