"""The average of the weights over the steps: against NumPy, in the model and out of it, and back from a checkpoint."""

import numpy as np
import paddle
import pytest

from dynabert_paddle.errors import ModelError
from dynabert_paddle.training.weight_average import WeightAverage


def weights_of(layer):
    return {name: parameter.numpy() for name, parameter in layer.named_parameters()}


def test_the_average_is_that_of_its_definition():
    layer = paddle.nn.Linear(3, 2)
    average = WeightAverage(layer, 0.5)
    expected = weights_of(layer)
    rng = np.random.default_rng(0)
    for step in range(1, 20):
        new = {name: rng.normal(size=value.shape).astype("float32") for name, value in expected.items()}
        for name, parameter in layer.named_parameters():
            parameter.set_value(new[name])
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        assert decay < 0.5 or step >= 8
        expected = {name: decay * expected[name] + (1 - decay) * new[name] for name in expected}
    found = average.to_arrays()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_without_decay_it_is_the_last_weights():
    layer = paddle.nn.Linear(3, 2)
    average = WeightAverage(layer, 0.0)
    layer.weight.set_value(paddle.ones([3, 2]))
    average.update(1)
    np.testing.assert_allclose(average.to_arrays()["weight"], np.ones((3, 2)), rtol=1e-6)


def test_the_model_has_the_average_within_the_block_alone():
    layer = paddle.nn.Linear(3, 2)
    start = weights_of(layer)
    average = WeightAverage(layer, 0.9)
    layer.weight.set_value(layer.weight + 1)
    moved = weights_of(layer)
    with average.applied():
        np.testing.assert_array_equal(layer.weight.numpy(), start["weight"])
    np.testing.assert_array_equal(layer.weight.numpy(), moved["weight"])
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    np.testing.assert_array_equal(layer.weight.numpy(), moved["weight"])


def test_averages_come_back_from_arrays_and_those_of_another_model_are_refused():
    layer, other = paddle.nn.Linear(3, 2), paddle.nn.Linear(3, 2)
    average, second = WeightAverage(layer, 0.9), WeightAverage(other, 0.9)
    second.set_arrays(average.to_arrays())
    for name, value in average.to_arrays().items():
        np.testing.assert_array_equal(second.to_arrays()[name], value)
    with pytest.raises(ModelError, match="another model"):
        average.set_arrays(WeightAverage(paddle.nn.Linear(3, 4), 0.9).to_arrays())
