"""The chain that a user runs: train, search, export and predict, on the run that all tests share."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import SNIPS, STAGES

import dynabert_paddle as db
from dynabert_paddle.files.metadata import read_metadata

TEXTS = [line.split("\t")[0] for line in (SNIPS / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:21]]


@pytest.fixture(scope="module")
def bundle(chain, tmp_path_factory):
    """The search's default format, of two sub-networks."""
    folder = tmp_path_factory.mktemp("chain") / "bundle"
    return db.export(chain / "final", folder, subnets="w1.00d1.00 w0.50d0.50")


def test_training_lowers_the_loss(chain):
    for stage in ("finetune", "width"):
        lines = [json.loads(line) for line in (chain / stage / "train.jsonl").read_text().splitlines()]
        losses = [line["train/loss"] for line in lines if "train/loss" in line]
        assert len(losses) == 5  # every second of 10 steps
        assert losses[-1] < losses[0], stage


def test_each_stage_names_the_one_before_it(chain, tiny_folder):
    provenance = read_metadata(chain / "final").provenance
    for _ in STAGES[1:]:
        provenance = provenance["parent"]
    assert provenance["parent"] == str(tiny_folder)


def test_the_winner_of_a_search_is_exported_and_predicts(dynabert, chain, tmp_path):
    words = ("--num_evaluations", 12, "--population_size", 4, "--seq_length", 16, "--max_macs", "6e6")
    done = dynabert("search", chain / "depth", *words, "--output_dir", tmp_path / "search", "--json")
    assert done.code == 0, done.err
    name = json.loads(done.out)["best"]["subnet"]
    done = dynabert("extract", chain / "depth", name, "--output_dir", tmp_path / "small")
    assert done.code == 0, done.err
    done = dynabert("export", tmp_path / "small", "--output_dir", tmp_path / "bundle")
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1].startswith(f"next: dynabert predict {tmp_path / 'bundle'}")
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    done = dynabert("predict", tmp_path / "bundle", "-i", tmp_path / "texts.txt", "--json")
    assert done.code == 0, done.err
    expected = [row.label for row in db.Predictor(tmp_path / "bundle")(TEXTS)]
    assert [json.loads(line)["label"] for line in done.out.splitlines()] == expected


def test_the_bundles_own_script_predicts_the_same_as_the_predictor(bundle, tmp_path):
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    words = [sys.executable, bundle / "infer.py", "-i", tmp_path / "texts.txt", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == "warning: 3 texts are longer than 16 tokens: what is beyond was not read: split the texts\n"
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = db.Predictor(bundle)(TEXTS)
    assert [row["label"] for row in rows] == [row.label for row in expected]
    np.testing.assert_allclose([row["score"] for row in rows], [row.score for row in expected], atol=1e-5)


def test_a_bundle_of_two_sub_networks_predicts_the_same_as_each_alone(bundle):
    adaptive = db.AdaptivePredictor(bundle)(TEXTS, deadline_ms=60_000)
    alone = db.Predictor(bundle, subnet=adaptive.subnet)(TEXTS)
    assert [row.label for row in adaptive] == [row.label for row in alone]


def test_bench_measures_the_bundle(dynabert, bundle):
    done = dynabert("bench", bundle, "--batch_size", 1, "--seq_length", 8, "--rounds", 1, "--json")
    assert done.code == 0, done.err
    assert all(0 < row["p50_ms"] <= row["p95_ms"] for row in json.loads(done.out)["rows"])


def test_the_report_is_one_page(dynabert, chain, tmp_path):
    done = dynabert("report", chain, "--no_visualdl", "--output_file", tmp_path / "report.html")
    assert done.code == 0, done.err
    assert "w0.50d0.50" in (tmp_path / "report.html").read_text(encoding="utf-8")
