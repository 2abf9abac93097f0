"""The parts of results.sh, trained on a tiny model: what they keep, and what is scored of it."""

import json

import pytest
from conftest import ROOT
from test_bench_scripts import script

import dynabert_paddle as db
from dynabert_paddle.supernet.supernet import load_model

pytestmark = pytest.mark.full


def test_parts_are_trained_once_and_scored_at_the_end(tmp_path):
    words = ["lib/results.py", "run", "--smoke", "--task", "sts-b", "--seed", "1", "--output_dir", tmp_path]
    script(*words, "--part", "teacher", "--part", "best")
    parts = tmp_path / "results/parts.json"
    before = parts.read_bytes()
    assert "part: " not in script(*words, "--part", "best")
    assert parts.read_bytes() == before
    assert not (tmp_path / "results.json").exists(), "nothing is scored yet"
    script("lib/results.py", "score", "--smoke", "--output_dir", tmp_path)
    scores = json.loads((tmp_path / "results.json").read_text())
    assert [record["method"] for record in scores] == ["teacher"] + ["grid"] * 12
    (folder,) = tmp_path.glob("sts-b/tiny-seed-1/best-*/run/depth")
    supernet = load_model(folder)
    task = db.load_task("sts-b", data_dir=ROOT / "tests/samples/glue")
    expected = {row["subnet"]: row for row in db.evaluate_grid(supernet, task)}
    for record in scores[1:]:
        row = expected[record["subnet"]]
        assert record["score"] == pytest.approx(row["pearson"], abs=1e-5)
        assert record["params"] == row["params"]
        assert record["macs_share"] == pytest.approx(row["macs"] / expected["w1.00d1.00"]["macs"])
    train = [line for line in (tmp_path / "sts-b/rows/train.tsv").read_text().splitlines() if line][1:]
    spent = supernet.metadata.provenance["spent"]["examples"]
    assert spent >= 3.4 * len(train)
    assert scores[1]["examples"] == 3 * len(train) + 2 + spent, "fine-tuning, the importance, and the sandwich stage"
    assert "| tiny | sts-b 1 |" not in (tmp_path / "results.md").read_text()
