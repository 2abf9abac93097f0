"""The scripts that measure training: what they count and compare, on models so small that the times mean nothing."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from conftest import ROOT
from visualdl import LogReader

from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.supernet.supernet import load_model
from dynabert_paddle.training.evaluate import evaluate_grid

pytestmark = pytest.mark.full


def script(name, *words):
    command = [sys.executable, ROOT / "scripts" / name, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seconds_by_middle_half(stage):
    """The seconds of a stage whose log has a line a step, by the steps that are neither fast nor slow."""
    (path,) = (stage / "vdl").iterdir()
    lines = LogReader(file_path=str(path)).get_data("scalar", "train/loss")
    assert [line.id for line in lines] == list(range(1, len(lines) + 1))
    times = np.sort(np.diff([line.timestamp for line in lines]))
    quarter = len(times) // 4
    return len(lines) * times[quarter : len(times) - quarter].mean() / 1000


def test_schedules_are_compared_from_one_rewired_model_and_finished_parts_are_skipped(tmp_path, tiny_folder):
    out = tmp_path / "out"
    words = ["bench/schedule.py", ROOT / "tests/samples/glue", "--task", "mrpc", "--seed", "1", "--num_examples", "20"]
    words += ["--model", tiny_folder, "--max_seq_length", "32", "--output_dir", out]
    words += ["--epochs", "12", "12", "--sandwich_epochs", "0", "11", "--turn", "1"]
    text = script(*words)
    (row,) = json.loads((out / "schedule.json").read_text())
    assert row["configuration"]["num_examples"] == 20
    # 18 of the 20 rows are trained on, in one batch: twelve epochs of two stages, and eleven of the stage depth alone.
    assert (row["all"]["steps"], row["sandwich"]["steps"]) == (24, 11)
    assert not (out / "mrpc/seed-1/sandwich/width").exists()
    for part, learning_rate in (("all", 1e-4), ("sandwich", 2e-4)):
        run = out / "mrpc/seed-1" / part
        grid = json.loads((run / "grid.json").read_text())["rows"]
        assert row[part]["mean"] == pytest.approx(np.mean([cell["accuracy"] for cell in grid]))
        stages = [path.parent for path in run.glob("*/dynabert.json")]
        assert row[part]["seconds"] == pytest.approx(sum(map(seconds_by_middle_half, stages)))
        provenances = [read_metadata(stage).provenance for stage in stages]
        assert all(provenance["settings"]["learning_rate"] == learning_rate for provenance in provenances)
        parents = [provenance["parent"] for provenance in provenances]
        start = next(parent for parent in parents if parent["settings"].get("accumulation"))
        assert start == read_metadata(out / "mrpc/seed-1/start/rewire").provenance
    assert row["time_ratio"] == pytest.approx(row["sandwich"]["seconds"] / row["all"]["seconds"])
    assert row["points"] == pytest.approx(100 * (row["sandwich"]["mean"] - row["all"]["mean"]))
    assert f"mrpc: median time ratio {row['time_ratio']:.3f}" in text
    before = (out / "schedule.json").read_bytes()
    script(*words)
    assert (out / "schedule.json").read_bytes() == before, "times of a second training would differ"


def test_growth_is_measured_fitted_and_drawn(tmp_path):
    words = ("--shape", "2x128", "--seq_length", "8", "--batch_size", "2", "--rounds", "1", "--output_dir", tmp_path)
    text = script("bench/scaling.py", *words)
    result = read_json(tmp_path / "scaling.json")
    rows = {(row["variable"], row[row["variable"]]): row for row in result["rows"]}
    assert len(rows) == 5 * 4
    for row in rows.values():
        assert row["share"] == pytest.approx(row["gflop"] / (row["ms"] / 1000) / result["sgemm_gflops"])
        assert row["fitted_ms"] >= result["fit"]["ms_per_layer"] + row["gflop"] * result["fit"]["ms_per_gflop"]
    # A teacher's pass, and three of each width: 1, 3/4, 1/2 and 1/4 of it.
    assert rows["subnets", 4]["gflop"] / rows["subnets", 1]["gflop"] == pytest.approx((1 + 3 * 2.5) / (1 + 3))
    assert rows["batch", 8]["gflop"] == pytest.approx(4 * rows["subnets", 4]["gflop"])
    assert rows["layers", 6]["gflop"] == pytest.approx(3 * rows["subnets", 4]["gflop"])
    assert result["fit"]["ms_per_gflop"] >= 1000 / result["sgemm_gflops"] * 0.999
    paper = result["paper"]
    assert paper["gradient_gb"] == 4 * 109_483_778 / 1e9  # as Hugging Face counts BERT-base with two classes
    once, each = (row["sent_gb"] for row in paper["rows"] if row["stage"] == "depth")
    assert once == pytest.approx(7 / 4 * paper["gradient_gb"])
    assert each == pytest.approx(12 * once)
    words = "".join(ET.parse(tmp_path / "scaling.svg").getroot().itertext())
    assert all(label in words for label in ("sub-networks", "layers", "hidden size", "length, tokens", "batch size"))
    assert "assumed: 60 TFLOP/s, 50 GB/s" in text


def test_the_cost_of_elasticity_is_measured_in_several_processes():
    words = ("--shape", "2x128", "--batch_size", "4", "--seq_length", "8", "--processes", "2", "--repeats", "1")
    text = script("bench/train.py", *words)
    lines = (line.strip().removesuffix(" ms").rsplit(maxsplit=1) for line in text.splitlines() if line[0] == " ")
    figures = {name.strip(): float(figure) for name, figure in lines}
    widths = ("w1.00", "w0.75", "w0.50", "w0.25")
    for width in widths:
        assert figures[f"ratio of {width}, embedding not shared"] > 0
        assert figures[f"ratio of {width}, evaluating"] > 0
    # The median of two rounds is their mean, so that the parts' medians add up but for rounding.
    parts = [figures["teacher forward"], *(figures[f"extracted {width}"] for width in widths)]
    assert figures["teacher forward + extracted steps"] == pytest.approx(sum(parts), abs=0.05 * (len(parts) + 1))


def test_sparse_weights_and_shared_layers_are_compared_with_the_dense_model(tmp_path, tiny_folder):
    out = tmp_path / "out"
    words = ["bench/sparse_and_shared.py", ROOT / "tests/samples/glue", "--task", "mrpc", "--num_examples", "20"]
    words += ["--model", tiny_folder, "--max_seq_length", "32", "--finetune_steps", "2", "--output_dir", out]
    words += ["--variant", "sparse 0.4 gradient", "--variant", "shared 1 first"]
    text = script(*words)
    rows = json.loads((out / "results.json").read_text())[::-1]  # in the order of their keys
    assert [row["variant"] for row in rows] == ["sparse 0.4 gradient", "shared 1 first"]
    for row in rows:
        record = read_metadata(out / "mrpc/seed-1" / row["variant"].replace(" ", "-")).compression[-1]
        assert (row["before"], row["after"]) == (record["before"], record["after"])
    assert rows[0]["after"]["gzip_bytes"] < rows[0]["before"]["gzip_bytes"]
    assert rows[1]["after"]["params"] < rows[1]["before"]["params"]
    assert "shared 1 first" in text
    before = (out / "results.json").read_bytes()
    script(*words)
    assert (out / "results.json").read_bytes() == before


def test_searches_are_compared_with_the_best_cell_and_finished_parts_are_skipped(chain, tmp_path):
    file = tmp_path / "gain.json"
    words = ["bench/search_gain.py", chain / "depth", "--searches", "1", "--evaluations", "18", "--holdout_size", "14"]
    words += ["--macs_share", "0.5", "--result_file", file]
    text = script(*words)
    records = json.loads(file.read_text(encoding="utf-8"))
    assert [record["rule"] for record in records] == ["divergence", "highest"]
    supernet = load_model(chain / "depth")
    space, task = supernet.search_space(), load_described_task(supernet.metadata.task)
    dev = {row["subnet"]: row["accuracy"] for row in evaluate_grid(supernet, task)}
    limit = space.num_macs(space.full) / 2
    within = [score for name, score in dev.items() if space.num_macs(space.parse(name)) <= limit]
    for record in records:
        assert space.num_macs(space.parse(record["subnet"])) <= limit
        assert record["best_cell"] == max(within)
        assert record["own_cell"] in within
        gain = 100 * (record["score"] - record["best_cell"])
        assert re.search(rf" {record['rule']} +0\.5 +1 +\{gain:+.2f} ", text)
    before = file.read_bytes()
    assert script(*words) == text
    assert file.read_bytes() == before
