"""The training loop: steps, learning rate, gradients, the best weights, stopping, and losses that are not finite."""

import itertools
import json
import os
import signal
import threading
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from conftest import make_bert

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.config.settings import FinalConfig, FinetuneConfig
from dynabert_paddle.data.features import Features
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.weights import read_safetensors
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training import loop
from dynabert_paddle.training.early_stopping import check_early_stopping
from dynabert_paddle.training.inputs import Split
from dynabert_paddle.training.loop import Interrupted, fit
from dynabert_paddle.training.stage import Stage
from dynabert_paddle.training.steps import full_model_step, label_step

# Adam divides a gradient g by |g| + epsilon: with an epsilon that dwarfs g, and a learning rate as large, the first
# step subtracts g itself, so that the gradient of a step can be read off the weights.
GRADIENT_DESCENT = {"learning_rate": 1e4, "adam_epsilon": 1e4}


def make_supernet(*, dropout=0.0, num_labels=2, **config):
    dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return Supernet(make_bert(num_labels=num_labels, num_layers=2, vocab_size=50, **dropouts, **config))


def make_features(num=8, *, length=6, seed=0):
    """Rows of one length, so that no batch holds padding."""
    rng = np.random.default_rng(seed)
    return Features(
        rng.integers(5, 50, num * length).astype("int32"),
        np.zeros(num * length, dtype="uint8"),
        np.arange(0, (num + 1) * length, length),
        np.arange(num) % 2,
    )


def make_stage(supernet, *, step=full_model_step, evaluate=None):
    """Fine-tuning, by default with a score that never changes."""
    stage = Stage(
        name="finetune",
        model=supernet,
        task=SimpleNamespace(metrics=("accuracy",), labels=("no", "yes")),
        step=step,
        subnets={"w1.00d1.00": supernet.full},
        config=FinetuneConfig(),
        output_dir=Path(),
    )
    return stage, evaluate or (lambda: {"w1.00d1.00": {"accuracy": 0.5}})


def run(supernet, output_dir, *, features=None, stage=None, **config):
    """Train, and return the state and what was logged."""
    output_dir.mkdir(exist_ok=True)
    config = FinetuneConfig(**{"logging_steps": 1, "eval_steps": 1000, "save_steps": 0, "max_grad_norm": 0.0} | config)
    features = features or make_features()
    stage, evaluate = stage or make_stage(supernet)
    stage = replace(stage, config=config, output_dir=output_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate_subnets", lambda *_, **__: evaluate())
        state = fit(stage, Split(features, features, "holdout", None), settings={})
    return state, [json.loads(line) for line in (output_dir / "train.jsonl").read_text().splitlines()]


def scale_gradients(losses, factor):
    """The losses as they are, with their gradients multiplied by a factor."""
    for parts in losses:
        parts["loss"].register_hook(lambda gradient: gradient * factor)
        yield {"loss": parts["loss"] * 1.0}


def difference(before, after):
    """All changes of weights in one vector."""
    return np.concatenate([(after[name] - before[name]).ravel() for name in sorted(before)])


def gradient_step(output_dir, *, stage=None, **config):
    """The vector that one step of gradient descent adds to a fresh model's weights."""
    supernet = make_supernet()
    before = to_arrays(supernet.model)
    stage = stage(supernet) if stage else None
    run(supernet, output_dir, stage=stage, **{"max_steps": 1, "per_device_train_batch_size": 8} | config)
    after = to_arrays(supernet.model)
    return difference(before, after)


@pytest.mark.parametrize(
    ("rows", "settings", "steps"),
    [
        (8, {"per_device_train_batch_size": 4, "num_train_epochs": 3}, 6),
        (9, {"per_device_train_batch_size": 4, "num_train_epochs": 1}, 3),
        (9, {"per_device_train_batch_size": 4, "num_train_epochs": 2, "gradient_accumulation_steps": 2}, 4),
        (8, {"per_device_train_batch_size": 4, "num_train_epochs": 0.5}, 1),
        (8, {"per_device_train_batch_size": 4, "num_train_epochs": 0.01}, 1),
        (8, {"per_device_train_batch_size": 4, "num_train_epochs": 3, "max_steps": 2}, 2),
    ],
)
def test_number_of_steps_follows_from_epochs_or_max_steps(tmp_path, rows, settings, steps):
    state, lines = run(make_supernet(), tmp_path, features=make_features(rows), **settings)
    assert state.step == steps
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, steps + 1))


def test_an_epoch_reads_every_example_once_and_in_its_own_order(tmp_path):
    seen = defaultdict(list)
    supernet = make_supernet()

    def step(model, shard, *, index, state):
        seen[index].append(shard.inputs["input_ids"].numpy())
        yield from full_model_step(model, shard, index=index, state=state)

    features = make_features(12)
    run(
        supernet,
        tmp_path,
        features=features,
        stage=make_stage(supernet, step=step),
        per_device_train_batch_size=4,
        num_train_epochs=2,
    )
    expected = sorted(map(tuple, features.input_ids.reshape(12, -1).tolist()))
    epochs = [
        np.concatenate([rows for step in steps for rows in seen[step]]).tolist() for steps in (range(3), range(3, 6))
    ]
    assert [sorted(map(tuple, epoch)) for epoch in epochs] == [expected, expected]
    assert epochs[0] != epochs[1]


def test_learning_rate_rises_then_decays_linearly_to_zero(tmp_path):
    _, lines = run(make_supernet(), tmp_path, max_steps=10, warmup_ratio=0.2, learning_rate=1.6e-4)
    # Two steps up to the peak, then eight equal steps down; the last would reach 0 after the end.
    expected = [0.8e-4, 1.6e-4, *(1.6e-4 * k / 8 for k in (8, 7, 6, 5, 4, 3, 2, 1))]
    np.testing.assert_allclose([line["train/learning_rate"] for line in lines if "train/loss" in line], expected)


def test_learning_rate_without_warmup_starts_at_the_peak(tmp_path):
    _, lines = run(make_supernet(), tmp_path, max_steps=4, learning_rate=4e-4)
    assert [line["train/learning_rate"] for line in lines if "train/loss" in line] == pytest.approx(
        [4e-4, 3e-4, 2e-4, 1e-4]
    )


def test_learning_rate_that_is_logged_is_the_one_that_is_used(tmp_path):
    supernet = make_supernet()
    before = to_arrays(supernet.model)
    _, lines = run(supernet, tmp_path, max_steps=1, warmup_ratio=0.0, learning_rate=3e-3)
    # Adam's first step moves a weight by the learning rate, as far as its gradient is above epsilon.
    assert np.abs(difference(before, to_arrays(supernet.model))).max() == pytest.approx(3e-3, rel=1e-3)
    assert lines[0]["train/learning_rate"] == pytest.approx(3e-3)


def test_accumulating_two_batches_equals_one_of_twice_the_size(tmp_path):
    whole = gradient_step(tmp_path / "whole", per_device_train_batch_size=8, **GRADIENT_DESCENT)
    halves = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    accumulated = gradient_step(tmp_path / "halves", **halves, **GRADIENT_DESCENT)
    assert np.abs(whole).max() > 1e-2
    np.testing.assert_allclose(accumulated, whole, atol=1e-6)


def test_accumulated_batches_weigh_their_rows_as_the_whole_batch_does(tmp_path):
    """The batches of a step hold rows of other classes, and so other weights."""
    weights = {"class_weights": {"no": 5}, **GRADIENT_DESCENT}
    whole = gradient_step(tmp_path / "whole", per_device_train_batch_size=8, **weights)
    halves = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    np.testing.assert_allclose(gradient_step(tmp_path / "halves", **halves, **weights), whole, atol=1e-6)
    plain = gradient_step(tmp_path / "plain", per_device_train_batch_size=8, **GRADIENT_DESCENT)
    assert np.abs(whole - plain).max() > 1e-2


@pytest.mark.parametrize("settings", [{"class_weights": {"no": 2, "yes": 2}}, {"class_weights": "balanced"}])
def test_weights_that_weigh_nothing_change_no_bit(tmp_path, settings):
    weights, logs = [], []
    for name, values in (("a", {}), ("b", settings)):
        supernet = make_supernet(dropout=0.1)
        _, lines = run(supernet, tmp_path / name, max_steps=3, learning_rate=1e-3, **values)
        weights.append(to_arrays(supernet.model))
        logs.append(lines)
    assert not difference(*weights).any()
    assert logs[0] == logs[1]


def test_accumulated_loss_is_the_mean_of_its_batches(tmp_path):
    _, whole = run(make_supernet(), tmp_path / "a", max_steps=1, per_device_train_batch_size=8)
    _, halves = run(
        make_supernet(), tmp_path / "b", max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    assert halves[0]["train/loss"] == pytest.approx(whole[0]["train/loss"], abs=1e-6)


def every_width(supernet):
    """A stage that trains four sub-networks in each step."""
    space = supernet.search_space(depth_mults=(1.0,))
    step = label_step(space.grid(), FinalConfig())
    return make_stage(supernet, step=step)


@pytest.mark.parametrize("stage", [None, every_width])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_clipping_acts_on_the_summed_gradients(tmp_path, stage, accumulation):
    settings = {
        "per_device_train_batch_size": 8 // accumulation,
        "gradient_accumulation_steps": accumulation,
        **GRADIENT_DESCENT,
    }
    free = gradient_step(tmp_path / "free", stage=stage, **settings)
    norm = np.linalg.norm(free)
    assert norm > 0.5
    clipped = gradient_step(tmp_path / "clipped", stage=stage, max_grad_norm=float(norm / 4), **settings)
    np.testing.assert_allclose(clipped, free / 4, atol=1e-3 * np.abs(free).max())
    loose = gradient_step(tmp_path / "loose", stage=stage, max_grad_norm=float(norm * 1.01), **settings)
    np.testing.assert_allclose(loose, free, atol=1e-6)


def test_weight_decay_spares_biases_and_norms(tmp_path):
    supernet = make_supernet()

    def step(model, shard, *, index, state):
        yield {"loss": 0 * model(**shard.inputs).logits.sum()}

    before = to_arrays(supernet.model)
    run(supernet, tmp_path, stage=make_stage(supernet, step=step), max_steps=1, weight_decay=0.5, learning_rate=0.1)
    for name, after in to_arrays(supernet.model).items():
        spared = name.endswith("bias") or "norm" in name
        np.testing.assert_allclose(after, before[name] * (1 if spared else 1 - 0.1 * 0.5), rtol=1e-5, err_msg=name)


def test_best_weights_are_kept_and_left_in_the_model(tmp_path):
    supernet = make_supernet()
    scores, snapshots = iter([0.1, 0.9, 0.9, 0.5]), []

    def evaluate():
        snapshots.append(to_arrays(supernet.model))
        return {"w1.00d1.00": {"accuracy": next(scores)}}

    state, lines = run(
        supernet,
        tmp_path,
        stage=make_stage(supernet, evaluate=evaluate),
        max_steps=4,
        eval_steps=1,
        learning_rate=1e-2,
    )
    # Of equal scores the first one counts.
    assert (state.best_step, state.best_score, state.best_metrics) == (2, 0.9, {"w1.00d1.00": {"accuracy": 0.9}})
    left = to_arrays(supernet.model)
    assert all(np.array_equal(left[name], snapshots[1][name]) for name in left)
    assert np.abs(difference(snapshots[1], snapshots[3])).max() > 1e-3
    assert [line["eval/accuracy/w1.00d1.00"] for line in lines if "train/loss" not in line] == [0.1, 0.9, 0.9, 0.5]


def test_an_average_of_the_weights_is_scored_and_kept_and_changes_no_step(tmp_path):
    plain = make_supernet(dropout=0.1)
    _, lines = run(plain, tmp_path / "plain", max_steps=5, learning_rate=1e-2)
    averaged, scored_weights = make_supernet(dropout=0.1), []

    def evaluate():
        scored_weights.append(to_arrays(averaged.model))
        return {"w1.00d1.00": {"accuracy": 0.5}}

    stage = make_stage(averaged, evaluate=evaluate)
    _, own = run(averaged, tmp_path / "averaged", stage=stage, max_steps=5, learning_rate=1e-2, ema_decay=0.9)
    assert [line for line in own if "train/loss" in line] == [line for line in lines if "train/loss" in line]
    last = read_safetensors(tmp_path / "averaged/checkpoint-5/model.safetensors")
    assert not difference(last, to_arrays(plain.model)).any(), "training goes on from the weights, not their average"
    left = to_arrays(averaged.model)
    assert not difference(left, scored_weights[-1]).any()
    assert not difference(left, read_safetensors(tmp_path / "averaged/checkpoint-5/average.safetensors")).any()
    assert np.abs(difference(left, last)).max() > 1e-3
    assert not (tmp_path / "plain/checkpoint-5/average.safetensors").exists()


def test_a_killed_run_goes_on_with_its_average(tmp_path):
    settings = {"max_steps": 6, "learning_rate": 1e-2, "ema_decay": 0.9}
    whole = make_supernet(dropout=0.1)
    run(whole, tmp_path / "whole", **settings)
    killed = make_supernet(dropout=0.1)
    with pytest.raises(MemoryError):
        run(killed, tmp_path / "killed", stage=kill_at(4, killed), **settings, save_steps=1)
    resumed = make_supernet(dropout=0.1, seed=9)
    run(resumed, tmp_path / "killed", **settings)
    assert not difference(to_arrays(resumed.model), to_arrays(whole.model)).any()


def scored(supernet, scores):
    """A stage whose evaluations have these scores."""
    values = iter(scores)
    return make_stage(supernet, evaluate=lambda: {"w1.00d1.00": {"accuracy": next(values)}})


# The second score is the best one: a patience of 2 ends after the evaluation with the fourth, at step 8.
PATIENT = {"max_steps": 20, "eval_steps": 2, "early_stopping_patience": 2, "learning_rate": 1e-3}
SCORES = [0.1, 0.7, 0.2, 0.7, 0.9]


def test_a_stage_stops_after_evaluations_without_a_better_score(tmp_path, caplog):
    supernet = make_supernet(dropout=0.1)
    with caplog.at_level("INFO", logger="dynabert_paddle"):
        state, lines = run(supernet, tmp_path / "stopped", stage=scored(supernet, SCORES), **PATIENT)
    assert (state.step, state.best_step, state.best_score) == (8, 4, 0.7)
    assert "stopped early after step 8 of 20: the last 2 evaluations had no better accuracy than 0.7000 at step 4" in (
        caplog.text
    )
    # The learning rate goes as if the stage would not stop, and the weights are those of step 4 of such a run.
    rates = [line["train/learning_rate"] for line in lines if "train/loss" in line]
    assert rates == pytest.approx([1e-3 * (20 - step) / 20 for step in range(8)])
    patient = make_supernet(dropout=0.1)
    _, whole = run(
        patient,
        tmp_path / "whole",
        stage=scored(patient, [0, 1] + [0] * 9),
        **PATIENT | {"early_stopping_patience": None},
    )
    assert [line for line in whole if "train/loss" in line][:8] == [line for line in lines if "train/loss" in line]
    assert not difference(to_arrays(supernet.model), to_arrays(patient.model)).any()


@pytest.mark.parametrize(("scores", "steps"), [([0.1, 0.2, 0.3, 0.4, 0.5], 5), ([0.5, 0.5, 0.6, 0.6, 0.6], 5)])
def test_a_better_score_starts_the_patience_anew(tmp_path, scores, steps):
    supernet = make_supernet()
    settings = {"max_steps": 5, "eval_steps": 1, "early_stopping_patience": 2}
    state, _ = run(supernet, tmp_path, stage=scored(supernet, scores), **settings)
    assert state.step == steps


@pytest.mark.parametrize("killed_at", [3, 5, 8])
def test_a_killed_run_stops_early_where_an_uninterrupted_one_does(tmp_path, killed_at):
    whole = make_supernet(dropout=0.1)
    _, whole_lines = run(whole, tmp_path / "whole", stage=scored(whole, SCORES), **PATIENT)
    killed = make_supernet(dropout=0.1)
    stage = (kill_at(killed_at, killed)[0], scored(killed, SCORES)[1])
    with pytest.raises(MemoryError):
        run(killed, tmp_path / "killed", stage=stage, **PATIENT, save_steps=1)
    resumed = make_supernet(dropout=0.1, seed=9)
    stage = scored(resumed, SCORES[(killed_at - 1) // 2 :])
    state, lines = run(resumed, tmp_path / "killed", stage=stage, **PATIENT)
    assert state.step == 8
    assert lines == whole_lines
    assert not difference(to_arrays(resumed.model), to_arrays(whole.model)).any()


def test_a_run_that_was_killed_once_it_had_stopped_early_does_no_further_step(tmp_path):
    whole = make_supernet()
    run(whole, tmp_path, stage=scored(whole, SCORES), **PATIENT)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-8"]
    resumed = make_supernet(seed=9)
    state, _ = run(resumed, tmp_path, stage=kill_at(9, resumed), **PATIENT)
    assert (state.step, state.best_step) == (8, 4)
    assert not difference(to_arrays(resumed.model), to_arrays(whole.model)).any()


def test_evaluations_of_a_part_without_a_score_of_its_own_do_not_stop_a_stage(tmp_path):
    """TinyBERT's layers are trained before the prediction that is scored."""
    supernet = make_supernet()
    stage, evaluate = scored(supernet, [0.5] * 9)
    settings = {"max_steps": 9, "eval_steps": 1, "early_stopping_patience": 2}
    state, _ = run(supernet, tmp_path, stage=(replace(stage, scored_from_step=4), evaluate), **settings)
    assert state.step == 6


@pytest.mark.parametrize("eval_steps", [20, 21])
def test_early_stopping_without_an_evaluation_before_the_end_is_refused(eval_steps):
    config = FinetuneConfig(max_steps=20, eval_steps=eval_steps, early_stopping_patience=1)
    stage = replace(make_stage(make_supernet())[0], config=config)
    with pytest.raises(
        UsageError, match=rf"eval_steps is {eval_steps} and finetune has 20 steps, so that no evaluation"
    ):
        check_early_stopping(stage, 100)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"max_steps": 20, "eval_steps": 5, "early_stopping_patience": 2}, False),  # best at 5, stopped at 15
        ({"max_steps": 20, "eval_steps": 5, "early_stopping_patience": 3}, True),
        ({"max_steps": 21, "eval_steps": 5, "early_stopping_patience": 3}, False),
        ({"num_train_epochs": 1, "early_stopping_patience": 1}, True),
        ({"num_train_epochs": 3, "early_stopping_patience": 1}, False),
        ({"num_train_epochs": 1}, False),
    ],
)
def test_a_patience_that_no_evaluations_can_wear_out_is_told(caplog, settings, warned):
    stage = replace(make_stage(make_supernet())[0], config=FinetuneConfig(**settings))
    check_early_stopping(stage, 320)
    assert ("early_stopping_patience" in caplog.text) is warned


def test_best_is_the_mean_over_sub_networks(tmp_path):
    supernet = make_supernet()
    scores = iter([(0.9, 0.1), (0.6, 0.6), (0.95, 0.1)])

    def evaluate():
        return {name: {"accuracy": value} for name, value in zip("ab", next(scores), strict=True)}

    stage = make_stage(supernet, evaluate=evaluate)
    state, _ = run(supernet, tmp_path, stage=stage, max_steps=3, eval_steps=1)
    assert (state.best_step, state.best_score) == (2, pytest.approx(0.6))


def test_evaluation_is_due_once_an_epoch_by_default_and_at_the_end(tmp_path):
    settings = {"per_device_train_batch_size": 4, "max_steps": 5, "eval_steps": 0}
    _, lines = run(make_supernet(), tmp_path, **settings)  # two steps an epoch
    assert [line["step"] for line in lines if "train/loss" not in line] == [2, 4, 5]


def test_loss_goes_down_until_a_toy_task_is_learned(tmp_path):
    supernet = make_supernet(dropout=0.1)
    features = make_features(64)
    features.input_ids.reshape(64, -1)[:, 1] = 5 + features.labels  # the second token is the label
    _, lines = run(
        supernet, tmp_path, features=features, max_steps=60, learning_rate=3e-3, per_device_train_batch_size=16
    )
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert np.mean(losses[:3]) > 0.5
    assert np.mean(losses[-3:]) < 0.1


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_on_a_cpu_trains_and_says_that_it_changes_nothing(tmp_path, caplog, recwarn, amp):
    """Paddle's autocast works on GPUs alone; elsewhere it warns in its developers' words and computes in float32."""
    losses = {}
    for setting in ("off", amp):
        supernet = make_supernet()
        with caplog.at_level("INFO", logger="dynabert_paddle"):
            _, lines = run(supernet, tmp_path / setting, amp=setting, max_steps=3, learning_rate=1e-3)
        losses[setting] = [line["train/loss"] for line in lines if "train/loss" in line]
        assert {array.dtype for array in to_arrays(supernet.model).values()} == {np.dtype("float32")}
        said = [record.getMessage() for record in caplog.records if "amp" in record.getMessage()]
        assert len(said) == (0 if setting == "off" else 1), said
    assert losses[amp] == losses["off"]
    assert not [str(warning.message) for warning in recwarn if "amp_guard" in str(warning.message)]


def test_runs_are_equal_with_the_same_seed_and_differ_with_another(tmp_path):
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        supernet = make_supernet(dropout=0.1)
        run(supernet, tmp_path / name, max_steps=3, per_device_train_batch_size=4, seed=seed, learning_rate=1e-3)
        weights.append(to_arrays(supernet.model))
    assert not difference(weights[0], weights[1]).any()
    assert difference(weights[0], weights[2]).any()


def stop_with(number, *, at, supernet):
    """A step that gets a signal while it works."""

    def step(model, shard, *, index, state):
        if index + 1 == at and model is supernet:
            os.kill(os.getpid(), number)
        yield from full_model_step(model, shard, index=index, state=state)

    return make_stage(supernet, step=step)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path, number, exit_code):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    supernet = make_supernet(dropout=0.1)
    stage = stop_with(number, at=3, supernet=supernet)
    with pytest.raises(Interrupted, match="stopped after step 3 of 6") as caught:
        run(supernet, tmp_path / "stopped", stage=stage, max_steps=6, learning_rate=1e-3)
    assert caught.value.exit_code == exit_code
    assert [path.name for path in (tmp_path / "stopped").glob("checkpoint-*")] == ["checkpoint-3"]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers

    resumed = make_supernet(dropout=0.1, seed=9)  # other weights, which the checkpoint replaces
    state, lines = run(resumed, tmp_path / "stopped", max_steps=6, learning_rate=1e-3)
    whole = make_supernet(dropout=0.1)
    _, whole_lines = run(whole, tmp_path / "whole", max_steps=6, learning_rate=1e-3)
    assert state.step == 6
    assert not difference(to_arrays(resumed.model), to_arrays(whole.model)).any()
    assert lines == whole_lines


def test_a_signal_that_comes_while_the_handlers_are_set_is_kept(monkeypatch):
    def set_handler(number, handler):
        before = install(number, handler)
        if number == signal.SIGTERM and getattr(handler, "__name__", "") == "request":
            signal.raise_signal(number)
        return before

    install = signal.signal
    before = install(signal.SIGTERM, lambda *_: None)
    monkeypatch.setattr(signal, "signal", set_handler)
    try:
        with loop._stop_requests() as requests:
            assert requests == [signal.SIGTERM]
    finally:
        install(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_last_step_stops_the_chain(tmp_path, number):
    """A chain of stages must not go on to its next stage, for hours, after it was asked to stop."""
    supernet = make_supernet()
    heard = []
    before = signal.signal(number, lambda *_: heard.append(True))
    try:
        run(supernet, tmp_path, stage=stop_with(number, at=2, supernet=supernet), max_steps=2)
    except Interrupted:
        heard.append(True)
    finally:
        signal.signal(number, before)
    assert heard


def test_a_signal_after_the_last_step_is_not_lost(tmp_path, monkeypatch):
    """It comes after the last step has looked, and before the handlers of before are back."""
    agreed = loop._agree

    def late(stop, is_due):
        found = agreed(stop, is_due)
        if (tmp_path / "train.jsonl").read_text().count("train/loss") == 3:
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(loop, "_agree", late)
    with pytest.raises(KeyboardInterrupt):
        run(make_supernet(), tmp_path, max_steps=3, logging_steps=1)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


def kill_at(step, supernet):
    """A stage that ends without a checkpoint, as kill -9 ends it."""

    def lose(model, shard, *, index, state):
        if index + 1 == step:
            raise MemoryError
        yield from full_model_step(model, shard, index=index, state=state)

    return make_stage(supernet, step=lose)


def test_a_checkpoint_is_written_by_time_too(tmp_path, monkeypatch):
    """A stage whose 500 steps take hours lost them all."""
    ticks = itertools.count(0, 61)
    clock = SimpleNamespace(monotonic=lambda: next(ticks), perf_counter=time.perf_counter)
    monkeypatch.setattr(loop, "time", clock)
    supernet = make_supernet()
    with pytest.raises(MemoryError):
        run(supernet, tmp_path, stage=kill_at(4, supernet), max_steps=6, save_minutes=2)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    # A resumed stage need not repeat the setting.
    state, _ = run(make_supernet(seed=9), tmp_path, max_steps=6, save_minutes=0)
    assert state.step == 6
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]


def test_a_restart_that_finds_no_checkpoint_says_so(tmp_path, caplog):
    supernet = make_supernet()
    with pytest.raises(MemoryError):
        run(supernet, tmp_path, stage=kill_at(2, supernet), max_steps=3)
    said = "an earlier run has left no checkpoint: beginning with the first step"
    assert said not in caplog.text
    run(make_supernet(), tmp_path, max_steps=3)
    assert said in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_at_the_start_does_not_stop_a_run(tmp_path, number):
    """As nohup ignores SIGHUP, and a shell Ctrl-C for a job in the background."""
    supernet = make_supernet()
    before = signal.signal(number, signal.SIG_IGN)
    try:
        state, _ = run(supernet, tmp_path, stage=stop_with(number, at=2, supernet=supernet), max_steps=3)
    finally:
        signal.signal(number, before)
    assert state.step == 3


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    supernet = make_supernet()
    finished = []

    def step(model, shard, *, index, state):
        if model is supernet:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # two at once would be one
            os.kill(os.getpid(), signal.SIGINT)
        yield from full_model_step(model, shard, index=index, state=state)
        finished.append(index)

    with pytest.raises(KeyboardInterrupt):
        run(supernet, tmp_path, stage=make_stage(supernet, step=step), max_steps=3)
    assert set(finished) <= {0}  # what other threads were at ends


def test_training_works_outside_of_the_main_thread(tmp_path):
    states = []
    thread = threading.Thread(target=lambda: states.append(run(make_supernet(), tmp_path, max_steps=2)[0]))
    thread.start()
    thread.join()
    assert states[0].step == 2


@pytest.mark.parametrize("save_steps", [1, 2])
def test_a_loss_that_is_not_finite_stops_and_leaves_a_good_checkpoint(tmp_path, save_steps):
    """The message promises that the last checkpoint's weights are good."""
    supernet = make_supernet()

    def step(model, shard, *, index, state):
        losses = full_model_step(model, shard, index=index, state=state)
        yield from scale_gradients(losses, float("inf") if index == 3 else 1.0)

    stage = make_stage(supernet, step=step)
    with pytest.raises(DynabertError, match=r"(?i)(loss|gradient).*step [45]\b"):
        run(supernet, tmp_path, stage=stage, max_steps=8, save_steps=save_steps)
    checkpoint = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    weights = read_safetensors(checkpoint / "model.safetensors")
    assert all(np.isfinite(array).all() for array in weights.values()), checkpoint.name


def test_a_nan_loss_names_the_step_and_the_remedy(tmp_path):
    supernet = make_supernet()

    def step(model, shard, *, index, state):
        for losses in full_model_step(model, shard, index=index, state=state):
            yield {"loss": losses["loss"] * float("nan")} if index == 4 else losses

    with pytest.raises(DynabertError, match=r"the loss is nan at step 5;.*lower the learning rate \(0\.001\)"):
        run(supernet, tmp_path, stage=make_stage(supernet, step=step), max_steps=8, save_steps=2, learning_rate=1e-3)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-4"]


def test_weights_that_broke_in_the_last_step_are_not_called_finished(tmp_path):
    """The loss of the last step is finite, its update is not: nothing good is left to save."""
    supernet = make_supernet()

    def step(model, shard, *, index, state):
        yield from scale_gradients(full_model_step(model, shard, index=index, state=state), float("inf"))

    with pytest.raises(DynabertError):
        run(supernet, tmp_path, stage=make_stage(supernet, step=step), max_steps=1)


def test_evaluation_leaves_dropout_on(tmp_path):
    supernet = make_supernet(dropout=0.1)
    modes = []

    def step(model, shard, *, index, state):
        modes.append((index, model.training and model.model.training))
        yield from full_model_step(model, shard, index=index, state=state)

    run(supernet, tmp_path, stage=make_stage(supernet, step=step), max_steps=3, eval_steps=1)
    assert set(modes) == {(0, True), (1, True), (2, True)}


def test_each_process_has_as_many_replicas_as_the_one_with_the_fewest_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "count_replicas", lambda: 3)
    monkeypatch.setattr(loop.processes, "gather", lambda own: [own, 2])
    supernet, seen = make_supernet(), []

    def step(model, shard, *, index, state):
        seen.append(shard.weight.rows)
        yield from full_model_step(model, shard, index=index, state=state)

    run(supernet, tmp_path, stage=make_stage(supernet, step=step), max_steps=1)
    assert seen == [0.5, 0.5]


def test_steps_of_paddle_generator_follow_from_the_step_alone(tmp_path, monkeypatch):
    """What was drawn before a step, by an evaluation or another stage, must not change it."""
    monkeypatch.setattr(loop, "count_replicas", lambda: 1)  # for there is one generator
    draws = []

    def watch(name, noise):
        supernet = make_supernet(dropout=0.1)

        def step(model, shard, *, index, state):
            draws.append(paddle.rand([1]).item())
            paddle.rand([noise])
            yield from full_model_step(model, shard, index=index, state=state)

        run(supernet, tmp_path / name, stage=make_stage(supernet, step=step), max_steps=2)

    watch("a", 1)
    watch("b", 7)
    assert draws[:2] == draws[2:]
    assert draws[0] != draws[1]
