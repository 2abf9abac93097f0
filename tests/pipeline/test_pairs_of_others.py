"""A pair model of Hugging Face: its bundle takes pairs because the user says so."""

import json
import subprocess
import sys

import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder without a task."""
    folder = tmp_path_factory.mktemp("models") / "pairs"
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    db.Supernet(make_bert(num_labels=2, num_layers=1), tokenizer).save_pretrained(folder)
    (folder / "dynabert.json").unlink()
    return folder


def test_the_bundle_reads_the_second_text(folder, tmp_path, dynabert):
    words = ("--output_dir", tmp_path / "bundle", "--text_column", "first", "--text_pair_column", "second")
    assert dynabert("export", folder, *words).code == 0
    description = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert description["pair"] and description["task"]["text_pair_column"] == "second"
    (tmp_path / "x.tsv").write_text("second\tfirst\nsome text\tanother text\n")
    found = dynabert("predict", tmp_path / "bundle", "-i", tmp_path / "x.tsv").out.splitlines()[1]
    label, score = found.split("\t")
    ((ids,), (types,)) = db.Tokenizer.from_pretrained(folder).encode(["another text"], ["some text"], max_seq_length=16)
    assert 1 in types and ids
    (prediction,) = db.Predictor(tmp_path / "bundle")(["another text"], ["some text"])
    assert (prediction.label, f"{prediction.score:.4f}") == (label, score)
    command = [sys.executable, tmp_path / "bundle" / "infer.py", "-i", tmp_path / "x.tsv"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{found}\n"


def test_a_setting_that_does_not_fit_is_refused(folder, tmp_path, dynabert):
    result = dynabert("export", folder, "--output_dir", tmp_path / "bundle", "--kind", "regression")
    assert result.code == 2
    assert "kind is 'regression', and the model is for classification: leave it out" in result.err
    assert not (tmp_path / "bundle").exists()
