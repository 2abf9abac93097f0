"""The fast functions for a CPU return what Paddle's own operations do, and gradients that differ by rounding alone."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import make_batch, make_bert
from paddle import nn

import dynabert_paddle as db
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet import cpu_operations, operations
from dynabert_paddle.supernet.calls import NO_STATE, PassState

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
B, S, H, E, D = 3, 5, 4, 8, 24  # batch, sequence, heads, width of a head, hidden size


def random(*shape: int, seed: int = 0) -> paddle.Tensor:
    tensor = paddle.to_tensor(np.random.default_rng(seed).normal(size=shape).astype("float32"))
    tensor.stop_gradient = False
    return tensor


def results(run, inputs: list[paddle.Tensor]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Output, and the gradients of its product with random numbers."""
    output = run(*inputs)
    weights = random(*output.shape, seed=99).detach()
    gradients = paddle.grad([(output * weights).sum()], inputs)
    return output.numpy(), [gradient.numpy() for gradient in gradients]


def assert_same(run, inputs: list[paddle.Tensor], *, exact: bool = True) -> None:
    """`run` gives the same with either module: the output to the last bit, the gradients to 1e-5 of their size."""
    (expected, gradients), (seen, own) = (
        results(lambda *args, ops=ops: run(ops, *args), inputs) for ops in (operations, cpu_operations)
    )
    if exact:
        np.testing.assert_array_equal(seen, expected)
    else:
        np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    for gradient, ours in zip(gradients, own, strict=True):
        np.testing.assert_allclose(ours, gradient, rtol=0, atol=1e-5 * max(1, np.abs(gradient).max()))


def test_linear():
    assert_same(lambda ops, *args: ops.linear(*args), [random(B, S, D), random(D, 32), random(32)])
    assert_same(lambda ops, *args: ops.linear(*args, None), [random(B, S, D), random(D, 32)])


@pytest.mark.parametrize("mask", [None, (B, 1, 1, S), (1, 1, S, S), (S,)], ids=str)
def test_attention(mask):
    heads = [random(B, S, H * E, seed=seed) for seed in range(3)]
    mask = mask if mask is None else paddle.to_tensor((np.random.default_rng(3).random(mask) < 0.3) * np.float32(-1e9))
    assert_same(lambda ops, *args: ops.attend(*args, mask, heads=H, dropout_prob=0.0), heads)


@pytest.mark.parametrize("size", [1, 10], ids=["plain softmax", "one whose exponentials overflow"])
@pytest.mark.parametrize("masked", [[1, 3], range(S)], ids=["some tokens", "all tokens"])
def test_attention_with_dropout_that_drops_nothing(size, masked):
    heads = [size * random(B, S, H * E, seed=seed) for seed in range(3)]
    mask = paddle.zeros([B, 1, 1, S])
    mask[0, :, :, list(masked)] = -1e9
    assert_same(lambda ops, *args: ops.attend(*args, mask, heads=H, dropout_prob=1e-9), heads, exact=False)


def test_attention_of_some_tokens_to_all():
    q, k, v = random(B, 2, H * E), random(B, S, H * E, seed=1), random(B, S, H * E, seed=2)
    assert_same(lambda ops, *args: ops.attend(*args, None, heads=H, dropout_prob=0.0), [q, k, v])


def test_gated_attention():
    inputs = [random(B, S, H * E, seed=seed) for seed in range(3)] + [random(H)]
    assert_same(lambda ops, q, k, v, gate: ops.attend(q, k, v, None, heads=H, dropout_prob=0.0, gate=gate), inputs)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-5, 1e-3])
def test_sum_and_norm(epsilon):
    layer = nn.LayerNorm(D, epsilon=epsilon)
    layer.weight.set_value(random(D, seed=5))
    layer.bias.set_value(random(D, seed=6))
    inputs = [random(B, S, D, seed=1), random(B, S, D, seed=2), layer.weight, layer.bias]
    assert_same(lambda ops, residual, x, *_: ops.add_norm(residual, x, layer, dropout_prob=0.0), inputs)


def test_norm_of_equal_numbers_has_finite_gradients():
    layer = nn.LayerNorm(D, epsilon=1e-5)
    inputs = [random(1, 1, D) * 0 + 2, random(1, 1, D) * 0, layer.weight, layer.bias]
    assert_same(lambda ops, residual, x, *_: ops.add_norm(residual, x, layer, dropout_prob=0.0), inputs)


@pytest.mark.parametrize("activation", [F.gelu, F.relu, F.tanh], ids=lambda function: function.__name__)
def test_activations(activation):
    assert_same(lambda ops, x: ops.activate(x, activation), [random(B, S, 64) * 3])


def test_dropout_scales_the_kept_values():
    x = paddle.ones([400, 500])
    x.stop_gradient = False
    y = cpu_operations.dropout(x, 0.1)
    (gradient,) = paddle.grad([y.sum()], [x])
    np.testing.assert_array_equal(gradient.numpy(), y.numpy())
    share = (y.numpy() == 0).mean()  # of 200,000: five standard deviations are 0.0034
    assert abs(share - 0.1) < 0.0034
    np.testing.assert_allclose(np.unique(y.numpy()), [0, 1 / 0.9], rtol=1e-5)
    assert cpu_operations.dropout(x, 0.0) is x


def test_the_seed_determines_the_dropped_values():
    x = paddle.ones([64, 64])

    def draw(seed: int) -> np.ndarray:
        paddle.seed(seed)
        return np.stack([cpu_operations.dropout(x, 0.5).numpy() for _ in range(2)])

    first = draw(1)
    np.testing.assert_array_equal(draw(1), first)
    assert (draw(2) != first).any() and (first[0] != first[1]).any()


@pytest.mark.parametrize("place", ["attention", "sum"])
def test_the_gradient_of_inner_dropout_uses_the_same_mask(place):
    """With the same seed a difference quotient sees the same mask."""
    layer = nn.LayerNorm(D)
    layer.weight.stop_gradient = layer.bias.stop_gradient = True

    def run(x: paddle.Tensor) -> paddle.Tensor:
        paddle.seed(7)
        if place == "attention":
            y = cpu_operations.attend(x, x, x, None, heads=3, dropout_prob=0.3)
        else:
            y = cpu_operations.add_norm(x, x, layer, dropout_prob=0.3)
        return (y * random(*y.shape, seed=8).detach()).sum()

    x, direction = random(B, S, D), random(B, S, D, seed=9).detach()
    (gradient,) = paddle.grad([run(x)], [x])
    step = 1e-2
    slope = (run(x.detach() + step * direction) - run(x.detach() - step * direction)) / (2 * step)
    np.testing.assert_allclose(float((gradient * direction).sum()), float(slope), rtol=0.01)


@pytest.mark.parametrize("trained", range(4))
def test_frozen_parameters_have_no_gradient(trained):
    tensors = [random(B, S, D), random(D, D), random(D), random(B, S, D)]
    for index, tensor in enumerate(tensors):
        tensor.stop_gradient = index != trained
    layer = nn.LayerNorm(D)
    layer.weight.stop_gradient = layer.bias.stop_gradient = True
    x, weight, bias, residual = tensors

    def run(ops) -> np.ndarray:
        y = ops.linear(x, weight, bias)
        y = ops.attend(y, y, x, None, heads=H - 1, dropout_prob=0.0)
        (gradient,) = paddle.grad(
            [ops.add_norm(residual, y, layer, dropout_prob=0.0).square().sum()], [tensors[trained]]
        )
        return gradient.numpy()

    expected = run(operations)
    np.testing.assert_allclose(run(cpu_operations), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_other_types_and_paddles_own_gradients_are_not_supported():
    x, bits = paddle.zeros([1]), cpu_operations.random_bits(0)
    assert not cpu_operations.is_supported(x, None)
    assert cpu_operations.is_supported(x, bits)
    assert not cpu_operations.is_supported(x.astype("float64"), bits)
    with paddle.no_grad():
        assert cpu_operations.is_supported(x, None)


def test_a_model_has_the_same_gradients_with_them():
    supernet = db.Supernet(make_bert(**NO_DROPOUT))
    batch = {name: paddle.to_tensor(value) for name, value in make_batch().items() if name != "labels"}
    subnet = Subnet((0, 2), (2, 1), (7, 4))

    def gradients(state: PassState = NO_STATE) -> dict[str, np.ndarray]:
        output = supernet(subnet, state=state, **batch)
        (output.logits.square().sum() + output.hidden_states[-1].square().sum()).backward()
        found = {name: p.grad.numpy() for name, p in supernet.named_parameters() if p.grad is not None}
        supernet.clear_gradients()
        return found

    expected = gradients()
    seen = gradients(PassState(dropout_bits=cpu_operations.random_bits(0)))
    assert expected.keys() == seen.keys()
    size = max(np.abs(gradient).max() for gradient in expected.values())  # that of a key's bias is 0 but for rounding
    for name, gradient in expected.items():
        np.testing.assert_allclose(seen[name], gradient, rtol=0, atol=1e-5 * size, err_msg=name)
