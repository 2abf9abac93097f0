"""Classifiers of other models: their rows follow the names of the labels."""

import json
import logging
import sys

import numpy as np
import paddle
import paddlenlp.transformers as transformers
import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.labels import class_names, classifier_parameters, model_labels
from dynabert_paddle.backbone.loading import build_model, find_backbone, load_from_hub, load_weights, to_arrays
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.weights import write_safetensors

SIZES = {
    "vocab_size": 30,
    "hidden_size": 8,
    "embedding_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_labels": 3,
}


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"id2label": {"0": "pos", "1": "neg"}}, ("pos", "neg")),
        ({"id2label": {"1": "neg", "0": "pos"}}, ("pos", "neg")),
        ({"id2label": {0: "pos", 1: "neg"}}, ("pos", "neg")),
        ({"label2id": {"neg": 1, "pos": 0}}, ("pos", "neg")),
        ({"id2label": {"0": 0, "1": 1}}, ("0", "1")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, None),
        ({"id2label": {"0": "pos", "1": "LABEL_1"}}, None),
        ({"id2label": {"0": "pos", "2": "neg"}}, None),
        ({"id2label": {"0": "pos", "1": "pos"}}, None),
        ({"id2label": {"0": "pos", "1": ""}}, None),
        ({"id2label": {}}, None),
        ({"id2label": None}, None),
        ({"id2label": ["pos", "neg"]}, None),
        ({}, None),
    ],
)
def test_names_in_a_config(config, names):
    assert class_names(config) == names


def test_a_config_and_metadata_that_disagree():
    config = {"id2label": {"0": "neg", "1": "pos"}}
    assert model_labels(config, {"labels": ["neg", "pos"]}) == ("neg", "pos")
    assert model_labels({}, {"labels": ["neg", "pos"]}) == ("neg", "pos")
    assert model_labels(config, {}) == ("neg", "pos")
    for labels, seen in (
        (["pos", "neg"], "the order was 'neg', 'pos', now it is 'pos', 'neg'"),
        (["neg", "positive"], "'pos' is missing, 'positive' is new"),
    ):
        with pytest.raises(ModelError, match=seen):
            model_labels(config, {"labels": labels})


def write_folder(folder, model, **changes):
    """Write a plain PaddleNLP folder, without `dynabert.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.to_json_file(str(folder / "config.json"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    write_safetensors(folder / "model.safetensors", to_arrays(model), metadata={"format": "np"})
    return folder


def classifier_of(model):
    state = model.state_dict()
    return [state[name].numpy() for name in classifier_parameters(model)]


def load(folder, labels, **options):
    paddle.seed(1)
    model = build_model(folder, labels=labels, num_labels=len(labels))
    load_weights(model, folder, labels=labels, **options)
    return classifier_of(model)


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification"])
@pytest.mark.parametrize("name", ["Bert", "Roberta", "Electra", "Ernie", "DistilBert", "Ernie", "PPMiniLM", "TinyBert"])
def test_rows_follow_the_names(tmp_path, name, head, caplog):
    if not hasattr(transformers, name + head):
        pytest.skip("PaddleNLP has no such model")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text(json.dumps({**SIZES, "architectures": [name + head]}))
    model = build_model(tmp_path / "new")
    for parameter in model.parameters():
        parameter.set_value(paddle.randn(parameter.shape))
    weight, bias = classifier_of(model)
    assert weight.shape[-1] == bias.shape[-1] == 3
    folder = write_folder(tmp_path / "model", model, id2label={"0": "c", "1": "a", "2": "b"})
    for order in (["c", "a", "b"], ["a", "b", "c"], ["b", "a", "c"]):
        rows = [["c", "a", "b"].index(label) for label in order]
        found = load(folder, tuple(order))
        np.testing.assert_array_equal(found[0], weight[:, rows])
        np.testing.assert_array_equal(found[1], bias[rows])
    assert not caplog.records


@pytest.mark.parametrize(
    ("id2label", "labels", "seen"),
    [
        (
            {"0": "c", "1": "a", "2": "b"},
            ("a", "b", "d"),
            "has other labels than the task ('c' is missing, 'd' is new)",
        ),
        ({"0": "c", "1": "a", "2": "b"}, ("0", "1", "2"), "has other labels than the task"),
        ({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, ("a", "b", "c"), "does not name the labels"),
    ],
)
def test_a_classifier_of_other_labels_is_replaced_with_a_warning(tmp_path, caplog, id2label, labels, seen):
    model = make_bert(num_labels=3, num_layers=1, vocab_size=30)
    folder = write_folder(tmp_path / "model", model, id2label=id2label)
    with caplog.at_level(logging.INFO, logger="dynabert_paddle"):
        weight, bias = load(folder, labels)
    assert seen in caplog.text and "a new one is trained" in caplog.text
    assert not np.isin(weight, classifier_of(model)[0]).any()
    assert not bias.any()


def test_unnamed_labels_are_kept_if_the_labels_option_orders_them(tmp_path, caplog):
    model = make_bert(num_labels=3, num_layers=1, vocab_size=30)
    folder = write_folder(tmp_path / "model", model)
    with caplog.at_level(logging.INFO, logger="dynabert_paddle"):
        weight, _ = load(folder, ("c", "a", "b"), trust_order=True)
    np.testing.assert_array_equal(weight, classifier_of(model)[0])
    assert not caplog.records


def test_a_backbone_without_classifier_causes_no_warning(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="dynabert_paddle"):
        db.Supernet.from_pretrained(find_backbone("minilm-l6"), labels=("a", "b"), num_labels=2)
    assert "label" not in caplog.text


def test_a_model_of_several_labels_a_text_becomes_one_of_a_single_label(tmp_path):
    model = make_bert(num_labels=3, num_layers=1, vocab_size=30)
    folder = write_folder(tmp_path / "model", model, problem_type="multi_label_classification")
    assert build_model(folder).config.problem_type == "multi_label_classification"
    assert getattr(build_model(folder, labels=("a", "b", "c"), num_labels=3).config, "problem_type", None) is None


@pytest.mark.parametrize(
    ("id2label", "architecture", "kept"),
    [
        ({"0": "pos", "1": "neg"}, "BertForSequenceClassification", True),
        ({"0": "pos", "1": "negative"}, "BertForSequenceClassification", False),
        ({"0": "LABEL_0", "1": "LABEL_1"}, "BertForSequenceClassification", False),
        ({"0": "pos", "1": "neg"}, "BertForTokenClassification", False),
    ],
)
def test_rows_follow_the_names_for_a_name_on_the_hub(tmp_path, monkeypatch, id2label, architecture, kept):
    model = make_bert(num_labels=2, num_layers=1, vocab_size=30)
    folder = write_folder(
        tmp_path / "somebody" / "model", model, id2label=id2label, architectures=[architecture], model_type="bert"
    )
    paddle.save(model.state_dict(), str(folder / "model_state.pdparams"))
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(sys.modules["paddlenlp.utils.download.bos_download"], "MODEL_HOME", str(tmp_path))
    loaded = load_from_hub("somebody/model", labels=("neg", "pos"), num_labels=2)
    weight = classifier_of(model)[0]
    assert np.array_equal(classifier_of(loaded)[0], weight[:, [1, 0]]) is kept
    assert loaded.config.id2label == {0: "neg", 1: "pos"}
    assert kept or not np.isin(classifier_of(loaded)[0], weight).any()
