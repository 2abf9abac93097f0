"""Fixed-size models: the start of each method, how many examples it sees, what it refuses, and that it resumes."""

import json
import logging
import os
import signal

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.errors import Interrupted, ModelError, UsageError
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.metadata import Metadata, read_metadata
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.training.baseline import total_spent

METHODS = ("distilbert", "tinybert", "pruned", "finetuned")
BATCH = 8


@pytest.fixture(scope="module")
def finetuned(tiny_folder, task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline") / "finetuned"
    config = db.FinetuneConfig(max_steps=3, per_device_train_batch_size=BATCH, learning_rate=1e-3)
    db.finetune(tiny_folder, task, output_dir=folder, config=config, max_seq_length=16)
    return folder


@pytest.fixture(scope="module")
def rewired(finetuned, task, tmp_path_factory):
    supernet = db.rewire(db.Supernet.from_pretrained(finetuned), task)
    return supernet.save_pretrained(tmp_path_factory.mktemp("baseline") / "rewired")


@pytest.fixture
def train(task, finetuned, rewired, tmp_path):
    """Train by one method from what it starts from; returns the model and what its folder tells of it."""

    def train(method, source=None, output="out", **values):
        settings = {"max_steps": 2, "per_device_train_batch_size": BATCH, "learning_rate": 1e-3} | values
        config = db.BaselineConfig(method=method, **settings)
        source = source or (rewired if method == "pruned" else finetuned)
        model = db.baseline(source, task, output_dir=tmp_path / output, config=config)
        return model, read_json(tmp_path / output / "baseline.json")

    return train


def same(model, other, *, leave_out=()):
    ours, theirs = to_arrays(model.model), to_arrays(other.model)
    assert set(ours) == set(theirs)
    return all(np.array_equal(array, theirs[name]) for name, array in ours.items() if not name.startswith(leave_out))


@pytest.mark.parametrize("method", METHODS)
def test_the_start_is_the_shape_cut_out_of_the_methods_source(train, method, finetuned, rewired, tiny_folder):
    """A learning rate of 0 leaves the start unchanged."""
    name = "w1.00d0.50" if method == "tinybert" else "w0.50d0.50"
    small, result = train(method, subnet=name, learning_rate=0.0)
    source = {"pruned": rewired, "finetuned": tiny_folder}.get(method, finetuned)
    supernet = db.Supernet.from_pretrained(source)
    expected = extract(supernet, supernet.search_space().parse(name))
    assert small.full == expected.full
    # A backbone has no classifier for the task.
    assert same(small, expected, leave_out=("classifier",) if method == "finetuned" else ())
    assert (result["method"], result["subnet"], result["split"], result["seed"]) == (method, name, "dev", 42)


@pytest.mark.parametrize("method", METHODS)
def test_the_folder_is_a_model_that_scores_what_it_says(train, task, method, tmp_path):
    small, result = train(method)
    metadata = read_metadata(tmp_path / "out")
    assert (metadata.stage, metadata.subnet["name"]) == ("baseline", "w1.00d0.50")
    assert metadata.provenance["settings"]["method"] == method
    assert metadata.task["max_seq_length"] == 16
    again = db.load_model(tmp_path / "out")
    assert same(again, small)
    (row,) = db.evaluate_grid(again, task)
    assert {**result["metrics"], "params": result["params"], "macs": result["macs"]} == {
        key: row[key] for key in ("accuracy", "macro_f1", "params", "macs")
    }
    assert result["params"] == sum(array.size for array in to_arrays(again.model).values())


def test_a_rewired_source_keeps_its_scores_and_claims_no_steps(finetuned, rewired):
    before, after = (read_metadata(folder).metrics for folder in (finetuned, rewired))
    assert after == {"holdout": before["holdout"]} and {"steps", "best_step"} <= set(before)


@pytest.mark.parametrize("method", METHODS)
def test_the_examples_include_those_of_the_source(train, method, task):
    """140 rows, 14 of them held out: fine-tuning has seen 3 batches of 8, rewiring the 14."""
    before = {"finetuned": 0, "pruned": 3 * BATCH + 14}.get(method, 3 * BATCH)
    _, result = train(method, max_steps=4)
    assert result["examples_seen"] == before + 4 * BATCH
    _, result = train(method, output="limited", num_examples=before + 3 * BATCH - 1)
    assert result["examples_seen"] == before + 2 * BATCH
    assert result["seconds"] > 0


def test_a_short_last_batch_is_counted_with_its_own_size(train):
    _, result = train("finetuned", max_steps=None, num_train_epochs=1.0)
    assert result["examples_seen"] == 126


def test_gradient_accumulation_counts_all_batches(train):
    _, result = train("finetuned", gradient_accumulation_steps=3, num_examples=2 * 3 * BATCH)
    assert result["examples_seen"] == 2 * 3 * BATCH


def test_the_training_cost_is_the_sum_over_the_stages():
    first = {"spent": {"examples": 32, "seconds": 1.5}, "parent": "minilm-l6"}
    provenance = {"spent": {"examples": 10, "seconds": 0.25}, "parent": first}
    assert total_spent(Metadata(provenance=provenance), "out/rewire") == (42, 1.75)
    with pytest.raises(
        UsageError, match="out/rewire .* did not record how many examples .* begin with 'dynabert finetune'"
    ):
        total_spent(Metadata(provenance={**provenance, "parent": {"parent": "minilm-l6"}}), "out/rewire")


@pytest.mark.parametrize(("share", "steps"), [(0.0, 0), (0.5, 2), (0.75, 3), (1.0, 5)])
def test_tinybert_divides_its_steps(train, tmp_path, share, steps):
    train("tinybert", max_steps=5, layer_share=share, logging_steps=1)
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/attention" in line] == list(range(1, steps + 1))
    assert [line["step"] for line in lines if "train/logit" in line] == list(range(steps + 1, 6))


def test_tinybert_divides_the_steps_of_epochs(train, tmp_path):
    train("tinybert", max_steps=None, num_train_epochs=1.0, layer_share=0.5, logging_steps=1)  # 16 batches of 126 rows
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/attention" in line] == list(range(1, 9))


class StopAt(logging.Handler):
    """Sends SIGTERM when a line is logged."""

    def __init__(self, line):
        super().__init__(logging.INFO)
        self.line = line

    def emit(self, record):
        if record.getMessage().startswith(self.line):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def stop_at():
    logger = logging.getLogger("dynabert_paddle")
    level, before = logger.level, logger.handlers[:]
    logger.setLevel(logging.INFO)
    yield lambda line: logger.addHandler(StopAt(line))
    logger.handlers[:] = before
    logger.setLevel(level)


@pytest.mark.parametrize("step", [1, 3])
def test_a_stopped_one_goes_on_to_the_same_end(train, stop_at, step, tmp_path):
    values = {"max_steps": 4, "layer_share": 0.5, "logging_steps": 1}
    whole, told = train("tinybert", output="whole", **values)
    stop_at(f"baseline {step}/4 loss")
    with pytest.raises(Interrupted):
        train("tinybert", **values)
    assert not (tmp_path / "out" / "baseline.json").exists()
    logging.getLogger("dynabert_paddle").handlers.pop()
    with pytest.raises(UsageError, match="unfinished run with method = tinybert, this one has distilbert"):
        train("distilbert", **values)
    resumed, again = train("tinybert", **values)
    assert same(resumed, whole)
    assert {**again, "seconds": 0} == {**told, "seconds": 0}


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("distilbrt", {}, "method: 'distilbrt' is not allowed: .* Did you mean 'distilbert'?"),
        ("distilbert", {"subnet": "w1.5d1.0"}, r"width multiplier lies in \(0, 1\], not 1.5"),
        ("distilbert", {"subnet": "half"}, "'half' is no subnet: write a grid cell such as"),
        ("pruned", {"subnet": "l9h1f1"}, "keeps layer 9; this supernet has layers 0 to 3"),
        (
            "tinybert",
            {"subnet": "w0.50d1.00"},
            "'w0.50d1.00' keeps 2 heads of layer 0, and layer 0 of its teacher has 4",
        ),
        ("distilbert", {"num_examples": 31}, "has seen 24, and one step sees 8: pass at least 32"),
        ("finetuned", {"num_examples": 7}, "has seen 0, and one step sees 8: pass at least 8"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(train, tmp_path, method, values, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        train(method, **values)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_source_that_a_method_cannot_start_from_is_refused(train, tmp_path, method, tiny_folder, finetuned):
    if method == "finetuned":
        source, message = tmp_path / "gone", "gone: no such model folder"
    elif method == "pruned":
        source, message = finetuned, "stage finetune, and pruned starts from a rewired model.* run 'dynabert rewire'"
    else:
        source, message = tiny_folder, "is not a model that 'dynabert finetune' has made"
    with pytest.raises((UsageError, ModelError), match=message):
        train(method, source)
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_distilled_is_no_teacher(train, tmp_path):
    train("distilbert", output="small")
    with pytest.raises(UsageError, match="made by the stage baseline, and tinybert learns from a fine-tuned model"):
        train("tinybert", tmp_path / "small")


def test_a_missing_backbone_is_named(train, task, tiny_folder, tmp_path):
    moved = db.Supernet.from_pretrained(tiny_folder).save_pretrained(tmp_path / "moved")
    config = db.FinetuneConfig(max_steps=1, per_device_train_batch_size=BATCH)
    teacher = tmp_path / "teacher"
    db.finetune(moved, task, output_dir=teacher, config=config, max_seq_length=16)
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="teacher was fine-tuned from a backbone that is gone .*name one in its place"):
        train("finetuned", teacher)
    small, _ = train("finetuned", tmp_path / "elsewhere")
    assert small.metadata.provenance["parent"] == str(tmp_path / "elsewhere")


def test_the_source_is_not_replaced(task, finetuned):
    before = sorted(path.name for path in finetuned.iterdir())
    with pytest.raises(UsageError, match="holds the model to start from"):
        db.baseline(finetuned, task, output_dir=finetuned, overwrite=True)
    assert sorted(path.name for path in finetuned.iterdir()) == before


def test_a_finished_baseline_is_replaced_only_with_overwrite(train, tmp_path):
    train("distilbert")
    before = (tmp_path / "out" / "baseline.json").read_bytes()
    with pytest.raises(UsageError, match="overwrite=True"):
        train("finetuned")
    assert (tmp_path / "out" / "baseline.json").read_bytes() == before
