"""The parts of a batch, one for each replica of each process, whose gradients add up to the whole batch's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dynabert_paddle.data.token_classification import IGNORED


@dataclass(frozen=True)
class Share:
    """How much of the whole batch a part of it is, as fractions.

    A loss is a mean over one of these. The means of the parts, each times its fraction, add up to the whole batch's.

    Args:
        rows: of the examples.
        tokens: of the tokens that are not padding.
        pairs: of the pairs of such tokens in the same example.
        labels: of the labels that count.
    """

    rows: float = 1.0
    tokens: float = 1.0
    pairs: float = 1.0
    labels: float = 1.0


WHOLE = Share()


def take_share(batch: Mapping[str, np.ndarray], part: int, parts: int) -> tuple[dict[str, np.ndarray], Share]:
    """Take the rows of one part of a batch.

    Args:
        batch: the whole batch, as `Features.collate` makes it.
        part: its number, from 0.
        parts: how many there are.

    Returns:
        The rows, padded as in the whole batch, and how much of it they are. A part for which there is none gets one
        that counts for nothing, so that who computes it does the same as the others.
    """
    if parts == 1:
        return dict(batch), WHOLE
    num_rows = len(batch["input_ids"])
    own = slice(part, None, parts) if part < num_rows else slice(1)
    counted = 1.0 if part < num_rows else 0.0
    lengths = batch["attention_mask"].sum(axis=1)

    def fraction(amounts: np.ndarray) -> float:
        return counted * float(amounts[own].sum()) / max(1.0, float(amounts.sum()))

    share = Share(
        rows=fraction(np.ones(num_rows)),
        tokens=fraction(lengths),
        pairs=fraction(lengths**2),
        labels=fraction(_num_labels(batch.get("labels"), num_rows)),
    )
    return {name: values[own] for name, values in batch.items()}, share


def _num_labels(labels: np.ndarray | None, num_rows: int) -> np.ndarray:
    """How many labels of each row a loss counts."""
    if labels is None or np.issubdtype(labels.dtype, np.floating):
        return np.ones(num_rows)
    return (labels != IGNORED).reshape(num_rows, -1).sum(axis=1)
