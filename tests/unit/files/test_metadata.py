"""`dynabert.json` round-trips, and damage is reported with the file's name."""

import pytest

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, read_metadata, write_metadata
from dynabert_paddle.files.model_folder import check_model_folder


def test_metadata_round_trip(tmp_path):
    metadata = Metadata(
        stage="width",
        task={"name": "snips", "labels": ["a", "é"]},
        heads=(4, 3),
        neurons=(48, 36),
        space={"width_mults": [1.0, 0.5], "depth_mults": [1.0]},
        subnet={"name": "w0.50d1.00"},
        importance={"heads": [[0.5, 0.25]]},
        metrics={"holdout": {"w1.00d1.00": {"accuracy": 0.5}}},
        provenance={"parent": {"parent": "minilm-l6"}},
    )
    write_metadata(tmp_path, metadata)
    assert read_metadata(tmp_path) == metadata
    assert metadata.replace(stage="depth").stage == "depth"
    assert metadata.stage == "width"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    write_metadata(tmp_path / "model", Metadata(stage="width"))
    assert read_metadata("~/model").stage == "width"
    check_model_folder("~/model")
    with pytest.raises(ModelError, match=r"~/modle: no such model folder"):
        check_model_folder("~/modle")


def test_a_plain_folder_has_empty_metadata(tmp_path):
    assert read_metadata(tmp_path) == Metadata()


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("", "not JSON: the file is damaged or cut off"),
        ('{"format_version": 1, "stage": "wid', "not JSON: the file is damaged or cut off"),
        ("\x00\x00\x00", "not JSON"),
        ("[1, 2]", "holds no JSON object"),
        ("{}", "not format version 1"),
        ('{"format_version": 2}', "not format version 1"),
        ('{"format_version": 1, "colour": "red"}', "damaged at 'colour'"),
        ('{"format_version": 1, "heads": 4}', "damaged"),
        ('{"format_version": 1, "heads": [4], "neurons": null}', "damaged"),
        ('{"format_version": 1, "heads": ["4"], "neurons": ["48"]}', "damaged"),
        ('{"format_version": 1, "heads": [4, 4], "neurons": [48]}', "damaged: 2 entries in 'heads', 1 in 'neurons'"),
        ('{"format_version": 1, "task": ["snips"]}', "damaged"),
        ('{"format_version": 1, "space": "grid"}', "damaged"),
        ('{"format_version": 1, "stage": 3}', "damaged"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_damaged_metadata_names_its_file(tmp_path, content, seen):
    (tmp_path / METADATA_FILE).write_text(content)
    with pytest.raises(ModelError, match=seen) as caught:
        read_metadata(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / METADATA_FILE}: ")
    assert "\n" not in str(caught.value)
