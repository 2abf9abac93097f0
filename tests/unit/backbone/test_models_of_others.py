"""Folders whose parts do not fit together are refused when they are loaded."""

import json
import logging
import shutil

import pytest
from conftest import make_bert
from paddlenlp.transformers import BertConfig, BertForMaskedLM

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.errors import DynabertError, ModelError
from dynabert_paddle.files.weights import write_safetensors
from dynabert_paddle.training.masked_lm import MaskedLM

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "a", "."]


def write_folder(folder, model, tokens=TOKENS, **changes):
    """Write a folder as Hugging Face or PaddleNLP does, with BERT's vocab.txt."""
    folder.mkdir(exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.to_json_file(str(folder / "config.json"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    write_safetensors(folder / "model.safetensors", to_arrays(model), metadata={"format": "np"})
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    return folder


def test_more_tokens_than_embeddings_are_refused(tmp_path):
    folder = write_folder(tmp_path / "model", make_bert(num_labels=2, vocab_size=8))
    seen = r"model: the tokenizer has 9 tokens, and the model embeddings for 8: copy both from one"
    for load in (db.load_model, lambda path: db.Supernet.from_pretrained(path, num_labels=3)):
        with pytest.raises(ModelError, match=seen):
            load(folder)
    with pytest.raises(DynabertError, match=seen):
        db.export(folder, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(ModelError, match="the tokenizer has 9 tokens"):
        db.Supernet(make_bert(vocab_size=8), db.Tokenizer.from_pretrained(folder))


@pytest.mark.parametrize("form", ["tokenizer.json", "added_tokens.json", "masked LM"])
def test_more_tokens_in_another_form(tmp_path, form):
    model = make_bert(num_labels=2, vocab_size=9)
    folder = write_folder(tmp_path / "model", model)
    db.load_model(folder)
    if form == "masked LM":
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        write_folder(folder, BertForMaskedLM(BertConfig(vocab_size=8, **sizes)))
        with pytest.raises(ModelError, match="the tokenizer has 9 tokens, and the model embeddings for 8"):
            MaskedLM.from_pretrained(folder)
        return
    if form == "tokenizer.json":
        tokenizer = db.Tokenizer.from_pretrained(folder)
        tokenizer._backend.add_tokens(["new", "tokens"])
        tokenizer.save_pretrained(folder)
    else:
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
        (folder / "added_tokens.json").write_text('{"new": 9, "tokens": 10}')
    with pytest.raises(ModelError, match="the tokenizer has 11 tokens, and the model embeddings for 9"):
        db.load_model(folder)


def test_fewer_tokens_and_empty_lines_are_accepted(tmp_path):
    db.load_model(write_folder(tmp_path / "model", make_bert(num_labels=2, vocab_size=16)))
    db.load_model(write_folder(tmp_path / "model", make_bert(num_labels=2, vocab_size=9), [*TOKENS, ""]))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_labels": 3},
        {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}},
        {"id2label": {"0": "a"}, "label2id": {"a": 0}},
    ],
)
def test_a_config_with_another_number_of_labels_than_the_classifier(tmp_path, changes):
    """A new classifier would take the place of the trained one."""
    folder = write_folder(tmp_path / "model", make_bert(num_labels=2, vocab_size=9), **changes)
    with pytest.raises(
        ModelError, match=r"'classifier\.(weight|bias)' has shape \[(32, )?2\] and config\.json asks for"
    ):
        db.load_model(folder)
    db.Supernet.from_pretrained(folder, num_labels=5)  # to be trained


def test_a_model_without_a_classifier_is_said_to_have_a_random_one(tmp_path, caplog):
    model = make_bert(num_labels=2, vocab_size=9)
    folder = write_folder(tmp_path / "model", model, architectures=["BertModel"])
    write_safetensors(folder / "model.safetensors", to_arrays(model.bert), metadata={"format": "np"})
    with caplog.at_level(logging.WARNING):
        db.Supernet.from_pretrained(folder, num_labels=2)
        assert not caplog.records
        db.load_model(folder)
    assert f"{folder} has no weights for 'classifier.weight': the classifier is new and random" in caplog.text


def test_an_activation_that_paddle_lacks(tmp_path):
    folder = write_folder(tmp_path / "model", make_bert(num_labels=2, vocab_size=9), hidden_act="gelu_new")
    with pytest.raises(ModelError, match=r"config\.json: hidden_act is 'gelu_new', which Paddle does not have"):
        db.load_model(folder)


def test_the_built_in_backbone_has_one_embedding_a_token(tmp_path):
    source = find_backbone("minilm-l6")
    shutil.copytree(source, tmp_path / "copy")
    with (tmp_path / "copy" / "vocab.txt").open("a") as file:
        file.write("zyzzyva\n")
    (tmp_path / "copy" / "tokenizer.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="the tokenizer has 30,523 tokens, and the model embeddings for 30,522"):
        db.Supernet.from_pretrained(tmp_path / "copy", num_labels=2)
