"""The work of one step: which sub-networks it trains, which loss, which gradients."""

import numpy as np
import paddle
import pytest
from conftest import backward, make_batch, make_bert

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.config.settings import FinalConfig, WidthConfig
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training.batches import Shard, cut_shard
from dynabert_paddle.training.label_loss import label_loss
from dynabert_paddle.training.steps import distillation_step, full_model_step, label_step
from dynabert_paddle.training.subnet_choice import choose_subnets

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SANDWICH = FinalConfig(subnets_per_step="sandwich", num_random_subnets=2, seed=5)


def make_supernet(**config):
    return Supernet(make_bert(vocab_size=1500, **NO_DROPOUT, **config))


def tensors(**options):
    return to_tensors(make_batch(vocab_size=1500, **options))


def take_step(step, model, batch, *, index=0):
    """Run a step; returns its loss parts as numbers."""
    inputs = dict(batch)
    return backward(step(model, Shard(inputs, inputs.pop("labels", None)), index=index))


def gradients(supernet):
    return {
        name: parameter.grad.numpy()
        for name, parameter in supernet.model.named_parameters()
        if parameter.grad is not None
    }


@pytest.fixture(scope="module")
def grid():
    return make_supernet().search_space().grid()


def test_label_loss_of_classes_is_the_mean_cross_entropy():
    logits = np.random.default_rng(0).normal(0, 2, (6, 3))
    labels = np.array([0, 2, 1, 1, 0, 2])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(6), labels]).mean()
    assert float(label_loss(paddle.to_tensor(logits), paddle.to_tensor(labels))) == pytest.approx(expected)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_label_loss_of_tokens_counts_only_the_first_token_of_each_word():
    logits = np.random.default_rng(0).normal(0, 2, (2, 4, 3))
    labels = np.array([[-100, 2, 0, -100], [1, -100, -100, -100]])
    logs = log_softmax(logits)
    expected = -(logs[0, 1, 2] + logs[0, 2, 0] + logs[1, 0, 1]) / 3
    assert float(label_loss(paddle.to_tensor(logits), paddle.to_tensor(labels))) == pytest.approx(expected)


def test_label_loss_of_answers_is_the_mean_over_both_ends():
    logits = np.random.default_rng(0).normal(0, 2, (3, 2, 5))
    labels = np.array([[1, 3], [0, 0], [4, 4]])
    logs = log_softmax(logits)
    expected = -np.mean([logs[row, end, labels[row, end]] for row in range(3) for end in range(2)])
    assert float(label_loss(paddle.to_tensor(logits), paddle.to_tensor(labels))) == pytest.approx(expected)


def test_label_loss_of_values_is_the_mean_squared_error():
    logits = np.random.default_rng(0).normal(0, 2, (6, 1)).astype("float32")
    labels = np.arange(6, dtype="float32")
    expected = np.mean((logits[:, 0] - labels) ** 2)
    assert float(label_loss(paddle.to_tensor(logits), paddle.to_tensor(labels))) == pytest.approx(expected, rel=1e-6)


def test_label_loss_of_several_labels_is_the_mean_binary_cross_entropy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, (6, 4)), rng.integers(0, 2, (6, 4)).astype("float64")
    probabilities = 1 / (1 + np.exp(-logits))
    expected = -(labels * np.log(probabilities) + (1 - labels) * np.log(1 - probabilities)).mean()
    tensor = paddle.to_tensor(logits, stop_gradient=False)
    loss = label_loss(tensor, paddle.to_tensor(labels))
    assert float(loss) == pytest.approx(expected)
    loss.backward()
    np.testing.assert_allclose(tensor.grad.numpy(), (probabilities - labels) / labels.size, rtol=1e-6)
    one = label_loss(paddle.to_tensor(logits[:, :1]), paddle.to_tensor(labels[:, :1]))  # not the error of a value
    own = np.where(labels[:, 0] == 1, probabilities[:, 0], 1 - probabilities[:, 0])
    assert float(one) == pytest.approx(-np.log(own).mean())


def test_the_full_model_step_is_plain_training():
    supernet, plain = make_supernet(), make_supernet().model
    parts = take_step(full_model_step, supernet, tensors())
    batch = tensors()
    loss = paddle.nn.functional.cross_entropy(
        plain(batch["input_ids"], batch["token_type_ids"], attention_mask=batch["attention_mask"]), batch["labels"]
    )
    loss.backward()
    assert parts == {"loss": pytest.approx(float(loss), rel=1e-6)}
    for name, parameter in plain.named_parameters():
        np.testing.assert_allclose(gradients(supernet)[name], parameter.grad.numpy(), atol=1e-6, err_msg=name)


def test_label_step_sums_the_gradients_of_its_sub_networks(grid):
    """The reference runs each sub-network alone from the tokens, without the embedding that they share."""
    supernet, reference = make_supernet(), make_supernet()
    parts = take_step(label_step(grid, FinalConfig()), supernet, tensors())
    losses = []
    for subnet in grid.values():
        batch = tensors()
        labels = batch.pop("labels")
        loss = label_loss(reference(subnet, **batch).logits, labels)
        loss.backward()
        losses.append(float(loss))
    assert parts == {"loss": pytest.approx(np.mean(losses), rel=1e-5)}
    expected = gradients(reference)
    assert set(gradients(supernet)) == set(expected)
    for name, gradient in gradients(supernet).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(gradient, expected[name], atol=max(1e-6, 1e-5 * scale), err_msg=name)
    assert np.abs(gradients(supernet)["bert.embeddings.word_embeddings.weight"]).max() > 1e-4


def test_label_step_trains_only_the_sandwich(grid):
    supernet, reference = make_supernet(), make_supernet()
    take_step(label_step(grid, SANDWICH), supernet, tensors(), index=7)
    for subnet in choose_subnets(grid, SANDWICH, 7):
        batch = tensors()
        labels = batch.pop("labels")
        label_loss(reference(subnet, **batch).logits, labels).backward()
    for name, gradient in gradients(supernet).items():
        np.testing.assert_allclose(gradient, gradients(reference)[name], rtol=1e-4, atol=1e-5, err_msg=name)


def distil(config, batch, *, student=None, teacher=None, subnets=None, kind="classification"):
    student = student or make_supernet()
    teacher = teacher or extract(student, student.full)
    subnets = subnets or student.search_space(depth_mults=(1.0,)).grid()
    return take_step(distillation_step(teacher, subnets, config, kind=kind), student, batch)


def test_distillation_runs_the_teacher_without_dropout_or_gradients():
    student, teacher = make_supernet(), Supernet(make_bert(vocab_size=1500, seed=1))  # with dropout
    before = to_arrays(teacher.model)
    losses = [distil(WidthConfig(), tensors(), student=student, teacher=teacher) for _ in range(2)]
    assert losses[0] == losses[1]
    assert not gradients(teacher)
    assert all(np.array_equal(array, before[name]) for name, array in to_arrays(teacher.model).items())


def test_distilling_a_model_into_itself_has_no_hidden_loss():
    student = make_supernet()
    parts = distil(WidthConfig(), tensors(), student=student, subnets={"w1.00d1.00": student.full})
    assert parts["hidden"] == pytest.approx(0, abs=1e-6)
    # What is left of the soft cross-entropy is the entropy of the teacher's own prediction.
    student.eval()
    batch = tensors()
    batch.pop("labels")
    probabilities = paddle.nn.functional.softmax(student(**batch).logits).numpy()
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1).mean()
    assert parts["logit"] == pytest.approx(entropy, rel=1e-4)
    assert parts["loss"] == pytest.approx(parts["logit"] + parts["hidden"], rel=1e-6)


def test_a_hard_label_term_adds_its_loss_and_its_gradient(grid):
    widths = dict(list(grid.items())[:3])
    soft, hard = make_supernet(), make_supernet()
    teacher = extract(soft, soft.full)
    before = distil(WidthConfig(), tensors(), student=soft, teacher=teacher, subnets=widths)
    parts = distil(WidthConfig(lambda_label=0.5), tensors(), student=hard, teacher=teacher, subnets=widths)
    labels_alone = make_supernet()
    plain = take_step(label_step(widths, FinalConfig()), labels_alone, tensors())
    assert "label" not in before
    assert parts["label"] == pytest.approx(0.5 * plain["loss"], rel=1e-5)
    assert parts["loss"] == pytest.approx(before["loss"] + parts["label"], rel=1e-5)
    for name, gradient in gradients(hard).items():
        expected = gradients(soft).get(name, 0) + 0.5 * gradients(labels_alone).get(name, 0)
        np.testing.assert_allclose(gradient, expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["classification", "regression", "multi_label"])
def test_texts_without_a_label_do_not_count_in_the_hard_label_loss(kind):
    """Each shard's share of the labels makes the shards' sum the whole batch's loss."""
    rng = np.random.default_rng(0)
    labels = {
        "classification": np.array([1, -100, 0, -100, 2]),
        "regression": np.array([0.5, np.nan, 1.5, np.nan, 3], "float32"),
        "multi_label": np.array([[1, 0], [np.nan] * 2, [0, 0], [np.nan] * 2, [1, 1]], "float32"),
    }[kind]
    logits = rng.normal(size=(5, {"classification": 3, "regression": 1, "multi_label": 2}[kind])).astype("float32")
    known = [0, 2, 4]
    whole = float(label_loss(paddle.to_tensor(logits), paddle.to_tensor(labels)))
    alone = float(label_loss(paddle.to_tensor(logits[known]), paddle.to_tensor(labels[known])))
    assert whole == pytest.approx(alone, rel=1e-6)
    inputs = {"input_ids": np.ones((5, 4), "int64"), "attention_mask": np.ones((5, 4), "int64"), "labels": labels}
    total = 0.0
    for index in range(2):
        shard = cut_shard(inputs, index, 2)
        total += float(label_loss(paddle.to_tensor(logits[index::2]), shard.labels)) * shard.weight.labels
    assert total == pytest.approx(alone, rel=1e-6)
    nobody = label_loss(paddle.to_tensor(logits[[1, 3]]), paddle.to_tensor(labels[[1, 3]]))
    assert float(nobody) == 0


def test_distillation_needs_no_labels():
    batch = tensors()
    with_labels = distil(WidthConfig(), dict(batch))
    batch.pop("labels")
    assert distil(WidthConfig(), batch) == with_labels


def widen(batch, *, columns):
    """The same batch with more padding."""
    return {
        name: value if name == "labels" else paddle.nn.functional.pad(value, [0, 0, 0, columns])
        for name, value in batch.items()
    }


@pytest.mark.parametrize("include_padding", [True, False])
def test_padding_counts_only_where_it_is_asked_for(include_padding):
    config = WidthConfig(include_padding=include_padding, lambda_logit=0.0, lambda_hidden=1.0)
    narrow = distil(config, tensors())["hidden"]
    wide = distil(config, widen(tensors(), columns=20))["hidden"]
    assert (wide == pytest.approx(narrow, rel=1e-4)) is not include_padding


def test_the_weights_of_the_losses_scale_their_parts():
    one = distil(WidthConfig(lambda_logit=1.0, lambda_hidden=1.0), tensors())
    other = distil(WidthConfig(lambda_logit=3.0, lambda_hidden=0.5), tensors())
    assert other["logit"] == pytest.approx(3 * one["logit"], rel=1e-5)
    assert other["hidden"] == pytest.approx(0.5 * one["hidden"], rel=1e-4)


def test_regression_distils_values_by_their_squared_error():
    student = make_supernet(num_labels=1)
    teacher = Supernet(make_bert(num_labels=1, vocab_size=1500, seed=1))
    config = WidthConfig(lambda_hidden=0.0)
    full = {"w1.00d1.00": student.full}
    parts = distil(config, tensors(), student=student, teacher=teacher, subnets=full, kind="regression")
    student.eval()
    batch = tensors()
    batch.pop("labels")
    expected = np.mean((student(**batch).logits.numpy() - teacher(**batch).logits.numpy()) ** 2)
    assert parts["loss"] == pytest.approx(expected, rel=1e-4)
