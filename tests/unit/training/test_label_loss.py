"""The hard-label loss with weights, focal gamma and smoothing: against NumPy, and as a sum over shards."""

import numpy as np
import paddle
import pytest
from conftest import make_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynabert_paddle.config.settings import FinetuneConfig, LabelLossConfig
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.training.batches import cut_shard, weigh_labels
from dynabert_paddle.training.label_loss import label_loss, shard_label_loss

WEIGHTS = np.array([0.5, 3.0, 1.25], dtype="float32")


def reference(logits, labels, *, weights=None, gamma=0.0, smoothing=0.0):
    """The loss label by label, in double precision."""
    rows, classes = logits.reshape(-1, logits.shape[-1]).astype(np.float64), labels.reshape(-1)
    total, count = 0.0, 0
    for row, label in zip(rows, classes, strict=True):
        if label == IGNORED:
            continue
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        target = np.full(len(row), smoothing / len(row))
        target[label] += 1 - smoothing
        loss = -(target * np.log(probabilities)).sum() * (1 - probabilities[label]) ** gamma
        total += loss * (1 if weights is None else weights[label])
        count += 1
    return total / max(1, count)


def make(shape, *, seed=0):
    """Logits of three classes, and labels of which some of a sentence's are ignored."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, shape)
    if len(shape) == 2:
        labels[rng.random(shape) < 0.4] = IGNORED
    return rng.normal(0, 2, (*shape, 3)).astype("float32"), labels


def weights_of(labels, class_weights):
    weighted = weigh_labels({"labels": labels}, class_weights)
    return paddle.to_tensor(weighted["label_weights"]) if class_weights is not None else None


@pytest.mark.parametrize("shape", [(6,), (4, 7)])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_and_its_gradient_are_those_of_the_definition(shape, weights, gamma, smoothing):
    logits, labels = make(shape)
    config = LabelLossConfig(focal_gamma=gamma, label_smoothing=smoothing)
    given = paddle.to_tensor(logits, stop_gradient=False)
    loss = label_loss(given, paddle.to_tensor(labels), weights=weights_of(labels, weights), config=config)
    loss.backward()
    options = {"weights": weights, "gamma": gamma, "smoothing": smoothing}
    assert float(loss) == pytest.approx(reference(logits, labels, **options), rel=1e-5)
    slopes = np.zeros(logits.shape)
    for index in np.ndindex(*logits.shape):
        step = np.zeros(logits.shape)
        step[index] = 1e-5
        ends = [reference(logits.astype(np.float64) + sign * step, labels, **options) for sign in (1, -1)]
        slopes[index] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(given.grad.numpy(), slopes, atol=2e-6)


def test_without_settings_the_loss_is_paddles_cross_entropy_to_the_bit():
    logits, labels = map(paddle.to_tensor, make((64,)))
    expected = paddle.nn.functional.cross_entropy(logits, labels, reduction="sum") / 64
    assert float(label_loss(logits, labels)) == float(expected)
    assert float(label_loss(logits, labels, config=FinetuneConfig(label_smoothing=0.0))) == float(expected)


@pytest.mark.parametrize("gamma", [0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("right", [True, False])
def test_certain_predictions_have_finite_gradients(gamma, right):
    """1 - p is 0 in float32, and a power below 1 has no finite slope there."""
    logits = paddle.to_tensor([[200.0, 0.0, 0.0]], stop_gradient=False)
    label_loss(logits, paddle.to_tensor([0 if right else 1]), config=LabelLossConfig(focal_gamma=gamma)).backward()
    assert np.isfinite(logits.grad.numpy()).all()


def test_padding_and_continuations_of_words_count_nowhere():
    logits, labels = make((3, 5))
    config = LabelLossConfig(focal_gamma=1.5, label_smoothing=0.2)
    wide = np.concatenate([logits, np.full((3, 4, 3), 9.0, "float32")], axis=1)
    wide_labels = np.concatenate([labels, np.full((3, 4), IGNORED)], axis=1)
    losses = [
        float(label_loss(paddle.to_tensor(x), paddle.to_tensor(y), weights=weights_of(y, WEIGHTS), config=config))
        for x, y in ((logits, labels), (wide, wide_labels))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_batch_without_labels_that_count_has_no_loss():
    logits, labels = paddle.to_tensor(make((2, 4))[0]), paddle.full([2, 4], IGNORED, "int64")
    config = LabelLossConfig(focal_gamma=2.0)
    assert float(label_loss(logits, labels, weights=paddle.zeros([2, 4]), config=config)) == 0


@settings(max_examples=40, deadline=None)
@given(
    num_rows=st.integers(1, 9),
    num_shards=st.integers(1, 5),
    words=st.booleans(),
    seed=st.integers(0, 99),
    gamma=st.sampled_from([0.0, 2.0]),
)
def test_the_losses_of_shards_add_up_to_that_of_the_whole_batch(num_rows, num_shards, words, seed, gamma):
    """Shards differ in their labels, and so in the weights of their rows."""
    config = LabelLossConfig(focal_gamma=gamma, label_smoothing=0.1)
    batch = make_batch(batch_size=num_rows, seq_length=6)
    logits, labels = make((num_rows, 6) if words else (num_rows,), seed=seed)
    batch = weigh_labels(batch | {"labels": labels, "logits": logits}, WEIGHTS)
    shards = [cut_shard(batch, index, num_shards) for index in range(num_shards)]
    total = sum(float(shard_label_loss(shard.inputs.pop("logits"), shard, config)) for shard in shards)
    assert total == pytest.approx(reference(logits, labels, weights=WEIGHTS, gamma=gamma, smoothing=0.1), rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_each_of_several_labels_is_a_question_of_two_classes(weighted, gamma, smoothing):
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (5, 4)).astype("float32")
    labels, of_labels = rng.integers(0, 2, (5, 4)), rng.random((4, 2)).astype("float32") + 0.5
    batch = weigh_labels({"labels": labels.astype("float32")}, of_labels if weighted else None)
    weights = paddle.to_tensor(batch["label_weights"]) if weighted else None
    config = LabelLossConfig(focal_gamma=gamma, label_smoothing=smoothing)
    found = float(label_loss(*map(paddle.to_tensor, (logits, batch["labels"])), weights=weights, config=config))
    two = np.stack([np.zeros_like(logits), logits], axis=-1)  # [b, c, 2]
    expected = np.mean(
        [
            reference(
                two[:, label], labels[:, label], weights=of_labels[label] if weighted else None, gamma=gamma,
                smoothing=smoothing,
            )
            for label in range(4)
        ]
    )  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-5)
