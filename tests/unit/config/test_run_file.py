"""`run.yaml` in a run's folder is that run, wherever the folder is now."""

import pytest
import yaml

from dynabert_paddle.config.loading import load_config
from dynabert_paddle.config.run_file import is_run_file, locate, relative_inside


@pytest.fixture(params=["this version", "an earlier version"])
def moved(request, tmp_path):
    """The `run.yaml` of a run that was moved from `a` to `b`; its data is partly inside."""
    old, new = tmp_path / "out" / "a", tmp_path / "out" / "b"
    (new / "mydata").mkdir(parents=True)
    (new / ".dynabert").touch()
    (new / "copies.tsv").touch()
    values = {
        "model_name_or_path": str(old / "backbone"),
        "output_dir": str(old),
        "task": {"name": "custom", "data_dir": str(old / "mydata"), "dev_file": str(tmp_path / "dev.tsv")},
        "width": {"augmented_file": str(old / "copies.tsv"), "unlabelled_files": [str(old / "copies.tsv"), "/x.txt"]},
    }
    (new / "backbone").mkdir()
    if request.param == "this version":
        values = relative_inside(values, old)
        assert values["task"] == {"name": "custom", "data_dir": "./mydata", "dev_file": str(tmp_path / "dev.tsv")}
        assert values["model_name_or_path"] == "./backbone"
    path = new / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_moved_run_is_the_one_in_its_folder(moved, tmp_path):
    config = load_config(moved)
    assert config.output_dir == str(moved.parent)
    assert config.model_name_or_path == str(moved.parent / "backbone")
    assert config.task.data_dir == str(moved.parent / "mydata")
    assert config.task.dev_file == str(tmp_path / "dev.tsv")
    assert config.width.augmented_file == str(moved.parent / "copies.tsv")
    assert config.width.unlabelled_files == (str(moved.parent / "copies.tsv"), "/x.txt")


def test_flags_and_overrides_have_priority(moved):
    assert load_config(moved, ["task.data_dir=elsewhere"], {"output_dir": "c"}).output_dir == "c"
    assert load_config(moved, ["output_dir=c", "task.data_dir=elsewhere"]).output_dir == "c"
    assert load_config(moved, ["task.data_dir=elsewhere"]).task.data_dir == "elsewhere"


def test_from_inside_its_folder(moved, monkeypatch):
    monkeypatch.chdir(moved.parent)
    assert load_config("run.yaml").output_dir == str(moved.parent)
    monkeypatch.chdir(moved.parent.parent)
    assert load_config("b/run.yaml").output_dir == "b"


@pytest.mark.parametrize("name", [".dynabert", "dynabert.json", "train.jsonl"])
def test_a_copy_without_hidden_files_is_a_run_if_stages_are_beside_it(moved, name):
    (moved.parent / ".dynabert").unlink()
    assert not is_run_file(moved)
    (moved.parent / "finetune").mkdir()
    assert not is_run_file(moved)
    (moved.parent / "finetune" / name).touch()
    assert is_run_file(moved)


def test_a_config_beside_a_folder_of_the_users_keeps_its_output_folder(moved, tmp_path):
    template = tmp_path / "run.yaml"
    template.write_text(moved.read_text())
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "report.docx").touch()
    assert load_config(template, ["task.data_dir=data"]).output_dir == str(tmp_path / "out" / "a")


def test_a_config_elsewhere_keeps_its_output_folder(moved, tmp_path):
    template = tmp_path / "run.yaml"
    template.write_text(moved.read_text())
    assert load_config(template, ["task.data_dir=data"]).output_dir == str(tmp_path / "out" / "a")
    other = moved.with_name("other.yaml")
    other.write_text(moved.read_text())
    assert load_config(other, ["task.data_dir=data"]).output_dir == str(tmp_path / "out" / "a")


def test_names_of_models_stay_and_a_path_that_did_not_move_too(tmp_path):
    values = {"model_name_or_path": "minilm-l6", "output_dir": "/x/a", "task": {"train_file": "/x/a/gone.tsv"}}
    assert locate(values, tmp_path)["model_name_or_path"] == "minilm-l6"
    assert locate(values, tmp_path)["task"] == values["task"]
    assert relative_inside(values, tmp_path) == values
