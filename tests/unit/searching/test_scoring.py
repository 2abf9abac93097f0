"""Scores of candidates: equal to those of an evaluation, and early stopping of hopeless candidates only."""

import numpy as np
import pytest
from conftest import make_bert
from hypothesis import given, settings
from hypothesis import strategies as st

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.errors import UsageError
from dynabert_paddle.searching import scoring
from dynabert_paddle.searching.scoring import RISK, Scorer, is_hopeless, label_with_predictions
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.evaluate import evaluate_subnets, predict_logits
from dynabert_paddle.training.inputs import tokenize_examples

NO_MINIMUM = float("-inf")


@pytest.fixture(scope="module")
def supernet():
    return Supernet(make_bert(), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))


@pytest.fixture(scope="module")
def features(task, supernet):
    return tokenize_examples(task.train, supernet, max_seq_length=32)


def agreement(supernet, features, batch_size=64):
    labelled, metric = label_with_predictions(supernet, features, batch_size=batch_size)
    return Scorer(supernet, labelled, metric, batch_size, 42)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_scores_are_those_of_an_evaluation(supernet, features, metric):
    grid = supernet.search_space().grid()
    expected = evaluate_subnets(supernet, features, grid, metrics=[metric])
    scores = Scorer(supernet, features, metric, 16, 0)(list(grid.values()), [NO_MINIMUM] * len(grid))
    assert [score.value for score in scores] == [row[metric] for row in expected.values()]
    assert not any(score.stopped for score in scores)
    assert len({score.value for score in scores}) > 2


def test_no_candidates_have_no_scores(supernet, features):
    assert Scorer(supernet, features, "accuracy", 16, 0)([], []) == []


def test_hopeless_candidates_are_stopped_early(supernet, features, monkeypatch):
    """The full model is right everywhere when its own predictions are the labels; half of it is not."""
    scorer = agreement(supernet, features, batch_size=8)
    candidates = [supernet.full, supernet.search_space().subnet(depth_mult=0.5)]
    rows = []

    def count(supernet, part, subnets, **options):
        rows.append((len(part), len(subnets)))
        return predict_logits(supernet, part, subnets, **options)

    monkeypatch.setattr(scoring, "predict_logits", count)
    good, bad = scorer(candidates, [0.99, 0.99])
    assert good == (1.0, False)
    assert bad.stopped
    assert bad.value < 0.9
    assert sum(number for number, _ in rows) == len(features)
    assert {alive for _, alive in rows} == {1, 2}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), total=st.integers(20, 300), accuracy=st.floats(0.05, 0.99))
def test_the_true_best_is_never_stopped(seed, total, accuracy):
    """On a random matrix of right and wrong answers, the best candidate is never stopped against the second best."""
    random = np.random.default_rng(seed)
    right = random.random((12, total)) < np.clip(random.normal(accuracy, 0.1, (12, 1)), 0, 1)
    totals = right.sum(axis=1)
    best = int(totals.argmax())
    to_beat = np.sort(totals)[-2] / total
    if totals[best] == np.sort(totals)[-2]:
        to_beat -= 1 / total
    for seen in range(10, total + 1, 10):
        assert not is_hopeless(int(right[best, :seen].sum()), seen, total, to_beat)


def test_the_risk_of_stopping_is_exact():
    """A candidate that is just good enough is stopped with a probability below RISK, but as near to it as possible."""
    from scipy.stats import hypergeom

    total, needed, seen = 200, 160, 50
    stopped = [right for right in range(seen + 1) if is_hopeless(right, seen, total, (needed - 1) / total)]
    share = hypergeom.pmf(stopped, total, needed, seen).sum()
    assert 0 < share < RISK
    assert hypergeom.pmf([*stopped, max(stopped) + 1], total, needed, seen).sum() >= RISK


@pytest.mark.parametrize(
    ("right", "seen", "total", "to_beat", "hopeless"),
    [
        (0, 1, 100, NO_MINIMUM, False),
        (10, 10, 100, 1.0, True),  # nothing exceeds a perfect score
        (89, 90, 100, 0.98, False),
        (88, 90, 100, 0.98, True),  # at most 98 of 100, which does not exceed 0.98
        (0, 100, 100, 0.98, False),  # all examples are seen: stopping saves nothing
    ],
)
def test_the_boundary_of_hopeless_candidates(right, seen, total, to_beat, hopeless):
    assert is_hopeless(right, seen, total, to_beat) is hopeless


def test_agreement_needs_no_labels(supernet, features):
    subnets = list(supernet.search_space().grid().values())
    scorer = agreement(supernet, features)
    logits = predict_logits(supernet, features, subnets)
    expected = [float((rows.argmax(axis=1) == logits[0].argmax(axis=1)).mean()) for rows in logits]
    assert [score.value for score in scorer(subnets, [NO_MINIMUM] * len(subnets))] == pytest.approx(expected)


def test_agreement_on_words_is_the_share_of_words(tmp_path):
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    supernet = make_word_model(tokenizer)
    words = [["play", "some", "music"], ["book", "a", "table", "in", "wonderland"]]
    sentences = Sentences(words, [["O"] * len(row) for row in words], ("O", "B-X", "B-Y"), tmp_path)
    features = sentences.tokenize(tokenizer, max_seq_length=16)
    scorer = agreement(supernet, features)
    half = supernet.search_space().subnet(depth_mult=0.5)
    full_score, half_score = scorer([supernet.full, half], [NO_MINIMUM, NO_MINIMUM])
    assert full_score == (1.0, False)
    logits = predict_logits(supernet, features, [supernet.full, half])
    labels = [features.predict(rows) for rows in logits]
    same = [np.array(full) == np.array(small) for full, small in zip(*labels, strict=True)]
    assert half_score.value == pytest.approx(np.concatenate(same).mean())
    assert half_score.value < 1


def make_word_model(tokenizer):
    import paddle
    from paddlenlp.transformers import BertConfig, BertForTokenClassification

    paddle.seed(3)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
    config = BertConfig(num_labels=3, max_position_embeddings=64, initializer_range=0.5, use_cache=False, **sizes)
    return Supernet(BertForTokenClassification(config), tokenizer)


def test_agreement_of_values_is_refused(supernet, features):
    from dataclasses import replace

    scores = replace(features, labels=features.labels.astype("float32"))
    with pytest.raises(UsageError, match="agreement needs labels of texts or of words"):
        agreement(supernet, scores)
