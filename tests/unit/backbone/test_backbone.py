"""Backbones from elsewhere: nothing in their files is run, and a damaged size does not take all memory."""

import json
import os
import pickle
import shutil
import sys
from contextlib import suppress

import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import build_model, load_from_hub, to_arrays
from dynabert_paddle.backbone.structure import check_elements
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.weights import write_safetensors

SIZES = {"vocab_size": 30, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1}


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_weights_of_a_name_on_the_hub_cannot_run_code(tmp_path, monkeypatch):
    """PaddleNLP finds them in its cache, and reads them with `paddle.load`, which would."""
    folder = tmp_path / "somebody" / "model"
    folder.mkdir(parents=True)
    config = {**SIZES, "architectures": ["BertForSequenceClassification"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config))
    content = pickle.dumps({"w": Attack(tmp_path / "marker")}, protocol=2)
    (folder / "model_state.pdparams").write_bytes(content)
    monkeypatch.setattr(sys.modules["paddlenlp.utils.download.bos_download"], "MODEL_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"asks for posix\.system, but only arrays are read"):
        load_from_hub("somebody/model")
    assert not (tmp_path / "marker").exists()
    pickle.loads(content)
    assert (tmp_path / "marker").exists(), "the attack itself works"


@pytest.fixture
def folder(tmp_path):
    """A plain folder, without `dynabert.json`."""
    model = make_bert(vocab_size=30, num_layers=2)
    model.config.architectures = [type(model).__name__]
    model.config.to_json_file(str(tmp_path / "config.json"))
    write_safetensors(tmp_path / "model.safetensors", to_arrays(model))
    return tmp_path


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("sizes", "seen"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1e+09: allowed are whole numbers from 0 to 1,024"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"num_labels": 10**9}, "num_labels is 1e+09"),
        ({"vocab_size": 10**12}, "vocab_size is 1e+12"),
        ({"hidden_size": -32}, "hidden_size is -32"),
        ({"hidden_size": float("nan")}, "hidden_size is nan"),
        ({"hidden_size": 10**400}, "cannot be built from it"),
        ({"type_vocab_size": 4_000_000}, "type_vocab_size is 4e+06: allowed are whole numbers from 0 to 1,024"),
        ({"task_type_vocab_size": 4_000_000}, "task_type_vocab_size is 4e+06"),
        ({"embedding_size": 4_000_000}, "embedding_size is 4e+06"),
        ({"vocab_size": 400_000, "embedding_size": 16_000}, "describes a model of 6,4"),
        ({"vocab_size": 4_000_000, "hidden_size": 4_000_000}, "describes a model of 144,"),
        ({"max_position_embeddings": 4_000_000, "hidden_size": 1024}, "describes a model of 4,1"),
        ({"intermediate_size": 4_000_000}, "describes a model of 51"),
        ({"num_hidden_layers": 1000, "hidden_size": 1024}, "M parameters, but the folder's weights have 0.1 MB"),
    ],
)
def test_sizes_that_no_model_has_are_refused_at_once(folder, sizes, seen):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | sizes))
    with pytest.raises(ModelError, match=r"config\.json: ") as caught:
        build_model(folder)
    assert seen in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_may_be_larger_than_the_weights_that_were_kept_of_it(folder):
    """An extracted model's config has the whole layers' neurons."""
    config = build_model(folder).config
    check_elements(config, 0)
    config.vocab_size, config.hidden_size, config.num_hidden_layers, config.intermediate_size = 30522, 768, 12, 3072
    check_elements(config, 4 * 30522 * 768)


@pytest.mark.parametrize(
    "config",
    [
        {"init_class": "ErnieTinyTokenizer", "init_args": ["model/v.txt", "x", "model/words.dat"]},
        {"tokenizer_class": "ErnieTinyTokenizer", "sentencepiece_model_file": "x", "word_dict": "words.dat"},
    ],
)
@pytest.mark.parametrize("working_folder", [".", "model"])
def test_a_tokenizer_runs_no_pickle(tmp_path, monkeypatch, config, working_folder):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    folder = tmp_path / "model"
    folder.mkdir()
    vocabulary = folder / ("v.txt" if "init_args" in config else "vocab.txt")
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    (folder / "words.dat").write_bytes(pickle.dumps(Harmful()))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path / working_folder)
    with suppress(ModelError):
        db.Tokenizer.from_pretrained("." if working_folder == "model" else "model")
    assert not (tmp_path / "harm").exists()


def test_a_tokenizer_reads_no_file_beside_its_folder(tmp_path):
    """PaddleNLP would take a vocabulary from wherever the config says."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    (tmp_path / "secret.txt").write_text("\n".join([*words, "secret"]))
    config = {
        "tokenizer_class": "ErnieTokenizer",
        "vocab_file": str(tmp_path / "secret.txt"),
        "chat_template": "{{ 1 }}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert db.Tokenizer.from_pretrained(folder).vocab_size == len(words)
    shutil.copy(tmp_path / "secret.txt", folder / "vocab.txt")
    assert db.Tokenizer.from_pretrained(folder).vocab_size == len(words) + 1
