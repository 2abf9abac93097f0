"""Measurements of sub-networks: divergence against distillation's loss, metrics against an evaluation, and errors."""

from dataclasses import replace

import numpy as np
import paddle
import pytest
from conftest import make_bert
from scipy.special import expit, log_softmax, softmax

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.question_answering import AnswerSettings, Question, Questions
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.distill.losses import DistillationLoss
from dynabert_paddle.searching.divergence import divergences
from dynabert_paddle.searching.measuring import DIVERGENCE, Sample
from dynabert_paddle.supernet.supernet import Supernet, SupernetOutput
from dynabert_paddle.training.evaluate import evaluate_subnets, predict_logits
from dynabert_paddle.training.inputs import tokenize_examples

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def tokenizer():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


@pytest.fixture(scope="module")
def supernet(tokenizer):
    return Supernet(make_bert(), tokenizer)


@pytest.fixture(scope="module")
def features(task, supernet):
    return tokenize_examples(task.train, supernet, max_seq_length=32)


def distillation(student, teacher, subnet):
    """The loss that training minimizes, of logits alone."""

    def output(logits):
        return SupernetOutput(paddle.to_tensor(logits), (paddle.zeros([1, 1, 1]),) * 5)

    loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=0.0)
    return float(loss(output(student), output(teacher), subnet)["logit"])


def test_the_divergence_is_distillations_loss_above_its_minimum(supernet, features):
    """Soft cross-entropy is the divergence plus the teacher's entropy, which is the loss of the teacher itself."""
    subnets = list(supernet.search_space().grid().values())
    full, *others = predict_logits(supernet, features, subnets)
    sample = Sample(supernet, features, "classification", (DIVERGENCE,), 64)
    measured = [found[DIVERGENCE].value for found in sample(subnets)]
    assert measured[0] == 0
    least = distillation(full, full, supernet.full)
    expected = [distillation(logits, full, supernet.full) - least for logits in others]
    assert measured[1:] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert len(set(measured)) == len(measured)


def test_the_divergence_of_values_is_the_squared_error(features):
    random = np.random.default_rng(0)
    full, sub = random.normal(size=(2, 50, 1)).astype("float32")
    found = divergences(features, full, sub, kind="regression")
    assert found == pytest.approx(np.square(full - sub)[:, 0])


def test_the_divergence_of_several_labels_is_the_mean_over_labels(features):
    random = np.random.default_rng(0)
    full, sub = random.normal(size=(2, 50, 3))
    p, q = expit(full), expit(sub)
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert divergences(features, full, sub, kind="multi_label") == pytest.approx(expected.mean(axis=1))


def test_the_divergence_of_words_is_the_mean_over_a_sentences_tokens(features):
    random = np.random.default_rng(0)
    full, sub = ([random.normal(size=(length, 3)) for length in (4, 2)] for _ in range(2))
    found = divergences(features, full, sub, kind="token_classification")
    for row in range(2):
        p, log_q = softmax(full[row], axis=1), log_softmax(sub[row], axis=1)
        assert found[row] == pytest.approx((p * (np.log(p) - log_q)).sum(axis=1).mean())


def make_questions(tokenizer, tmp_path):
    context = "the red house stands on a green hill near the blue sea " * 4
    rows = [
        Question(str(i), f"where is the {word} thing ?", context if i % 2 else "a short text about nothing", [("a", 0)])
        for i, word in enumerate(("red", "green", "blue"))
    ]
    return Questions(rows, AnswerSettings(doc_stride=8), tmp_path).tokenize(tokenizer, max_seq_length=32)


def test_a_question_is_the_mean_of_its_windows(tokenizer, tmp_path):
    windows = make_questions(tokenizer, tmp_path)
    assert len(windows) > windows.num_scored == 3
    random = np.random.default_rng(0)
    full, sub = ([random.normal(size=(2, length)) for length in windows.lengths] for _ in range(2))
    found = divergences(windows, full, sub, kind="question_answering")
    each = []
    for a, b in zip(full, sub, strict=True):
        p, log_q = softmax(a, axis=1), log_softmax(b, axis=1)
        each.append((p * (np.log(p) - log_q)).sum(axis=1).mean())
    assert found == pytest.approx([np.mean(np.array(each)[windows.owners == owner]) for owner in range(3)])


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_scores_on_all_examples_are_those_of_an_evaluation(supernet, features, metric):
    grid = supernet.search_space().grid()
    expected = evaluate_subnets(supernet, features, grid, metrics=[metric])
    found = Sample(supernet, features, "classification", (metric, DIVERGENCE), 16)(list(grid.values()))
    assert [one[metric].value for one in found] == [row[metric] for row in expected.values()]


def test_the_jackknife_of_a_mean_is_the_usual_error(supernet, features):
    """For groups of equal size the pseudo-values of accuracy are the groups' accuracies."""
    few = features.select(np.arange(120))
    (full,) = Sample(supernet, few, "classification", ("accuracy",), 64)([supernet.full])
    estimate = full["accuracy"]
    (logits,) = predict_logits(supernet, few, [supernet.full])
    right = np.asarray(logits).argmax(axis=1) == few.labels
    groups = np.array_split(np.random.default_rng(0).permutation(120), 40)
    assert estimate.parts == pytest.approx([right[group].mean() for group in groups])
    assert estimate.error == pytest.approx(np.sqrt(right.mean() * (1 - right.mean()) / 120), rel=0.35)


def test_the_jackknife_of_another_metric_is_near_the_spread_over_samples(features):
    """Pearson's correlation of 100 of 7,000 simulated values: its error against the spread over 70 such samples."""
    random = np.random.default_rng(0)
    labels = random.normal(size=7000)
    logits = labels[:, None] + random.normal(0, 0.7, (7000, 1))
    values, errors = [], []
    for part in np.split(np.arange(7000), 70):
        some = replace(features.select(np.zeros(100, dtype=int)), labels=labels[part])
        sample = Sample(None, some, "regression", ("pearson",), 64)
        estimate = sample._estimate("pearson", logits[part])
        values.append(estimate.value)
        errors.append(estimate.error)
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.25)


def test_leaving_examples_out_is_scoring_the_others(tokenizer, features, tmp_path):
    random = np.random.default_rng(0)
    words = [["play", "some", "music"], ["book", "a", "table", "in", "wonderland"], ["rain"], ["so", "it", "goes"]]
    names = ("O", "B-X", "I-X")
    labels = [[names[i] for i in random.integers(0, 3, len(row))] for row in words]
    sentences = Sentences(words, labels, names, tmp_path)
    tokenized = sentences.tokenize(tokenizer, max_seq_length=16)
    word_logits = [random.normal(size=(length, 3)) for length in tokenized.lengths]
    class_logits = random.normal(size=(len(features), 7))
    groups = [np.array([0]), np.array([1, 3])]
    for metric in ("entity_f1", "entity_precision", "token_accuracy"):
        found = tokenized.score_without(metric, word_logits, groups)
        for group, score in zip(groups, found, strict=True):
            rest = np.setdiff1d(np.arange(4), group)
            others = sentences.select(rest).tokenize(tokenizer, max_seq_length=16)
            assert score == others.score([metric], [word_logits[i] for i in rest])[metric]
    for metric in ("accuracy", "macro_f1"):
        found = features.score_without(metric, class_logits, groups)
        for group, score in zip(groups, found, strict=True):
            rest = np.setdiff1d(np.arange(len(features)), group)
            assert score == features.select(rest).score([metric], class_logits[rest])[metric]


def test_leaving_questions_out_is_scoring_the_others(tokenizer, tmp_path):
    windows = make_questions(tokenizer, tmp_path)
    random = np.random.default_rng(0)
    logits = [random.normal(size=(2, length)) for length in windows.lengths]
    for metric in ("f1", "exact_match"):
        found = windows.score_without(metric, logits, [np.array([1])])
        rest = windows.questions.select(np.array([0, 2])).tokenize(tokenizer, max_seq_length=32)
        kept = [row for row, owner in zip(logits, windows.owners, strict=True) if owner != 1]
        assert found[0] == pytest.approx(rest.score([metric], kept)[metric])
