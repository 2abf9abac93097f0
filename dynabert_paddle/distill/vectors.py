"""Losses between the vectors of texts. Shapes: b texts, d size of a vector."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

_TEMPERATURE = 0.05  # of the contrastive loss, as sentence-transformers has it


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


def contrastive_loss(vectors: Tensor, groups: Tensor) -> Tensor:
    """Tell a query's positive text from the others of the batch: cross-entropy of cosines (van den Oord et al., 2018).

    Args:
        vectors: `[b, d]`.
        groups: `[b, 2]` int64: a text's group, and 0 for its query, 1 for the positive text, 2 for a negative one.

    Returns:
        The mean over the queries whose positive text is in the batch, of -log softmax(cos / 0.05) over all texts of it
        that are no queries; 0 if there are none.
    """
    group, role = groups.numpy().T
    queries, others = np.flatnonzero(role == 0), np.flatnonzero(role != 0)
    places = {group[index]: place for place, index in enumerate(others) if role[index] == 1}
    kept = [index for index in queries if group[index] in places]
    if not kept:
        return vectors.sum() * 0.0
    unit = F.normalize(vectors, axis=-1)
    asked, answers = (paddle.gather(unit, paddle.to_tensor(np.asarray(rows))) for rows in (kept, others))
    targets = paddle.to_tensor(np.array([places[group[index]] for index in kept]))
    return F.cross_entropy(paddle.matmul(asked, answers, transpose_y=True) / _TEMPERATURE, targets)


def _cosines(vectors: Tensor) -> Tensor:
    unit = F.normalize(vectors, axis=-1)
    return paddle.matmul(unit, unit, transpose_y=True)  # [b, b]
