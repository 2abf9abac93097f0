"""Logits to what a user asked for: a class, a value, labels of words, or an answer.

This file is a part of every bundle's `infer.py` and `infer_lite.py`; Python 3.7 runs it. Shapes: s sequence, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Union

import numpy as np

OUTSIDE = "O"  # the label of a word that is part of nothing


@dataclass(frozen=True)
class Prediction:
    """What a model says of one text, or of one pair.

    Args:
        label: the most probable class; None for regression.
        score: its probability; for regression the predicted value.
        scores: every class's probability.
    """

    label: str | None
    score: float
    scores: dict[str, float] = field(repr=False)

    @property
    def cells(self) -> list[str]:
        """The prediction as cells of a table."""
        return [*([] if self.label is None else [self.label]), f"{self.score:.4f}"]


@dataclass(frozen=True)
class Entity:
    """A part of a text that several words make up.

    Args:
        label: what it is.
        text: the part.
        start: where it begins, in characters.
        end: where it ends.
        score: the lowest probability among its words' labels.
    """

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class WordLabels:
    """What a model says of a text's words.

    Args:
        words: the text's words.
        labels: one label a word.
        entities: what the words of labels such as B-PER and I-PER make up.
    """

    words: list[str]
    labels: list[str]
    entities: list[Entity]

    @property
    def cells(self) -> list[str]:
        """The prediction as cells of a table."""
        return ["; ".join(f"{entity.label}: {' '.join(entity.text.split())}" for entity in self.entities)]


@dataclass(frozen=True)
class Answer:
    """A model's answer to a question.

    Args:
        answer: a part of the context; empty where the model finds none.
        score: its probability among all parts that could be the answer.
        start: where it begins in the context, in characters.
        end: where it ends.
    """

    answer: str
    score: float
    start: int
    end: int

    @property
    def cells(self) -> list[str]:
        """The prediction as cells of a table."""
        return [" ".join(self.answer.split()), f"{self.score:.4f}"]


AnyPrediction = Union[Prediction, WordLabels, Answer]  # noqa: UP007 - Python 3.7 knows no `|` of classes


def columns(kind: str) -> list[str]:
    """Name the cells that a kind of prediction has.

    Args:
        kind: of the task.

    Returns:
        Their names.
    """
    return {
        "regression": ["score"],
        "token_classification": ["entities"],
        "question_answering": ["answer", "score"],
    }.get(kind, ["label", "score"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits into probabilities along the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def cut_padding(logits: np.ndarray, length: int, kind: str) -> np.ndarray:
    """Cut a row's logits to its own tokens.

    Args:
        logits: `[c]`, which has nothing of padding; `[s, c]` of token classification; `[2, s]` of question answering.
        length: the row's tokens.
        kind: of the task.

    Returns:
        The logits without those of padding.
    """
    if logits.ndim == 1:
        return logits
    return logits[:, :length] if kind == "question_answering" else logits[:length]


def label_words(logits: np.ndarray, tokens: Sequence[int], labels: Sequence[str]) -> tuple[list[str], list[float]]:
    """Give every word the most probable label of its token.

    Args:
        logits: `[s, c]`.
        tokens: each word's token; -1 for none, and such a word is outside.
        labels: the classes.

    Returns:
        A label and its probability for each word.
    """
    probabilities = softmax(logits)
    best = probabilities.argmax(axis=-1)
    names = [labels[best[token]] if token >= 0 else OUTSIDE for token in tokens]
    scores = [float(probabilities[token, best[token]]) if token >= 0 else 1.0 for token in tokens]
    return names, scores


def find_entities(
    text: str, words: Sequence[tuple[int, int]], labels: Sequence[str], scores: Sequence[float]
) -> list[Entity]:
    """Join words to entities by their labels.

    Args:
        text: the text.
        words: each word's begin and end.
        labels: each word's label: `O`, or a type after `B-` (begins), `I-` (goes on), `E-` or `L-` (ends), `S-` or `U-`
            (alone); a type by itself joins its neighbours.
        scores: each label's probability.

    Returns:
        The entities; `I-` without a beginning begins one.
    """
    found: list[Entity] = []
    previous = ("", "")
    for (start, end), label, score in zip(words, labels, scores):  # noqa: B905 - Python 3.7 knows no strict
        part, dash, kind = label.partition("-")
        if not dash:
            part, kind = "I", "" if label == OUTSIDE else label
        if not kind:
            previous = ("", "")
            continue
        goes_on = part in "IEL" and previous[1] == kind and previous[0] in "BI"
        if goes_on:
            before = found.pop()
            start, score = before.start, min(before.score, score)
        found.append(Entity(kind, text[start:end], start, end, score))
        previous = (part, kind)
    return found


def best_answer(
    context: str,
    parts: Sequence[tuple[np.ndarray, int, Sequence[tuple[int, int]]]],
    *,
    max_answer_length: int,
    may_be_empty: bool,
) -> Answer:
    """Find the most probable answer among the windows of a context.

    Args:
        context: the text.
        parts: for each window its logits `[2, s]`, of each token that the answer begins and that it ends there; the
            context's first token in it; and where each of the context's tokens in it begins and ends in the text.
        max_answer_length: in tokens.
        may_be_empty: whether a question may have no answer, which the first token of a row represents.

    Returns:
        The answer.
    """
    best, total = (-np.inf, 0, 0), -np.inf
    for logits, first, offsets in parts:
        if not len(offsets):
            continue
        starts, ends = logits[:, first : first + len(offsets)]
        sums = starts[:, None] + ends[None, :]
        reach = np.arange(len(ends)) - np.arange(len(starts))[:, None]
        sums[(reach < 0) | (reach >= max_answer_length)] = -np.inf
        start, end = np.unravel_index(sums.argmax(), sums.shape)
        best = max(best, (float(sums[start, end]), offsets[start][0], offsets[end][1]))
        total = np.logaddexp(total, np.logaddexp.reduce(sums, axis=None))
    if may_be_empty:
        none = min(float(logits[:, 0].sum()) for logits, _, _ in parts)
        total = np.logaddexp(total, none)
        if none > best[0]:
            return Answer("", float(np.exp(none - total)), 0, 0)
    score, start, end = best
    probability = float(np.exp(score - total)) if np.isfinite(score) else 0.0
    return Answer(context[start:end], probability, start, end)
