"""The same seed gives the same results, and what a run leaves is enough to repeat it, from any working folder."""

import json
import os
import shutil

import pytest
from commands import run_command

import dynabert_paddle as db
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.reporting.collect import collect

pytestmark = pytest.mark.full

STAGES = ("finetune", "rewire", "width", "depth")
SEARCH = db.SearchConfig(num_evaluations=12, population_size=6, seq_length=16, max_macs=6e6)


@pytest.fixture(scope="module")
def place(tiny_folder, tiny_data, tmp_path_factory):
    """A working folder with a model, data and a config that names them by relative paths."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(tiny_folder, folder / "model")
    shutil.copytree(tiny_data, folder / "data")
    (folder / "mine.yaml").write_text(
        f"""
        model_name_or_path: model
        stages: [{", ".join(STAGES)}]
        task: {{data_dir: data, max_seq_length: 16}}
        space: {{width_mult_list: [1.0, 0.5], depth_mult_list: [1.0, 0.5]}}
        train: {{max_steps: 4, eval_steps: 2, learning_rate: 1e-3, per_device_train_batch_size: 16}}
        """
    )
    return folder


@pytest.fixture(scope="module")
def made(place):
    """A run in the working folder: its output folder and its grid."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return place / "out", db.run(db.load_config("mine.yaml"))


def weights(folder):
    return [(folder / stage / "model.safetensors").read_bytes() for stage in STAGES]


def test_the_same_seed_twice_gives_the_same_weights_and_grid(place, made, monkeypatch):
    monkeypatch.chdir(place)
    out, rows = made
    assert db.run(db.load_config("mine.yaml", (), {"output_dir": "again"})) == rows
    assert weights(place / "again") == weights(out)
    db.run(db.load_config("mine.yaml", ["train.seed=1"], {"output_dir": "other"}))
    assert weights(place / "other")[0] != weights(out)[0]


def test_a_finished_run_says_so_and_prints_its_grid_from_anywhere(made, tmp_path, monkeypatch, capsys):
    out, rows = made
    left = [out / "finetune" / name for name in ("checkpoint-2", ".checkpoint-3.0123abcd.partial", ".0123abcd.partial")]
    for folder in left:  # by a process that was killed when the model had just been saved
        folder.mkdir()
    monkeypatch.chdir(tmp_path)
    done = run_command(capsys, "run", out / "run.yaml", "--json")
    assert done.code == 0, done.err
    assert [line.partition(":")[0] for line in done.err.splitlines() if "finished before" in line] == list(STAGES)
    assert json.loads(done.out)["rows"] == rows
    assert not list(tmp_path.iterdir())
    assert not [folder for folder in left if folder.exists()]


def test_a_run_yaml_reproduces_its_run_elsewhere(made, tmp_path, monkeypatch, capsys):
    out, _ = made
    monkeypatch.chdir(tmp_path)
    done = run_command(capsys, "run", out / "run.yaml", "--output_dir", "repeated")
    assert done.code == 0, done.err
    assert weights(tmp_path / "repeated") == weights(out)
    environment = read_metadata(out / "depth").provenance["environment"]
    assert environment["OMP_NUM_THREADS"] == os.environ["OMP_NUM_THREADS"], "other threads sum in another order"


def test_other_data_under_the_same_relative_path_is_another_run(place, made, tmp_path, monkeypatch, capsys):
    for name in ("model", "data", "mine.yaml"):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    done = run_command(capsys, "run", "mine.yaml", "--output_dir", made[0])
    assert done.code == 2
    assert f"holds a run with model_name_or_path = {place}/model, this one has {tmp_path}/model" in done.err


def test_a_search_is_the_same_twice_and_of_a_model_in_memory(made, tmp_path):
    model = made[0] / "depth"
    results = [db.search(model, output_dir=tmp_path / name, config=SEARCH) for name in ("a", "b")]
    results.append(db.search(db.load_model(model), output_dir=model / "search", config=SEARCH))
    first, again, in_memory = (result.to_dict() for result in results)
    assert first == again
    assert in_memory == {**first, "model": ""}
    found = collect(made[0])
    assert found.outdated_search is None, "a search of these weights is not called outdated"
    assert len(found.search.pareto) == len(first["pareto"])
