"""Benchmarks in parts: which records a result file keeps, and the tables that are made of them."""

import importlib
from pathlib import Path

import pytest

from dynabert_paddle.errors import UsageError

ROOT = Path(__file__).parents[2]
ROWS = {("none", ""): ["start"], ("smaller", "a half"): ["start", "half"], ("smaller", "a third"): ["start", "third"]}
COLUMNS = ("method", "strength", "seeds", "accuracy", "int8", "parameters", "MB", "int8 MB")
LARGE = {"processor": "Large, amx_int8", "threads": "1", "paddle": "3.1.1"}
SMALL = {**LARGE, "processor": "Small, avx2"}

pytestmark = pytest.mark.reference


@pytest.fixture
def scripts(monkeypatch):
    """The modules of scripts/lib."""
    monkeypatch.syspath_prepend(ROOT / "scripts/lib")
    return lambda name: importlib.import_module(name)


def record(part, model, seed=1, machine=LARGE, **figures):
    return {"part": part, "task": "snips", "seed": seed, "model": model, **figures, "machine": machine, "commit": "c"}


def scored(model, seed, accuracy, machine=LARGE):
    sizes = {"params": 3_000_000, "bytes": 12_000_000, "int8_bytes": 3_500_000}
    return record("dev", model, seed, machine, accuracy=accuracy, int8_accuracy=accuracy - 0.01, **sizes)


def test_a_part_runs_once_and_other_machines_add_missing_parts(tmp_path, scripts):
    parts, compose = scripts("parts"), scripts("compose")
    file, other = tmp_path / "deep/result.json", tmp_path / "other.json"
    files = {"train": Path("train.tsv"), "held_out": Path("held_out.tsv")}
    runs = []

    def run(path, seed):
        job = compose.Job("minilm-l6", "snips", seed, tmp_path, path, files)
        compose.run_part(job, "dev", (), lambda: runs.append((path, seed)) or {"accuracy": len(runs)})

    for seed in (2, 1, 2):
        run(file, seed)
    assert runs == [(file, 2), (file, 1)]
    assert [(r["seed"], r["accuracy"]) for r in parts.read_records(file)] == [(1, 2), (2, 1)]
    for seed in (3, 4):
        run(other, seed)
    parts.add_records(file, parts.read_records(other), compose.KEY)
    assert [(r["seed"], r["accuracy"]) for r in parts.read_records(file)] == [(1, 2), (2, 1), (3, 3), (4, 4)]
    assert set(parts.read_records(file)[0]["machine"]) == set(LARGE)


def test_a_row_has_the_mean_over_seeds_and_a_processor_its_own_columns(scripts):
    latency = {"a": {"ms": 3.0, "speedup": 1.5}, "b": {"ms": 2.0, "speedup": 1.25}}
    records = [
        scored("start", 1, 0.9),
        scored("half", 1, 0.8),
        scored("half", 2, 0.9, SMALL),
        record("latency", "half", latency=latency),
        record("train", "start", cpu_seconds=600),
        record("train", "half", cpu_seconds=90),
        record("train", "half", 2, SMALL, cpu_seconds=30),
        record("train", "made by other steps", machine={**LARGE, "processor": "Gone"}, cpu_seconds=30),
        {**scored("third", 1, 0.5), "task": "sst-2"},
    ]
    module = scripts("compose_table")
    words = module.Words(COLUMNS, ("ms {letter}", "times {letter}", "min {letter}"), "no results")
    assert module.table(records, "snips", ROWS, words).splitlines() == [
        "snips:",
        "",
        "| method | strength | seeds | accuracy | int8 | parameters | MB | int8 MB | ms A | times A | min A | ms B "
        "| times B | min B |",
        "|" + " --- |" * 14,
        "| none |  | 1 | 0.9000 | 0.8900 | 3.00 M | 12.00 | 3.50 |  |  | 0.0 |  |  | 0.0 |",
        "| smaller | a half | 1, 2 | 0.8500 ± 0.0707 | 0.8400 ± 0.0707 | 3.00 M | 12.00 | 3.50 | 2.00 (b) | 1.25 | 1.5 "
        "|  |  | 0.5 |",
        "",
        "A: Large, amx_int8; 1 thread; paddle 3.1.1",
        "",
        "B: Small, avx2; 1 thread; paddle 3.1.1",
    ]
    assert module.table(records, "mrpc", ROWS, words) == "mrpc: no results\n"


def test_the_tables_of_the_guides_equal_their_results(tmp_path, scripts):
    compose, parts, table = scripts("compose"), scripts("parts"), scripts("compose_table")
    guides = [ROOT / "docs" / name for name in table.GUIDES]
    for guide in guides:
        (tmp_path / guide.name).write_text(guide.read_text(encoding="utf-8"), encoding="utf-8")
    records = parts.read_records(ROOT / "docs/compression.json")
    rows = {task: compose.name_rows("minilm-l6", task) for task in compose.SETTINGS}
    *written, chart = table.write_documents(records, rows, tmp_path / "compression.json")
    assert [path.read_text(encoding="utf-8") for path in written] == [g.read_text(encoding="utf-8") for g in guides]
    assert chart.is_file()
    assert {r["model"] for r in records} <= {
        model for own in rows.values() for chain in own.values() for model in chain
    }


def test_the_table_for_phones_equals_its_results(tmp_path, scripts):
    module = scripts("smallest")
    guides = [ROOT / "docs" / name for name in module.GUIDES]
    for path in (*guides, ROOT / "docs/smallest.json"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    module.show(tmp_path / "smallest.json")
    for guide in guides:
        assert (tmp_path / guide.name).read_text(encoding="utf-8") == guide.read_text(encoding="utf-8")
    (tmp_path / "compression.md").write_text("no marks")
    with pytest.raises(UsageError, match=r"compression\.md: has no lines '<!-- made by .* put them back"):
        module.show(tmp_path / "smallest.json")
