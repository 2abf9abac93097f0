"""Layers that share their weights: one layer in memory and in the folder, and a model like any other."""

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert
from paddlenlp.transformers import BertForSequenceClassification
from safetensors.numpy import load_file
from small_model import inputs, logits, make_supernet

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.compressing.low_rank import compress_low_rank
from dynabert_paddle.compressing.share_layers import compress_share_layers
from dynabert_paddle.compressing.sparse import compress_sparse
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.metadata import read_metadata, write_metadata
from dynabert_paddle.rewiring.importance import compute_importance
from dynabert_paddle.supernet.calls import PassState
from dynabert_paddle.supernet.cpu_operations import random_bits
from dynabert_paddle.supernet.shared_layers import find_groups
from dynabert_paddle.supernet.slices import SliceCache
from dynabert_paddle.supernet.supernet import to_tensors
from dynabert_paddle.training.label_loss import label_loss
from dynabert_paddle.training.replicas import Replicas

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def supernet():
    return make_supernet()


def compress(supernet, task, **settings):
    return compress_share_layers(supernet, task, db.CompressConfig(method="share_layers", **settings))[0]


@pytest.fixture(scope="module")
def small(supernet, task):
    return compress(supernet, task, groups=2)


def unshared(small):
    """The stock model with four layers of equal weights."""
    model = make_bert(seed=3)
    arrays = to_arrays(small.model)
    for name, parameter in model.state_dict().items():
        parts = name.split(".layers.")
        if len(parts) == 2:
            index, _, rest = parts[1].partition(".")
            name = f"{parts[0]}.layers.{int(index) // 2 * 2}.{rest}"
        parameter.set_value(arrays[name])
    return db.Supernet(model)


def num_stored(model):
    return sum(int(parameter.size) for parameter in model.parameters())


@pytest.mark.parametrize(("start", "expected"), [("first", (0,)), ("last", (1,)), ("mean", (0, 1))])
def test_a_group_begins_with_one_of_its_layers_or_their_mean(supernet, task, start, expected):
    small = compress(supernet, task, groups=2, start=start)
    assert find_groups(small.encoder.layers) == (0, 0, 1, 1)
    for group in (0, 1):
        layers = [dict(supernet.encoder.layers[2 * group + index].named_parameters()) for index in expected]
        for name, parameter in small.encoder.layers[2 * group].named_parameters():
            mean = np.mean([layer[name].numpy() for layer in layers], axis=0)
            np.testing.assert_allclose(parameter.numpy(), mean, rtol=1e-6, atol=1e-8)
    assert find_groups(supernet.encoder.layers) == ()


def test_it_equals_a_model_whose_layers_have_equal_weights(small):
    other = unshared(small)
    np.testing.assert_array_equal(logits(small), logits(other))
    for name in ("w0.50d0.50", "w0.25d0.75", "l1h3f7-l2h1f40"):
        part = other.search_space().parse(name)
        np.testing.assert_array_equal(logits(small, part), logits(other, part))


def test_the_gradient_of_a_group_is_the_sum_of_its_layers_gradients(small):
    """In a training step: the fast functions, and slices of several sub-networks."""
    other = unshared(small)
    for model in (small, other):
        model.eval()
        state = PassState(SliceCache(2**20), random_bits(0))
        for name in ("w1.00d1.00", "w0.50d1.00", "w0.25d0.50"):
            model(model.search_space().parse(name), state=state, **inputs()).logits.square().sum().backward()
        Replicas(model, 1).sum_gradients([state.slices])
    for group in (0, 1):
        first, second = (dict(other.encoder.layers[2 * group + index].named_parameters()) for index in (0, 1))
        for name, parameter in small.encoder.layers[2 * group].named_parameters():
            expected = (first[name].grad + second[name].grad).numpy()
            np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-3, atol=1e-4)
    small.clear_gradients()


def test_the_importance_of_a_head_is_summed_over_the_layers_that_share_it(small):
    """To first order: the sum of the derivatives by the gates of each layer, which have equal weights elsewhere."""
    other = unshared(small)
    found = compute_importance(small, [make_batch()], label_loss)
    gates = [paddle.ones([4]) for _ in range(4)]
    for gate in gates:
        gate.stop_gradient = False
    batch = to_tensors(make_batch())
    labels = batch.pop("labels")
    other.eval()
    label_loss(other(head_gates=gates, logits_only=True, **batch).logits, labels).backward()
    for group in (0, 1):
        expected = (gates[2 * group].grad + gates[2 * group + 1].grad).abs().numpy()
        for index in (2 * group, 2 * group + 1):
            np.testing.assert_allclose(found.heads[index], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found.neurons[0], found.neurons[1])


def test_sorting_by_importance_keeps_outputs_and_sharing(small, task):
    model = db.extract(small, small.full)
    before = logits(model)
    db.rewire(model, task, config=db.RewireConfig(holdout_size=14))
    np.testing.assert_allclose(logits(model), before, atol=1e-5)
    assert find_groups(model.encoder.layers) == (0, 0, 1, 1)
    changed = to_arrays(model.model)
    assert any((changed[name] != array).any() for name, array in to_arrays(small.model).items())


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("w1.00d1.00", (0, 0, 1, 1)),
        ("w0.50d0.75", (0, 0, 1)),
        ("w0.25d0.50", ()),
        ("l0h3f7-l1h3f7-l2h1f40-l3h2f40", (0, 0, 1, 2)),
        ("l0h4f48-l1h2f20", ()),
    ],
)
def test_a_slice_equals_the_extracted_saved_and_reloaded_model(small, tmp_path, name, groups):
    """Layers of a group that keep different heads or neurons are separate afterwards."""
    part = small.search_space().parse(name)
    expected = logits(small, part)
    extracted = db.extract(small, part)
    np.testing.assert_allclose(logits(extracted), expected, atol=1e-6)
    assert find_groups(extracted.encoder.layers) == groups
    assert small.search_space().num_params(part) == num_stored(extracted)
    extracted.save_pretrained(tmp_path / "part")
    again = db.load_model(tmp_path / "part")
    np.testing.assert_array_equal(logits(again), logits(extracted))
    assert find_groups(again.encoder.layers) == groups
    np.testing.assert_array_equal(logits(small, part), expected)


def test_its_folder_holds_a_group_once_and_not_for_stock_paddlenlp(supernet, small, tmp_path):
    small.save_pretrained(tmp_path / "small")
    arrays = load_file(tmp_path / "small" / "dynabert.safetensors")
    assert sum(array.size for array in arrays.values()) == num_stored(small)
    layer = sum(int(parameter.size) for parameter in supernet.encoder.layers[0].parameters())
    assert num_stored(supernet) - num_stored(small) == 2 * layer
    assert small.search_space().num_macs(small.full) == supernet.search_space().num_macs(supernet.full)
    with pytest.raises(OSError, match="model_state.pdparams|safetensors"):
        BertForSequenceClassification.from_pretrained(str(tmp_path / "small"))


@pytest.mark.parametrize("groups", [(0, 0, 1), (0, 1, 1, 1, 1)])
def test_groups_of_another_model_are_refused(small, tmp_path, groups):
    small.save_pretrained(tmp_path / "small")
    metadata = read_metadata(tmp_path / "small").replace(layer_groups=groups)
    (tmp_path / "small" / "dynabert.json").unlink()
    write_metadata(tmp_path / "small", metadata)
    with pytest.raises(ModelError, match="layer_groups are not of this model"):
        db.load_model(tmp_path / "small")


def test_other_methods_follow_it(small, task, tmp_path):
    products, _ = compress_low_rank(small, task, db.CompressConfig(method="low_rank", rank_share=0.25))
    assert find_groups(products.encoder.layers) == (0, 0, 1, 1)
    assert products.search_space().num_params(products.full) == num_stored(products)
    both, _ = compress_sparse(products, task, db.CompressConfig(method="sparse", sparsity=0.3))
    assert int((both.encoder.layers[3].linear1.down == 0).sum()) == round(0.3 * 32 * 8)
    both.save_pretrained(tmp_path / "both")
    np.testing.assert_array_equal(logits(db.load_model(tmp_path / "both")), logits(both))
    with pytest.raises(UsageError, match="share their weights already"):
        compress(products, task, groups=1)


def test_a_model_that_cannot_share_is_refused(supernet, task):
    products, _ = compress_low_rank(supernet, task, db.CompressConfig(method="low_rank", rank_share=0.25))
    with pytest.raises(UsageError, match="first share_layers, then low_rank"):
        compress(products, task, groups=2)
    sparse, _ = compress_sparse(supernet, task, db.CompressConfig(method="sparse", sparsity=0.3))
    with pytest.raises(UsageError, match="first share_layers, then sparse"):
        compress(sparse, task, groups=2)
    uneven = db.extract(supernet, supernet.search_space().parse("l0h3f7-l1h2f40"))
    with pytest.raises(UsageError, match="differ in heads or neurons"):
        compress(uneven, task, groups=1)
    with pytest.raises(UsageError, match="one layer"):
        compress(db.extract(supernet, supernet.search_space().parse("l0h3f7")), task, groups=1)


@pytest.mark.parametrize("groups", [None, -1, 0, 3, 4, 5])
def test_groups_that_do_not_divide_the_layers_are_refused(supernet, task, groups):
    with pytest.raises(UsageError, match="for example 1" if groups is None else "has 4 layers: pass 1 or 2"):
        compress(supernet, task, groups=groups)
