"""Unstructured pruning: the weights that matter least become zero, gradually while a model trains.

The share of zeros follows s_t = s - (s - s_0) (1 - t / T)^3 (Zhu and Gupta, 2017): most weights go early, when the
model has the most to spare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import paddle
from paddle import Tensor

from dynabert_paddle.supernet.sparsity import find_matrices
from dynabert_paddle.supernet.supernet import Supernet

_SHARE_OF_STEPS = 0.7  # T; in the steps after it, the model recovers with all its zeros
_NUM_UPDATES = 50  # finding the smallest of all weights takes a tenth of a step


@dataclass(frozen=True)
class Pruning:
    """How training makes a model sparse.

    Args:
        parts: what becomes sparse: attention, ffn, embedding.
        sparsity: s, the share of zeros in the end.
        before: s_0, the share of zeros in the beginning.
        criterion: weights become zero by their size, or by their size times their gradient.
        total_steps: of the training.
    """

    parts: tuple[str, ...]
    sparsity: float
    before: float
    criterion: Literal["magnitude", "gradient"]
    total_steps: int

    @property
    def last_step(self) -> int:
        """T, the step that brings the last zeros."""
        return max(1, int(_SHARE_OF_STEPS * self.total_steps))

    def sparsity_at(self, step: int) -> float | None:
        """Return the share of zeros after a step.

        Args:
            step: from 1.

        Returns:
            The share; None if no weight becomes zero at this step.
        """
        every = max(1, self.last_step // _NUM_UPDATES)
        if step > self.last_step or (step % every and step != self.last_step):
            return None
        return self.sparsity - (self.sparsity - self.before) * (1 - step / self.last_step) ** 3

    def prune(self, supernet: Supernet, optimizer: paddle.optimizer.Optimizer, step: int) -> None:
        """Set weights to zero after an optimizer step.

        Args:
            supernet: the model, changed in place.
            optimizer: Adam, whose second moment is the running mean of squared gradients.
            step: the number of the step, from 1.
        """
        sparsity = self.sparsity_at(step)
        if sparsity is None:
            return
        squares = None
        if self.criterion == "gradient":
            state = optimizer.state_dict()
            squares = {key.partition("_moment2_")[0]: value for key, value in state.items() if "_moment2_" in key}
        prune_weights(supernet, self.parts, sparsity, squares)


def prune_weights(
    supernet: Supernet, parts: Sequence[str], sparsity: float, squares: Mapping[str, Tensor] | None = None
) -> None:
    """Set the weights that matter least to zero; those that are zero stay so.

    A weight w with the gradient g matters by |w|, compared within its matrix, as the scales of matrices differ; or by
    the root of the mean of (w g)^2, to first order the change of the loss without it (Molchanov et al., 2019), compared
    within all matrices.

    Args:
        supernet: the model, changed in place.
        parts: what becomes sparse.
        sparsity: the share of zeros that there will be.
        squares: the mean of g^2 by a parameter's name in Paddle; None to go by |w|.
    """
    matrices = [m for part in find_matrices(supernet, parts).values() for m in part]
    groups = [[matrix] for matrix in matrices] if squares is None else [matrices]
    for group in groups:
        arrays = [matrix.numpy() for matrix in group]
        scores = [np.abs(array) for array in arrays]
        if squares is not None:
            scores = [s * np.sqrt(squares[m.name].numpy()) for s, m in zip(scores, group, strict=True)]
            # Zeros come first, before weights without a gradient.
            scores = [np.where(array == 0, -1.0, s) for s, array in zip(scores, arrays, strict=True)]
        flat = np.concatenate([s.reshape(-1) for s in scores])
        kept = np.ones(len(flat), bool)
        count = min(round(sparsity * len(flat)), len(flat) - 1)
        kept[np.argpartition(flat, count)[:count]] = False
        begin = 0
        for matrix, array in zip(group, arrays, strict=True):
            mask = kept[begin : begin + array.size].reshape(array.shape)
            begin += array.size
            matrix.set_value(np.where(mask, array, np.float32(0)))
