"""The scripts that make a model for a phone, and measure how small it can be."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from dynabert_paddle.files.atomic import read_json

HELPER = [sys.executable, ROOT / "scripts/lib/smallest.py"]
FIELDS = ("nb_bytes", "onnx_graph_bytes", "score_full", "score", "points_lost", "memory_mb", "load_ms")


def run(*words, folder=None):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_dry_run_shows_all_parts_of_each_seed_and_does_nothing(tmp_path):
    words = ("bash", ROOT / "scripts/bench/smallest.sh", "--result_file", "none.json", "--seeds", "1 2", "--dry_run")
    lines = run(*words, folder=tmp_path).splitlines()
    tuned = [line for line in lines if " finetune " in line]
    assert [line.split("--task_name ")[1].split()[0] for line in tuned] == ["snips", "snips", "sst-2", "sst-2"]
    assert [line.split("--seed ")[1].split()[0] for line in tuned] == ["1", "2", "1", "2"]
    assert sum("--rows 20000" in line for line in lines) == 2
    assert sum("phone.sh" in line and "-o train.seed=2" in line for line in lines) == 2
    assert not any("--held_out" in line for line in lines)
    assert all(
        "held-out" in line for line in run(*words, "--held_out", folder=tmp_path).splitlines() if " data " in line
    )
    assert not list(tmp_path.iterdir())


def test_rows_are_held_out_from_the_end_of_those_that_are_used(tmp_path):
    for name in ("train", "dev"):
        rows = "".join(f"{name} {i}\tx\n" for i in range(50))
        (tmp_path / f"{name}.tsv").write_text(f"sentence\tlabel\n{rows}")
    run(*HELPER, "data", tmp_path, tmp_path / "whole", "--rows", "30")
    run(*HELPER, "data", tmp_path, tmp_path / "part", "--rows", "30", "--held_out")
    read = {
        (part, name): (tmp_path / part / f"{name}.tsv").read_text().splitlines()[1:]
        for part in ("whole", "part")
        for name in ("train", "dev")
    }
    assert read["whole", "train"] == [f"train {i}\tx" for i in range(30)]
    assert read["whole", "dev"] == [f"dev {i}\tx" for i in range(50)]
    assert read["part", "train"] + read["part", "dev"] == read["whole", "train"]
    assert len(read["part", "dev"]) == 3


@pytest.mark.full
def test_a_fine_tuned_model_becomes_two_bundles_whose_figures_are_collected(finetuned, converter, tmp_path):
    words = ("bash", ROOT / "scripts/phone.sh", finetuned, tmp_path / "phone", "--vocab_size", "2000")
    words += ("-o", "width.max_steps=4", "-o", "width.learning_rate=1e-3")
    run(*words)
    assert "dynabert" not in run(*words, "--dry_run").replace("dynabert_paddle", ""), "finished parts are run again"
    bundles = {name: read_json(tmp_path / "phone" / name / "bundle.json") for name in ("lite", "onnx")}
    assert {bundle["precision"] for bundle in bundles.values()} == {"int8"}
    assert {bundle["vocab_size"] for bundle in bundles.values()} == {2000}
    assert {bundle["max_positions"] for bundle in bundles.values()} == {16}  # as long as the training's inputs

    result = tmp_path / "smallest.json"
    for seed in (2, 1):
        assert run(*HELPER, "state", result, "snips", seed) == "missing\n"
        run(*HELPER, "record", result, "snips", seed, tmp_path / "phone")
        assert run(*HELPER, "state", result, "snips", seed) == "present\n"
    run(*HELPER, "record", result, "sst-2", 1, tmp_path / "phone")
    snips, sst2 = json.loads(result.read_text())
    assert (snips["task"], snips["seeds"], sst2["task"], sst2["seeds"]) == ("snips", [1, 2], "sst-2", [1])
    assert snips["nb_bytes"] == (tmp_path / "phone/lite/model_arm.nb").stat().st_size
    assert snips["onnx_graph_bytes"] == (tmp_path / "phone/onnx/model.onnx").stat().st_size
    assert snips["points_lost"] == pytest.approx(100 * (snips["score_full"] - snips["score"]))
    assert snips["score"] == bundles["lite"]["verification"]["exported"]
    assert all(snips[name] == pytest.approx(part[name]) for part in snips["parts"] for name in FIELDS)
    assert "snips" in run(*HELPER, "show", result)
