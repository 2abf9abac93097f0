"""A stage whose full model ends below its start by more than chance is told of."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_bert

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.config.settings import FinetuneConfig
from dynabert_paddle.data.features import Features
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.checkpoint import TrainState
from dynabert_paddle.training.inputs import Split
from dynabert_paddle.training.stage import Stage
from dynabert_paddle.training.start_score import describe_decline, score_full_model
from dynabert_paddle.training.steps import full_model_step


def make_features(num):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 50, num * 4).astype("int32")
    return Features(ids, np.zeros(num * 4, dtype="uint8"), np.arange(0, num * 4 + 1, 4), np.arange(num) % 2)


@pytest.fixture(scope="module")
def supernet():
    return Supernet(make_bert(num_labels=2, num_layers=2, vocab_size=50))


def make_stage(supernet, *, metric="accuracy", subnets=None, section=None):
    return Stage(
        name="width",
        model=supernet,
        task=SimpleNamespace(metrics=(metric,)),
        step=full_model_step,
        subnets=subnets or {**supernet.search_space().grid()},
        config=FinetuneConfig(),
        output_dir=Path(),
        config_section=section,
    )


def decline(supernet, before, after, *, num=500, metric="accuracy", section=None):
    features = make_features(num)
    state = TrainState(best_metrics={"w1.00d1.00": {metric: after}, "w0.50d1.00": {metric: 1.0}})
    stage = make_stage(supernet, metric=metric, section=section)
    return describe_decline(stage, Split(features, features, "holdout", None), before, state)


@pytest.mark.parametrize(
    "before, after, num, metric",
    [
        (0.498, 0.442, 500, "accuracy"),  # twice the standard error is 0.0446, and a row 0.002
        (0.442, 0.394, 500, "macro_f1"),
        (1.0, 0.98, 1000, "accuracy"),
        (0.9, 0.85, 500, "pearson"),
        (0.1, -0.2, 200, "matthews"),
    ],
)
def test_a_lower_score_is_warned_about(supernet, before, after, num, metric):
    message = decline(supernet, before, after, num=num, metric=metric)
    assert f"width: the full model has {metric} {after:.4f} on holdout" in message
    assert f"began with {before:.4f}" in message


@pytest.mark.parametrize(
    "section, advice",
    [
        (None, "train longer (width.num_train_epochs or width.max_steps), or with a lower width.learning_rate than "),
        ("compress", "train longer (finetune_steps), or with a lower learning_rate than 2e-05"),
        ("search", "train longer (finetune_steps)"),
    ],
)
def test_the_advice_names_only_settings_that_the_verb_has(supernet, section, advice):
    message = decline(supernet, 0.9, 0.5, section=section)
    assert advice in message
    assert ("learning_rate" in message) == (section != "search")


@pytest.mark.parametrize(
    "before, after, num, metric",
    [
        (0.5, 0.5, 500, "accuracy"),
        (0.4, 0.6, 500, "accuracy"),
        (0.5, 0.46, 500, "accuracy"),
        (1.0, 0.996, 500, "accuracy"),  # two rows
        (1.0, 0.9, 10, "accuracy"),  # one row
        (0.1, -0.1, 50, "pearson"),
        (None, 0.1, 500, "accuracy"),
    ],
)
def test_a_difference_that_may_be_chance_is_not(supernet, before, after, num, metric):
    assert decline(supernet, before, after, num=num, metric=metric) is None


def test_the_score_is_that_of_the_full_model_and_changes_nothing(supernet):
    features, before = make_features(40), to_arrays(supernet.model)
    split = Split(features, features, "holdout", None)
    score = score_full_model(make_stage(supernet), split)
    assert score == score_full_model(make_stage(supernet, subnets={"any": supernet.full}), split)
    assert 0 < score < 1
    for name, array in to_arrays(supernet.model).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_stage_without_the_full_model_has_no_such_score(supernet):
    features = make_features(4)
    small = supernet.search_space().subnet(width_mult=0.5, depth_mult=1)
    assert (
        score_full_model(make_stage(supernet, subnets={"half": small}), Split(features, features, "dev", None)) is None
    )


def test_weights_that_are_not_finite_have_no_score():
    supernet, features = Supernet(make_bert(num_labels=2, num_layers=2, vocab_size=50)), make_features(4)
    supernet.model.classifier.bias.set_value(supernet.model.classifier.bias * float("nan"))
    assert score_full_model(make_stage(supernet), Split(features, features, "dev", None)) is None
