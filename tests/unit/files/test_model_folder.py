"""A path in place of a model's folder, or of a bundle: what it is, and which folder to name."""

import json

import pytest

from dynabert_paddle.bundle.manifest import BundleError, read_bundle
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.model_folder import check_folder, check_model_folder


@pytest.fixture
def run(tmp_path):
    """A run's folder with its stages, a baseline, a search, a bundle and an unfinished stage; models by their marks."""
    out = tmp_path / "out"
    for name in ("finetune", "rewire", "width", "depth", "baselines/pruned-1"):
        (out / name).mkdir(parents=True)
        (out / name / "dynabert.json").write_text("{}")
    for folder, maker in ((out, "run"), (out / "depth/search", "search"), (tmp_path / "half", "width")):
        folder.mkdir(exist_ok=True)
        (folder / ".dynabert").write_text(f"{maker}\n")
    (out / "depth/search/search.json").write_text("{}")
    (out / "run.yaml").write_text("task: {}\n")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/bundle.json").write_text(json.dumps({"format_version": 1}))
    (tmp_path / "half/checkpoint-3").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/.dynabert").write_text("run\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("out", "is the folder of a run", "its models: {0}/out/finetune, {0}/out/rewire, {0}/out/width, {0}/out/depth"),
        ("begun", "is the folder of a run, which has not finished a stage yet", "run it again"),
        ("bundle", "is an exported bundle", "name the folder of the model that it was exported from"),
        ("out/depth/search", "is the result of a search", "that was searched, {0}/out/depth"),
        ("out/baselines", "is not the folder of a model, but holds some", "one of them: {0}/out/baselines/pruned-1"),
        ("half", "is of a 'dynabert train_width' that has not finished", "repeat the command to finish it"),
        ("half/checkpoint-3", "is a checkpoint of a training that has not finished", "and name {0}/half"),
        ("empty", "is empty", "name the folder of a model"),
        ("notes.txt", "is a file", "name the folder of a model"),
        ("out/depth/dynabert.json", "is a file", "name the folder of a model, {0}/out/depth"),
        ("gone", "is a link to {0}/nowhere, which does not exist", "name the model's folder"),
    ],
)
def test_a_path_in_place_of_a_model_is_described(run, name, kind, advice):
    with pytest.raises(ModelError) as caught:
        check_model_folder(run / name)
    message = str(caught.value)
    assert message.startswith(f"{run / name} {kind.format(run)}: ") and advice.format(run) in message
    assert "\n" not in message


def test_a_misspelt_folder_suggests_the_nearest(run):
    with pytest.raises(ModelError, match=rf"no such model folder. Did you mean '{run}/out/depth'\?"):
        check_model_folder(run / "out/dept")


@pytest.mark.parametrize("file", ["config.json", "model_config.json", "dynabert.json"])
def test_any_models_folder_is_accepted_also_through_a_link(tmp_path, file):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / file).write_text("{}")
    (tmp_path / "link").symlink_to("model")
    for name in ("model", "link"):
        check_model_folder(tmp_path / name)
        check_folder(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out", "{0}/out holds models: export one first, as with 'dynabert export {0}/out/depth --output_dir NEW_DIR'"),
        ("out/depth", "{0}/out/depth is the folder of a model: export it first, with 'dynabert export {0}/out/depth "),
        ("", "{0} is not a bundle, but holds some: name one of them: {0}/bundle"),
        ("bundle/bundle.json", "{0}/bundle/bundle.json is a file: name the folder of a bundle, {0}/bundle"),
        ("missing", "{0}/missing: no such folder: name one that 'dynabert export' created"),
        ("empty", "{0}/empty: no bundle.json in it: name a folder that 'dynabert export' created"),
    ],
)
def test_a_path_in_place_of_a_bundle_is_described(run, name, message):
    with pytest.raises(BundleError) as caught:
        read_bundle(run / name)
    assert str(caught.value).startswith(message.format(run))
