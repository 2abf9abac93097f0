"""Products of a low rank: the best ones for real inputs, and a model with them is a model like any other."""

from copy import deepcopy

import numpy as np
import paddle
import pytest
from conftest import make_batch
from paddle import nn
from paddlenlp.transformers import BertForSequenceClassification
from small_model import logits, make_supernet

import dynabert_paddle as db
from dynabert_paddle.backbone.structure import owner_of
from dynabert_paddle.compressing.low_rank import collect_moments, compress_low_rank
from dynabert_paddle.compressing.products import Moments, best_product, output_error, saving_rank
from dynabert_paddle.errors import UsageError
from dynabert_paddle.supernet.low_rank_linear import PROJECTIONS, LowRankLinear
from dynabert_paddle.supernet.supernet import to_tensors
from dynabert_paddle.training.inputs import tokenize_examples


@pytest.fixture(scope="module")
def supernet():
    model = make_supernet()
    model.eval()
    return model


@pytest.fixture(scope="module")
def small(supernet, task):
    return compress(supernet, task, rank_share=0.25)[0]


def compress(supernet, task, **settings):
    return compress_low_rank(supernet, task, db.CompressConfig(method="low_rank", **settings))


def make_linear(rng, *, bias):
    linear = nn.Linear(12, 9, bias_attr=None if bias else False)
    linear.weight.set_value(rng.normal(size=(12, 9)).astype("float32"))
    if bias:
        linear.bias.set_value(rng.normal(size=9).astype("float32"))
    return linear


def moments_of(x):
    return Moments(len(x), x.sum(axis=0), x.T @ x)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rank", [1, 4, 8])
def test_no_matrix_of_the_rank_has_a_nearer_output(bias, rank):
    """Eckart and Young: the error of the best matrix of a rank is the sum of the squared singular values beyond it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12)) + rng.normal(size=12)
    linear = make_linear(rng, bias=bias)
    product = best_product(linear, rank, moments_of(x))
    weight = linear.weight.numpy().astype("float64")
    outputs = x @ weight + (linear.bias.numpy() if bias else 0)
    found = x @ product.down.numpy().astype("float64") @ product.up.numpy() + (product.bias.numpy() if bias else 0)
    centred = x - x.mean(axis=0) if bias else x
    least = np.sum(np.linalg.svd(centred @ weight, compute_uv=False)[rank:] ** 2)
    error = np.sum((outputs - found) ** 2)
    np.testing.assert_allclose(error, least, rtol=1e-5)
    np.testing.assert_allclose(len(x) * output_error(linear, product, moments_of(x)), error, rtol=1e-5)
    np.testing.assert_allclose(len(x) * output_error(linear, None, moments_of(x)), np.sum(outputs**2), rtol=1e-6)


def test_with_inputs_alike_in_all_directions_it_is_the_truncated_svd():
    linear = make_linear(np.random.default_rng(1), bias=True)
    product = best_product(linear, 3, Moments.isotropic(12))
    left, values, right = np.linalg.svd(linear.weight.numpy(), full_matrices=False)
    truncated = (left[:, :3] * values[:3]) @ right[:3]
    np.testing.assert_allclose(product.down.numpy() @ product.up.numpy(), truncated, atol=1e-5)
    np.testing.assert_array_equal(product.bias.numpy(), linear.bias.numpy())


def test_the_moments_are_those_of_the_layers_inputs(supernet, task):
    """The first layer's queries read the embedding's output; padding does not count."""
    features = tokenize_examples(task.dev, supernet)
    found = collect_moments(supernet, features, batch_size=7)
    rows = []
    for index in range(len(features)):
        batch = to_tensors(features.collate(np.array([index]), 0))
        batch.pop("labels")
        with paddle.no_grad():
            rows.append(supernet.embed(**batch).numpy()[0])
    x = np.concatenate(rows).astype("float64")
    layer = supernet.encoder.layers[0]
    for linear in (layer.self_attn.q_proj, layer.self_attn.v_proj):
        assert found[linear].count == len(x) == features.lengths.sum()
        np.testing.assert_allclose(found[linear].mean, x.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(found[linear].covariance(), np.cov(x.T, bias=True), atol=1e-4)
    assert len(found) == 6 * len(supernet.encoder.layers)


def test_the_output_error_on_held_out_texts_is_below_that_of_plain_svd(task):
    """On the first layer of the real backbone, without `linear1`, whose 1,536 eigenvalues take longest."""
    backbone = db.Supernet.from_pretrained("minilm-l6", num_labels=7)
    supernet = db.extract(backbone, db.Subnet.parse("l0h12f1536"))
    train, dev = (collect_moments(supernet, tokenize_examples(part, supernet)) for part in (task.train, task.dev))
    for name in set(PROJECTIONS) - {"linear1"}:
        linear = getattr(*owner_of(supernet.encoder.layers[0], name))
        plain = best_product(linear, 96, Moments.isotropic(linear.weight.shape[0]))
        product = best_product(linear, 96, train[linear])
        assert output_error(linear, product, dev[linear]) < output_error(linear, plain, dev[linear]), name


def test_products_are_used_only_where_they_save_multiply_accumulates(supernet, task):
    assert [saving_rank([384, 384], share) for share in (0.001, 0.25, 0.499, 0.5)] == [1, 96, None, None]
    assert [saving_rank([384, 1536], share) for share in (0.75, 0.8, 0.81)] == [288, 307, None]
    half, _ = compress(supernet, task, rank_share=0.55)
    layer = half.encoder.layers[0]
    assert not isinstance(layer.self_attn.q_proj, LowRankLinear)
    assert isinstance(layer.linear1, LowRankLinear)
    with pytest.raises(UsageError, match="no matrix of attention becomes smaller"):
        compress(supernet, task, rank_share=0.5, part=("attention",))


def test_parameters_and_multiply_accumulates_are_counted_exactly(supernet, small):
    space = small.search_space()
    assert space.num_params(small.full) == sum(int(p.size) for p in small.parameters())
    assert space.num_macs(small.full) < supernet.search_space().num_macs(supernet.full)
    d, f, s, layers = 32, 48, 10, 4
    assert space.num_macs(small.full, seq_length=s) == layers * (s * 8 * (4 * (d + d) + 2 * (d + f)) + 2 * s * s * d)
    part = space.parse("l1h3f7-l2h1f40")
    assert space.num_params(part) == sum(int(p.size) for p in db.extract(small, part).parameters())


@pytest.mark.parametrize("name", ["w0.50d0.50", "w0.25d1.00", "l1h3f7-l2h1f40"])
def test_a_slice_equals_the_extracted_saved_and_reloaded_model(small, tmp_path, name):
    part = small.search_space().parse(name)
    expected = logits(small, part)
    extracted = db.extract(small, part)
    np.testing.assert_allclose(logits(extracted), expected, atol=1e-6)
    extracted.save_pretrained(tmp_path / "part")
    again = db.load_model(tmp_path / "part")
    np.testing.assert_array_equal(logits(again), logits(extracted))
    assert isinstance(again.encoder.layers[0].linear2, LowRankLinear)


def test_a_folder_is_read_back_and_not_by_stock_paddlenlp(small, tmp_path):
    small.save_pretrained(tmp_path / "small")
    assert not (tmp_path / "small" / "model.safetensors").exists()
    np.testing.assert_array_equal(logits(db.load_model(tmp_path / "small")), logits(small))
    with pytest.raises(OSError, match="model_state.pdparams|safetensors"):
        BertForSequenceClassification.from_pretrained(str(tmp_path / "small"))


def test_sorting_by_importance_keeps_the_outputs(small, task):
    model = db.Supernet(deepcopy(small.model), small.tokenizer, small.metadata)
    before = logits(model)
    db.rewire(model, task, config=db.RewireConfig(holdout_size=14))
    np.testing.assert_allclose(logits(model), before, atol=1e-5)


def test_the_gradient_of_a_neuron_is_that_of_the_whole_matrix(supernet):
    """A neuron's importance: the products of a rank that loses nothing have the same sums."""
    from dynabert_paddle.rewiring.importance import compute_importance
    from dynabert_paddle.training.label_loss import label_loss

    model = db.Supernet(deepcopy(supernet.model), supernet.tokenizer)
    for layer in model.encoder.layers:
        for name in ("linear1", "linear2"):
            linear = getattr(layer, name)
            width = linear.weight.shape[0]
            setattr(layer, name, best_product(linear, min(linear.weight.shape), Moments.isotropic(width)))
    found, expected = (
        compute_importance(each, [make_batch()], label_loss, clear_gradients=True) for each in (model, supernet)
    )
    for ours, theirs in zip(found.neurons, expected.neurons, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "needs rank_share"), ({"rank_share": 0.9}, "pass a smaller one")],
)
def test_settings_that_do_not_fit_are_refused(supernet, task, settings, message):
    with pytest.raises(UsageError, match=message):
        compress(supernet, task, **settings)


def test_a_model_that_has_products_is_refused(small, task):
    with pytest.raises(UsageError, match="products of a low rank already"):
        compress(small, task, rank_share=0.1)


def test_the_embedding_keeps_the_components_that_texts_use_most(supernet, task, tmp_path):
    small, done = compress(supernet, task, rank_share=0.5, part=("embedding",))
    assert small.max_rank == 16
    assert done["embedding_output_error"] < done["embedding_output_error_of_svd"] < 1
    assert small.search_space().num_params(small.full) == sum(int(p.size) for p in small.parameters())
    saved = 30522 * 32 - 16 * (30522 + 32)
    assert supernet.search_space().num_params(supernet.full) - small.search_space().num_params(small.full) == saved
    small.save_pretrained(tmp_path / "small")
    np.testing.assert_array_equal(logits(db.load_model(tmp_path / "small")), logits(small))
    with pytest.raises(UsageError, match="embedding is elastic, or has a low rank already"):
        compress(small, task, rank_share=0.2, part=("embedding",))
    both, _ = compress(small, task, rank_share=0.25)
    both.save_pretrained(tmp_path / "both")
    np.testing.assert_array_equal(logits(db.load_model(tmp_path / "both")), logits(both))
