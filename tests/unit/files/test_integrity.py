"""Hashes: a model folder whose files are not as they were written is refused, and what one does about it is told."""

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


def test_hashes_are_of_the_files_that_are_not_hidden(tmp_path):
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    # The SHA-256 of `abc` as FIPS 180-2, appendix B.1, has it.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_files(tmp_path) == {"a": expected, "b": expected}
    check_files(tmp_path / "dynabert.json", hash_files(tmp_path))


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        ({"../x": "0"}, "missing, and dynabert.json names it"),
        ({"/etc/passwd": "0"}, "missing, and dynabert.json names it"),
        ({"a": "0"}, "a: not as it was written: copy"),
        ({"a": None}, "a: not as it was written"),
        ({"b": "0"}, "b: missing"),
        (["a"], "damaged at 'files'"),
    ],
)
def test_other_files_are_refused(tmp_path, files, seen):
    (tmp_path / "folder").mkdir()
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "folder" / "a").write_bytes(b"abc")
    with pytest.raises(ModelError, match=seen):
        check_files(tmp_path / "folder" / "dynabert.json", files)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt"])
def test_a_flipped_bit_is_found_in_every_file_of_a_model(model, name):
    content = bytearray((model / name).read_bytes())
    content[-20] ^= 1
    (model / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: not as it was written: copy the folder again") as caught:
        db.load_model(model)
    assert "remove 'files' and 'checksum' from dynabert.json to take it as it is" in str(caught.value)


def test_weights_that_were_changed_on_purpose_load_as_the_message_says(model):
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


def test_what_is_loaded_and_saved_has_its_own_hashes(model):
    again = db.load_model(model).save_pretrained(model.parent / "again")
    found = hash_files(again)
    del found["dynabert.json"]
    assert read_json(again / "dynabert.json")["files"] == found
