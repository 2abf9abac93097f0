"""A folder that is replaced while it is loaded is loaded again, or refused; never one version's part with another's."""

import json
import os
import shutil

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.errors import ModelError
from dynabert_paddle.files import unchanged
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.files.unchanged import folder_version, load_unchanged
from dynabert_paddle.supernet import folder as folder_module
from dynabert_paddle.supernet import supernet

LABELS = {"old": ["a", "b"], "new": ["b", "a"]}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(unchanged, "_PAUSE_SECONDS", 0)


def make(folder, name):
    folder.mkdir()
    (folder / "labels").write_text(name)
    (folder / "weights").write_text(name)


def by_move(folder, name):
    folder.rename(folder.with_name(f"before-{name}"))
    make(folder, name)


def file_by_file(folder, name):
    for file in ("labels", "weights"):
        (folder / file).write_text(name)


def by_removal(folder, name):
    shutil.rmtree(folder)
    make(folder, name)


def away_and_back(folder, name):
    """Others read the new one meanwhile."""
    folder.rename(folder.with_name("away"))
    make(folder, name)
    shutil.rmtree(folder)
    folder.with_name("away").rename(folder)


@pytest.mark.parametrize("replace", [by_move, file_by_file, by_removal])
@pytest.mark.parametrize("times", [1, 2, 99])
def test_a_loaded_folder_is_one_version_or_refused(tmp_path, replace, times):
    folder, left = tmp_path / "model", iter(range(times))
    make(folder, "old")

    def load():
        labels = (folder / "labels").read_text()
        if (turn := next(left, None)) is not None:
            replace(folder, f"new{turn}")
        return labels, (folder / "weights").read_text()

    if times == 99:
        with pytest.raises(ModelError, match="model: its files change while they are read: wait"):
            load_unchanged(folder, load, ModelError)
    else:
        assert load_unchanged(folder, load, ModelError) == (f"new{times - 1}",) * 2


def test_a_folder_that_is_moved_away_and_back_counts_as_changed(tmp_path):
    folder, versions = tmp_path / "model", []
    make(folder, "old")

    def load():
        if not versions:
            away_and_back(folder, "new")
        versions.append(os.stat(folder).st_ino)
        return len(versions)

    assert load_unchanged(folder, load, ModelError) == 2


@pytest.mark.parametrize("manifest", ["bundle.json", "dynabert.json"])
@pytest.mark.parametrize("twice", [True, False])
def test_a_log_in_the_folder_changes_nothing(tmp_path, manifest, twice):
    """A server may write its log beside the bundle's files, line by line."""
    folder, attempts = tmp_path / "model", []
    make(folder, "old")
    (folder / manifest).write_text(json.dumps({"files": {"labels": {}, "weights": {}}}))
    if twice:
        (folder / "server.log").touch()

    def load():
        attempts.append(1)
        with (folder / "server.log").open("a") as log:
            log.write("loading\n")
        (folder / f"{len(attempts)}.log").touch()

    before = folder_version(folder)
    load_unchanged(folder, load, ModelError)
    assert len(attempts) == 1
    assert folder_version(folder) == before
    (folder / "labels").write_text("new")
    assert folder_version(folder) != before


def test_without_a_manifest_every_file_counts(tmp_path):
    make(tmp_path / "model", "old")
    before = folder_version(tmp_path / "model")
    assert folder_version(tmp_path / "model") == before
    (tmp_path / "model" / "added_tokens.json").touch()
    assert folder_version(tmp_path / "model") != before
    (tmp_path / "model" / "bundle.json").write_text('["files"]')
    assert folder_version(tmp_path / "model") != before
    assert folder_version(tmp_path / "gone") is None


def test_a_folder_that_is_missing_for_a_moment_is_waited_for(tmp_path):
    folder, attempts = tmp_path / "model", []

    def load():
        attempts.append(1)
        if not folder.exists():
            make(folder, "new")
            raise ModelError("missing")
        return (folder / "labels").read_text()

    assert load_unchanged(folder, load, ModelError) == "new"
    assert len(attempts) == 2


def test_an_error_of_an_unchanged_folder_passes_at_once(tmp_path):
    make(tmp_path / "model", "old")
    attempts = []

    def load():
        attempts.append(1)
        raise ModelError("damaged")

    with pytest.raises(ModelError, match="damaged"):
        load_unchanged(tmp_path / "model", load, ModelError)
    assert len(attempts) == 1


@pytest.fixture
def models(tiny_folder, tmp_path):
    """Two models, whose labels and weights belong together."""
    for name, labels in LABELS.items():
        model = db.Supernet.from_pretrained(tiny_folder)
        model.metadata = model.metadata.replace(stage="finetune", task={"labels": labels})
        if name == "new":
            for parameter in model.model.classifier.parameters():
                parameter.set_value(parameter * -1)
        model.save_pretrained(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("step", ["build_model", "load_weights"])
@pytest.mark.parametrize("way", ["move", "save"])
def test_a_model_that_is_replaced_while_it_is_loaded_has_its_own_labels(models, monkeypatch, step, way):
    folder, real, calls = models / "old", getattr(folder_module, step), []
    new = db.Supernet.from_pretrained(models / "new")

    def replace_first(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1 and way == "move":
            folder.rename(models / "away")
            shutil.copytree(models / "new", folder)
        elif len(calls) == 1:
            new.save_pretrained(folder)
        return real(*args, **kwargs)

    monkeypatch.setattr(folder_module, step, replace_first)
    loaded = db.Supernet.from_pretrained(folder)
    assert len(calls) >= 2
    assert loaded.metadata.task["labels"] == LABELS["new"]
    expected = to_arrays(new.model)
    assert all(np.array_equal(array, expected[name]) for name, array in to_arrays(loaded.model).items())


def test_a_folder_whose_replacement_was_cut_off_is_refused(models):
    """Without dynabert.json it would be a plain folder, with the labels that config.json names."""
    (models / "old" / "dynabert.json").unlink()
    (models / "old" / ".moving.partial").touch()
    with pytest.raises(ModelError, match="its files are being replaced, or were when a command was killed"):
        db.Supernet.from_pretrained(models / "old")
    db.Supernet.from_pretrained(models / "new").save_pretrained(models / "old")
    assert db.Supernet.from_pretrained(models / "old").metadata == read_metadata(models / "new")


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("evaluate", ()),
        ("rewire", ("--output_dir", "OUT")),
        ("train_depth", ("--output_dir", "OUT", "--max_steps", "1")),
        ("search", ("--output_dir", "OUT", "--force")),
    ],
)
def test_a_model_that_is_replaced_before_it_is_loaded_is_refused(
    dynabert, finetuned, tmp_path, monkeypatch, verb, words
):
    """The data were read with the settings of the model before."""
    folder, real = shutil.copytree(finetuned, tmp_path / "model"), supernet.read_model

    def replace_first(path, **options):
        parts = real(path, **options)
        if path == folder and not (tmp_path / "away").exists():
            folder.rename(tmp_path / "away")
            db.Supernet(*parts[:2], parts.metadata.replace(metrics={})).save_pretrained(folder)
            parts = real(path, **options)
        return parts

    monkeypatch.setattr(supernet, "read_model", replace_first)
    done = dynabert(verb, folder, *(str(tmp_path / "out") if word == "OUT" else word for word in words))
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"error: {folder} was replaced while this command read it: run the command again"
    )
    assert not (tmp_path / "out").exists()
