"""Which labels a bundle of several labels a text predicts, and how thresholds are given."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from dynabert_paddle.bundle.label_choice import LabelChoice, parse_threshold
from dynabert_paddle.bundle.manifest import BundleError, check_description
from dynabert_paddle.bundle.rows import RowEncoder
from dynabert_paddle.text.decode import LabelSet, column_names, sigmoid
from dynabert_paddle.text.encode import Template

LABELS = ["a", "b", "c"]
THRESHOLDS = {"a": 0.5, "b": 0.9, "c": 0.2}
LOGITS = np.log(np.array([0.4, 0.8, 0.3]) / np.array([0.6, 0.2, 0.7]))  # of the probabilities 0.4, 0.8, 0.3
FULL = "w1.00d1.00"


def describe(labels=LABELS, thresholds=THRESHOLDS, **task):
    return {
        "files": {},
        "format": "paddle",
        "precision": "fp32",
        "pair": False,
        "subnet": FULL,
        "max_seq_length": 16,
        "vocab_size": 9,
        "pad_token_id": 0,
        "task": {"kind": "multi_label", **task},
        "labels": labels,
        "thresholds": thresholds,
    }


def decode(description=None, *, subnet=FULL, threshold=None, top_k=None):
    return LabelChoice(description or describe(), threshold=threshold, top_k=top_k).decode(LOGITS, subnet)


def test_probabilities_are_each_labels_own():
    np.testing.assert_allclose(sigmoid(LOGITS), [0.4, 0.8, 0.3])
    with np.errstate(all="raise", under="ignore"):
        assert sigmoid(np.array([-800.0, 800.0, -40.0])).tolist() == [0.0, 1.0, pytest.approx(np.exp(-40))]


@pytest.mark.parametrize(
    ("threshold", "top_k", "labels"),
    [
        (None, None, ["c"]),
        (0.35, None, ["b", "a"]),
        (0.99, None, []),
        ({"a": 0.1}, None, ["a", "c"]),
        ({"b": 0.79}, None, ["b", "c"]),
        (None, 1, ["b"]),
        (None, 2, ["b", "a"]),
        (None, 9, ["b", "a", "c"]),
        (0.35, 1, ["b"]),
        ({"c": 0.9}, 3, []),  # the others keep the bundle's
        (np.float32(0.35), np.int64(1), ["b"]),
    ],
)
def test_labels_that_reach_their_thresholds_come_the_most_probable_first(threshold, top_k, labels):
    found = decode(threshold=threshold, top_k=top_k)
    assert found.labels == labels
    assert found.scores == pytest.approx({"a": 0.4, "b": 0.8, "c": 0.3})
    assert list(found.scores) == LABELS


def test_sub_networks_have_thresholds_of_their_own():
    description = describe()
    del description["thresholds"], description["subnet"]
    description["members"] = [
        {"subnet": "x", "thresholds": THRESHOLDS},
        {"subnet": "y", "thresholds": {"a": 0.1, "b": 0.1, "c": 0.9}},
    ]
    assert decode(description, subnet="x").labels == ["c"]
    assert decode(description, subnet="y").labels == ["b", "a"]
    assert decode(description, subnet="y", threshold={"a": 0.5}).labels == ["b"]


@pytest.mark.parametrize(
    ("threshold", "top_k", "seen"),
    [
        (1.5, None, "threshold is 1.5: give a number above 0 and below 1"),
        (0, None, "threshold is 0: give"),
        (1.0, None, "threshold is 1.0: give"),
        (float("nan"), None, "threshold is nan: give"),
        ("0.5", None, "threshold is '0.5': give"),
        (True, None, "threshold is True: give"),
        ({"a": -0.1}, None, "threshold is -0.1: give"),
        ({"d": 0.5}, None, "threshold of 'd', which is not one of the bundle's labels, 'a', 'b', 'c'"),
        (None, 0, "top_k is 0: give a whole number of at least 1"),
        (None, 1.5, "top_k is 1.5: give"),
        (None, True, "top_k is True: give"),
    ],
)
def test_values_that_are_not_allowed_are_refused(threshold, top_k, seen):
    with pytest.raises(BundleError, match=seen):
        decode(threshold=threshold, top_k=top_k)


@pytest.mark.parametrize(
    ("words", "threshold"),
    [((), None), (["0.3"], 0.3), (["a=0.3"], {"a": 0.3}), (["a=.3", "b=c=5e-1"], {"a": 0.3, "b=c": 0.5})],
)
def test_thresholds_of_a_command_line(words, threshold):
    assert parse_threshold(words) == threshold


@pytest.mark.parametrize("words", [["2"], ["x"], ["a=1"], ["a="], [""], ["nan"], ["0.3", "0.4"], ["0.3", "a=0.4"]])
def test_thresholds_of_a_command_line_that_are_refused(words):
    with pytest.raises(BundleError, match="^--threshold"):
        parse_threshold(words)
    with pytest.raises(BundleError):
        parse_threshold(words[::-1])


def test_cells_can_be_read_back():
    assert column_names("multi_label") == ["labels", "scores"]
    both = {"threshold": 0.35}
    assert decode(**both).cells == ["b|a", "0.8000|0.4000"]
    assert decode(threshold=0.99).cells == ["", ""]
    assert decode(describe(label_separator=", "), **both).cells == ["b, a", "0.8000, 0.4000"]
    renamed = dict(zip(["a|x", "b", "c"], THRESHOLDS.values(), strict=True))
    assert decode(describe(list(renamed), renamed), **both).cells[0] == "b;a|x"
    renamed = dict(zip(["a|;,/+&#~", "b", "c"], THRESHOLDS.values(), strict=True))
    cells = decode(describe(list(renamed), renamed), **both).cells
    assert [json.loads(cell) for cell in cells] == [["b", "a|;,/+&#~"], [0.8, 0.4]]


def test_json_has_labels_and_scores_alone():
    assert asdict(LabelSet(["b"], {"a": 0.1, "b": 0.7}, "|")) == {"labels": ["b"], "scores": {"a": 0.1, "b": 0.7}}


def test_other_kinds_have_no_thresholds():
    description = describe()
    description["task"]["kind"] = "classification"
    template = Template(([101], [102]), ([0], [0]), (0,))
    for options in ({"threshold": 0.5}, {"top_k": 1}):
        with pytest.raises(BundleError, match="is for bundles of several labels a text, and this one is for classif"):
            RowEncoder(description, template, **options)


@pytest.mark.parametrize(
    "thresholds",
    [
        None,
        [0.5, 0.5, 0.5],
        {"a": 0.5, "b": 0.5},
        {**THRESHOLDS, "d": 0.5},
        {**THRESHOLDS, "a": 1.0},
        {**THRESHOLDS, "a": "x"},
    ],
)
def test_a_damaged_description_is_refused(thresholds):
    check_description("bundle.json", describe())
    with pytest.raises(BundleError, match="damaged"):
        check_description("bundle.json", describe(thresholds=thresholds))
    with pytest.raises(BundleError, match="damaged"):
        check_description("bundle.json", describe([], {}))
    with pytest.raises(BundleError, match="damaged"):
        check_description("bundle.json", describe(label_separator=3))
