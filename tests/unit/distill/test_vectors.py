"""Losses between vectors, against NumPy."""

import numpy as np
import paddle
import pytest

from dynabert_paddle.distill.losses import DistillationLoss
from dynabert_paddle.distill.vectors import relative_error, similarity_error, vector_loss
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
