"""Losses between vectors, against NumPy."""

import numpy as np
import paddle
import pytest

from dynabert_paddle.distill.losses import DistillationLoss
from dynabert_paddle.distill.vectors import contrastive_loss, relative_error, similarity_error, vector_loss
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import SupernetOutput


def make_vectors(seed, count=7, size=5):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_hand(student, teacher):
    error = ((student - teacher) ** 2).sum(1).mean() / (teacher**2).sum(1).mean()
    cosine = 1 - (unit(student) * unit(teacher)).sum(1).mean()
    pairs = ((unit(student) @ unit(student).T - unit(teacher) @ unit(teacher).T) ** 2).sum(1).mean()
    return error, cosine, pairs


def test_the_losses_of_vectors_are_numpys():
    student, teacher = make_vectors(0), make_vectors(1)
    error, cosine, pairs = by_hand(student, teacher)
    s, t = paddle.to_tensor(student), paddle.to_tensor(teacher)
    assert float(relative_error(s, t)) == pytest.approx(error, rel=1e-5)
    assert float(similarity_error(s, t)) == pytest.approx(pairs, rel=1e-5)
    assert float(vector_loss(s, t)) == pytest.approx(error + cosine + pairs, rel=1e-5)
    assert float(vector_loss(t, t)) == pytest.approx(0, abs=1e-5)
    # In another unit of length the loss is the same.
    assert float(vector_loss(10 * s, 10 * t)) == pytest.approx(float(vector_loss(s, t)), rel=1e-5)


def test_a_sub_network_of_an_embedding_task_is_compared_by_its_vectors_and_hidden_states():
    student, teacher = (paddle.to_tensor(make_vectors(seed)) for seed in (0, 1))
    hidden = [paddle.to_tensor(np.random.default_rng(i).normal(size=(7, 3, 5)).astype(np.float32)) for i in range(4)]
    loss = DistillationLoss(lambda_logit=2.0, lambda_hidden=0.5, kind="embedding")
    parts = loss(
        SupernetOutput(student, tuple(hidden[:2])), SupernetOutput(teacher, tuple(hidden[2:])), Subnet((0,), (4,), (8,))
    )
    assert float(parts["logit"]) == pytest.approx(2 * float(vector_loss(student, teacher)), rel=1e-5)
    expected = sum(float(((a - b) ** 2).mean()) for a, b in zip(hidden[:2], hidden[2:], strict=True))
    assert float(parts["hidden"]) == pytest.approx(0.5 * expected, rel=1e-5)
    assert float(parts["loss"]) == pytest.approx(float(parts["logit"]) + float(parts["hidden"]), rel=1e-6)


def test_cut_vectors_are_compared_as_whole_ones_are():
    student, teacher = (paddle.to_tensor(make_vectors(seed)) for seed in (0, 1))
    hidden = (paddle.zeros([7, 1, 5]),) * 2
    loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=1.0, kind="embedding", output_dims=(5, 3, 2))
    parts = loss(SupernetOutput(student, hidden), SupernetOutput(teacher, hidden), Subnet((0,), (4,), (8,)))
    expected = np.mean([sum(by_hand(student.numpy()[:, :k], teacher.numpy()[:, :k])) for k in (5, 3, 2)])
    assert float(parts["logit"]) == pytest.approx(expected, rel=1e-5)


def test_the_contrastive_loss_is_a_cross_entropy_over_the_texts_that_are_no_queries():
    vectors = make_vectors(3)
    groups = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 2], [0, 2]])  # the third query has no positive text
    cosines = unit(vectors[:2]) @ unit(vectors[3:]).T / 0.05
    log_softmax = cosines - np.log(np.exp(cosines).sum(axis=1, keepdims=True))
    expected = -(log_softmax[0, 0] + log_softmax[1, 1]) / 2
    found = contrastive_loss(paddle.to_tensor(vectors), paddle.to_tensor(groups))
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(contrastive_loss(paddle.to_tensor(vectors[:3]), paddle.to_tensor(groups[:3]))) == 0.0
