"""Which of several labels a bundle predicts for a text: those that reach their thresholds, or the most probable ones.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.text.decode import LabelSet, sigmoid

# Between the labels of a table's cell; the first that no label contains.
_SEPARATORS = ("|", ";", ",", "/", "+", "&", "#", "~")


class LabelChoice:
    """Decodes logits to label sets.

    Args:
        description: the content of `bundle.json`.
        threshold: the user's in place of the bundle's: the probability from which a label is predicted, one for all
            labels, or those of some by name.
        top_k: how many labels are predicted at most; without `threshold`, the most probable ones, whatever the bundle's
            thresholds are.

    Raises:
        BundleError: a threshold is not above 0 and below 1, or of a label that the bundle lacks; or `top_k` is below 1.
    """

    def __init__(
        self, description: dict[str, Any], *, threshold: float | Mapping[str, float] | None, top_k: int | None
    ) -> None:
        self._labels: list[str] = description["labels"]
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, Integral) or top_k < 1):
            raise BundleError(f"top_k is {top_k!r}: give a whole number of at least 1")
        self._top_k = top_k
        given = self._read_threshold(threshold)
        self._thresholds = {
            member["subnet"]: np.array(
                [
                    given.get(label, 0.0 if top_k and not given else member["thresholds"][label])
                    for label in self._labels
                ]
            )
            for member in description.get("members", [description])
        }
        self._separator = choose_separator(self._labels, description["task"].get("label_separator"))

    def _read_threshold(self, threshold: float | Mapping[str, float] | None) -> dict[str, float]:
        """Return the user's thresholds by label."""
        if threshold is None:
            return {}
        given = dict(threshold) if isinstance(threshold, Mapping) else {self._labels[0]: threshold}
        for label, value in given.items():
            if label not in self._labels:
                known = ", ".join(map(repr, self._labels[:20])) + (", ..." if len(self._labels) > 20 else "")
                raise BundleError(f"threshold of {label!r}, which is not one of the bundle's labels, {known}")
            if not is_threshold(value):
                raise BundleError(f"threshold is {value!r}: give a number above 0 and below 1")
        return given if isinstance(threshold, Mapping) else dict.fromkeys(self._labels, threshold)

    def decode(self, logits: np.ndarray, subnet: str) -> LabelSet:
        """Decode the logits of one row.

        Args:
            logits: `[c]`.
            subnet: the sub-network that computed them, which has thresholds of its own.

        Returns:
            The labels.
        """
        probabilities = sigmoid(logits)
        order = np.argsort(-probabilities, kind="stable")
        chosen = order[probabilities[order] >= self._thresholds[subnet][order]][: self._top_k]
        scores = dict(zip(self._labels, probabilities.tolist()))  # noqa: B905 - Python 3.7 has no strict
        return LabelSet([self._labels[index] for index in chosen], scores, self._separator)


def choose_separator(labels: Sequence[str], given: str | None) -> str | None:
    """Choose what stands between labels in a cell of a table.

    Args:
        labels: all labels.
        given: the separator of the task's files, if they have one.

    Returns:
        The first that no label contains: of the files, or usual ones; None: the cell is a JSON list.
    """
    marks = (given, *_SEPARATORS)
    return next((mark for mark in marks if mark and not any(mark in label for label in labels)), None)


def is_threshold(value: object) -> bool:
    """Whether a value is a number above 0 and below 1."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < 1


def parse_threshold(words: Sequence[str]) -> float | dict[str, float] | None:
    """Read the values of the option `--threshold`.

    Args:
        words: one number for all labels, or `label=number` for some of them.

    Returns:
        As `LabelChoice` takes them; None if there are none.

    Raises:
        BundleError: something else.
    """
    found: dict[str, float] = {}  # the number for all labels under an empty name
    for word in words:
        label, _, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not is_threshold(value):
            raise BundleError(f"--threshold is {word!r}: give a number above 0 and below 1, or label=number")
        if label in found or (found and "" in (label, *found)):
            raise BundleError("--threshold: give one number for all labels, or label=number once for each of some")
        found[label] = value
    return found.get("", found or None)
