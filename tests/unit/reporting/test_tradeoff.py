"""What is drawn against what, and what a chart finds."""

import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from report_folder import METHODS, SEARCHED, edit_json, write_compressed, write_run, write_search

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.files.weights import write_safetensors
from dynabert_paddle.reporting.chart import STYLE
from dynabert_paddle.reporting.collect import collect
from dynabert_paddle.reporting.tradeoff import draw_tradeoffs

pytestmark = pytest.mark.reference


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context(STYLE):
        yield


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def charts(folder, compare=()):
    """Charts by their titles."""
    return {chart.title.en: chart for chart in draw_tradeoffs(collect(folder, compare))}


def names(chart):
    return [row[1] for row in chart.table.rows]


def test_each_split_has_charts_of_its_own(folder):
    by_title = charts(folder)
    on_train = "accuracy on held-out training data against "
    on_dev = "accuracy on the dev set against "
    costs = ("latency (ms)", "parameters (M)", "MACs of 128 tokens (G)")
    assert list(by_title) == [
        *(on_train + cost for cost in costs),
        on_dev + "parameters (M)",
        on_dev + "MACs of 128 tokens (G)",
    ]
    for title, chart in by_title.items():
        fixed = {f"{method} w1.00d0.50" for method in METHODS}
        assert {"S1", "S2", "S3"} <= set(names(chart)) if "training" in title else fixed <= set(names(chart))
        assert not (fixed if "training" in title else {"S1"}) & set(names(chart))


def test_macs_of_an_earlier_search_are_of_the_length_of_its_latency(folder):
    """Such a file does not name the MACs' length; they stand beside no others."""
    path = folder / "depth" / "search" / "search.json"
    edit_json(path, lambda values: values.pop("macs_length"))
    edit_json(path, lambda values: values.update(split="dev"))
    by_title = charts(folder)
    assert {"S1", "S2"} <= set(names(by_title["accuracy on the dev set against MACs of 64 tokens (G)"]))
    now = by_title["accuracy on the dev set against MACs of 128 tokens (G)"]
    assert not {"S1", "S2"} & set(names(now))
    assert not any(row[0] == "budget" for row in now.table.rows)


def test_results_searched_on_dev_are_drawn_beside_the_baselines(folder):
    (folder / "depth" / "search" / "search.json").unlink()
    (folder / "depth" / "search").rmdir()
    write_search(folder / "depth", split="dev")
    chart = charts(folder)["accuracy on the dev set against parameters (M)"]
    assert {"S1", "w0.50d0.50", "pruned w1.00d0.50"} <= set(names(chart))


def test_scores_of_a_part_of_the_examples_have_charts_of_their_own_with_errors(folder):
    def choose_by_divergence(values):
        values.update(score="divergence", split="dev", num_examples=350)
        for row in (values["full"], values["best"], *values["grid"], *values["pareto"]):
            row.update(standard_error=0.0123, divergence=0.1, divergence_error=0.01)

    edit_json(folder / "depth" / "search" / "search.json", choose_by_divergence)
    by_title = charts(folder)
    chart = by_title["accuracy on 350 examples of the dev set against parameters (M)"]
    scores = {row[1]: row[2] for row in chart.table.rows}
    assert scores["S1"] == "0.7500 ± 0.0123"
    others = by_title["accuracy on the dev set against parameters (M)"]
    assert "S1" not in names(others)
    assert "± 0.0123" not in "".join(row[2] for row in others.table.rows)


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
    def forget(values):
        for row in [values["full"], values["best"], *values["grid"], *values["pareto"]]:
            row["latency_ms"] = None

    edit_json(folder / "depth" / "search" / "search.json", forget)
    assert not [title for title in charts(folder) if "latency" in title]


def drawn(chart):
    """What the chart's marks are of."""
    return {name.split(":")[0].split()[0] for name in re.findall(r"<title[^>]*>([^<]+)", chart.svg())}


def test_searched_subnets_with_far_lower_scores_do_not_set_the_scale(folder):
    """The grid runs from 0.80 down to 0.69 and the best is 0.82: 0.13 below the lowest is 0.56."""
    path = folder / "depth" / "search" / "search.json"

    def lower(values):
        values["best"] = None
        for row, score in zip(values["pareto"], (0.2, 0.55, 0.57), strict=True):
            row["score"] = score

    edit_json(path, lower)
    chart = charts(folder)["accuracy on held-out training data against parameters (M)"]
    assert {"S3", "w0.25d0.50"} <= drawn(chart)
    assert not {"S1", "S2"} & drawn(chart) and {"S1", "S2"} <= set(names(chart))
    assert chart.note.en.startswith("2 searched sub-networks of low scores, from 0.2000 to 0.5500, lie below")
    assert chart.axes[0].get_ylim()[0] > 0.5


def test_the_chosen_one_is_always_drawn(folder):
    path = folder / "depth" / "search" / "search.json"
    edit_json(path, lambda values: (values["pareto"][1].update(score=0.3), values["best"].update(score=0.3)))
    chart = charts(folder)["accuracy on held-out training data against parameters (M)"]
    assert SEARCHED[1] in chart.svg() and "S2" in drawn(chart) and chart.note is None


def test_a_budget_without_a_fitting_subnet_is_shown(folder):
    edit_json(folder / "depth" / "search" / "search.json", lambda values: values.update(best=None))
    by_title = charts(folder)
    assert ">budget<" in by_title["accuracy on held-out training data against latency (ms)"].svg()
    assert ">chosen<" not in by_title["accuracy on held-out training data against latency (ms)"].svg()


def test_compressed_models_are_points_among_those_of_the_dev_set(folder, tmp_path):
    paths = [write_compressed(tmp_path / name) for name in ("a", "b")]
    for title, chart in charts(folder, [*paths, paths[0]]).items():
        found = [row for row in chart.table.rows if str(tmp_path) in row[1]]
        if "dev set" not in title:
            assert not found
            continue
        names_found = [f"{path} (vocabulary, low_rank)" for path in paths]
        assert [row[1] for row in found] == names_found  # the same folder twice is one point
        assert found[0][0].en == "compressed" and found[0][2:4] == ("0.8500", "0.50 M")
        assert ">compressed<" in chart.svg()
        assert f"{names_found[0]}: 0.8500" in chart.finding.en or "MACs" not in title


def test_compressed_models_are_read_without_paddle(folder, tmp_path):
    """It would take seconds, and print about its threads."""
    code = "import sys; from dynabert_paddle.reporting.collect import collect; collect(sys.argv[1], sys.argv[2:])"
    words = [sys.executable, "-c", f"{code}; print('paddle' in sys.modules)", folder, write_compressed(tmp_path / "a")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path / "missing", "no such model folder"),
        (lambda path: path.parent / "run" / "depth", "no compressed model: name a folder as 'dynabert compress' has"),
        (lambda path: write_compressed(path.with_name("c"), task={"name": "mrpc"}), "the name of its task is 'mrpc'"),
        (
            lambda path: write_safetensors(path / "model.safetensors", {"weight": np.zeros((2, 3), np.float32)})
            or path,
            "its weights are not those that were scored when it was compressed",
        ),
        (
            lambda path: edit_json(path / "dynabert.json", lambda v: v["compression"][1]["after"].pop("macs")) or path,
            "dynabert.json: damaged at 'macs'",
        ),
    ],
)
def test_models_that_cannot_be_compared_are_refused(folder, tmp_path, damage, said):
    path = damage(write_compressed(tmp_path / "small"))
    with pytest.raises(DynabertError, match=said) as error:
        collect(folder, [path])
    assert "\n" not in str(error.value) and str(path) in str(error.value)
