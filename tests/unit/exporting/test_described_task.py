"""What the user says about a model's task enters the bundle, or is refused."""

import pytest

from dynabert_paddle.errors import UsageError
from dynabert_paddle.exporting.described_task import describe_task

PAIRS = {"name": "custom", "kind": "classification", "text_column": "a", "text_pair_column": "b", "labels": ["x", "y"]}
TEXTS = {**PAIRS, "text_pair_column": None}
CUSTOM = {"name": "custom", "text_column": None, "text_pair_column": None}


@pytest.mark.parametrize(
    ("trained", "given", "kind", "task"),
    [
        ({}, {}, "classification", {}),
        ({}, {"text_pair_column": "b", "labels": ["x"]}, "classification", {"text_pair_column": "b"}),
        (
            {},
            {"text_column": "a", "text_pair_column": "b"},
            "regression",
            {"text_column": "a", "text_pair_column": "b"},
        ),
        (
            {},
            {"name": "mrpc"},
            "classification",
            {"name": "mrpc", "text_column": "#1 String", "text_pair_column": "#2 String"},
        ),
        ({}, {"word_split": "characters"}, "token_classification", {"word_split": "characters"}),
        ({}, {"doc_stride": 64}, "question_answering", {"doc_stride": 64}),
        (PAIRS, PAIRS, "classification", PAIRS),
        (PAIRS, {**PAIRS, "text_pair_column": "c"}, "classification", {**PAIRS, "text_pair_column": "c"}),
        (TEXTS, {**TEXTS, "text_column": "c"}, "classification", {**TEXTS, "text_column": "c"}),
        ({"kind": "regression"}, {"kind": "regression"}, "classification", {"kind": "regression"}),
        ({}, {"kind": "multi_label"}, "classification", {"kind": "multi_label"}),  # which its folder does not say
        ({}, {"kind": "multi_label"}, "multi_label", {}),
        ({}, {"name": "custom", "label_separator": "|"}, "multi_label", {**CUSTOM, "label_separator": "|"}),
    ],
)
def test_the_users_settings_have_priority(trained, given, kind, task):
    assert describe_task(trained, given, kind=kind) == task


@pytest.mark.parametrize(
    ("trained", "given", "kind", "seen"),
    [
        (TEXTS, {"text_pair_column": "b"}, "classification", "the model was fine-tuned on single texts: leave it out"),
        ({}, {"kind": "regression"}, "classification", "kind is 'regression', and the model is for classification"),
        ({}, {"name": "sts-b"}, "classification", "task 'sts-b' is regression, and the model is for classification"),
        (
            {},
            {"text_pair_column": "b"},
            "token_classification",
            "text_pair_column is 'b', but in token_classification",
        ),
        ({}, {"text_pair_column": "b"}, "question_answering", "in question_answering it is 'context'"),
        ({}, {"word_split": "words"}, "classification", "word_split is for token_classification"),
        ({}, {"label_separator": "|"}, "classification", "label_separator is for multi_label"),
        ({}, {"kind": "multi_label"}, "regression", "kind is 'multi_label', and the model is for regression"),
        ({}, {"kind": "multi_label"}, "token_classification", "and the model is for token_classification"),
        ({"kind": "multi_label"}, {"kind": "classification"}, "classification", "and the model is for multi_label"),
        (TEXTS, {"kind": "multi_label"}, "classification", "and the model is for classification"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(trained, given, kind, seen):
    with pytest.raises(UsageError, match=seen):
        describe_task(trained, given, kind=kind)
