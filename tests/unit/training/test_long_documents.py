"""A long document is labelled in windows, as by a reference that makes them by hand."""

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import BertConfig, BertForTokenClassification

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.data.word_settings import WordSettings
from dynabert_paddle.errors import UsageError
from dynabert_paddle.text.word_windows import LONG_TEXTS
from dynabert_paddle.training.evaluate import predict_logits

NAMES = ("O", "B-X", "I-X")
LENGTH, STRIDE = 64, 25
VOCABULARY = ["play", "some", "music", "unbelievably", "wonderland", "a", "electroencephalography", "\u200b", "in"]


@pytest.fixture(scope="module")
def model():
    paddle.seed(3)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    config = BertConfig(num_labels=3, max_position_embeddings=64, initializer_range=0.5, use_cache=False, **sizes)
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    return db.Supernet(BertForTokenClassification(config), tokenizer)


def make_document(num_words, **settings):
    rng = np.random.default_rng(0)
    words, labels = list(rng.choice(VOCABULARY, num_words)), list(rng.choice(NAMES, num_words))
    short = ["play", "some", "music"]
    settings = WordSettings("IOB2", **settings)
    return Sentences([short, words], [["O"] * 3, labels], NAMES, Path("train.conll"), settings)


def label_by_hand(model, words):
    """Label each word by its first piece in the window in which the nearer end is farthest."""
    pieces_of = {word: model.tokenizer.encode([word], max_seq_length=64)[0][0][1:-1] for word in set(words)}
    ids, places = [], []
    for index, word in enumerate(words):
        if pieces_of[word]:
            places.append((len(ids), len(ids) + len(pieces_of[word]), index))
            ids += pieces_of[word]
    best = {}
    start = 0
    while True:
        end = min(start + LENGTH - 2, len(ids))
        row = paddle.to_tensor([[101, *ids[start:end], 102]])
        inputs = {"token_type_ids": paddle.zeros_like(row), "attention_mask": paddle.ones_like(row)}
        with paddle.no_grad():
            logits = model(input_ids=row, **inputs).logits.numpy()[0]
        for first, last, index in places:
            if start <= first < end and min(first - start, end - last) > best.get(index, (-len(ids), None))[0]:
                best[index] = min(first - start, end - last), logits[1 + first - start]
        if end == len(ids):
            break
        start += STRIDE
    return [NAMES[best[index][1].argmax()] if index in best else "O" for index in range(len(words))]


def test_a_document_of_5000_words_is_labelled_as_by_hand(model):
    document = make_document(5000, decode="free", doc_stride=STRIDE)
    model.eval()
    features = document.tokenize(model.tokenizer, max_seq_length=LENGTH)
    (logits,) = predict_logits(model, features, [model.full], batch_size=16)
    short, found = features.predict(logits)
    assert found == label_by_hand(model, document.words[1])
    assert short == label_by_hand(model, document.words[0])
    assert (len(features.windows), features.num_cut.tolist()) == (2, [0, 0])
    assert len(features) > 300
    own = [np.mean(np.array(found) == document.labels[1])]
    assert features.score(("token_accuracy",), logits)["token_accuracy"] == pytest.approx(
        (own[0] * 5000 + short.count("O")) / 5003
    )


def test_each_word_is_trained_on_once(model):
    document = make_document(300, doc_stride=STRIDE)
    features = document.tokenize(model.tokenizer, max_seq_length=LENGTH)
    batch = features.collate(np.arange(len(features)), 0)
    with_token = sum(word != "\u200b" for words in document.words for word in words)
    assert (batch["labels"] != IGNORED).sum() == with_token
    expected = [
        NAMES.index(label)
        for words, labels in zip(document.words, document.labels, strict=True)
        for word, label in zip(words, labels, strict=True)
        if word != "\u200b"
    ]
    assert features.token_labels[features.token_labels != IGNORED].tolist() == expected
    assert batch["input_ids"].shape[1] == LENGTH


def test_half_a_window_is_the_default_stride(model):
    one, other = (
        make_document(300, doc_stride=stride).tokenize(model.tokenizer, max_seq_length=34) for stride in (None, 16)
    )
    np.testing.assert_array_equal(one.input_ids, other.input_ids)


def test_short_sentences_are_as_without_windows(model):
    """So that an interrupted run of an earlier version goes on."""
    one, other = (make_document(12, long_text=way).tokenize(model.tokenizer, max_seq_length=64) for way in LONG_TEXTS)
    for values, others in zip(one.content, other.content, strict=True):
        np.testing.assert_array_equal(values, others)


@pytest.mark.parametrize("stride", [32, 40])
def test_windows_that_do_not_overlap_are_refused(model, stride):
    with pytest.raises(UsageError, match=rf"doc_stride is {stride}, and a window of max_seq_length 34 has 32 tokens"):
        make_document(300, doc_stride=stride).tokenize(model.tokenizer, max_seq_length=34)


def test_a_window_needs_a_token(model):
    with pytest.raises(UsageError, match="max_seq_length is 2: all of it are special tokens"):
        make_document(3).tokenize(model.tokenizer, max_seq_length=2)
