"""DistilBERT's losses against NumPy, and their masking of words."""

import numpy as np
import paddle
import pytest
from scipy.special import log_softmax

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.distill.losses import token_rows
from dynabert_paddle.distill.masked_lm import MaskedLMLoss
from dynabert_paddle.supernet.supernet import SupernetOutput
from dynabert_paddle.training.masking import Masking


def test_the_three_losses_are_the_papers():
    rng = np.random.default_rng(0)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    labels = np.array([[IGNORED, 3, IGNORED, 5], [0, IGNORED, IGNORED, IGNORED]])
    logits = [rng.normal(size=(2, 4, 7)) for _ in range(2)]
    hidden = [rng.normal(size=(2, 4, 6)) for _ in range(2)]
    student, teacher = (
        SupernetOutput(*(paddle.to_tensor(x.astype("float32")) for x in (logits[i],)), (paddle.to_tensor(hidden[i]),))
        for i in range(2)
    )
    rows = token_rows(paddle.to_tensor(mask))
    parts = MaskedLMLoss(5.0, 2.0, 1.0, 2.0)(student, teacher, paddle.to_tensor(labels), rows)
    real = mask.astype(bool)
    ours, theirs = (log_softmax(x[real] / 2, axis=-1) for x in logits)
    kl = (np.exp(theirs) * (theirs - ours)).sum(-1).mean() * 4
    masked = labels != IGNORED
    words = -log_softmax(logits[0], axis=-1)[masked, labels[masked]].mean()
    a, b = (x[real] for x in hidden)
    cosine = 1 - (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(
        {"logit": 5 * kl, "mlm": 2 * words, "cosine": cosine.mean()}, rel=1e-5
    )
    nothing = MaskedLMLoss(5.0, 2.0, 1.0, 2.0)(student, teacher, paddle.full([2, 4], IGNORED, "int64"), rows)
    assert float(nothing["mlm"]) == 0


def test_words_are_masked_as_berts_authors_do():
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    masking = Masking.of(tokenizer, 30522, 0.15)
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30000, (200, 100))
    ids[:, 0], ids[:, -20:] = 101, 0
    arrays = {"input_ids": ids, "attention_mask": (ids != 0).astype("int64")}
    masked = masking.apply(arrays, np.random.default_rng(1))
    chosen = masked["labels"] != IGNORED
    assert chosen[:, 1:-20].mean() == pytest.approx(0.15, abs=0.01)
    assert not chosen[:, 0].any()
    assert not chosen[:, -20:].any()
    np.testing.assert_array_equal(masked["labels"][chosen], ids[chosen])
    np.testing.assert_array_equal(masked["input_ids"][~chosen], ids[~chosen])
    assert (masked["input_ids"][chosen] == 103).mean() == pytest.approx(0.8, abs=0.02)
    assert (masked["input_ids"][chosen] == ids[chosen]).mean() == pytest.approx(0.1, abs=0.02)
    again = masking.apply(arrays, np.random.default_rng(1))
    np.testing.assert_array_equal(again["input_ids"], masked["input_ids"])
