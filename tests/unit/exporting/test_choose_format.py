"""The choice among candidates that are timed: the fastest that is within its tolerance."""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.exporting import choose
from dynabert_paddle.exporting.bundle import describe, of_format
from dynabert_paddle.exporting.candidates import Candidate, ChoiceJob
from dynabert_paddle.exporting.check import source_logits
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import CandidateResult
from dynabert_paddle.exporting.race import Lap

PADDLE, OPENVINO, ONNX = (Candidate(format, "fp32") for format in ("paddle", "openvino", "onnx"))
LAPS = {"openvino fp32": Lap((1.0, 1.0, 1.0)), "paddle fp32": Lap((1.01, 1.01, 1.01)), "onnx fp32": Lap((2.0, 2.0))}


@pytest.fixture(scope="module")
def supernet():
    return db.Supernet(make_bert(num_layers=1, num_labels=2), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))


@pytest.fixture(scope="module")
def job():
    export = ExportJob(
        model_dir=Path("model"),
        output_dir=Path("bundle"),
        partial_dir=Path("partial"),
        format="auto",
        precision="auto",
        subnet=None,
        subnets=None,
        trained_task={},
        task={},
        task_is_given=False,
        max_seq_length=None,
        num_calibration_examples=64,
        tolerance=1e9,  # of int8's score alone
    )
    return ChoiceJob(export, (PADDLE, OPENVINO, ONNX), (), Path("scratch"), 1, None, 1)


@pytest.fixture(scope="module")
def manifest(supernet):
    return describe(supernet, format="auto", precision="auto", max_seq_length=24)


def choose_among(supernet, manifest, job, shifts, results=()):
    """Choose among engines whose logits differ from the model's by a shift; returns the manifest and the table."""

    def engine(shift):
        return lambda batch: source_logits(supernet, [batch])[0] + np.float32(shift)

    candidates = dict(zip((PADDLE, OPENVINO, ONNX), shifts, strict=True))
    manifests = {one: of_format(manifest, one.format, one.precision) for one in candidates}
    engines = {str(one): engine(shift) for one, shift in candidates.items()}
    table = list(results)
    writer = choose._Writer(supernet, manifest, job)
    return choose._check_fastest(writer, job, manifests, engines, LAPS, table), table


def test_of_equally_fast_ones_the_first_is_chosen(supernet, manifest, job):
    impossible = CandidateResult("pir", "fp32", "cannot be written")
    finished, table = choose_among(supernet, manifest, job, (0, 0, 0), [impossible])
    assert finished.format == "paddle" and finished.verification.max_abs_diff == 0
    assert [(one.format, one.result) for one in table] == [
        ("paddle", "chosen"),
        ("openvino", "equally fast: not checked"),
        ("onnx", "slower: not timed any more after 2 of 3 rounds, and not checked"),
        ("pir", "cannot be written"),
    ]
    assert table[0].ratio == 1.0 and table[2].ratio == pytest.approx(2 / 1.01) and table[3].ratio is None


def test_one_that_exceeds_its_tolerance_loses_and_says_by_how_much(supernet, manifest, job):
    finished, table = choose_among(supernet, manifest, job, (1.0, 0.1, 0))
    assert finished.format == "onnx"
    results = {one.format: one.result for one in table}
    assert "logits differ from the model's by 1.0e+00" in results["paddle"]
    assert "by 1.0e-01" in results["openvino"] and results["onnx"] == "chosen"


def test_nothing_is_chosen_where_all_exceed_their_tolerance(supernet, manifest, job):
    with pytest.raises(ModelError, match="no format is within its tolerance: paddle fp32: .*; openvino fp32: .*; onnx"):
        choose_among(supernet, manifest, job, (1, 1, 1))


def test_a_length_that_the_model_does_not_have_is_refused(manifest, job):
    assert choose.seq_length(job, manifest) == 24  # to which texts are cut
    long = ChoiceJob(job.export, job.candidates, (), job.folder, 1, 129, 1)
    with pytest.raises(UsageError, match="129, more than the model's 128 positions"):
        choose.seq_length(long, manifest)


@pytest.mark.parametrize("name", ["batch_size", "seq_length"])
def test_a_shape_is_for_the_format_auto(tmp_path, name):
    with pytest.raises(UsageError, match=f"{name} is for format auto"):
        db.export(tmp_path / "model", tmp_path / "bundle", **{name: 8})
    with pytest.raises(UsageError, match=f"{name} is at least 1"):
        db.export(tmp_path / "model", tmp_path / "bundle", format="auto", **{name: 0})
