"""What is drawn against what, and what a chart finds."""

import json

import pytest
from report_folder import METHODS, write_run, write_search

from dynabert_paddle.reporting.collect import collect
from dynabert_paddle.reporting.tradeoff import draw_tradeoffs


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def charts(folder):
    """Charts by their titles."""
    return {chart.title.en: chart for chart in draw_tradeoffs(collect(folder))}


def names(chart):
    return [row[1] for row in chart.table.rows]


def test_each_split_and_length_has_charts_of_its_own(folder):
    by_title = charts(folder)
    on_train = "accuracy on held-out training data against "
    on_dev = "accuracy on the dev set against "
    costs = ("latency (ms)", "parameters (M)", "MACs of 64 tokens (G)")
    assert list(by_title) == [
        *(on_train + cost for cost in costs),
        on_dev + "parameters (M)",
        on_dev + "MACs of 128 tokens (G)",
    ]
    for title, chart in by_title.items():
        fixed = {f"{method} w1.00d0.50" for method in METHODS}
        assert {"S1", "S2", "S3"} <= set(names(chart)) if "training" in title else fixed <= set(names(chart))
        assert not (fixed if "training" in title else {"S1"}) & set(names(chart))


def test_what_was_searched_on_dev_stands_beside_the_baselines(folder):
    (folder / "depth" / "search" / "search.json").unlink()
    (folder / "depth" / "search").rmdir()
    write_search(folder / "depth", split="dev")
    chart = charts(folder)["accuracy on the dev set against parameters (M)"]
    assert {"S1", "w0.50d0.50", "pruned w1.00d0.50"} <= set(names(chart))


def test_agreement_is_no_metric(folder):
    (folder / "depth" / "search" / "search.json").unlink()
    (folder / "depth" / "search").rmdir()
    write_search(folder / "depth", split="dev", score="agreement")
    assert "agreement with the teacher on the dev set against latency (ms)" in charts(folder)


def test_seeds_are_averaged_and_spread(folder):
    chart = charts(folder)["accuracy on the dev set against parameters (M)"]
    (row,) = (row for row in chart.table.rows if row[1] == "distilbert w1.00d0.50")
    assert row[2] == "0.8020 ± 0.0010"  # 0.801, 0.802, 0.803


def test_the_finding_names_the_cheapest_that_is_nearly_as_good(folder):
    """The grid falls by 0.01 a cell from 0.9, so that 1 % below the full model only the first cell is left."""
    chart = charts(folder)["accuracy on the dev set against MACs of 128 tokens (G)"]
    assert chart.finding.en.startswith(
        "w1.00d1.00 is the cheapest within 1 % of the full model: 0.9000 against 0.9000 at 100% of the cost."
    )
    # At w1.00d0.50's cost or less: w0.50d1.00, the third cell.
    assert "finetuned w1.00d0.50: 0.8320; best sub-network at no more cost: 0.8800." in chart.finding.en


def test_a_search_without_latency_has_no_chart_of_it(folder):
    path = folder / "depth" / "search" / "search.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for row in [values["full"], values["best"], *values["grid"], *values["pareto"]]:
        row["latency_ms"] = None
    path.write_text(json.dumps(values), encoding="utf-8")
    assert not [title for title in charts(folder) if "latency" in title]
