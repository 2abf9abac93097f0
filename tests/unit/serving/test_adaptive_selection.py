"""The sub-networks that `--subnets` selects: those that are named, or a spread over the Pareto front of a search."""

import hashlib
import json
import shutil

import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.errors import DataError, ModelError, UsageError
from dynabert_paddle.exporting.selection import select_members

# Cost and score of five members; 7 and 4 are a third and two thirds of the way from 10 to 1.
PARETO = {"w1.00d1.00": (10, 0.95), "w0.75d1.00": (8, 0.94), "w1.00d0.50": (7, 0.93), "w0.50d0.50": (4, 0.92)}
PARETO |= {"w0.25d0.50": (1, 0.91)}


@pytest.fixture(scope="module")
def supernet():
    return db.Supernet(make_bert(num_labels=7), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))


@pytest.fixture(scope="module")
def whole(supernet, tmp_path_factory):
    return supernet.save_pretrained(tmp_path_factory.mktemp("selection") / "model")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def write_search(folder, **changes):
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    rows = [{"subnet": name, "latency_ms": cost, "score": score} for name, (cost, score) in PARETO.items()]
    result = {"metric": "accuracy", "score": "metric", "split": "holdout", "num_examples": 500, "weights": weights}
    (folder / "search").mkdir(exist_ok=True)
    content = {**result, "goals": ["latency_ms"], "pareto": rows[::-1], **changes}
    (folder / "search" / "search.json").write_text(json.dumps(content))


def select(supernet, folder, subnets, task=None):
    options = {"task": task or {}, "task_is_given": bool(task), "max_seq_length": 24}
    return select_members(supernet, folder, subnets, **options)


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (1, ["w1.00d1.00"]),
        (2, ["w1.00d1.00", "w0.25d0.50"]),
        (4, ["w1.00d1.00", "w1.00d0.50", "w0.50d0.50", "w0.25d0.50"]),
        (9, list(PARETO)),
    ],
)
def test_pareto_members_are_spread_from_the_cheapest_to_the_best(supernet, folder, count, names):
    write_search(folder)
    members, ranking = select(supernet, folder, f"pareto:{count}")
    assert [member.subnet for member in members] == names
    assert [member.score for member in members] == [PARETO[name][1] for name in names]
    assert ranking == {"metric": "accuracy", "split": "holdout", "num_examples": 500}
    space = supernet.search_space()
    assert members[-1].num_params == space.num_params(space.parse(names[-1]))


def test_pareto_members_are_about_as_good_as_the_best(supernet, folder):
    """Sub-networks that lose more than 5 % of the best score are left out, however cheap they are."""
    rows = {"w0.25d0.50": (1.0, 0.4), "w0.50d0.50": (4.0, 0.9), "w1.00d0.50": (7.0, 0.931), "w1.00d1.00": (9.0, 0.98)}
    write_search(
        folder, pareto=[{"subnet": n, "latency_ms": cost, "score": score} for n, (cost, score) in rows.items()]
    )
    members, _ = select(supernet, folder, "pareto:4")
    assert [member.subnet for member in members] == ["w1.00d1.00", "w1.00d0.50"]


def test_what_chose_ranks_the_members_not_their_scores_with_more_noise(supernet, folder):
    names = ["w1.00d1.00", "w1.00d0.50", "w0.50d0.50"]
    rows = [
        {"subnet": name, "latency_ms": cost, "score": score, "divergence": divergence}
        for name, cost, score, divergence in zip(names, (9, 7, 4), (0.95, 0.94, 0.96), (0.0, 0.1, 0.2), strict=True)
    ]
    write_search(folder, pareto=rows, score="divergence")
    members, ranking = select(supernet, folder, "pareto:3")
    assert [(member.subnet, member.score) for member in members] == [(row["subnet"], row["score"]) for row in rows]
    assert ranking["metric"] == "accuracy"
    assert select(supernet, folder, "pareto:1")[0][0].subnet == "w1.00d1.00"
    write_search(folder, pareto=[{**rows[0], "divergence": None}], score="divergence")
    with pytest.raises(ModelError, match="damaged"):
        select(supernet, folder, "pareto:1")


def test_agreement_is_recorded_as_the_metric(supernet, folder):
    write_search(folder, score="agreement")
    assert select(supernet, folder, "pareto:2")[1]["metric"] == "agreement"


@pytest.mark.parametrize("number", ["0", "-1", "x", "", "1.5"])
def test_a_number_of_members_is_at_least_one(supernet, folder, number):
    write_search(folder)
    with pytest.raises(UsageError, match=f"pareto:{number}: the number is at least 1"):
        select(supernet, folder, f"pareto:{number}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "0" * 16}, "belongs to other weights than those in .* --overwrite_output_dir'$"),
        ({"weights": None}, "belongs to other weights than those in .* --overwrite_output_dir'$"),
        ({"pareto": []}, "damaged"),
        ({"pareto": None}, "damaged"),
        ({"goals": []}, "damaged"),
        ({"goals": ["size_mb"]}, "damaged"),
        ({"pareto": [{"subnet": "w1.00d1.00", "latency_ms": None, "score": 0.9}]}, "damaged"),
        ({"pareto": [{"subnet": "w1.00d1.00", "latency_ms": 1.0, "score": float("nan")}]}, "damaged"),
    ],
)
def test_a_search_of_other_weights_or_a_damaged_one_is_refused(supernet, folder, changes, message):
    write_search(folder, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        select(supernet, folder, "pareto:4")
    assert f"run 'dynabert search {folder}" in str(caught.value)


def test_without_a_search_the_error_names_its_command(supernet, folder):
    with pytest.raises(ModelError, match=f"run 'dynabert search {folder}' first"):
        select(supernet, folder, "pareto:4")
    (folder / "search").mkdir()
    (folder / "search" / "search.json").write_text('{"pareto": [')
    with pytest.raises(ModelError, match="not JSON"):
        select(supernet, folder, "pareto:4")


@pytest.mark.parametrize("subnets", ["w0.50d0.50, w1.00d1.00", ["w0.5d0.5", "l0h4f48-l1h4f48-l2h4f48-l3h4f48"]])
def test_names_without_a_dev_set_are_ranked_by_their_macs(supernet, whole, subnets):
    members, ranking = select(supernet, whole, subnets)
    assert [member.subnet for member in members] == ["w1.00d1.00", "w0.50d0.50"]
    assert [member.score for member in members] == [member.macs for member in members]
    assert ranking == {"metric": "macs"}


def test_names_are_ranked_by_the_first_metric_on_dev(supernet, whole, tiny_data):
    supernet.metadata = supernet.metadata.replace(stage="finetune")
    task = {"name": "snips", "data_dir": str(tiny_data)}
    names = ["w0.50d0.50", "w1.00d1.00", "w0.25d1.00"]
    members, ranking = select(supernet, whole, names, task)
    rows = db.load_task("snips", data_dir=tiny_data)
    assert ranking == {"metric": "accuracy", "split": "dev", "num_examples": len(rows.dev)}
    assert sorted(member.subnet for member in members) == sorted(names)
    order = [(member.score, member.macs) for member in members]
    assert order == sorted(order, reverse=True)
    assert all(0 <= score <= 1 for score, _ in order)


def test_a_data_folder_that_the_user_names_must_exist(supernet, whole, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        select(supernet, whole, ["w1.00d1.00"], {"name": "snips", "data_dir": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("subnets", "message"),
    [
        ("", "names no sub-network"),
        ([], "names no sub-network"),
        ("w0.50d0.50 w0.5d0.5", "names the sub-network 'w0.5d0.5' twice"),
        ("w1.00d1.00 w2.00d1.00", "a width multiplier lies in"),
        ("w1.00d1.00 l9h1f1", "keeps layer 9"),
        ("w1.00d1.00 pareto:2", "'pareto:2' is no subnet"),
        ([1], "'1' is no subnet"),
    ],
)
def test_names_must_be_of_this_model_and_unique(supernet, whole, subnets, message):
    with pytest.raises(UsageError, match=message):
        select(supernet, whole, subnets)
