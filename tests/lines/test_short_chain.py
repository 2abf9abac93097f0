"""A small chain on whichever line of Paddle is installed: what the line can do works, what it cannot is refused."""

import json
import logging
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import FORMATS, STAGES

import dynabert_paddle as db
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.openvino import has_openvino
from dynabert_paddle.exporting.formats import TOLERANCES, list_format_support

# The ten-minute tests export fp32, and not to Paddle Lite: its converter is a set-up of its own.
EXPORTS = [
    pytest.param(
        format, precision, marks=[] if precision == "fp32" and format != "lite" else pytest.mark.full_on_reference
    )
    for format, precisions in TOLERANCES.items()
    for precision in precisions
]
TEXTS = ["play some jazz", "book a table for two", "will it rain tomorrow"]
# What the lines without a format are told: what it needs, and what to export to instead.
NEEDS = {
    "paddle": ("format paddle (model.pdmodel) needs Paddle 3.1 or older", "pir"),
    "openvino": ("format openvino (model.pdmodel) needs Paddle 3.1 or older", "pir"),
    "lite": ("format lite needs Paddle 3.1 or older", "onnx"),
    "pir": ("format pir (model.json) needs Paddle 3.0 or later", "paddle"),
}


def test_all_stages_and_the_grid(chain):
    assert {path.parent.name for path in chain.glob("*/dynabert.json")} == set(STAGES)
    rows = json.loads((chain / "grid.json").read_text())["rows"]
    assert len(rows) == 12
    assert all(0 <= row["accuracy"] <= 1 for row in rows)


def test_an_extracted_model_is_the_slice(chain, tmp_path, batch):
    supernet = db.load_model(chain / "final")
    subnet = supernet.search_space().parse("w0.50d0.50")
    db.extract(supernet, subnet).save_pretrained(tmp_path / "small")
    with paddle.no_grad():
        expected = supernet(subnet, **batch).logits.numpy()
        found = db.load_model(tmp_path / "small")(**batch).logits.numpy()
    assert np.abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize(("format", "precision"), EXPORTS)
def test_every_export_is_checked_and_predicts_or_is_refused(chain, tmp_path, request, format, precision):
    # A model of so few steps is undecided: where numbers are rounded it loses or wins by chance.
    settings = {"format": format, "precision": precision, "tolerance": 0.5 if precision == "int8" else None}
    if format not in FORMATS:
        with pytest.raises(db.DynabertError) as caught:
            db.export(chain / "final", tmp_path / "bundle", **settings)
        if format == "openvino" and not has_openvino():
            assert str(caught.value) == (
                "format openvino needs the OpenVINO that paddlepaddle 3 brings for x86 CPUs: install that"
            )
            return
        needs, instead = NEEDS[format]
        what, instead = ("int8 in ", "onnx") if precision == "int8" else ("", instead)
        remedy = f"use format {instead}, or install requirements/paddle-3.1.txt"
        assert str(caught.value) == f"{what}{needs}, this is {paddle.__version__}: {remedy}"
        assert not list(tmp_path.iterdir())
        return
    if format == "lite":
        request.getfixturevalue("converter")
    bundle = db.export(chain / "final", tmp_path / "bundle", subnet="w0.50d0.50", **settings)
    if format != "lite":
        predictor = db.Predictor(bundle)
        scores = ([one.score for one in predictor(TEXTS)], [predictor(text)[0].score for text in TEXTS])
        np.testing.assert_allclose(*scores, atol=1e-5 if precision == "fp32" else 0.02)


def test_without_a_format_the_line_decides_and_nothing_of_ours_warns(chain, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PYTHONWARNINGS", "always")  # in the process that exports; in this one ours are errors
    with caplog.at_level(logging.DEBUG, "dynabert_paddle"):
        bundle = db.export(chain / "final", tmp_path / "bundle", subnets="w1.00d1.00 w0.25d0.50")
    description = read_bundle(bundle)
    assert description["format"] == FORMATS[0]
    ours = str(Path(db.__file__).parent)
    assert not [said for said in caplog.messages if ours in said and "Warning" in said]
    answer = db.AdaptivePredictor(bundle)(TEXTS, deadline_ms=60_000)
    assert (len(answer), answer.subnet, answer.on_time) == (3, description["members"][0]["subnet"], True)


def test_supported_formats_are_listed():
    abilities = {name.removeprefix("export to "): said for name, said in list_format_support().items()}
    for format in ("paddle", "pir", "openvino", "onnx"):
        assert abilities[format].startswith("yes: " if format in FORMATS else "no: "), abilities
