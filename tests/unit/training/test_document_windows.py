"""Documents in windows, for tasks of whole texts, against windows made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddlenlp.transformers import BertConfig, BertForSequenceClassification

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.document_features import DocumentFeatures
from dynabert_paddle.data.long_texts import DocumentSettings
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.distill.losses import DistillationLoss
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.searching.scoring import Scorer
from dynabert_paddle.text.encode import truncate
from dynabert_paddle.training.batches import cut_shard, length_bucketed_batches, step_batches, weigh_labels
from dynabert_paddle.training.label_loss import label_loss, shard_label_loss
from dynabert_paddle.training.predict import predict_logits

LENGTH, STRIDE, CLASSES = 24, 9, 3
VOCABULARY = ["play", "some", "music", "unbelievably", "wonderland", "a", "electroencephalography", "in"]
NUM_WORDS = [3, 200, 1, 14, 77, 0, 500]  # one fills a window nearly, another has no word


@pytest.fixture(scope="module")
def model():
    paddle.seed(3)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    config = BertConfig(num_labels=CLASSES, max_position_embeddings=64, initializer_range=0.5, use_cache=False, **sizes)
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    supernet = db.Supernet(BertForSequenceClassification(config), tokenizer)
    supernet.eval()
    return supernet


def make_documents(*, pairs=False, labels=None, **settings):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(VOCABULARY, count)) for count in NUM_WORDS]
    firsts = [" ".join(rng.choice(["play", "a"], count % 5)) for count in range(len(texts))]
    settings = DocumentSettings.of({"long_text": "windows", "doc_stride": STRIDE, **settings})
    labels = np.arange(len(texts)) % CLASSES if labels is None else labels
    first, second = (firsts, texts) if pairs else (texts, None)
    return Examples(first, second, labels, Path("train.tsv"), documents=settings)


def tokenize(model, examples, length=LENGTH):
    return examples.tokenize(model.tokenizer, max_seq_length=length)


def pieces(model, text):
    return model.tokenizer.encode([text], max_seq_length=10_000)[0][0][1:-1]


def run_by_hand(model, text, first=None, *, pooling="mean"):
    """The logits of a document, one window of its pieces after the other."""
    ids, before = pieces(model, text), [] if first is None else [*pieces(model, first), 102]
    room = LENGTH - 2 - len(before)
    start, seen, values, counts = 0, 0, [], []
    while True:
        end = min(start + room, len(ids))
        row = paddle.to_tensor([[101, *before, *ids[start:end], 102]])
        types = paddle.to_tensor([[0] * (1 + len(before)) + [int(bool(before))] * (end - start + 1)])
        with paddle.no_grad():
            output = model(input_ids=row, token_type_ids=types, attention_mask=paddle.ones_like(row))
        values.append(output.logits.numpy()[0])
        counts.append(end - seen)
        seen = end
        if end == len(ids):
            break
        start += STRIDE
    if pooling == "max":
        return np.max(values, axis=0)
    return values[0] if len(values) == 1 else np.average(values, axis=0, weights=counts)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("pairs", [False, True])
def test_a_document_has_the_pooled_logits_of_its_windows(model, pooling, pairs):
    documents = make_documents(pairs=pairs, window_pooling=pooling)
    features = tokenize(model, documents)
    assert features.num_scored == len(documents) < len(features)
    (logits,) = predict_logits(model, features, [model.full], batch_size=5)
    rows = zip(documents.pairs, documents.texts, strict=True) if pairs else zip(documents.texts, strict=True)
    expected = np.array([run_by_hand(model, *row, pooling=pooling) for row in rows])
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    right = (expected.argmax(axis=1) == documents.labels).mean()
    assert features.score(("accuracy",), logits)["accuracy"] == pytest.approx(right)
    without = features.score_without("accuracy", logits, [np.array([1, 3])])
    assert without[0] == pytest.approx(np.delete(expected.argmax(axis=1) == documents.labels, [1, 3]).mean())


def test_every_token_of_every_document_is_new_in_one_window(model):
    documents = make_documents()
    features = tokenize(model, documents)
    for number, text in enumerate(documents.texts):
        windows = np.flatnonzero(features.owners == number)
        found = []
        for window in windows:
            ids = features.input_ids[features.offsets[window] : features.offsets[window + 1]]
            assert len(ids) <= LENGTH
            found += ids[1:-1][len(ids) - 2 - features.num_new[window] :].tolist()
        assert found == pieces(model, text)


def test_documents_are_selected_whole_and_in_any_order(model):
    documents = make_documents()
    features = tokenize(model, documents)
    order = np.array([6, 0, 4, 1])
    chosen, expected = features.select(order), tokenize(model, documents.select(order))
    for name in ("input_ids", "token_type_ids", "offsets", "labels", "owners", "num_new"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(expected, name), err_msg=name)
    (logits,) = predict_logits(model, features, [model.full])
    (some,) = predict_logits(model, chosen, [model.full])
    np.testing.assert_allclose(some, logits[order], atol=1e-5)


def test_short_texts_are_read_as_without_windows(model):
    examples = make_documents().select(np.array([0, 2, 5]))
    windows = tokenize(model, examples)
    cut = tokenize(model, Examples(examples.texts, None, examples.labels, examples.source))
    assert windows.row_weights is None
    for values, others in zip(windows.content, cut.content, strict=True):
        np.testing.assert_array_equal(values, others)
    (one,), (other,) = (predict_logits(model, features, [model.full]) for features in (windows, cut))
    np.testing.assert_array_equal(one.astype(np.float32), other)


def test_a_window_counts_as_its_share_of_the_document(model):
    features = tokenize(model, make_documents())
    weights, counts = features.row_weights, np.bincount(features.owners)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(features.owners, weights), len(features) / len(counts), rtol=1e-6)
    np.testing.assert_allclose(weights * counts[features.owners], weights[0], rtol=1e-6)
    # In the batches of a training, with the document's label.
    config = TrainConfig(per_device_train_batch_size=len(features))
    (shard,) = next(step_batches(features, config, 0, first_step=0, num_replicas=1)).shards[0]
    (rows,) = length_bucketed_batches(features.lengths, len(features), seed=config.seed, epoch=0)
    np.testing.assert_array_equal(shard.labels.numpy(), features.labels[features.owners[rows]])
    np.testing.assert_array_equal(shard.row_weights.numpy(), weights[rows])
    np.testing.assert_array_equal(shard.label_weights.numpy(), weights[rows])


def losses_by_hand(kind, logits, labels):
    z = logits.astype(np.float64)
    if kind == "regression":
        return (z[:, 0] - labels) ** 2
    if kind == "multi_label":
        p = 1 / (1 + np.exp(-z))
        return -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(axis=1)
    return -(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))[np.arange(len(z)), labels]


def make_batch(kind, rng, rows=7):
    outputs = 1 if kind == "regression" else CLASSES
    labels = {
        "classification": rng.integers(0, CLASSES, rows),
        "regression": rng.normal(size=rows).astype("float32"),
        "multi_label": rng.integers(0, 2, (rows, CLASSES)).astype("float32"),
    }[kind]
    return rng.normal(size=(rows, outputs)).astype("float32"), labels


@pytest.mark.parametrize("kind", ["classification", "regression", "multi_label"])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_the_loss_of_labels_is_weighted_by_row(kind, num_shards):
    rng = np.random.default_rng(0)
    logits, labels = make_batch(kind, rng)
    weights = rng.random(7).astype("float32")
    arrays = {name: np.ones((7, 4), "int64") for name in ("input_ids", "attention_mask")}
    batch = weigh_labels(arrays | {"labels": labels, "logits": logits}, None, weights)
    shards = [cut_shard(batch, index, num_shards) for index in range(num_shards)]
    total = sum(float(shard_label_loss(shard.inputs.pop("logits"), shard)) for shard in shards)
    assert total == pytest.approx((weights * losses_by_hand(kind, logits, labels)).mean(), rel=1e-5)


def test_class_weights_and_the_weights_of_rows_are_multiplied():
    rng = np.random.default_rng(1)
    logits, labels = make_batch("classification", rng)
    weights, of_classes = rng.random(7).astype("float32"), np.array([3, 1, 0.5], "float32")
    batch = weigh_labels({"labels": labels}, of_classes, weights)
    loss = label_loss(*map(paddle.to_tensor, (logits, labels)), weights=paddle.to_tensor(batch["label_weights"]))
    expected = (weights * of_classes[labels] * losses_by_hand("classification", logits, labels)).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["classification", "regression", "multi_label"])
def test_the_distillation_of_logits_is_weighted_by_row(model, kind):
    rng = np.random.default_rng(2)
    (student, _), (teacher, _) = make_batch(kind, rng), make_batch(kind, rng)
    weights = rng.random(7).astype("float32")
    output = type("Output", (), {})
    one, other = output(), output()
    hidden = [paddle.to_tensor(rng.normal(size=(7, 4, 16)).astype("float32")) for _ in range(2)]
    one.logits, other.logits = paddle.to_tensor(student), paddle.to_tensor(teacher)
    one.hidden_states = other.hidden_states = hidden
    loss = DistillationLoss(lambda_logit=0.7, lambda_hidden=1.0, temperature=2.0, kind=kind)
    found = float(loss(one, other, model.full, row_weights=paddle.to_tensor(weights))["logit"])
    zs, zt = student.astype(np.float64) / 2, teacher.astype(np.float64) / 2
    if kind == "regression":
        rows = ((student - teacher) ** 2)[:, 0]
    elif kind == "multi_label":
        target = 1 / (1 + np.exp(-zt))
        rows = 4 * (-target * np.log(1 / (1 + np.exp(-zs))) - (1 - target) * np.log(1 / (1 + np.exp(zs)))).mean(axis=1)
    else:
        target = F.softmax(paddle.to_tensor(zt), axis=-1).numpy()
        rows = -4 * (target * (zs - np.log(np.exp(zs).sum(axis=1, keepdims=True)))).sum(axis=1)
    assert found == pytest.approx(0.7 * (weights * rows).mean(), rel=1e-5)
    # With equal weights it is PaddleSlim's.
    equal = paddle.ones([7])
    parts = [loss(one, other, model.full, row_weights=each) for each in (equal, None)]
    assert float(parts[0]["logit"]) == pytest.approx(float(parts[1]["logit"]), rel=1e-5)


def test_a_search_scores_documents(model):
    features = tokenize(model, make_documents())
    (score,) = Scorer(model, features, "accuracy", batch_size=2, seed=0)([model.full], [float("-inf")])
    (logits,) = predict_logits(model, features, [model.full])
    assert score.value == pytest.approx(features.score(("accuracy",), logits)["accuracy"])


@pytest.mark.parametrize("stride", [22, 30])
def test_windows_that_do_not_overlap_are_refused(model, stride):
    with pytest.raises(UsageError, match=rf"doc_stride is {stride}, and a window of max_seq_length 24 has 22 tokens"):
        tokenize(model, make_documents(doc_stride=stride))


@pytest.mark.parametrize("settings", [{"doc_stride": 8}, {"window_pooling": "max"}])
def test_settings_of_windows_need_windows(model, settings):
    examples = make_documents()
    examples = replace(examples, documents=DocumentSettings.of(settings))
    with pytest.raises(UsageError, match=r"and long texts are cut: leave it out, or set long_text to windows"):
        tokenize(model, examples)


@pytest.mark.parametrize("num_words, is_refused", [(11, False), (12, True), (40, True)])
def test_a_first_text_that_leaves_no_room_is_refused(model, num_words, is_refused):
    """Of 21 tokens, windows that begin 9 tokens apart need 10; a pair that fits as a whole needs no windows."""
    examples = Examples(
        ["play", "a " * num_words], ["some music", "in " * 50], np.array([0, 1]), Path("x.tsv"),
        documents=make_documents().documents,
    )  # fmt: skip
    if not is_refused:
        assert len(tokenize(model, examples)) > 2
        return
    with pytest.raises(DataError, match=r"x\.tsv: a row cannot be read in windows: its first text has .* 'a a a"):
        tokenize(model, examples)
    assert len(tokenize(model, Examples(["a " * 18], ["in"], None, Path("x.tsv"), documents=examples.documents))) == 1


def test_a_pair_that_fits_loses_nothing(model):
    """Truncation shortens the longer text; windows keep the first whole."""
    examples = make_documents(pairs=True)
    features = tokenize(model, examples)
    assert isinstance(features, DocumentFeatures)
    for window, owner in enumerate(features.owners):
        ids = features.input_ids[features.offsets[window] : features.offsets[window + 1]].tolist()
        first = pieces(model, examples.texts[owner])
        assert ids[: len(first) + 2] == [101, *first, 102]
        if features.num_new[window] == len(pieces(model, examples.pairs[owner])):
            both = truncate([first, pieces(model, examples.pairs[owner])], LENGTH - 3)
            assert ids == [101, *both[0], 102, *both[1], 102]


@pytest.mark.parametrize(
    "given, trained, expected",
    [
        ({}, {}, {}),
        ({}, {"long_text": "windows", "doc_stride": 8, "window_pooling": "max"}, "trained"),
        ({"window_pooling": "mean"}, {"long_text": "windows", "window_pooling": "max"}, {"long_text": "windows"}),
        ({"long_text": "truncate"}, {"long_text": "windows", "doc_stride": 8}, {"long_text": "truncate"}),
        ({"long_text": "windows"}, {}, {"long_text": "windows"}),
        ({"long_text": "windows", "doc_stride": 4}, {"doc_stride": 8}, {"long_text": "windows", "doc_stride": 4}),
    ],
)
def test_what_the_user_does_not_give_is_the_models(given, trained, expected):
    found = DocumentSettings.of(given).over(trained).to_dict()
    expected = trained if expected == "trained" else expected
    mean = {"window_pooling": "mean"} if expected.get("long_text") == "windows" else {}
    assert found == {**mean, **expected}
    assert DocumentSettings.of(found).over({}).to_dict() == found
