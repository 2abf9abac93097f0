"""The float weights behind rounded ones: what a step changes, what passes see, and what a checkpoint keeps."""

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.errors import ModelError
from dynabert_paddle.supernet.quantized import find_quantized, find_ranges, quantize_model
from dynabert_paddle.supernet.rounding import gradients_before_rounding, round_weight, starting_scale
from dynabert_paddle.supernet.supernet import to_tensors
from dynabert_paddle.training.latent_weights import LatentWeights
from dynabert_paddle.training.replicas import Replicas

pytestmark = pytest.mark.reference

RATE = 0.05


def make_model(bits):
    model = db.Supernet(make_bert(num_layers=2, vocab_size=2000))
    quantize_model(model.model, bits, starting_scale)
    for part in find_ranges(model.model):
        part.scale.set_value(np.array([0.05], np.float32))
    return model


def backward(model):
    inputs = to_tensors(make_batch(vocab_size=2000, batch_size=3))
    inputs.pop("labels")
    model(**inputs).logits.square().sum().backward()


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_step_changes_the_float_weights_by_the_gradients_of_the_rounded_ones(bits):
    """Plain gradient descent, step by step in NumPy; a scale's logarithm takes the step."""
    model = make_model(bits)
    before = to_arrays(model.model)
    latent = LatentWeights(model.model)
    weights = find_quantized(model.model)
    assert {weight.bits for weight in weights} == {bits, 8}
    for weight in weights:
        scale = weight.scale.numpy()
        integers = weight.weight.numpy() / scale
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
    backward(model)
    expected = {}
    for weight in weights:
        float_weight = paddle.to_tensor(before[weight.name])
        found = gradients_before_rounding(float_weight, weight.scale, weight.bits, weight.weight.grad, weight.axis)
        expected[weight.name] = before[weight.name] - RATE * found.weight.numpy()
        if found.scale is not None:
            scale = weight.scale.numpy()
            expected[f"{weight.name}_scale"] = scale * 2 ** (-RATE * np.log(2) * scale * found.scale.numpy())
    optimizer = paddle.optimizer.SGD(RATE, parameters=model.parameters())
    with latent.step():
        optimizer.step()
    kept = latent.to_arrays()
    for weight in weights:
        np.testing.assert_allclose(kept[weight.name], expected[weight.name], atol=1e-6)
        if weight.bits > 2:
            np.testing.assert_allclose(weight.scale.numpy(), expected[f"{weight.name}_scale"], rtol=1e-5)
        rounded = round_weight(paddle.to_tensor(kept[weight.name]), weight.scale, weight.bits, weight.axis)
        np.testing.assert_array_equal(weight.weight.numpy(), rounded.numpy())
    assert any((weight.weight.numpy() != before[weight.name]).any() for weight in weights)


def test_without_a_gradient_nothing_changes_and_rounding_again_neither():
    model = make_model(4)
    latent = LatentWeights(model.model)
    before = to_arrays(model.model)
    with latent.step():
        pass
    LatentWeights(model.model)
    for name, array in to_arrays(model.model).items():
        np.testing.assert_allclose(array, before[name], rtol=1e-6, err_msg=name)


def test_replicas_see_every_change():
    model = make_model(8)
    with Replicas(model, 2) as replicas:
        latent = LatentWeights(model.model)
        backward(model)
        optimizer = paddle.optimizer.SGD(RATE, parameters=model.parameters())
        with latent.step():
            optimizer.step()
        one, two = replicas.map(lambda replica, number: to_arrays(replica.model))
    for name, array in one.items():
        np.testing.assert_array_equal(two[name], array, err_msg=name)


def test_a_checkpoint_brings_the_float_weights_back():
    model, other = make_model(4), make_model(4)
    latent, again = LatentWeights(model.model), LatentWeights(other.model)
    backward(model)
    optimizer = paddle.optimizer.SGD(RATE, parameters=model.parameters())
    with latent.step():
        optimizer.step()
    again.set_arrays(latent.to_arrays())
    for name, array in latent.to_arrays().items():
        np.testing.assert_array_equal(again.to_arrays()[name], array)
    arrays = latent.to_arrays()
    arrays.pop(next(iter(arrays)))
    with pytest.raises(ModelError, match="is missing"):
        again.set_arrays(arrays)
