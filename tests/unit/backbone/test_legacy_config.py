"""Folders of PaddleNLP before 2.5: `model_config.json` with the encoder's config in `init_args`."""

import json
import logging

import numpy as np
import paddle
import paddlenlp.transformers as transformers
import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.model_config import flatten_config

SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
SIZES += ("hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size")
SIZES += ("initializer_range", "pad_token_id")


@pytest.fixture(scope="module")
def tokenizer():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


def write_legacy(folder, model, tokenizer, *, positional=False):
    """Write a model as PaddleNLP 2.4 did."""
    folder.mkdir()
    name = type(model).__name__
    base = {key: getattr(model.config, key) for key in SIZES}
    base["init_class"] = f"{name.split('For')[0]}Model"
    num_labels = model.config.num_labels
    arguments = {"init_args": [base, num_labels]} if positional else {"init_args": [base], "num_classes": num_labels}
    (folder / "model_config.json").write_text(json.dumps({**arguments, "init_class": name}))
    paddle.save(model.state_dict(), str(folder / "model_state.pdparams"))
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["tokenizer_class"]
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "init_class": "BertTokenizer"}))
    return folder


def make_ernie(**config):
    sizes = {"vocab_size": 30522, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 48, "max_position_embeddings": 128}
    return transformers.ErnieForSequenceClassification(transformers.ErnieConfig(**sizes, **config))


def logits_of(model):
    ids = paddle.to_tensor([[101, 7592, 2088, 102]])
    model.eval()
    output = model(input_ids=ids, attention_mask=paddle.ones_like(ids))
    return getattr(output, "logits", output).numpy()


@pytest.mark.parametrize("make", [make_bert, make_ernie])
@pytest.mark.parametrize("positional", [False, True])
def test_a_finetuned_folder_equals_its_model(tmp_path, tokenizer, make, positional):
    model = make(num_labels=3)
    folder = write_legacy(tmp_path / "model", model, tokenizer, positional=positional)
    loaded = db.load_model(folder)
    assert np.array_equal(logits_of(loaded), logits_of(model))
    assert loaded.tokenizer.encode(["Hello world"], max_seq_length=8)[0] == [[101, 7592, 2088, 102]]
    if not positional:  # PaddleNLP itself fails there
        stock = transformers.AutoModelForSequenceClassification.from_pretrained(str(folder))
        assert np.array_equal(logits_of(loaded), logits_of(stock))
    saved = db.load_model(loaded.save_pretrained(tmp_path / "saved"))
    assert np.array_equal(logits_of(saved), logits_of(model))
    assert not (tmp_path / "saved" / "model_config.json").exists()


def test_the_classifier_is_kept_if_the_labels_option_names_its_labels(tmp_path, tokenizer, caplog):
    model = make_bert(num_labels=3)
    folder = write_legacy(tmp_path / "model", model, tokenizer)
    labels = ("b", "a", "c")
    kept = db.Supernet.from_pretrained(folder, labels=labels, num_labels=3, trust_order=True)
    assert np.array_equal(logits_of(kept), logits_of(model))
    with caplog.at_level(logging.INFO):
        new = db.Supernet.from_pretrained(folder, labels=labels, num_labels=3)
    assert not np.array_equal(logits_of(new), logits_of(model))
    assert "does not name the labels of its classifier" in caplog.text


def test_an_encoder_alone_is_a_backbone(tmp_path, tokenizer):
    model = make_bert()
    folder = write_legacy(tmp_path / "model", model, tokenizer)
    base = json.loads((folder / "model_config.json").read_text())["init_args"][0]
    (folder / "model_config.json").write_text(json.dumps(base))
    paddle.save(model.bert.state_dict(), str(folder / "model_state.pdparams"))
    loaded = db.Supernet.from_pretrained(folder, num_labels=2)
    for name, value in model.bert.state_dict().items():
        assert np.array_equal(loaded.model.bert.state_dict()[name].numpy(), value.numpy())


def test_config_json_has_priority_as_in_paddlenlp(tmp_path, tokenizer):
    folder = write_legacy(tmp_path / "model", make_bert(num_labels=3), tokenizer)
    (folder / "config.json").write_text('{"architectures": ["FooModel"]}')
    with pytest.raises(ModelError, match=r"model/config\.json: names architecture 'FooModel'"):
        db.load_model(folder)


def test_messages_name_the_file(tmp_path, tokenizer):
    folder = write_legacy(tmp_path / "model", make_bert(num_labels=3), tokenizer)
    config = (folder / "model_config.json").read_text()
    (folder / "model_config.json").write_text(config.replace('"hidden_size": 32', '"hidden_size": 36'))
    with pytest.raises(ModelError, match=r"model_config\.json asks for"):
        db.load_model(folder)
    (folder / "model_config.json").write_text(config[:20])
    with pytest.raises(ModelError, match=r"model_config\.json: not JSON"):
        db.load_model(folder)


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        ({"hidden_size": 8, "architectures": ["A"]}, {"hidden_size": 8, "architectures": ["A"]}),
        ({"a": 1, "init_class": "BertModel"}, {"a": 1, "architectures": ["BertModel"]}),
        (
            {"init_args": [{"a": 1, "dropout": 0.1, "init_class": "M"}], "dropout": 0.2, "init_class": "F"},
            {"a": 1, "dropout": 0.2, "architectures": ["F"]},
        ),
        (
            {"init_args": [{"a": 1}, 5, 0.3], "init_class": "F"},
            {"a": 1, "num_labels": 5, "dropout": 0.3, "architectures": ["F"]},
        ),
    ],
)
def test_flattening(values, flat):
    assert flatten_config(values) == flat
