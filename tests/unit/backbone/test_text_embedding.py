"""Encoders whose output is one vector a text: pooling against NumPy, and sentence-transformers' files."""

import json

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.backbone.sentence_transformers import read_embedding_settings
from dynabert_paddle.backbone.text_embedding import BackboneForTextEmbedding, normalize, pool
from dynabert_paddle.data.embedding_settings import EmbeddingSettings
from dynabert_paddle.errors import ModelError
from dynabert_paddle.rewiring.importance import RandomProjection, compute_importance

MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}


def make_inputs():
    return {name: paddle.to_tensor(value) for name, value in make_batch().items() if name != "labels"}


def make_encoder(**settings):
    return BackboneForTextEmbedding(make_bert(num_layers=2).bert, EmbeddingSettings(**settings))


def pool_by_hand(hidden, mask, pooling):
    if pooling == "cls":
        return hidden[:, 0]
    rows = [row[kept == 1] for row, kept in zip(hidden, mask, strict=True)]
    return np.stack([row.mean(0) if pooling == "mean" else row.max(0) for row in rows])


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_padding_does_not_count(pooling):
    hidden = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32) - 3  # a 0 of padding would be a maximum
    mask = (np.arange(6) < np.array([6, 1, 3, 5])[:, None]).astype(np.int64)
    found = pool(paddle.to_tensor(hidden), paddle.to_tensor(mask), pooling).numpy()
    np.testing.assert_allclose(found, pool_by_hand(hidden, mask, pooling), atol=1e-6)


def test_a_vector_of_zeros_has_no_direction():
    found = normalize(paddle.to_tensor(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))).numpy()
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.0, 0.0]], atol=1e-7)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_every_sub_network_embeds_what_its_extracted_model_embeds(pooling):
    inputs = make_inputs()
    supernet = db.Supernet(make_encoder(pooling=pooling, normalize=True))
    supernet.eval()
    space = supernet.search_space(depth_mults=(1.0, 0.5))
    with paddle.no_grad():
        found = {name: supernet(subnet, **inputs) for name, subnet in space.grid().items()}
        for name, subnet in space.grid().items():
            alone = supernet(subnet, logits_only=True, **inputs).logits  # for cls, the first token alone
            small = db.extract(supernet, subnet)
            small.eval()
            np.testing.assert_allclose(alone.numpy(), found[name].logits.numpy(), atol=1e-5)
            np.testing.assert_allclose(small(**inputs).logits.numpy(), found[name].logits.numpy(), atol=1e-5)
        hidden = found["w1.00d1.00"].hidden_states[-1].numpy()
    expected = pool_by_hand(hidden, inputs["attention_mask"].numpy(), pooling)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found["w1.00d1.00"].logits.numpy(), expected, atol=1e-5)
    assert supernet.reads_first_token == (pooling == "cls")
    assert not [name for name, _ in supernet.model.named_parameters() if "pooler" in name]


def test_a_rotation_leaves_cosines_and_is_not_trained():
    inputs = make_inputs()
    model = make_encoder(pooling="mean", normalize=True)
    model.eval()
    before = model(**inputs).numpy()
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0]
    model.rotate(rotation)
    after = model(**inputs)
    np.testing.assert_allclose(after.numpy(), before @ rotation, atol=1e-5)
    after.sum().backward()
    assert model.dense.weight.grad is None
    assert model.bert.embeddings.word_embeddings.weight.grad is not None


def test_importance_without_labels_is_that_of_a_brute_force_reference():
    """|d(z . v) / d gate| by finite differences, with the same z."""
    batches = [{name: value for name, value in make_batch(seed=seed).items() if name != "labels"} for seed in (0, 1)]
    supernet = db.Supernet(make_encoder(pooling="mean", normalize=True))
    found = compute_importance(supernet, batches, RandomProjection(3))
    supernet.eval()
    draws = np.random.default_rng(3)
    expected, step = np.zeros((2, 4)), 1e-2
    for batch in batches:
        z = draws.standard_normal((5, 32)).astype(np.float32)
        inputs = {name: paddle.to_tensor(value) for name, value in batch.items()}
        for layer, head in np.ndindex(2, 4):
            values = []
            for change in (step, -step):
                gates = [np.ones(4, np.float32) for _ in range(2)]
                gates[layer][head] += change
                with paddle.no_grad():
                    output = supernet(head_gates=list(map(paddle.to_tensor, gates)), **inputs).logits.numpy()
                values.append((z * output).sum() / 5)
            expected[layer, head] += abs(values[0] - values[1]) / (2 * step)
    np.testing.assert_allclose(np.stack(found.heads), expected, rtol=0.02, atol=1e-3)


def write_modules(folder, *kinds, pooling=None):
    names = [f"sentence_transformers.models.{kind}" for kind in kinds]
    modules = [{"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": names[i]} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")


def test_settings_of_sentence_transformers(tmp_path):
    assert read_embedding_settings(tmp_path) == EmbeddingSettings()
    write_modules(tmp_path, "Transformer", "Pooling", "Normalize", pooling=MEAN)
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    assert read_embedding_settings(tmp_path) == EmbeddingSettings("mean", True, "query: ", "passage: ")
    write_modules(tmp_path, "Transformer", "Pooling", pooling={"pooling_mode": "cls"})
    assert read_embedding_settings(tmp_path) == EmbeddingSettings("cls", False, "query: ", "passage: ")
    assert read_embedding_settings(find_backbone("minilm-l6")) == EmbeddingSettings("mean", True)


@pytest.mark.parametrize(
    ("kinds", "pooling", "message"),
    [
        (("Transformer", "Pooling", "Dense"), MEAN, "has a module 'Dense', which is not supported"),
        (("Transformer", "Pooling"), {**MEAN, "pooling_mode_cls_token": True}, "its pooling is cls and mean: allowed"),
        (("Transformer", "Pooling"), {"pooling_mode_lasttoken": True}, "its pooling is pooling_mode_lasttoken"),
        (("Transformer", "Pooling"), {}, "its pooling is none"),
        (("Transformer", "Pooling"), {**MEAN, "include_prompt": False}, "include_prompt is false"),
        (("Transformer", "Pooling"), None, "1_Pooling/config.json: missing"),
    ],
)
def test_what_would_give_other_vectors_is_refused(tmp_path, kinds, pooling, message):
    write_modules(tmp_path, *kinds, pooling=pooling)
    with pytest.raises(ModelError, match=message):
        read_embedding_settings(tmp_path)


def test_a_damaged_list_of_modules_is_refused(tmp_path):
    for content in ("[", '{"a": 1}', "[1]"):
        (tmp_path / "modules.json").write_text(content, encoding="utf-8")
        with pytest.raises(ModelError, match="modules.json: (cannot be read|must be a list of modules)"):
            read_embedding_settings(tmp_path)
