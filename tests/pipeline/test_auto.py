"""`--format auto`: the candidates are exported, timed and checked, and the bundle says what was compared."""

import json

import pytest
from conftest import FORMATS

import dynabert_paddle as db
from dynabert_paddle.runtime.machine import instruction_sets

pytestmark = [pytest.mark.full, pytest.mark.reference]


def read_choice(bundle):
    return json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["choice"]


def test_int8_alone_in_every_format(dynabert, finetuned, tmp_path):
    bundle = tmp_path / "bundle"
    words = ("--format", "auto", "--precision", "int8", "--tolerance", 1, "--batch_size", 2, "--seq_length", 8)
    done = dynabert("export", finetuned, "--output_dir", bundle, *words)
    assert done.code == 0, done.err
    choice = read_choice(bundle)
    assert (choice["batch_size"], choice["seq_length"]) == (2, 8)
    assert choice["instruction_sets"] == instruction_sets()
    formats = [one["format"] for one in choice["candidates"]]
    assert sorted(formats) == sorted({"paddle", "openvino", "onnx"} & set(FORMATS))
    chosen = choice["candidates"][0]
    assert [one["result"] for one in choice["candidates"]].count("chosen") == 1 and chosen["result"] == "chosen"
    description = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    assert description["format"] == chosen["format"] and "metric" in description["verification"]
    for one in choice["candidates"]:
        assert f"{one['format']} int8" in done.out and one["result"] in done.out
    predictor = db.Predictor(bundle)
    assert predictor(["play some jazz"])[0].label in predictor.labels


def test_several_sub_networks_in_all_that_paddle_inference_runs(finetuned, tmp_path):
    names = ["w1.00d1.00", "w0.50d0.50"]
    bundle = db.export(finetuned, tmp_path / "bundle", format="auto", precision="fp32", subnets=names)
    assert {one["format"] for one in read_choice(bundle)["candidates"]} == {"paddle", "pir", "openvino"} & set(FORMATS)
    for name in names:
        assert len(db.Predictor(bundle, subnet=name)(["play some jazz"])) == 1
