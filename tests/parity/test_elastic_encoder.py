"""The elastic encoder against an encoder written in NumPy, in double precision, that slices in another way.

Shapes: b batch, s sequence, d hidden size, h heads, e width of one head, f FFN neurons.
"""

from contextlib import contextmanager

import numpy as np
import paddle
import pytest
from paddle import nn
from scipy.special import erf

from dynabert_paddle.errors import ModelError
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import EncoderCall, encoder_call
from dynabert_paddle.supernet.elastic import ElasticEncoder, additive_mask, run_layer
from dynabert_paddle.supernet.slices import ELASTIC_AXES, slice_parameter

LAYERS, HIDDEN, HEADS, HEAD_DIM, NEURONS = 4, 12, 3, 4, 10
BATCH, LENGTH = 3, 5
FULL = Subnet(tuple(range(LAYERS)), (HEADS,) * LAYERS, (NEURONS,) * LAYERS)
KINDS = [(before, activation) for before in (False, True) for activation in ("gelu", "relu")]
EPSILON = float(np.float32(1e-5))  # of LayerNorm; Paddle keeps attributes in single precision


def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * weight + bias


def activate(x, activation):
    return x * 0.5 * (1 + erf(x / np.sqrt(2))) if activation == "gelu" else np.maximum(x, 0)


def attend(w, x, scores_mask, heads):
    """Sums what each kept head adds to the output; no head's weights are ever put beside another's."""
    total = np.zeros_like(x) + w["self_attn.out_proj.bias"]
    scores_mask = np.broadcast_to(scores_mask, (len(x), HEADS, LENGTH, LENGTH))
    for head in range(heads):
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        q, k, v = (
            x @ w[f"self_attn.{name}_proj.weight"][:, part] + w[f"self_attn.{name}_proj.bias"][part] for name in "qkv"
        )
        scores = q @ k.swapaxes(-1, -2) / 2.0 + scores_mask[:, head]  # 2 is the square root of HEAD_DIM
        exps = np.exp(scores - scores.max(-1, keepdims=True))
        total = total + exps / exps.sum(-1, keepdims=True) @ v @ w["self_attn.out_proj.weight"][part]
    return total


def feed_forward(w, x, neurons, activation):
    """Runs every neuron, and lets those that are left out say nothing."""
    kept = np.arange(NEURONS) < neurons
    inner = activate(x @ w["linear1.weight"] + w["linear1.bias"], activation)
    return np.where(kept, inner, 0.0) @ w["linear2.weight"] + w["linear2.bias"]


def run_numpy(weights, x, mask, subnet, *, before, activation):
    """The hidden states of a sub-network: the input of each kept layer, and the final output."""
    states = [x]
    for index, heads, neurons in zip(subnet.layers, subnet.heads, subnet.neurons, strict=True):
        prefix = f"layers.{index}."
        w = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        norm1, norm2 = ((w[f"norm{i}.weight"], w[f"norm{i}.bias"]) for i in (1, 2))
        if before:
            x = x + attend(w, layer_norm(x, *norm1), mask, heads)
            x = x + feed_forward(w, layer_norm(x, *norm2), neurons, activation)
        else:
            x = layer_norm(x + attend(w, x, mask, heads), *norm1)
            x = layer_norm(x + feed_forward(w, x, neurons, activation), *norm2)
        states.append(x)
    if before:
        states[-1] = layer_norm(x, weights["norm.weight"], weights["norm.bias"])
    return states


@contextmanager
def default_dtype(dtype):
    previous = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        yield
    finally:
        paddle.set_default_dtype(previous)


def make_encoder(dtype, *, before=False, activation="gelu", seed=0, **dropout):
    """A stock encoder with random weights everywhere, LayerNorms and biases too; no dropout where none is given."""
    with default_dtype(dtype):
        layer = nn.TransformerEncoderLayer(
            HIDDEN, HEADS, NEURONS, activation=activation, normalize_before=before, **{"dropout": 0.0, **dropout}
        )
        encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(HIDDEN) if before else None)
    rng = np.random.default_rng(seed)
    for name, parameter in encoder.named_parameters():
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.set_value(rng.normal(mean, 0.4, parameter.shape).astype(dtype))
    return encoder


def arrays(encoder):
    return {name: value.numpy().astype("float64") for name, value in encoder.named_parameters()}


def random_subnet(rng):
    layers = sorted(rng.choice(LAYERS, size=rng.integers(1, LAYERS + 1), replace=False).tolist())
    heads = rng.integers(1, HEADS + 1, len(layers)).tolist()
    neurons = rng.integers(1, NEURONS + 1, len(layers)).tolist()
    return Subnet(tuple(layers), tuple(heads), tuple(neurons))


def random_input(rng):
    return rng.normal(0, 1, (BATCH, LENGTH, HIDDEN))


def keep_mask():
    """`[b, 1, 1, s]`, true for tokens: rows of 5, 3 and 1 of them."""
    return (np.arange(LENGTH) < np.array([[5], [3], [1]]))[:, None, None, :]


def as_added(keep):
    return np.where(keep, 0.0, -np.inf)


def run(encoder, subnet, x, mask, **settings):
    call = EncoderCall(encoder, subnet, **settings)
    with encoder_call(call):
        output = encoder(x, mask)
    assert output is call.hidden_states[-1]
    return call.hidden_states


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("before", "activation"), KINDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        ("float64", 1e-13),  # some hundred roundings of 1e-16, through up to 9 LayerNorms
        ("float32", 1e-5),  # the same of 6e-8; pre-norm states reach 14, where one rounding alone is 1e-6
    ],
)
def test_any_subnet_equals_the_numpy_reference(dtype, tolerance, before, activation, seed):
    rng = np.random.default_rng(seed)
    encoder = ElasticEncoder(make_encoder(dtype, before=before, activation=activation, seed=seed))
    x, keep = random_input(rng), keep_mask()
    for subnet in [FULL, *(random_subnet(rng) for _ in range(5))]:
        mask = paddle.to_tensor(np.where(keep, 0.0, -1e4).astype(dtype))
        states = run(encoder, subnet, paddle.to_tensor(x.astype(dtype)), mask)
        expected = run_numpy(arrays(encoder), x, as_added(keep), subnet, before=before, activation=activation)
        assert len(states) == len(subnet.layers) + 1
        for state, value in zip(states, expected, strict=True):
            assert state.numpy().dtype == dtype
            np.testing.assert_allclose(state.numpy(), value, rtol=0, atol=tolerance, err_msg=str(subnet))


@pytest.mark.parametrize(("before", "activation"), KINDS)
def test_the_full_encoder_equals_the_stock_one_bit_for_bit(before, activation):
    stock = make_encoder("float32", before=before, activation=activation)
    x = paddle.to_tensor(random_input(np.random.default_rng(0)).astype("float32"))
    mask = paddle.to_tensor(np.where(keep_mask(), 0.0, -1e4).astype("float32"))
    output, states = stock(x, mask, output_hidden_states=True)
    elastic = ElasticEncoder(stock)
    np.testing.assert_array_equal(elastic(x, mask).numpy(), output.numpy())
    own_output, own_states = elastic(x, mask, output_hidden_states=True)
    named = elastic(x, mask, output_hidden_states=True, return_dict=True)
    assert len(own_states) == len(named.hidden_states) == len(states) == LAYERS + 1
    np.testing.assert_array_equal(own_output.numpy(), output.numpy())
    np.testing.assert_array_equal(named.last_hidden_state.numpy(), output.numpy())
    assert elastic(x, mask, return_dict=True).hidden_states is None
    for own, other, state in zip(own_states, named.hidden_states, states, strict=True):
        np.testing.assert_array_equal(own.numpy(), state.numpy())
        np.testing.assert_array_equal(other.numpy(), state.numpy())


@pytest.mark.parametrize("mask", [None, (BATCH, 1, 1, LENGTH), (BATCH, HEADS, LENGTH, LENGTH), (LENGTH,)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-5)])
@pytest.mark.parametrize("before", [False, True])
def test_the_first_token_alone_is_that_of_the_whole_output(before, dtype, tolerance, mask):
    rng = np.random.default_rng(0)
    encoder = ElasticEncoder(make_encoder(dtype, before=before))
    x = paddle.to_tensor(random_input(rng).astype(dtype))
    mask = mask if mask is None else paddle.to_tensor(np.where(rng.random(mask) < 0.3, -1e4, 0.0).astype(dtype))
    for subnet in (FULL, Subnet((0, 2), (HEADS, HEADS), (3, 7)), Subnet((1,), (HEADS,), (5,))):
        whole = run(encoder, subnet, x, mask)
        for gradients in (True, False):  # without, float32 takes another path
            with paddle.set_grad_enabled(gradients):
                states = run(encoder, subnet, x, mask, first_token=True)
            assert [state.shape for state in states[:-1]] == [state.shape for state in whole[:-1]]
            expected = whole[-1].numpy()[:, :1]
            np.testing.assert_allclose(states[-1].numpy(), expected, rtol=0, atol=tolerance, err_msg=str(subnet))


@pytest.mark.parametrize("shape", ["per_key", "per_query", "per_head"])
@pytest.mark.parametrize("dtype", ["float64", "bool", "int64", "int32"])
def test_masks_of_every_kind_and_shape(dtype, shape):
    rng = np.random.default_rng(1)
    keep = keep_mask()
    if shape != "per_key":
        keep = keep & np.tri(LENGTH, dtype=bool)  # [b, 1, s, s]: each token sees those before it
    if shape == "per_head":  # each head looks away from another token, never from the first
        keep = keep & (np.arange(LENGTH) != np.arange(1, HEADS + 1)[:, None])[:, None, :]
    encoder = ElasticEncoder(make_encoder("float64"))
    x = random_input(rng)
    # A mask per head fits sub-networks with all heads only.
    subnet = Subnet((0, 2), (HEADS, HEADS), (3, 7)) if shape == "per_head" else Subnet((0, 2), (2, 1), (3, 7))
    mask = np.where(keep, 0.0, -1e4) if dtype == "float64" else keep.astype(dtype)
    state = run(encoder, subnet, paddle.to_tensor(x), paddle.to_tensor(mask))[-1].numpy()
    expected = run_numpy(arrays(encoder), x, as_added(keep), subnet, before=False, activation="gelu")[-1]
    np.testing.assert_allclose(state, expected, rtol=0, atol=1e-13)
    if dtype != "float64":
        added = additive_mask(paddle.to_tensor(mask), paddle.float64).numpy()
        np.testing.assert_array_equal(added, np.where(keep, 0.0, -1e9))


def test_a_float_mask_is_added_to_the_scores_and_no_mask_adds_nothing():
    rng = np.random.default_rng(2)
    encoder, x, subnet = ElasticEncoder(make_encoder("float64")), random_input(rng), Subnet((1, 3), (3, 2), (10, 4))
    added = rng.normal(0, 2, (BATCH, 1, LENGTH, LENGTH))
    state = run(encoder, subnet, paddle.to_tensor(x), paddle.to_tensor(added))[-1].numpy()
    expected = run_numpy(arrays(encoder), x, added, subnet, before=False, activation="gelu")[-1]
    np.testing.assert_allclose(state, expected, rtol=0, atol=1e-13)
    state = run(encoder, subnet, paddle.to_tensor(x), None)[-1].numpy()
    expected = run_numpy(arrays(encoder), x, 0.0, subnet, before=False, activation="gelu")[-1]
    np.testing.assert_allclose(state, expected, rtol=0, atol=1e-13)


def test_padding_does_not_change_the_outputs_of_tokens():
    encoder, x = ElasticEncoder(make_encoder("float64")), random_input(np.random.default_rng(3))
    mask = paddle.to_tensor(keep_mask())
    subnet = Subnet((0, 1, 3), (1, 2, 3), (2, 4, 6))
    before = run(encoder, subnet, paddle.to_tensor(x), mask)[-1].numpy()
    x[1, 3:] += 5.0
    after = run(encoder, subnet, paddle.to_tensor(x), mask)[-1].numpy()
    np.testing.assert_array_equal(before[1, :3], after[1, :3])
    assert np.abs(before[1, 3:] - after[1, 3:]).max() > 0.1


@pytest.mark.parametrize(("before", "activation"), [(False, "gelu"), (True, "gelu"), (False, "relu")])
def test_gradients_are_those_of_finite_differences(before, activation):
    """Of every entry of every parameter, and of the input, with a random direction of the output as the loss."""
    rng = np.random.default_rng(4)
    encoder = ElasticEncoder(make_encoder("float64", before=before, activation=activation))
    weights, x, direction = arrays(encoder), random_input(rng), random_input(rng)
    subnet = Subnet((0, 3), (2, 1), (7, 4))
    keep = keep_mask()
    hidden = paddle.to_tensor(x)
    hidden.stop_gradient = False
    mask = paddle.to_tensor(np.where(keep, 0.0, -1e4))
    (run(encoder, subnet, hidden, mask)[-1] * paddle.to_tensor(direction)).sum().backward()

    def loss():
        states = run_numpy(weights, x, as_added(keep), subnet, before=before, activation=activation)
        return (states[-1] * direction).sum()

    def differences(array, step=1e-5):
        result = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            value = array[index]
            array[index] = value + step
            above = loss()
            array[index] = value - step
            result[index] = (above - loss()) / (2 * step)
            array[index] = value
        return result

    # Truncation is about step^2 = 1e-10 of third derivatives, rounding 1e-15 / step = 1e-10 of the loss.
    tolerance = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_allclose(hidden.grad.numpy(), differences(x), **tolerance, err_msg="input")
    for name, parameter in encoder.named_parameters():
        gradient = np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
        if name.startswith("layers") and int(name.split(".")[1]) not in subnet.layers:
            assert not gradient.any(), name
        else:
            np.testing.assert_allclose(gradient, differences(weights[name]), **tolerance, err_msg=name)


def test_removed_parts_have_no_gradient():
    encoder = ElasticEncoder(make_encoder("float64"))
    x = paddle.to_tensor(random_input(np.random.default_rng(5)))
    run(encoder, Subnet((1,), (2,), (6,)), x, None)[-1].square().sum().backward()
    parameters = dict(encoder.layers[1].named_parameters())
    for name, (what, axis) in ELASTIC_AXES.items():
        gradient = np.moveaxis(parameters[name].grad.numpy(), axis, 0)
        kept = 2 * HEAD_DIM if what == "heads" else 6
        assert not gradient[kept:].any(), name
        if name != "self_attn.k_proj.bias":  # shifts all scores of a query alike, which softmax does not see
            assert gradient[:kept].reshape(kept, -1).any(axis=1).all(), name


def test_a_parameter_that_is_used_whole_is_not_copied():
    layer = make_encoder("float32").layers[0]
    for name, parameter in layer.named_parameters():
        cut = {"heads": HEADS, "neurons": NEURONS, "head_dim": HEAD_DIM}
        assert slice_parameter(parameter, name, **cut) is parameter
    assert set(ELASTIC_AXES) < {name for name, _ in layer.named_parameters()}


def test_head_gates_scale_each_heads_own_output():
    rng = np.random.default_rng(6)
    encoder, x = make_encoder("float64"), random_input(rng)
    gate = rng.normal(0, 1, 2)
    output = run_layer(
        encoder.layers[0], paddle.to_tensor(x), None, heads=2, neurons=5, head_gate=paddle.to_tensor(gate)
    ).numpy()
    weights = arrays(encoder)
    rows = weights["layers.0.self_attn.out_proj.weight"]
    rows[: 2 * HEAD_DIM] *= np.repeat(gate, HEAD_DIM)[:, None]
    expected = run_numpy(weights, x, 0.0, Subnet((0,), (2,), (5,)), before=False, activation="gelu")[-1]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("before", [False, True])
def test_dropout_in_training_is_the_stock_layers_own(before):
    """With all four rates different and one seed, stock and elastic encoders draw the same numbers in the same order.

    `dropout` is the rate after attention and after the FFN, `act_dropout` that inside the FFN.
    """
    stock = make_encoder("float32", before=before, dropout=0.1, attn_dropout=0.3, act_dropout=0.5)
    x = paddle.to_tensor(random_input(np.random.default_rng(7)).astype("float32"))
    mask = paddle.to_tensor(np.where(keep_mask(), 0.0, -1e4).astype("float32"))
    elastic = ElasticEncoder(stock)
    stock.train()
    paddle.seed(8)
    expected = stock(x, mask).numpy()
    paddle.seed(8)
    np.testing.assert_array_equal(elastic(x, mask).numpy(), expected)
    assert np.abs(elastic(x, mask).numpy() - expected).max() > 0.1
    stock.eval()
    np.testing.assert_array_equal(elastic(x, mask).numpy(), stock(x, mask).numpy())


@pytest.mark.parametrize("site", ["self_attn", "dropout1", "dropout", "dropout2"])
def test_each_dropout_of_a_layer_is_active_in_training_alone(site):
    encoder = ElasticEncoder(make_encoder("float32"))
    x = paddle.to_tensor(random_input(np.random.default_rng(9)).astype("float32"))
    subnet = Subnet((0, 2), (2, 1), (7, 4))
    encoder.train()
    dropped = run(encoder, subnet, x, None)[-1].numpy()
    np.testing.assert_array_equal(run(encoder, subnet, x, None)[-1].numpy(), dropped)  # all rates are 0
    for layer in encoder.layers:
        if site == "self_attn":
            layer.self_attn.dropout = 0.5
        else:
            getattr(layer, site).p = 0.5
    first, second = (run(encoder, subnet, x, None)[-1].numpy() for _ in range(2))
    assert np.abs(first - second).max() > 0.01
    encoder.eval()
    np.testing.assert_array_equal(run(encoder, subnet, x, None)[-1].numpy(), dropped)


@pytest.mark.parametrize("request_", [{"output_attentions": True}, {"cache": []}])
def test_unsupported_outputs_of_the_encoder_are_refused(request_):
    encoder = ElasticEncoder(make_encoder("float32"))
    with pytest.raises(ModelError, match="returns no attentions and takes no cache"):
        encoder(paddle.zeros([1, 2, HIDDEN]), **request_)
