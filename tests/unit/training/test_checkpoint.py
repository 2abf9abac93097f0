"""Checkpoints: what is saved comes back, older ones go only after the new one is whole, damage is named."""

import json
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.files.atomic import write_json
from dynabert_paddle.files.claim import claim
from dynabert_paddle.training.checkpoint import (
    TrainState,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
    tidy_finished,
)

SETTINGS = {"learning_rate": 0.001, "subnets": ["w1.00d1.00"], "seed": 42}


class Training:
    """A model with its optimizer and scaler, without dropout."""

    def __init__(self, *, seed=0, **config):
        dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.model = make_bert(vocab_size=1500, num_layers=1, seed=seed, **dropouts, **config)
        self.optimizer = paddle.optimizer.AdamW(1e-2, parameters=self.model.parameters())
        self.scaler = paddle.amp.GradScaler(enable=False)

    @property
    def parts(self):
        return self.model, self.optimizer, self.scaler

    def step(self, seed):
        batch = {name: paddle.to_tensor(value) for name, value in make_batch(vocab_size=1500, seed=seed).items()}
        labels = batch.pop("labels")
        paddle.nn.functional.cross_entropy(self.model(**batch), labels).backward()
        self.optimizer.step()
        self.optimizer.clear_grad()


@contextmanager
def small_disk(size):
    """Files cannot grow beyond `size` bytes: the same error, but for its number, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save(training, folder, step, **changes):
    state = TrainState(step=step, **changes)
    return save_checkpoint(folder, state, *training.parts, settings=SETTINGS)


def load(training, folder, settings=SETTINGS):
    return load_checkpoint(folder, *training.parts, settings=settings)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def training():
    training = Training()
    training.step(0)
    return training


def test_without_a_checkpoint_a_run_begins_at_0(tmp_path, training):
    before = to_arrays(training.model)
    assert load(training, tmp_path) == TrainState()
    assert all(np.array_equal(array, before[name]) for name, array in to_arrays(training.model).items())


def test_a_checkpoint_brings_weights_moments_and_state_back(tmp_path, training):
    best = {"classifier.bias": np.arange(3, dtype="float32")}
    metrics = {"w1.00d1.00": {"accuracy": 0.5}}
    folder = save(training, tmp_path, 7, best_score=0.5, best_step=3, best_metrics=metrics, best_arrays=best)
    assert folder == tmp_path / "checkpoint-7"
    other = Training(seed=3)  # whose parameters Paddle names by other numbers
    state = load(other, tmp_path)
    assert (state.step, state.best_score, state.best_step, state.best_metrics) == (7, 0.5, 3, metrics)
    assert list(state.best_arrays) == ["classifier.bias"]
    np.testing.assert_array_equal(state.best_arrays["classifier.bias"], best["classifier.bias"])
    # Equal moments and powers of the betas show in the steps that follow.
    for seed in (1, 2):
        training.step(seed)
        other.step(seed)
    expected = to_arrays(training.model)
    assert all(np.array_equal(array, expected[name]) for name, array in to_arrays(other.model).items())


def test_moments_matter_for_the_test_above(tmp_path, training):
    """Without them the next step would be another one."""
    save(training, tmp_path, 7)
    forgetful = Training(seed=3)
    load(forgetful, tmp_path)
    forgetful.optimizer = paddle.optimizer.AdamW(1e-2, parameters=forgetful.model.parameters())
    training.step(1)
    forgetful.step(1)
    expected = to_arrays(training.model)
    assert not all(np.array_equal(array, expected[name]) for name, array in to_arrays(forgetful.model).items())


def test_before_the_first_evaluation_there_is_no_best(tmp_path, training):
    folder = save(training, tmp_path, 1)
    assert not (folder / "best.safetensors").exists()
    assert json.loads((folder / "state.json").read_text())["best_score"] is None  # JSON has no -infinity
    assert load(training, tmp_path) == TrainState(step=1)


def test_older_checkpoints_go_and_the_newest_by_number_stays(tmp_path, training):
    for step in (9, 10, 100):
        save(training, tmp_path, step)
        assert names(tmp_path) == [f"checkpoint-{step}"]
    shutil.copytree(tmp_path / "checkpoint-100", tmp_path / "checkpoint-99")
    state = tmp_path / "checkpoint-99" / "state.json"
    state.write_text(state.read_text().replace('"step": 100', '"step": 99'))
    assert load(training, tmp_path).step == 100


def test_other_names_are_neither_read_nor_removed(tmp_path, training):
    for name in ("checkpoint-best", "my-checkpoint-5", "checkpoint-5.bak"):
        (tmp_path / name).mkdir()
    save(training, tmp_path, 1)
    assert load(training, tmp_path).step == 1
    remove_checkpoints(tmp_path)
    assert names(tmp_path) == ["checkpoint-5.bak", "checkpoint-best", "my-checkpoint-5"]


def test_a_half_written_checkpoint_is_ignored(tmp_path, training):
    whole = save(training, tmp_path, 4)
    shutil.copytree(whole, tmp_path / ".checkpoint-8.partial")
    (tmp_path / ".checkpoint-8.partial" / "state.json").unlink()
    assert load(training, tmp_path).step == 4


def test_nothing_of_a_killed_process_stays_in_a_finished_folder(tmp_path, training):
    """A checkpoint that Ctrl-C asked for, and that kill -9 cut off, is never written again under the same step."""
    whole = save(training, tmp_path, 4)
    shutil.copytree(whole, tmp_path / ".checkpoint-7.0123abcd.partial")
    save(training, tmp_path, 8)
    remove_checkpoints(tmp_path)
    assert names(tmp_path) == []


def test_a_finished_stage_is_tidied_only_while_nobody_writes_there(tmp_path, training):
    save(training, tmp_path, 4)
    (tmp_path / "dynabert.json").write_text("{}")
    with claim(tmp_path, "width"), pytest.raises(UsageError, match="is in use by another run"):
        tidy_finished(tmp_path, "width")
    assert names(tmp_path) == ["checkpoint-4", "dynabert.json"]
    tidy_finished(tmp_path, "width")
    assert names(tmp_path) == ["dynabert.json"]
    with claim(tmp_path, "width"):
        tidy_finished(tmp_path, "width")  # there is nothing to do


def test_leftovers_stay_in_a_finished_folder_that_cannot_be_written_to(tmp_path, training):
    save(training, tmp_path, 4)
    (tmp_path / "dynabert.json").write_text("{}")
    with small_disk(0):
        tidy_finished(tmp_path, "width")
    assert names(tmp_path) == ["checkpoint-4", "dynabert.json"]


def test_an_older_checkpoint_stays_where_the_new_one_finds_no_room(tmp_path, training):
    save(training, tmp_path, 4)
    size = (tmp_path / "checkpoint-4" / "model.safetensors").stat().st_size
    with small_disk(size - 1), pytest.raises(DynabertError, match=r"checkpoint-8: cannot be written: .*make room"):
        save(training, tmp_path, 8)
    assert names(tmp_path) == ["checkpoint-4"]
    assert load(training, tmp_path).step == 4


def test_an_older_checkpoint_stays_until_the_new_one_is_whole(tmp_path, training):
    """The settings are written last, and these are no JSON."""
    save(training, tmp_path, 4)
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, TrainState(step=8), *training.parts, settings={"seed": object()})
    assert names(tmp_path) == ["checkpoint-4"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "best.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_damage_names_the_folder_and_the_remedy(tmp_path, training, file, damage):
    best = to_arrays(training.model)
    path = save(training, tmp_path, 4, best_score=0.5, best_step=3, best_arrays=best) / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if damage == "cut" else 0])
    with pytest.raises(ModelError, match=r"checkpoint-4.*(remove|damaged|missing)") as caught:
        load(training, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_state_that_lacks_its_values_is_called_damaged(tmp_path, training):
    folder = save(training, tmp_path, 4)
    (folder / "state.json").write_text(json.dumps({"step": 4, "settings": SETTINGS}))
    with pytest.raises(ModelError, match="checkpoint-4: damaged: remove it"):
        load(training, tmp_path)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"learning_rate": 0.002}, "learning_rate = 0.001, this one has 0.002"),
        ({"subnets": ["w0.50d1.00"]}, r"subnets = \['w1.00d1.00'\], this one has \['w0.50d1.00'\]"),
        ({"more": 1}, "more = None, this one has 1"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, training, change, seen):
    save(training, tmp_path, 4)
    with pytest.raises(UsageError, match=f"unfinished run with {seen}.*remove that folder"):
        load(training, tmp_path, {**SETTINGS, **change})


@pytest.mark.parametrize("config", [{"num_labels": 3}, {"intermediate_size": 40}])
def test_a_model_of_another_shape_is_refused_in_one_line(tmp_path, training, config):
    save(training, tmp_path, 4)
    with pytest.raises(DynabertError, match="checkpoint-4") as caught:
        load(Training(**config), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "best.safetensors", "state.json"])
def test_a_flipped_bit_is_found(tmp_path, training, file):
    path = save(training, tmp_path, 4, best_score=0.5, best_step=3, best_arrays=to_arrays(training.model)) / file
    content = bytearray(path.read_bytes())
    place = content.index(b'"step": 4') + 8 if file == "state.json" else len(content) - 3
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"checkpoint-4: damaged: remove it .*{file}: changed since it was written"):
        load(training, tmp_path)


def test_a_checkpoint_from_before_hashes_were_kept_loads(tmp_path, training):
    path = save(training, tmp_path, 4) / "state.json"
    values = json.loads(path.read_text())
    del values["files"], values["checksum"]
    path.write_text(json.dumps(values))
    assert load(training, tmp_path).step == 4


@pytest.mark.parametrize("values", [{"settings": 3}, {"settings": SETTINGS, "best_score": []}, {"settings": [1]}])
def test_values_of_a_wrong_type_are_called_damaged(tmp_path, training, values):
    path = save(training, tmp_path, 4) / "state.json"
    path.write_text(json.dumps({**values, "step": 4}))
    with pytest.raises(ModelError, match="checkpoint-4: damaged: remove it"):
        load(training, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        *({"step": value} for value in (-1, 5, 2**31 - 1, 4.0, True, None)),
        *({"best_step": value} for value in (-1, 5, float("nan"))),
        *({"examples": value} for value in (-1, 0.5, "1")),
        *({"seconds": value} for value in (float("nan"), float("inf"), "1", None)),
        {"best_score": float("nan")},
    ],
)
def test_counts_that_no_training_writes_are_damage(tmp_path, training, changes):
    path = save(training, tmp_path, 4) / "state.json"
    values = json.loads(path.read_text()) | changes
    del values["checksum"]
    write_json(path, values)
    with pytest.raises(ModelError, match="checkpoint-4: damaged: remove it"):
        load(training, tmp_path)
