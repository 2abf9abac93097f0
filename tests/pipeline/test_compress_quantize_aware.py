"""`dynabert compress quantize_aware`: a supernet whose weights and activations are rounded while it learns."""

import json

import numpy as np
import pytest
from conftest import FORMATS

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.supernet.quantized import find_quantized

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def quantized(chain, task, make_once):
    """The supernet of the short run, with weights of 4 bits."""
    config = db.CompressConfig(method="quantize_aware", weight_bits=4, finetune_steps=6, learning_rate=1e-2)
    return make_once("quantized", lambda folder: db.compress(chain / "depth", task, output_dir=folder, config=config))


def integers_of(folder):
    """The integers of a model's weights of 4 bits."""
    weights = find_quantized(db.load_model(folder).model)
    return {w.name: np.rint(w.weight.numpy() / w.scale.numpy()) for w in weights if w.bits == 4}


def test_the_record_counts_what_is_stored(chain, quantized):
    (record,) = read_metadata(quantized).compression
    assert (record["method"], record["weight_bits"]) == ("quantize_aware", 4)
    assert record["after"]["params"] == record["before"]["params"]
    size = (quantized / "dynabert.safetensors").stat().st_size
    assert abs(size - record["after"]["bytes"]) < 20_000
    assert record["after"]["bytes"] < 0.3 * record["before"]["bytes"]
    before = to_arrays(db.load_model(chain / "depth").model)
    changed = 0
    for name, integers in integers_of(quantized).items():
        assert np.abs(integers).max() <= 7
        changed += int((np.sign(integers) * np.sign(before[name]) < 0).sum())
    assert changed  # by the training: rounding keeps signs


@pytest.mark.full
def test_it_evaluates_extracts_searches_and_predicts(dynabert, quantized, tmp_path):
    rows = json.loads(dynabert("evaluate", quantized, "--grid", "--json").out)["rows"]
    assert len(rows) == 12
    assert dynabert("extract", quantized, "w0.50d0.75", "--output_dir", tmp_path / "part").code == 0
    (row,) = json.loads(dynabert("evaluate", tmp_path / "part", "--json").out)["rows"]
    assert row["accuracy"] == next(one["accuracy"] for one in rows if one["subnet"] == "w0.50d0.75")
    words = ("--max_params", "0.99e6", "--num_evaluations", 20, "--population_size", 4, "--score_on", "dev")
    done = dynabert("search", quantized, *words, "--finetune_steps", 2, "--output_dir", tmp_path / "search")
    assert done.code == 0, done.err
    bundle = db.export(quantized, tmp_path / "bundle", subnets="w1.00d1.00 w0.50d0.50")
    answer = db.AdaptivePredictor(bundle, num_threads=1)(["play some jazz"], deadline_ms=60_000)
    assert len(answer) == 1


@pytest.mark.full
def test_it_is_rewired_and_trains_on_as_a_quantized_model(dynabert, quantized, task, tmp_path):
    assert dynabert("rewire", quantized, "--output_dir", tmp_path / "rewired").code == 0
    words = ("--teacher_name_or_path", quantized, "--max_steps", 2, "--output_dir", tmp_path / "width")
    done = dynabert("train_width", tmp_path / "rewired", *words)
    assert done.code == 0, done.err
    assert read_metadata(tmp_path / "width").weight_bits == 4
    config = db.FinetuneConfig(max_steps=2, learning_rate=0.1, holdout_size=8)
    db.finetune(quantized, task, config=config, max_seq_length=16, output_dir=tmp_path / "again")
    before, after = integers_of(quantized), integers_of(tmp_path / "again")
    assert all(np.abs(array).max() <= 7 for array in after.values())
    assert any((after[name] != array).any() for name, array in before.items())


@pytest.mark.full
def test_other_methods_are_for_before_but_fewer_pieces_come_after(dynabert, quantized, tmp_path):
    for words in (
        ("sparse", "--sparsity", 0.3),
        ("low_rank", "--rank_share", 0.2),
        ("share_layers", "--groups", 2, "--finetune_steps", 2),
    ):
        done = dynabert("compress", words[0], quantized, *words[1:], "--output_dir", tmp_path / "new")
        assert done.code == 2
        assert f"is quantized already: start from the model before: first {words[0]}, then quantize_aware" in done.err
    done = dynabert("compress", "quantize_aware", quantized, "--output_dir", tmp_path / "new")
    assert done.code == 2
    assert "is quantized already: start from the model before" in done.err
    assert not (tmp_path / "new").exists()
    words = ("--vocab_size", 2000, "--finetune_steps", 2, "--output_dir", tmp_path / "new")
    done = dynabert("compress", "vocabulary", quantized, *words)
    assert done.code == 0, done.err
    assert read_metadata(tmp_path / "new").weight_bits == 4


def test_the_command_prints_it(dynabert, finetuned, tmp_path):
    done = dynabert("compress", "quantize_aware", finetuned, "--weight_bits", 2, "--output_dir", tmp_path / "new")
    assert done.code == 0, done.err
    assert "weight bits" in done.out
    assert read_metadata(tmp_path / "new").weight_bits == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weight_bits", 3], "--weight_bits is 3: allowed are 8, 4 and 2"),
        (["--weight_bits", "few"], "'few' is not a valid int"),
        (["--sparsity", 0.5], "--sparsity is for sparse, not for quantize_aware"),
    ],
)
def test_bad_requests_are_told_in_one_line_and_leave_nothing(dynabert, finetuned, tmp_path, words, message):
    done = dynabert("compress", "quantize_aware", finetuned, *words, "--output_dir", tmp_path / "new")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "new").exists()


@pytest.mark.full
@pytest.mark.parametrize("form", [form for form in FORMATS if form != "pir"])
def test_an_int8_bundle_computes_what_was_trained(quantized, tmp_path, request, form):
    if form == "lite":
        request.getfixturevalue("converter")
    bundle = db.export(quantized, tmp_path / "bundle", format=form, precision="int8")
    checked = json.loads((bundle / "bundle.json").read_text())["verification"]
    print(form, checked)
    # A sum's last bit may decide how an activation is rounded; Paddle Lite rounds no activations, and weights anew.
    assert checked["max_abs_diff"] < 0.1
    assert checked["exported"] == pytest.approx(checked["source"], abs=1 / checked["examples"])
    if form != "lite":
        assert len(db.Predictor(bundle)(["play some jazz"])) == 1
