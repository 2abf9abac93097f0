"""Importance against finite differences of the stock model in double precision, and sorting by it."""

from contextlib import contextmanager

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import make_batch, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import set_arrays, to_arrays
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.rewiring.importance import Importance, compute_importance
from dynabert_paddle.rewiring.permute import sort_by_importance
from dynabert_paddle.subnet import Subnet

LAYERS, HEADS, HEAD_DIM, NEURONS = 2, 3, 4, 7
SIZES = {
    "hidden_size": HEADS * HEAD_DIM,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "num_layers": LAYERS,
    "vocab_size": 1100,
}
# A float32 forward and backward pass rounds gradients at about 1e-6 of the largest one.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}


@contextmanager
def double_precision():
    paddle.set_default_dtype("float64")
    try:
        yield
    finally:
        paddle.set_default_dtype("float32")


def make_supernet(seed=0):
    return db.Supernet(make_bert(seed=seed, **SIZES))


def batches(count=3):
    return [make_batch(vocab_size=1100, seed=seed) for seed in range(count)]


def inputs_of(batch):
    return {name: paddle.to_tensor(value) for name, value in batch.items() if name != "labels"}


def derivatives(supernet, batch):
    """dL/dg of a factor g = 1 on a head's output, on a neuron's weights in, and on its weights out, by differences.

    The model is PaddleNLP's own, in double precision, and its weights are what is scaled: no gates, no autograd.
    """
    with double_precision():
        model = make_bert(**SIZES)
        model.eval()
        set_arrays(model, {name: value.astype("float64") for name, value in to_arrays(supernet.model).items()})
        inputs, labels = inputs_of(batch), paddle.to_tensor(batch["labels"])

        def loss_with(*scaled):
            """The loss with some rows or columns of some parameters multiplied by a factor."""
            originals = [parameter.numpy() for parameter, _, _ in scaled]
            for (parameter, index, factor), value in zip(scaled, originals, strict=True):
                value = value.copy()
                value[index] *= factor
                parameter.set_value(value)
            with paddle.no_grad():
                loss = float(F.cross_entropy(model(**inputs), labels))
            for (parameter, _, _), value in zip(scaled, originals, strict=True):
                parameter.set_value(value)
            return loss

        def difference(*parts, step=1e-4):
            """Truncation is of the order of step^2 = 1e-8, rounding of 1e-16 / step = 1e-12."""
            above, below = (loss_with(*((p, index, 1 + sign * step) for p, index in parts)) for sign in (1, -1))
            return (above - below) / (2 * step)

        heads, inward, outward = [], [], []
        for layer in model.bert.encoder.layers:
            out, first, second = layer.self_attn.out_proj, layer.linear1, layer.linear2
            rows = [slice(head * HEAD_DIM, (head + 1) * HEAD_DIM) for head in range(HEADS)]
            heads.append([difference((out.weight, part)) for part in rows])
            columns = [(slice(None), neuron) for neuron in range(NEURONS)]
            inward.append([difference((first.weight, column), (first.bias, column[1])) for column in columns])
            outward.append([difference((second.weight, neuron)) for neuron in range(NEURONS)])
    return np.array(heads), np.array(inward), np.array(outward)


def assert_importance(importance, heads, neurons):
    np.testing.assert_allclose(np.array(importance.heads), heads, **TOLERANCE)
    np.testing.assert_allclose(np.array(importance.neurons), neurons, **TOLERANCE)


def random_importance(supernet, seed=0):
    rng = np.random.default_rng(seed)
    full = supernet.full
    return Importance([rng.random(heads) for heads in full.heads], [rng.random(count) for count in full.neurons])


def test_importance_equals_finite_differences_of_the_stock_model():
    supernet, data = make_supernet(), batches()
    parts = [derivatives(supernet, batch) for batch in data]
    per_batch = compute_importance(supernet, data, F.cross_entropy)
    assert_importance(
        per_batch,
        sum(np.abs(heads) for heads, _, _ in parts),
        sum(np.abs(inward) + np.abs(outward) for _, inward, outward in parts),
    )
    assert supernet.training

    # The authors' code: each batch adds the size of all gradients up to it.
    sums = [np.cumsum([part[which] for part in parts], axis=0) for which in range(3)]
    huawei = compute_importance(supernet, data, F.cross_entropy, clear_gradients=False)
    assert_importance(huawei, np.abs(sums[0]).sum(axis=0), np.abs(sums[1]).sum(axis=0) + np.abs(sums[2]).sum(axis=0))
    assert np.abs(np.array(huawei.heads) / np.array(per_batch.heads) - 1).max() > 0.1
    assert np.array(per_batch.heads).min() > 1e-4  # far above the tolerance: nothing passes by being 0


def test_without_clearing_gradients_signs_cancel_and_sizes_pile_up():
    """One batch twice: |g| + |g| per batch; |g| + |g + g| or |g| + |g - g| for the authors' way."""
    supernet, data = make_supernet(), batches(1) * 2
    signs = iter([1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0])

    def loss(logits, labels):
        return F.cross_entropy(logits, labels) * next(signs)

    piled = compute_importance(supernet, data, loss, clear_gradients=False)
    cancelled = compute_importance(supernet, data, loss, clear_gradients=False)
    cleared = compute_importance(supernet, data, loss)
    once = compute_importance(supernet, data[:1], loss)
    for importance, factor in ((piled, 3), (cancelled, 1), (cleared, 2)):
        assert_importance(importance, factor * np.array(once.heads), factor * np.array(once.neurons))


@pytest.mark.parametrize("clear_gradients", [True, False])
def test_earlier_gradients_are_ignored_and_none_are_left(clear_gradients):
    supernet, data = make_supernet(), batches(2)
    expected = compute_importance(supernet, data, F.cross_entropy, clear_gradients=clear_gradients)
    supernet(**inputs_of(data[0])).logits.sum().backward()
    importance = compute_importance(supernet, data, F.cross_entropy, clear_gradients=clear_gradients)
    assert_importance(importance, np.array(expected.heads), np.array(expected.neurons))
    assert all(p.grad is None or not p.grad.numpy().any() for p in supernet.parameters())


def test_importance_is_measured_without_dropout():
    supernet, data = make_supernet(), batches(1)
    supernet.train()
    first, second = (compute_importance(supernet, data, F.cross_entropy) for _ in range(2))
    np.testing.assert_array_equal(first.heads, second.heads)
    np.testing.assert_array_equal(first.neurons, second.neurons)
    assert supernet.training
    supernet.eval()
    compute_importance(supernet, data, F.cross_entropy)
    assert not supernet.training


def test_importance_of_a_regression_is_that_of_its_own_loss():
    supernet = db.Supernet(make_bert(num_labels=1, **SIZES))
    batch = {**make_batch(vocab_size=1100), "labels": np.linspace(0, 5, 5, dtype="float32")}

    def loss(logits, labels):
        return F.mse_loss(logits.squeeze(-1), labels)

    weight = supernet.encoder.layers[1].self_attn.out_proj.weight
    importance = compute_importance(supernet, [batch], loss)
    value = weight.numpy()
    supernet.eval()
    results = []
    for factor in (1.01, 0.99):  # the logits are smooth: the truncation is about 1e-4 of the derivative
        scaled = value.copy()
        scaled[HEAD_DIM : 2 * HEAD_DIM] *= factor
        weight.set_value(scaled)
        results.append(float(loss(supernet(**inputs_of(batch)).logits, paddle.to_tensor(batch["labels"]))))
    assert importance.heads[1][1] == pytest.approx(abs(results[0] - results[1]) / 0.02, rel=1e-2)


@pytest.mark.parametrize("clear_gradients", [True, False])
def test_no_data_and_no_gradient_are_errors(clear_gradients):
    supernet = make_supernet()
    with pytest.raises(DynabertError, match="importance of all heads and neurons is 0: there is no data"):
        compute_importance(supernet, [], F.cross_entropy, clear_gradients=clear_gradients)
    with pytest.raises(DynabertError, match="importance of all heads and neurons is 0: .* the loss has no gradient"):
        compute_importance(
            supernet, batches(1), lambda logits, labels: (logits * 0.0).sum(), clear_gradients=clear_gradients
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_have_diverged_are_an_error(value):
    supernet = make_supernet()
    weight = supernet.encoder.layers[0].linear1.weight
    weight.set_value(np.full(weight.shape, value, "float32"))
    with pytest.raises(DynabertError, match="not finite: the model's weights have diverged"):
        compute_importance(supernet, batches(1), F.cross_entropy)


def test_rewiring_leaves_the_full_models_output_unchanged(batch):
    supernet = db.Supernet(make_bert())
    supernet.eval()
    before, weights = supernet(**batch), to_arrays(supernet.model)
    half = supernet.search_space().subnet(width_mult=0.5)
    half_before = supernet(half, **batch).logits.numpy()
    # The first of each layer becomes its last: no layer stays unchanged, and no order is its own inverse.
    turned = [np.array([0, *range(count - 1, 0, -1)]) for count in (4, 48)]
    sort_by_importance(supernet, Importance([turned[0]] * 4, [turned[1]] * 4))
    after = supernet(**batch)
    # The same products, summed in another order: some roundings of 6e-8 of values up to 4, in each of 4 layers.
    np.testing.assert_allclose(after.logits.numpy(), before.logits.numpy(), rtol=0, atol=5e-6)
    for state, expected in zip(after.hidden_states, before.hidden_states, strict=True):
        np.testing.assert_allclose(state.numpy(), expected.numpy(), rtol=0, atol=5e-6)
    assert np.abs(supernet(half, **batch).logits.numpy() - half_before).max() > 0.01
    changed = {name for name, value in to_arrays(supernet.model).items() if not np.array_equal(value, weights[name])}
    per_layer = {name.split(".", 4)[4] for name in changed}
    assert len(changed) == 4 * len(per_layer)
    assert per_layer == {
        *(f"self_attn.{name}_proj.{kind}" for name in "qkv" for kind in ("weight", "bias")),
        "self_attn.out_proj.weight", "linear1.weight", "linear1.bias", "linear2.weight",
    }  # fmt: skip


def test_sorted_importance_descends_and_sorting_again_changes_nothing():
    supernet = make_supernet()
    importance = compute_importance(supernet, batches(), F.cross_entropy)
    in_order = sort_by_importance(supernet, importance)
    for values, before in zip(
        [*in_order.heads, *in_order.neurons], [*importance.heads, *importance.neurons], strict=True
    ):
        assert (np.diff(values) <= 0).all()
        np.testing.assert_array_equal(np.sort(values), np.sort(before))
    weights = to_arrays(supernet.model)
    again = sort_by_importance(supernet, in_order)
    np.testing.assert_array_equal(again.heads, in_order.heads)
    for name, value in to_arrays(supernet.model).items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)


def test_the_importance_of_a_rewired_model_is_the_sorted_importance():
    supernet, data = make_supernet(seed=3), batches()
    in_order = sort_by_importance(supernet, compute_importance(supernet, data, F.cross_entropy))
    measured = compute_importance(supernet, data, F.cross_entropy)
    assert_importance(measured, np.array(in_order.heads), np.array(in_order.neurons))


def test_equally_important_parts_keep_their_order():
    supernet = make_supernet()
    weights = to_arrays(supernet.model)
    equal = Importance([np.ones(HEADS)] * LAYERS, [np.ones(NEURONS)] * LAYERS)
    sort_by_importance(supernet, equal)
    for name, value in to_arrays(supernet.model).items():
        np.testing.assert_array_equal(value, weights[name], err_msg=name)


def test_small_subnets_hold_the_most_important_heads_and_neurons():
    supernet = make_supernet()
    before, importance = to_arrays(supernet.model), random_importance(supernet, seed=1)
    sort_by_importance(supernet, importance)
    small = to_arrays(db.extract(supernet, Subnet((0, 1), (2, 1), (3, 5))).model)
    for layer, (num_heads, num_neurons) in enumerate([(2, 3), (1, 5)]):
        heads = sorted(range(HEADS), key=lambda head: -importance.heads[layer][head])[:num_heads]
        neurons = sorted(range(NEURONS), key=lambda neuron: -importance.neurons[layer][neuron])[:num_neurons]
        features = [head * HEAD_DIM + feature for head in heads for feature in range(HEAD_DIM)]
        prefix = f"bert.encoder.layers.{layer}"
        for name in "qkv":
            part = f"{prefix}.self_attn.{name}_proj"
            np.testing.assert_array_equal(small[f"{part}.weight"], before[f"{part}.weight"][:, features])
            np.testing.assert_array_equal(small[f"{part}.bias"], before[f"{part}.bias"][features])
        out, first, second = (f"{prefix}.{name}" for name in ("self_attn.out_proj", "linear1", "linear2"))
        np.testing.assert_array_equal(small[f"{out}.weight"], before[f"{out}.weight"][features])
        np.testing.assert_array_equal(small[f"{out}.bias"], before[f"{out}.bias"])
        np.testing.assert_array_equal(small[f"{first}.weight"], before[f"{first}.weight"][:, neurons])
        np.testing.assert_array_equal(small[f"{first}.bias"], before[f"{first}.bias"][neurons])
        np.testing.assert_array_equal(small[f"{second}.weight"], before[f"{second}.weight"][neurons])


def test_a_model_whose_layers_differ_is_measured_and_sorted(batch):
    supernet = db.extract(db.Supernet(make_bert(**{**SIZES, "vocab_size": 30522})), Subnet((0, 1), (2, 3), (5, 7)))
    supernet.eval()
    logits = supernet(**batch).logits.numpy()
    importance = compute_importance(supernet, [make_batch()], F.cross_entropy)
    assert [len(values) for values in [*importance.heads, *importance.neurons]] == [2, 3, 5, 7]
    sort_by_importance(supernet, importance)
    np.testing.assert_allclose(supernet(**batch).logits.numpy(), logits, rtol=0, atol=2e-6)
