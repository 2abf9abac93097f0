"""Sparse weights: which become zero, that sub-networks and folders have them, and that training keeps them."""

import numpy as np
import paddle
import pytest
from small_model import inputs, logits, make_supernet

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.compressing.low_rank import compress_low_rank
from dynabert_paddle.compressing.sparse import compress_sparse
from dynabert_paddle.errors import UsageError
from dynabert_paddle.supernet.sparsity import find_matrices, keep_zeros, measure_sparsity
from dynabert_paddle.supernet.supernet import to_tensors
from dynabert_paddle.training.pruning import Pruning, prune_weights

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def supernet():
    return make_supernet()


def compress(supernet, task, **settings):
    return compress_sparse(supernet, task, db.CompressConfig(method="sparse", **settings))[0]


@pytest.fixture(scope="module")
def small(supernet, task):
    return compress(supernet, task, sparsity=0.4)


def zeros_of(supernet):
    """The places of the zeros of a sparse model."""
    parts = find_matrices(supernet, supernet.metadata.sparse_parts)
    return {(part, i): m.numpy() == 0 for part, matrices in parts.items() for i, m in enumerate(matrices)}


def test_by_magnitude_the_smallest_weights_of_each_matrix_become_zero(supernet, small):
    before, after = to_arrays(supernet.model), to_arrays(small.model)
    changed = 0
    for name, array in before.items():
        zero = after[name] == 0
        np.testing.assert_array_equal(after[name][~zero], array[~zero])
        if "encoder.layers" in name and array.ndim == 2:
            assert zero.sum() == round(0.4 * array.size)
            assert np.abs(array[zero]).max() <= np.abs(array[~zero]).min()
            changed += 1
        else:
            np.testing.assert_array_equal(after[name], array)
    assert changed == 6 * 4


def test_by_gradient_the_weights_with_the_least_effect_on_the_loss_become_zero(supernet, task):
    """With the gradients of the whole of a batch: E[(w g)^2] is (w g)^2."""
    from dynabert_paddle.training.inputs import tokenize_examples
    from dynabert_paddle.training.label_loss import label_loss

    pruned = compress(supernet, task, sparsity=0.4, criterion="gradient", num_calibration_examples=20)
    sample = np.sort(np.random.default_rng(42).permutation(len(task.train))[:20])
    batch = to_tensors(tokenize_examples(task.train.select(sample), supernet).collate(np.arange(20), 0))
    supernet.eval()
    labels = batch.pop("labels")
    label_loss(supernet(**batch).logits, labels).backward()
    scores, zeros = [], []
    for part in ("attention", "ffn"):
        for matrix, after in zip(*(find_matrices(m, (part,))[part] for m in (supernet, pruned)), strict=True):
            scores.append((matrix * matrix.grad).abs().numpy().reshape(-1))
            zeros.append(after.numpy().reshape(-1) == 0)
    supernet.clear_gradients()
    scores, zeros = np.concatenate(scores), np.concatenate(zeros)
    assert zeros.sum() == round(0.4 * len(zeros))
    assert scores[zeros].max() <= scores[~zeros].min() * (1 + 1e-3) + 1e-12
    shares = measure_sparsity(pruned, ("attention", "ffn"))
    assert shares["attention"] != shares["ffn"]


def test_the_share_of_zeros_grows_as_in_zhu_and_gupta():
    plan = Pruning(("ffn",), 0.5, 0.1, "magnitude", 1000)
    assert plan.last_step == 700
    steps = [step for step in range(1, 1001) if plan.sparsity_at(step) is not None]
    shares = [plan.sparsity_at(step) for step in steps]
    assert steps[0] == 14 and steps[-1] == 700 and len(steps) == 50
    assert shares == sorted(shares) and shares[-1] == 0.5
    assert plan.sparsity_at(350) == pytest.approx(0.5 - 0.4 * 0.5**3)
    short = Pruning(("ffn",), 0.5, 0.0, "magnitude", 1)
    assert short.sparsity_at(1) == 0.5


def test_zeros_stay_zero_as_sparsity_grows(small):
    zeros = zeros_of(small)
    more = db.extract(small, small.full)
    prune_weights(more, ("attention", "ffn"), 0.6)
    assert measure_sparsity(more, ("ffn",))["ffn"] == pytest.approx(0.6, abs=1e-3)
    for key, now in zeros_of(more).items():
        assert now[zeros[key]].all()


@pytest.mark.parametrize("name", ["w0.50d0.50", "w0.25d1.00", "l1h3f7-l2h1f40"])
def test_a_slice_equals_the_extracted_saved_and_reloaded_model(small, tmp_path, name):
    part = small.search_space().parse(name)
    extracted = db.extract(small, part)
    np.testing.assert_allclose(logits(extracted), logits(small, part), atol=1e-6)
    extracted.save_pretrained(tmp_path / "part")
    again = db.load_model(tmp_path / "part")
    np.testing.assert_array_equal(logits(again), logits(extracted))
    assert again.metadata.sparse_parts == ("attention", "ffn")
    for key, zeros in zeros_of(again).items():
        np.testing.assert_array_equal(zeros, zeros_of(extracted)[key])
        assert zeros.any()


def test_a_step_keeps_zeros_despite_the_optimizers_moments(supernet, task):
    """Its moments are from before the weights became zero; only the gradients of the others are clipped."""
    model = db.Supernet(db.extract(supernet, supernet.full).model, supernet.tokenizer, supernet.metadata)
    optimizer = paddle.optimizer.AdamW(0.1, parameters=model.parameters(), weight_decay=0.1)
    batch = inputs()

    def step():
        model(**batch).logits.square().sum().backward()
        with keep_zeros(model):
            optimizer.step()
        optimizer.clear_grad()

    step()
    model.metadata = model.metadata.replace(sparse_parts=("ffn",))
    prune_weights(model, ("ffn",), 0.5)
    before, zeros = to_arrays(model.model), zeros_of(model)
    step()
    after = zeros_of(model)
    for key in zeros:
        np.testing.assert_array_equal(after[key], zeros[key])
    now = to_arrays(model.model)
    assert all((now[name] != array).any() for name, array in before.items() if "linear" in name)
    assert not any(np.signbit(array[array == 0]).any() for name, array in now.items() if "linear" in name)


def test_sorting_by_importance_keeps_the_outputs(small, task):
    model = db.extract(small, small.full)
    before = logits(model)
    db.rewire(model, task, config=db.RewireConfig(holdout_size=14))
    np.testing.assert_allclose(logits(model), before, atol=1e-5)
    for part, share in measure_sparsity(model, ("attention", "ffn")).items():
        assert share == measure_sparsity(small, (part,))[part]


def test_products_of_a_low_rank_become_sparse_and_sparse_layers_no_products(supernet, small, task):
    rank = db.CompressConfig(method="low_rank", rank_share=0.25)
    products, _ = compress_low_rank(supernet, task, rank)
    both = compress(products, task, sparsity=0.3)
    layer = both.encoder.layers[1].linear1
    for matrix in (layer.down, layer.up):
        assert int((matrix == 0).sum()) == round(0.3 * matrix.size)
    with pytest.raises(UsageError, match="first low_rank, then sparse"):
        compress_low_rank(small, task, rank)
    embedding, _ = compress_low_rank(
        small, task, db.CompressConfig(method="low_rank", rank_share=0.5, part=("embedding",))
    )
    assert measure_sparsity(embedding, ("ffn",)) == measure_sparsity(small, ("ffn",))


def test_the_embedding_becomes_sparse_where_asked_for(supernet, task):
    small = compress(supernet, task, sparsity=0.25, part=("embedding",))
    assert small.metadata.sparse_parts == ("embedding",)
    assert measure_sparsity(small, ("embedding",))["embedding"] == pytest.approx(0.25, abs=1e-5)
    assert measure_sparsity(small, ("ffn",))["ffn"] == 0
    both = compress(small, task, sparsity=0.5, part=("ffn",))
    assert both.metadata.sparse_parts == ("embedding", "ffn")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs sparsity"),
        ({"sparsity": 0.5, "criterion": "gradient", "part": ("embedding",)}, "all words that the training texts lack"),
    ],
)
def test_settings_that_do_not_fit_are_refused(supernet, task, settings, message):
    with pytest.raises(UsageError, match=message):
        compress(supernet, task, **settings)


def test_an_equally_sparse_model_is_refused_and_a_less_sparse_one_is_pruned_further(small, task):
    with pytest.raises(UsageError, match=r"0\.4 of the weights of attention are zero already"):
        compress(small, task, sparsity=0.3)
    assert measure_sparsity(compress(small, task, sparsity=0.6), ("ffn",))["ffn"] == pytest.approx(0.6, abs=1e-3)
