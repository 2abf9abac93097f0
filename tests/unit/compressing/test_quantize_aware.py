"""Quantized weights and activations: what is rounded, that parts and folders have it, and how it goes with the rest."""

import numpy as np
import paddle
import pytest
from conftest import make_bert
from paddlenlp.transformers import BertForSequenceClassification
from safetensors.numpy import load_file
from small_model import inputs, logits, make_supernet

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.compressing.low_rank import compress_low_rank
from dynabert_paddle.compressing.quantize_aware import best_activation_scale, compress_quantize_aware
from dynabert_paddle.compressing.share_layers import compress_share_layers
from dynabert_paddle.compressing.sparse import compress_sparse
from dynabert_paddle.compressing.vocabulary import compress_vocabulary
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.array_hash import hash_model
from dynabert_paddle.files.metadata import read_metadata, write_metadata
from dynabert_paddle.files.weights import read_weights
from dynabert_paddle.supernet.calls import FLOAT_ACTIVATIONS
from dynabert_paddle.supernet.quantized import find_bits, find_quantized, find_ranges
from dynabert_paddle.supernet.shared_layers import find_groups
from dynabert_paddle.supernet.sparsity import find_matrices

pytestmark = pytest.mark.reference

BITS = (8, 4, 2)


@pytest.fixture(scope="module")
def supernet():
    return make_supernet()


def compress(supernet, task, bits=8, **settings):
    config = db.CompressConfig(method="quantize_aware", weight_bits=bits, num_calibration_examples=20, **settings)
    return compress_quantize_aware(supernet, task, config)[0]


@pytest.fixture(scope="module")
def small(supernet, task):
    """The model with 8, 4 and 2 bits."""
    return {bits: compress(supernet, task, bits) for bits in BITS}


def float_logits(model, subnet=None):
    """A model's logits where its activations are not rounded."""
    model.eval()
    with paddle.no_grad():
        return model(subnet, state=FLOAT_ACTIVATIONS, **inputs()).logits.numpy()


@pytest.mark.parametrize("bits", BITS)
def test_all_matrices_and_tables_but_the_classifiers_are_integers_times_their_scale(supernet, small, bits):
    model = small[bits]
    found = {weight.name: weight for weight in find_quantized(model.model)}
    before, after = to_arrays(supernet.model), to_arrays(model.model)
    expected = {name for name, array in before.items() if array.ndim == 2 and "classifier" not in name}
    assert found.keys() == expected
    for name, weight in found.items():
        is_main = ".layers." in name or "word_embeddings" in name
        assert weight.bits == (bits if is_main else 8)
        rows, columns = weight.weight.shape
        assert weight.scale.shape == ([rows, 1] if "embeddings" in name else [1, columns])
        integers = weight.weight.numpy() / weight.scale.numpy()
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
        largest = {8: 127 if weight.axis else 64, 4: 7, 2: 1}[weight.bits]
        assert np.abs(np.rint(integers)).max() <= largest
        assert (weight.input_scale is None) == ("embeddings" in name)
    for name in before.keys() - expected:
        np.testing.assert_array_equal(after[name], before[name])
    assert model.search_space().num_params(model.full) == supernet.search_space().num_params(supernet.full)


def test_queries_keys_and_values_have_one_range_and_each_other_matrix_its_own(small):
    ranges = find_ranges(small[8].model)
    assert len(ranges) == 4 * 4 + 1  # attention's input and output, both of the FFN; and the pooler
    assert len({part.scale.item() for part in ranges}) == len(ranges)


def test_fewer_bits_change_more(supernet, small):
    """With 2 bits the model is another one until it is trained."""
    expected = logits(supernet)
    errors = [np.abs(logits(small[bits]) - expected).max() / np.abs(expected).max() for bits in BITS]
    assert errors[0] < 0.15
    assert errors == sorted(errors)
    assert errors[2] > 0.2
    without = np.abs(float_logits(small[8]) - expected).max() / np.abs(expected).max()
    assert 0 < without < errors[0]


def test_the_scale_of_an_activation_loses_least():
    values = np.random.default_rng(0).standard_t(3, 5000).astype(np.float32)

    def error(scale):
        return np.square(np.clip(np.rint(values / scale), -128, 127) * scale - values).sum()

    found = best_activation_scale(values)
    assert error(found) <= min(error(np.abs(values).max() / 127 * share) for share in np.linspace(0.1, 1, 50))
    assert best_activation_scale(np.zeros(9, np.float32)) > 0


@pytest.mark.parametrize("name", ["w0.50d0.50", "l1h3f7-l2h1f40"])
@pytest.mark.parametrize("bits", BITS)
def test_a_part_is_what_is_extracted_saved_and_loaded_again(small, tmp_path, bits, name):
    model = small[bits]
    part = model.search_space().parse(name)
    extracted = db.extract(model, part)
    np.testing.assert_allclose(float_logits(extracted), float_logits(model, part), atol=1e-6)
    np.testing.assert_array_equal(logits(extracted), logits(model, part))
    extracted.save_pretrained(tmp_path / "part")
    again = db.load_model(tmp_path / "part")
    np.testing.assert_array_equal(logits(again), logits(extracted))
    assert again.metadata.weight_bits == find_bits(again.model) == bits
    assert [weight[0::3] for weight in find_quantized(again.model)] == [
        weight[0::3] for weight in find_quantized(extracted.model)
    ]
    assert hash_model(read_weights(tmp_path / "part")) == hash_model(to_arrays(extracted.model))


def test_stock_paddlenlp_computes_with_the_rounded_weights_of_8_bits(small, tmp_path):
    small[8].save_pretrained(tmp_path / "small")
    stock = BertForSequenceClassification.from_pretrained(str(tmp_path / "small"))
    stock.eval()
    np.testing.assert_array_equal(stock(**inputs()).numpy(), float_logits(small[8]))
    own = load_file(tmp_path / "small" / "dynabert.safetensors")
    assert all(name.endswith(("_scale", "range.scale")) for name in own)


@pytest.mark.parametrize("bits", [4, 2])
def test_fewer_bits_are_packed_and_not_for_stock_paddlenlp(supernet, small, tmp_path, bits):
    small[bits].save_pretrained(tmp_path / "small")
    assert not (tmp_path / "small" / "model.safetensors").exists()
    packed = [weight for weight in find_quantized(small[bits].model) if weight.bits == bits]
    elements = sum(int(weight.weight.size) for weight in packed)
    scales = sum(int(weight.scale.size) for weight in packed)
    size = (tmp_path / "small" / "dynabert.safetensors").stat().st_size
    others = supernet.search_space().num_params(supernet.full) - elements
    assert size == pytest.approx(elements * bits / 8 + 4 * (scales + others), abs=20_000)  # names and shapes
    assert size == pytest.approx(small[bits].search_space().num_bytes(small[bits].full), abs=25_000)
    with pytest.raises(OSError, match="model_state.pdparams|safetensors"):
        BertForSequenceClassification.from_pretrained(str(tmp_path / "small"))


def test_what_is_to_be_trained_begins_with_the_float_weights(supernet, task):
    model = compress(supernet, task, 4, finetune_steps=3)
    before, after = to_arrays(supernet.model), to_arrays(model.model)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.parametrize("bits", [8, 2])
def test_sorted_by_importance_it_computes_what_it_did(small, task, bits):
    model = db.extract(small[bits], small[bits].full)
    before = float_logits(model)
    db.rewire(model, task, config=db.RewireConfig(holdout_size=14))
    np.testing.assert_allclose(float_logits(model), before, atol=1e-5)
    for weight in find_quantized(model.model):
        integers = weight.weight.numpy() / weight.scale.numpy()
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
    arrays = to_arrays(model.model)
    assert any((arrays[name] != array).any() for name, array in to_arrays(small[bits].model).items() if "scale" in name)


def test_fewer_pieces_keep_their_rows_scales(small, task, tmp_path):
    config = db.CompressConfig(method="vocabulary", vocab_size=2000, max_positions=16)
    model, _ = compress_vocabulary(small[4], task, config)
    model.save_pretrained(tmp_path / "few")
    np.testing.assert_array_equal(logits_of(db.load_model(tmp_path / "few")), logits_of(model))
    table = next(weight for weight in find_quantized(model.model) if "word" in weight.name)
    assert (table.weight.shape[0], table.scale.shape) == (2000, [2000, 1])
    pieces = list(model.tokenizer.vocabulary)[200:210]
    ids = ([[one.tokenizer.vocabulary[piece] for piece in pieces]] for one in (model, small[4]))
    np.testing.assert_array_equal(*(logits_of(one, row) for one, row in zip((model, small[4]), ids, strict=True)))


def logits_of(model, ids=((101, 5, 102),)):
    model.eval()
    ids = paddle.to_tensor(np.array(ids, np.int64) % model.model.config.vocab_size)
    with paddle.no_grad():
        return model(input_ids=ids, attention_mask=paddle.ones_like(ids)).logits.numpy()


@pytest.mark.parametrize("bits", [4, 2])
def test_products_shared_layers_and_zeros_come_before_it(supernet, task, tmp_path, bits):
    shared, _ = compress_share_layers(supernet, task, db.CompressConfig(method="share_layers", groups=2))
    parts = ("attention", "ffn", "embedding")
    products, _ = compress_low_rank(shared, task, db.CompressConfig(method="low_rank", rank_share=0.25, part=parts))
    sparse, _ = compress_sparse(products, task, db.CompressConfig(method="sparse", sparsity=0.4))
    model = compress(sparse, task, bits)
    assert find_groups(model.encoder.layers) == (0, 0, 1, 1)
    found, expected = (find_matrices(one, ("attention", "ffn")) for one in (model, sparse))
    for part, matrices in expected.items():
        for before, after in zip(matrices, found[part], strict=True):
            zeros = before.numpy() == 0
            assert zeros.any() and not after.numpy()[zeros].any()
    names = [weight.name for weight in find_quantized(model.model)]
    assert any(name.endswith("word_embeddings.up") for name in names)
    assert any(name.endswith("linear1.down") for name in names)
    part = model.search_space().parse("w0.50d0.75r0.50")
    extracted = db.extract(model, part)
    np.testing.assert_array_equal(logits(extracted), logits(model, part))
    extracted.save_pretrained(tmp_path / "part")
    np.testing.assert_array_equal(logits(db.load_model(tmp_path / "part")), logits(extracted))
    assert hash_model(read_weights(tmp_path / "part")) == hash_model(to_arrays(extracted.model))


def test_a_new_head_is_not_quantized(small, task, tmp_path):
    """A model for tokens has no pooler that is trained: one for texts gets a new one."""
    token_model = db.Supernet.from_pretrained(small_folder(small[4], tmp_path), head="ForTokenClassification")
    token_model.save_pretrained(tmp_path / "tokens")
    again = db.Supernet.from_pretrained(tmp_path / "tokens", head="ForSequenceClassification", num_labels=3)
    assert not any("classifier" in weight.name for weight in find_quantized(again.model))
    again.save_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(logits(db.load_model(tmp_path / "again")), logits(again))


def small_folder(model, tmp_path):
    return model.save_pretrained(tmp_path / "small")


def test_a_model_for_several_ranks_is_refused_and_one_of_them_is_not(supernet, task):
    elastic = db.extract(supernet, supernet.full)
    db.rewire(elastic, task, config=db.RewireConfig(holdout_size=14), rank_mults=(1.0, 0.25))
    with pytest.raises(UsageError, match="extract a sub-network with the rank that you want first"):
        compress(elastic, task)
    part = db.extract(elastic, elastic.search_space().parse("w0.50d1.00r0.25"))
    assert find_bits(compress(part, task, 4).model) == 4
    quantized = compress(db.extract(elastic, elastic.full), task)
    with pytest.raises(UsageError, match="the embedding of a quantized model has no ranks"):
        db.rewire(quantized, task, config=db.RewireConfig(holdout_size=14), rank_mults=(1.0, 0.25))


@pytest.mark.parametrize("bits", [-1, 0, 1, 3, 5, 16, 32])
def test_other_numbers_of_bits_are_refused(supernet, task, bits):
    with pytest.raises(UsageError, match=rf"weight_bits is {bits}: allowed are 8, 4 and 2"):
        compress(supernet, task, bits)


def test_a_folder_of_other_bits_than_it_says_is_refused(small, tmp_path):
    small_folder(small[4], tmp_path)
    path = tmp_path / "small" / "dynabert.json"
    metadata = read_metadata(tmp_path / "small")
    path.unlink()
    write_metadata(tmp_path / "small", metadata.replace(weight_bits=3))
    with pytest.raises(ModelError, match="damaged at 'weight_bits'"):
        db.load_model(tmp_path / "small")
    path.unlink()
    write_metadata(tmp_path / "small", metadata.replace(weight_bits=None))
    assert find_bits(db.load_model(tmp_path / "small").model) is None  # its rounded weights are weights


def test_a_model_that_is_not_quantized_has_nothing_of_it(tmp_path):
    model = db.Supernet(make_bert())
    assert find_bits(model.model) is None
    model.save_pretrained(tmp_path / "plain")
    assert "weight_bits" not in (tmp_path / "plain" / "dynabert.json").read_text()
    assert not (tmp_path / "plain" / "dynabert.safetensors").exists()
