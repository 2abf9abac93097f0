"""The weights of classes: scikit-learn's balance, weights by name, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from dynabert_paddle.config.loading import parse_yaml
from dynabert_paddle.config.settings import FinetuneConfig, WidthConfig
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.errors import UsageError
from dynabert_paddle.training.class_weights import check_label_loss, find_class_weights

LABELS = ("neg", "neutral", "pos")
TARGETS = np.array([0] * 12 + [1] * 3 + [2])


def make_task(kind="classification", labels=LABELS):
    return SimpleNamespace(kind=kind, labels=labels)


def find(given, targets=TARGETS, labels=LABELS):
    return find_class_weights(
        make_task(labels=labels), FinetuneConfig(class_weights=given), targets, section="finetune"
    )


def test_balanced_weights_are_scikit_learns():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS)
    np.testing.assert_allclose(find("balanced"), expected, rtol=1e-6)


def test_a_class_that_does_not_occur_takes_no_part_in_the_balance():
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=TARGETS[:15])
    np.testing.assert_allclose(find("balanced", TARGETS[:15]), [*expected, 0], rtol=1e-6)


def test_tokens_that_are_no_words_first_are_not_counted():
    padded = np.concatenate([TARGETS, np.full(50, IGNORED)])
    np.testing.assert_array_equal(find("balanced", padded), find("balanced"))


@pytest.mark.parametrize(
    ("given", "ratios"),
    [
        ({"pos": 8, "neutral": 2.5, "neg": 1}, (1, 2.5, 8)),
        ({"pos": 8}, (1, 1, 8)),  # a label that is not named has the weight 1
        ({"neg": 0, "pos": 0.5}, (0, 1, 0.5)),
    ],
)
def test_weights_by_name_keep_their_ratios_and_have_a_mean_of_1_over_the_rows(given, ratios):
    weights = find(given)
    assert weights[TARGETS].mean() == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(weights * max(ratios), np.array(ratios) * weights.max(), rtol=1e-6)


@pytest.mark.parametrize("given", [None, {}, {"neg": 1, "pos": 1}, {"neg": 0.1, "neutral": 0.1, "pos": 0.1}])
def test_equal_weights_are_none(given):
    assert find(given) is None


def test_balanced_data_needs_no_weights():
    assert find("balanced", np.repeat([0, 1, 2], 5)) is None


def test_numbers_and_booleans_name_labels_as_data_files_do():
    weights = find({1: 3, 0: 1}, TARGETS[:15], labels=("0", "1"))
    assert weights[1] / weights[0] == pytest.approx(3)
    assert find({1.0: 3}, TARGETS[:15], labels=("0", "1"))[1] == weights[1]
    weights = find({True: 2, False: 1}, TARGETS[:15], labels=("false", "true"))
    assert weights[1] / weights[0] == pytest.approx(2)


@pytest.mark.parametrize(
    ("written", "labels", "heavy"),
    [
        ("{yes: 3, no: 1}", ("no", "yes"), 1),
        ("{False: 3}", ("False", "True"), 0),
        ("{null: 3}", ("null", "other"), 0),
        ("{on: 3, 'off': 1}", ("off", "on"), 1),
    ],
)
def test_names_that_yaml_reads_as_values_name_the_label_that_is_written_so(written, labels, heavy):
    weights = find(parse_yaml(written, "test"), TARGETS[:15], labels=labels)
    assert weights[heavy] / weights[1 - heavy] == pytest.approx(3)


def test_a_value_of_yaml_that_two_labels_are_written_as_is_refused():
    with pytest.raises(UsageError, match="names 'true', which is not one of the task's labels, 'on', 'yes'"):
        find({True: 2}, TARGETS[:15], labels=("on", "yes"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"positive": 2},
            r"finetune\.class_weights names 'positive', .* 'neg', 'neutral', 'pos': correct or remove it",
        ),
        ({"nutral": 2}, "Did you mean 'neutral'"),
        ({"neg": 0, "neutral": 0, "pos": 0}, "is 0 for every label of the training rows"),
    ],
)
def test_weights_that_fit_no_label_are_refused(given, words):
    with pytest.raises(UsageError, match=words):
        find(given)


def test_two_ways_to_write_one_label_are_refused():
    with pytest.raises(UsageError, match="names one label twice, '1' and '1.0'"):
        find({"1": 2, "1.0": 3}, TARGETS[:15], labels=("0", "1"))
    with pytest.raises(UsageError, match="class_weights names a label twice"):
        FinetuneConfig(class_weights={1: 2, "1": 3})


@pytest.mark.parametrize("name", ["class_weights", "focal_gamma", "label_smoothing"])
@pytest.mark.parametrize("kind", ["regression", "question_answering"])
def test_tasks_without_classes_are_refused(kind, name):
    config = FinetuneConfig(**{name: {"class_weights": "balanced", "focal_gamma": 2.0, "label_smoothing": 0.1}[name]})
    with pytest.raises(UsageError, match=rf"final\.{name} is for classification, .*, this task is {kind}"):
        check_label_loss(make_task(kind, ()), config, section="final")
    check_label_loss(make_task(kind, ()), FinetuneConfig(), section="final")
    check_label_loss(make_task(kind, ()), WidthConfig(), section="width")


SETS = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 1]], dtype=bool)  # all texts have the first


def test_each_of_several_labels_is_balanced_as_a_question_of_its_own():
    weights = find("balanced", SETS)
    for label in range(3):
        classes = np.unique(SETS[:, label])
        expected = compute_class_weight("balanced", classes=classes, y=SETS[:, label])
        np.testing.assert_allclose(weights[label, classes.astype(int)], expected, rtol=1e-6)
    assert weights[0, 0] == 0


def test_a_weight_by_name_is_that_of_the_texts_with_the_label():
    weights = find({"neutral": 4}, SETS)
    np.testing.assert_allclose(weights[:, 1] / weights[0, 1], [1, 4, 1], rtol=1e-6)
    np.testing.assert_allclose(weights[1:, 0], weights[0, 1], rtol=1e-6)
    assert weights[np.arange(3), SETS.astype(int)].mean() == pytest.approx(1, rel=1e-6)
    assert find({"neutral": 1}, SETS) is None
