"""`dynabert search` on a small trained supernet: results, interruption, several processes, and misuse."""

import csv
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import dynabert_paddle as db
from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.searching.examples import choose_examples
from dynabert_paddle.training.evaluate import evaluate_subnets, predict_logits
from dynabert_paddle.training.inputs import hold_out, tokenize_examples

CONFIG = db.SearchConfig(num_evaluations=18, population_size=6, seq_length=16, max_macs=6e6)
SMALL = ("--num_evaluations", "18", "--population_size", "6", "--seq_length", "16")


@pytest.fixture
def supernet(chain, tmp_path):
    """A copy of the supernet's folder, without results of other tests."""
    return shutil.copytree(chain / "depth", tmp_path / "supernet", ignore=shutil.ignore_patterns("search"))


@pytest.fixture(scope="module")
def searched(chain, tmp_path_factory):
    """A finished search, and what Python returned."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    return folder, db.search(chain / "depth", output_dir=folder, config=CONFIG)


def read_names(folder):
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'study.db'}")
    return [trial.user_attrs["subnet"] for trial in study.get_trials() if trial.state.name == "COMPLETE"]


def test_no_example_has_two_parts_and_texts_are_those_of_training(chain):
    metadata = read_metadata(chain / "depth")
    task = load_described_task(metadata.task)
    examples = choose_examples(task, metadata, CONFIG)
    held_out = set(task.train.select(hold_out(task.train, 500, seed=42)[1]).texts)
    parts = [set(part.texts) for part in (*examples.texts, examples.choosing, examples.fresh)]
    assert [len(part) for part in parts] == [16, 16, 31, 63, 7, 7]  # an eighth, an eighth, a quarter, half; 14 held out
    assert set().union(*parts) == set(task.train.texts)
    assert parts[-2] | parts[-1] == held_out
    dev = choose_examples(task, metadata, replace(CONFIG, score_on="dev", num_texts=8, holdout_size=9))
    assert [len(part) for part in (*dev.texts, dev.choosing, dev.fresh)] == [1, 1, 2, 4, 4, 5]
    assert set(dev.fresh.texts) <= set(task.dev.texts)
    assert not choose_examples(task, metadata, replace(CONFIG, score="metric")).texts
    other = choose_examples(task, metadata, replace(CONFIG, seed=7))
    assert list(other.fresh.texts) != list(examples.fresh.texts)


def test_scores_are_of_rows_that_training_held_out_and_that_chose_nobody(searched, chain):
    _, result = searched
    supernet = db.load_model(chain / "depth")
    task = load_described_task(supernet.metadata.task)
    examples = choose_examples(task, supernet.metadata, CONFIG)
    features = tokenize_examples(examples.fresh, supernet)
    assert (result.split, result.num_examples, result.num_chosen_on) == ("holdout", 7, 110)
    space = supernet.search_space()
    rows = [result.full, *result.grid, *result.pareto, result.best]
    subnets = {row["subnet"]: space.parse(row["subnet"]) for row in rows}
    scores = evaluate_subnets(supernet, features, subnets, metrics=["accuracy"])
    right = {
        name: np.asarray(logits).argmax(axis=1) == features.labels
        for name, logits in zip(subnets, predict_logits(supernet, features, subnets.values()), strict=True)
    }
    for row in rows:
        subnet = subnets[row["subnet"]]
        assert row["score"] == scores[row["subnet"]]["accuracy"]
        assert row["standard_error"] == pytest.approx(np.std(right[row["subnet"]], ddof=1) / np.sqrt(7))
        assert row["divergence"] >= 0
        assert (row["divergence"] == 0) == (row["subnet"] == "w1.00d1.00")
        assert row["params"] == space.num_params(subnet)
        assert row["size_mb"] == pytest.approx(4 * row["params"] / 1e6)
        assert row["macs"] == space.num_macs(subnet, seq_length=128)  # whatever length latencies are of
        assert row["latency_ms"] is None
    assert [row["subnet"] for row in result.grid] == list(space.grid())
    assert result.full == result.grid[0]


def test_the_best_fits_and_is_no_worse_than_the_best_cell_by_what_chooses(searched):
    _, result = searched
    cells = [row for row in result.grid if row["macs"] <= 6e6]
    assert result.best["macs"] <= 6e6
    assert result.best["divergence"] <= min(row["divergence"] for row in cells)
    assert result.nearest is None
    assert (result.goals, result.budget, result.num_evaluated) == (("macs",), {"macs": 6e6}, 18)


def test_the_files_equal_the_returned_result(searched):
    folder, result = searched
    assert read_json(folder / "search.json") == json.loads(json.dumps(result.to_dict()))
    with (folder / "pareto.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["subnet"] for line in lines] == [row["subnet"] for row in result.pareto]
    assert [float(line["score"]) for line in lines] == [row["score"] for row in result.pareto]
    assert [int(line["macs"]) for line in lines] == [row["macs"] for row in result.pareto]
    assert len(set(read_names(folder))) == 18


def test_the_command_prints_a_table_and_the_next_command(dynabert, supernet):
    done = dynabert("search", supernet, *SMALL, "--max_params", "990000", "--score_on", "dev")
    assert done.code == 0, done.err
    result = read_json(supernet / "search" / "search.json")
    assert (result["split"], result["num_examples"], result["goals"]) == ("dev", 21, ["params"])
    assert all(row["subnet"] in done.out for row in result["pareto"])
    assert f"{result['best']['subnet']} *" in done.out
    lines = done.err.splitlines()
    assert lines[-1] == f"next: dynabert extract {supernet} {result['best']['subnet']} --output_dir NEW_DIR"
    assert f"wrote {supernet / 'search' / 'search.json'}" in lines
    again = dynabert("search", supernet, *SMALL, "--max_params", "990000", "--score_on", "dev", "--json")
    assert json.loads(again.out) == result
    assert dynabert(*lines[-1].split()[2:-1], supernet.parent / "small").code == 0


def test_if_nothing_fits_the_nearest_is_printed(dynabert, supernet):
    done = dynabert("search", supernet, *SMALL, "--max_macs", "450000", "--json")
    assert done.code == 1
    result = json.loads(done.out)
    assert result == read_json(supernet / "search" / "search.json")
    assert "has macs 491,520 where 450,000 is allowed (9.2% more)" in done.err
    # One head of 8 and 12 neurons: 128 * (4 * 32 * 8 + 2 * 32 * 12) + 2 * 128 * 128 * 8
    assert (result["best"], result["nearest"]["subnet"], result["nearest"]["macs"]) == (None, "l0h1f12", 491520)


def test_agreement_of_the_full_model_with_itself_is_1(dynabert, supernet):
    done = dynabert("search", supernet, *SMALL, "--score", "agreement", "--holdout_size", "10", "--json")
    result = json.loads(done.out)
    assert (result["score"], result["full"]["score"], result["num_examples"]) == ("agreement", 1.0, 5)
    assert "divergence" not in result["full"]


@pytest.mark.parametrize("score", ["divergence", "metric"])
def test_too_few_examples_are_told_with_how_many_would_do(supernet, dynabert, score):
    done = dynabert("search", supernet, *SMALL, "--max_macs", "6e6", "--score", score)
    assert done.code == 0, done.err
    result = read_json(supernet / "search" / "search.json")
    doubt = result["doubt"]
    assert doubt["rival"] != result["best"]["subnet"]
    told = next(line for line in done.err.splitlines() if "do not tell" in line)
    assert f"7 examples of holdout do not tell {result['best']['subnet']}" in told
    assert f"from {doubt['rival']} ({doubt['rival_score']:.4f})" in told
    if doubt["num_examples"]:
        assert f"about {doubt['num_examples']:,} would show a difference of" in told


def test_the_winner_can_be_trained_on(dynabert, supernet):
    done = dynabert("search", supernet, *SMALL, "--max_macs", "1e7", "--finetune_steps", "3")
    assert done.code == 0, done.err
    result = read_json(supernet / "search" / "search.json")
    best = supernet / "search" / "best"
    assert result["finetuned"]["output_dir"] == str(best)
    assert result["finetuned"]["before"] == result["best"]["score"]
    assert read_metadata(best).subnet == {"name": result["best"]["subnet"]}
    assert json.loads(dynabert("evaluate", best, "--json").out)["rows"][0]["params"] == result["best"]["params"]
    refused = dynabert("search", best)
    assert refused.code == 2
    assert f"is the extracted sub-network {result['best']['subnet']}" in refused.err


def start(*words, **options):
    words = [sys.executable, "-m", "dynabert_paddle", "search", *map(str, words)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.full
def test_a_killed_search_goes_on_with_the_same_command(supernet, searched, dynabert):
    words = (supernet, *SMALL, "--max_macs", "6e6", "--json")
    process = start(*words)
    path, end = supernet / "search" / "study.db", time.monotonic() + 90
    while process.poll() is None and time.monotonic() < end:
        if path.exists() and path.stat().st_size and "search 6/18" in process.stderr.readline():
            process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = read_names(supernet / "search")
    assert 6 <= len(before) < 18
    done = dynabert("search", *words)
    assert done.code == 0, done.err
    assert read_names(supernet / "search") == read_names(searched[0])
    result = json.loads(done.out)
    assert {**result, "model": ""} == json.loads(json.dumps({**searched[1].to_dict(), "model": ""}))


@pytest.mark.full
def test_several_processes_find_the_same_as_one(supernet, searched):
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir"]
    script = supernet.parent / "search.py"
    script.write_text("from dynabert_paddle.cli.main import main\nmain()\n")
    words = [*launch, supernet.parent / "log", script, "search", supernet, *SMALL, "--max_macs", "6e6"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=200)
    logs = {path.name: path.read_text() for path in (supernet.parent / "log").glob("workerlog.*")}
    assert done.returncode == 0, logs
    assert read_names(supernet / "search") == read_names(searched[0])
    result = read_json(supernet / "search" / "search.json")
    assert result["pareto"] == json.loads(json.dumps(searched[1].pareto))
    assert "next: dynabert extract" in logs["workerlog.0"]
    assert "next:" not in logs["workerlog.1"]


@pytest.mark.full
def test_searches_with_one_storage_find_what_one_alone_does_and_measure_everything_once(
    supernet, searched, dynabert, tmp_path
):
    words = (supernet, *SMALL, "--max_macs", "6e6", "--storage", tmp_path / "shared.journal")
    processes = [start(*words, "--output_dir", tmp_path / name) for name in "ab"]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "shared.journal")))
    (name,) = optuna.get_all_study_names(storage)

    def read_keys():
        trials = optuna.load_study(study_name=name, storage=storage).get_trials()
        return [trial.user_attrs["key"] for trial in trials if trial.state.name == "COMPLETE"]

    keys = read_keys()
    assert len(keys) == len(set(keys)) > 18  # the rounds, too
    done = dynabert("search", *words, "--output_dir", tmp_path / "c")
    assert done.code == 0 and read_keys() == keys
    for folder in (tmp_path / "a", tmp_path / "b", tmp_path / "c"):
        assert read_names(folder) == read_names(searched[0])
        expected = json.loads(json.dumps({**searched[1].to_dict(), "model": ""}))
        assert {**read_json(folder / "search.json"), "model": ""} == expected


@pytest.mark.parametrize(
    ("stage", "command"),
    [("finetune", "dynabert rewire"), ("rewire", "dynabert train_width"), ("width", "dynabert train_depth")],
)
def test_a_stage_that_is_missing_is_named(dynabert, chain, stage, command):
    done = dynabert("search", chain / stage)
    assert done.code == 2
    assert f"run '{command} {chain / stage} --output_dir NEW_DIR'" in done.err
    assert "--force" in done.err
    assert not (chain / stage / "search").exists()


def test_force_searches_a_stage_before_depth(chain, tmp_path):
    config = db.SearchConfig(num_evaluations=6, population_size=3)
    result = db.search(chain / "finetune", output_dir=tmp_path / "out", config=config, force=True)
    assert result.num_evaluated == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--goals", "mac"], "--goals takes latency_ms, params, macs, size_mb, not 'mac'. Did you mean 'macs'?"),
        (["--goals", "macs macs"], "--goals must name each cost only once"),
        (["--max_params", "-5"], "--max_params is more than 0, not -5.0"),
        (["--max_params", "1"], "if it is in millions, write 1e6"),
        (
            ["--seq_length", "5000", "--goals", "latency_ms"],
            "--seq_length is 5000, more than the model's 128",
        ),
        (["--holdout_size", "15"], "--holdout_size 15 is more than the 14 examples"),
        (["--holdout_size", "1"], "--holdout_size is 1, and half of the examples of holdout take part in the choice"),
        (["--num_texts", "127"], "--num_texts 127 is more than the 126 training texts"),
        (["--population_size", "1"], "--population_size is at least 2, not 1"),
        (["--score", "f1"], "'f1'"),
    ],
)
def test_invalid_options_are_one_line(dynabert, supernet, words, message):
    done = dynabert("search", supernet, *words)
    assert done.code == 2
    assert message in done.err
    assert done.err.splitlines()[-1].startswith("error: ")
    assert not (supernet / "search").exists()


def test_a_finished_search_is_not_mixed_with_another(searched, chain):
    folder, _ = searched
    config = db.SearchConfig(num_evaluations=18, population_size=6, seq_length=16, seed=7)
    with pytest.raises(UsageError, match="holds a search with seed = 42, this one has 7"):
        db.search(chain / "depth", output_dir=folder, config=config)


def test_other_goals_are_another_search(searched, chain):
    config = replace(CONFIG, goals=("macs", "params"))
    with pytest.raises(UsageError, match="holds a search with goals = macs, this one has macs params"):
        db.search(chain / "depth", output_dir=searched[0], config=config)


def test_other_weights_are_another_search(supernet, dynabert):
    assert dynabert("search", supernet, "--num_evaluations", "3").code == 0
    model = db.load_model(supernet)
    for parameter in model.model.classifier.parameters():
        parameter.set_value(parameter * 2)
    model.save_pretrained(supernet)
    done = dynabert("search", supernet, "--num_evaluations", "3")
    assert done.code == 2
    assert "holds a search with weights = " in done.err
    assert dynabert("search", supernet, "--num_evaluations", "3", "--overwrite_output_dir").code == 0


def test_results_are_kept_if_the_new_search_is_refused(supernet, dynabert):
    assert dynabert("search", supernet, "--num_evaluations", "3").code == 0
    before = {path.name: path.read_bytes() for path in (supernet / "search").iterdir()}
    done = dynabert("search", supernet, "--num_evaluations", "3", "--max_params", "1", "--overwrite_output_dir")
    assert done.code == 2
    assert {path.name: path.read_bytes() for path in (supernet / "search").iterdir()} == before


@pytest.mark.parametrize("table", ["trial_values", "trial_user_attributes"])
def test_a_database_that_lacks_rows_is_damaged(searched, chain, tmp_path, table):
    folder = shutil.copytree(searched[0], tmp_path / "search")
    with closing(sqlite3.connect(folder / "study.db")) as database:
        database.execute(f"DELETE FROM {table}")
        database.commit()
    with pytest.raises(DynabertError, match="study.db: damaged"):
        db.search(chain / "depth", output_dir=folder, config=CONFIG)


def test_a_damaged_database_is_replaced_on_demand(supernet, dynabert):
    (supernet / "search").mkdir()
    (supernet / "search" / "study.db").write_bytes(b"not a database" * 200)
    done = dynabert("search", supernet, "--num_evaluations", "3")
    assert done.code == 1
    assert "study.db: damaged" in done.err


def test_the_supernets_own_folder_is_not_the_results(supernet, dynabert):
    done = dynabert("search", supernet, "--output_dir", supernet, "--overwrite_output_dir")
    assert done.code == 2
    assert "holds the supernet" in done.err
    assert (supernet / "model.safetensors").exists()


def test_examples_that_a_stage_has_seen_are_not_scored_on(chain):
    metadata = read_metadata(chain / "depth")
    task = load_described_task(metadata.task)
    settings = metadata.provenance["settings"]
    on_dev = metadata.replace(provenance={**metadata.provenance, "settings": {**settings, "select_on": "dev"}})
    with pytest.raises(UsageError, match="training held out no examples .* score_on to dev"):
        choose_examples(task, on_dev, CONFIG)
    other = metadata.replace(provenance={**metadata.provenance, "settings": {**settings, "seed": 5}})
    some = choose_examples(task, other, CONFIG)
    held = [set(task.train.select(hold_out(task.train, 500, seed=seed)[1]).texts) for seed in (42, 5)]
    assert set(some.choosing.texts) | set(some.fresh.texts) == held[0] & held[1]
    on_seven = choose_examples(task, on_dev, replace(CONFIG, score_on="dev", holdout_size=7))
    assert (len(on_seven.choosing), len(on_seven.fresh)) == (3, 4)


def test_a_model_without_a_folder_needs_one_for_its_results(chain, tmp_path):
    model = db.load_model(chain / "depth")
    with pytest.raises(DynabertError, match="pass output_dir"):
        db.search(model)
    config = db.SearchConfig(num_evaluations=2, population_size=2)
    assert db.search(model, output_dir=tmp_path / "out", config=config).num_evaluated == 2
