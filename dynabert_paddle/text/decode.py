"""Decodes logits to predictions: a class, a value, several labels, labels of words, an answer, or a vector.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
Shapes: s sequence, c classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Union

import numpy as np

from dynabert_paddle.text.word_labels import WordLabelScheme

DEFAULT_THRESHOLD = 0.5  # the probability from which one of several labels is predicted


@dataclass(frozen=True)
class Prediction:
    """The prediction for one text or one pair of texts.

    Args:
        label: the most probable class; None for regression.
        score: its probability; for regression the predicted value.
        scores: the probability of every class.
    """

    label: str | None
    score: float
    scores: dict[str, float] = field(repr=False)

    @property
    def cells(self) -> list[str]:
        """The prediction as the cells of a table row."""
        return [*([] if self.label is None else [self.label]), f"{self.score:.4f}"]


@dataclass(frozen=True)
class LabelSet:
    """The prediction for one text or one pair of texts that can have several labels, or none.

    Args:
        labels: the labels that are predicted, the most probable first.
        scores: the probability of every label.
        separator: stands between labels in a table's cell; None: the cell is a JSON list.
    """

    labels: list[str]
    scores: dict[str, float] = field(repr=False)
    separator: InitVar[str | None] = None

    def __post_init__(self, separator: str | None) -> None:
        object.__setattr__(self, "_separator", separator)  # no field, so that JSON output is without it

    @property
    def cells(self) -> list[str]:
        """The prediction as the cells of a table row."""
        scores = [f"{self.scores[label]:.4f}" for label in self.labels]
        separator = self.__dict__["_separator"]
        if separator is None:
            return [json.dumps(self.labels, ensure_ascii=False), f"[{', '.join(scores)}]"]
        return [separator.join(self.labels), separator.join(scores)]


@dataclass(frozen=True)
class Entity:
    """An entity: one or several words of a text.

    Args:
        label: its type, such as `PER`.
        text: its text.
        start: the index of its first character.
        end: the index after its last character.
        score: the lowest probability among its words' labels.
    """

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class WordLabels:
    """The prediction for the words of a text.

    Args:
        words: the text's words.
        labels: one label per word.
        entities: the words joined by labels such as B-PER and I-PER.
        num_cut: how many words at the end are past the longest input: they have not been read, and are labelled `O`.
    """

    words: list[str]
    labels: list[str]
    entities: list[Entity]
    num_cut: int = 0

    @property
    def cells(self) -> list[str]:
        """The prediction as the cells of a table row."""
        return ["; ".join(f"{entity.label}: {entity.text}" for entity in self.entities)]


@dataclass(frozen=True)
class MarkedText(WordLabels):
    """The prediction for the words of a text whose labels are punctuation marks.

    Args:
        text: the text with its marks.
    """

    text: str = ""

    @property
    def cells(self) -> list[str]:
        """The prediction as the cells of a table row."""
        return [self.text]


@dataclass(frozen=True)
class Answer:
    """A model's answer to a question.

    Args:
        answer: a span of the context; empty if the model finds none.
        score: its probability among all possible spans.
        start: the index of its first character in the context.
        end: the index after its last character.
    """

    answer: str
    score: float
    start: int
    end: int

    @property
    def cells(self) -> list[str]:
        """The prediction as the cells of a table row."""
        return [self.answer, f"{self.score:.4f}"]


@dataclass(frozen=True)
class Embedding:
    """The vector of a text.

    Args:
        vector: `[d]`, float32 values.
    """

    vector: list[float] = field(repr=False)

    @property
    def cells(self) -> list[str]:
        """The prediction as the cells of a table row."""
        return [json.dumps(self.vector)]


AnyPrediction = Union[Prediction, LabelSet, WordLabels, Answer, Embedding]  # noqa: UP007 - Python 3.7 has no `|` between classes


def column_names(kind: str) -> list[str]:
    """Return the names of the `cells` of a prediction, by the kind of task."""
    return {
        "regression": ["score"],
        "multi_label": ["labels", "scores"],
        "token_classification": ["entities"],
        "question_answering": ["answer", "score"],
        "embedding": ["vector"],
    }.get(kind, ["label", "score"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits into probabilities along the last axis."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Turn each logit into a probability of its own."""
    return np.exp(-np.logaddexp(0, -logits))


def cut_padding(logits: np.ndarray, length: int, kind: str) -> np.ndarray:
    """Remove the logits of padding tokens from a row.

    Args:
        logits: `[c]`, which has none; `[s, c]` of token classification; `[2, s]` of question answering.
        length: number of tokens without padding.
        kind: the kind of task.

    Returns:
        The logits of the first `length` tokens.
    """
    if logits.ndim == 1:
        return logits
    return logits[:, :length] if kind == "question_answering" else logits[:length]


def find_entities(
    text: str,
    words: Sequence[tuple[int, int]],
    labels: Sequence[str],
    scores: Sequence[float],
    scheme: WordLabelScheme,
) -> list[Entity]:
    """Join words to entities by their labels.

    Args:
        text: the text.
        words: start and end of each word.
        labels: each word's label.
        scores: each label's probability.
        scheme: the labels' scheme, such as BIO.

    Returns:
        The entities.
    """
    entities: list[Entity] = []
    for kind, first, last in scheme.spans(labels):
        start, end = words[first][0], words[last][1]
        entities.append(Entity(kind, text[start:end], start, end, min(scores[first : last + 1])))
    return entities


def best_answer(
    context: str,
    windows: Sequence[tuple[np.ndarray, int, Sequence[tuple[int, int]]]],
    *,
    max_answer_length: int,
    may_be_empty: bool,
) -> Answer:
    """Find the most probable answer among the windows of a context.

    Args:
        context: the text.
        windows: for each window, its logits `[2, s]` of the answer's first and last token; the index of its first
            context token; and the start and end in `context` of each of its context tokens.
        max_answer_length: in tokens.
        may_be_empty: whether a question may have no answer; the score of that is the logits of a row's first token.

    Returns:
        The answer.
    """
    best, log_total = (-np.inf, 0, 0), -np.inf
    for logits, first, offsets in windows:
        if not len(offsets):
            continue
        starts, ends = logits[:, first : first + len(offsets)]
        sums = starts[:, None] + ends[None, :]
        distance = np.arange(len(ends)) - np.arange(len(starts))[:, None]
        sums[(distance < 0) | (distance >= max_answer_length)] = -np.inf
        start, end = np.unravel_index(sums.argmax(), sums.shape)
        best = max(best, (float(sums[start, end]), offsets[start][0], offsets[end][1]))
        log_total = np.logaddexp(log_total, np.logaddexp.reduce(sums, axis=None))
    if may_be_empty:
        no_answer = min(float(logits[:, 0].sum()) for logits, _, _ in windows)
        log_total = np.logaddexp(log_total, no_answer)
        if no_answer > best[0]:
            return Answer("", float(np.exp(no_answer - log_total)), 0, 0)
    score, start, end = best
    probability = float(np.exp(score - log_total)) if np.isfinite(score) else 0.0
    return Answer(context[start:end], probability, start, end)
