"""Losses between the vectors of texts. Shapes: b texts, d size of a vector."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor


def vector_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare a student's vectors with its teacher's: one by one, and in how similar the texts are to one another.

    Args:
        student: `[b, d]`.
        teacher: `[b, d]`.

    Returns:
        `relative_error` + the mean of 1 - cos + `similarity_error`, each a mean over the texts.
    """
    cosine = F.cosine_similarity(student, teacher, axis=-1)
    return relative_error(student, teacher) + (1 - cosine).mean() + similarity_error(student, teacher)


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared error, sum_d (s - t)^2, divided by the teacher's mean squared length: 1 for a student of zeros."""
    return ((student - teacher) ** 2).sum(axis=-1).mean() / (teacher**2).sum(axis=-1).mean()


def similarity_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the cosines of all pairs of a batch (Tung and Mori, 2019, with cosines in place of products).

    Args:
        student: `[b, d]`.
        teacher: `[b, d]`.

    Returns:
        sum_j (cos(s_i, s_j) - cos(t_i, t_j))^2, the mean over i.
    """
    return ((_cosines(student) - _cosines(teacher)) ** 2).sum(axis=-1).mean()


def _cosines(vectors: Tensor) -> Tensor:
    unit = F.normalize(vectors, axis=-1)
    return paddle.matmul(unit, unit, transpose_y=True)  # [b, b]
