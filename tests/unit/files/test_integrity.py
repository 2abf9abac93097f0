"""Hashes: a model folder with changed files is refused, and the message tells the remedy."""

import json
import shutil

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.integrity import check_files, hash_files


@pytest.fixture
def model(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def test_hidden_files_and_folders_are_not_hashed(tmp_path):
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    # The SHA-256 of `abc` in FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_files(tmp_path) == {"a": expected, "b": expected}
    check_files(tmp_path / "dynabert.json", hash_files(tmp_path))


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        ({"../x": "0"}, "missing, and dynabert.json names it"),
        ({"/etc/passwd": "0"}, "missing, and dynabert.json names it"),
        ({"a": "0"}, "a: changed since it was written: copy"),
        ({"a": None}, "a: changed since it was written"),
        ({"b": "0"}, "b: missing"),
        (["a"], "damaged at 'files'"),
    ],
)
def test_missing_and_changed_files_are_refused(tmp_path, files, seen):
    (tmp_path / "folder").mkdir()
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "folder" / "a").write_bytes(b"abc")
    with pytest.raises(ModelError, match=seen):
        check_files(tmp_path / "folder" / "dynabert.json", files)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt"])
def test_a_flipped_bit_in_any_model_file_is_detected(model, name):
    content = bytearray((model / name).read_bytes())
    content[-20] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: changed since it was written: copy the folder again") as caught:
        db.load_model(model)
    assert "remove 'files' and 'checksum' from dynabert.json to accept the change" in str(caught.value)


def test_the_advice_for_changed_weights_works(model):
    small = db.load_model(model)
    array = small.model.classifier.bias.numpy() + 1
    small.model.classifier.bias.set_value(array)
    changed = small.save_pretrained(model.parent / "changed") / "model.safetensors"
    shutil.copy(changed, model)
    with pytest.raises(ModelError):
        db.load_model(model)
    values = json.loads((model / "dynabert.json").read_text())
    del values["files"], values["checksum"]
    (model / "dynabert.json").write_text(json.dumps(values))
    np.testing.assert_array_equal(to_arrays(db.load_model(model).model)["classifier.bias"], array)


def test_saving_a_loaded_model_hashes_the_new_files(model):
    again = db.load_model(model).save_pretrained(model.parent / "again")
    found = hash_files(again)
    del found["dynabert.json"]
    assert read_json(again / "dynabert.json")["files"] == found
