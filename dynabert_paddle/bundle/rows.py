"""Rows of texts to what a graph takes, and its logits to predictions, for every kind of task.

This file is a part of every bundle's `infer.py` and `infer_lite.py`; Python 3.7 runs it. Shapes: s sequence, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.text.decode import (
    Answer,
    AnyPrediction,
    Prediction,
    WordLabels,
    best_answer,
    find_entities,
    label_words,
    softmax,
)
from dynabert_paddle.text.encode import (
    Template,
    first_tokens,
    join_words,
    question_windows,
    safe_text,
    split_words,
    truncate,
)


def shown(value: object) -> str:
    """A value in a message: one line, cut to 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


class Row(NamedTuple):
    """A row's texts, and where the words of its first one begin and end where each gets a label."""

    texts: list[str]
    words: list[tuple[int, int]] | None


class Tokens(NamedTuple):
    """A text's token ids, and where each token begins and ends in it."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Encoded(NamedTuple):
    """A row as the graph takes it: ids and token type ids of its windows; and what makes their logits a prediction."""

    windows: list[tuple[list[int], list[int]]]
    decode: Callable[[list[np.ndarray]], AnyPrediction]


class RowEncoder:
    """Prepares rows for a bundle's graph, and says what it predicts for them.

    Args:
        description: what `bundle.json` says.
        template: the tokenizer's, for as many texts as a row has.
    """

    def __init__(self, description: dict[str, Any], template: Template) -> None:
        self.kind: str = description["task"].get("kind", "classification")
        self.labels: list[str] = description["labels"]
        self.takes_pairs: bool = description["pair"]
        self._answers: dict[str, Any] = description.get("answers", {})
        self._max_seq_length: int = description["max_seq_length"]
        self._room = self._max_seq_length - template.num_special_tokens
        self._template = template

    def read(self, row: Sequence[str], number: int) -> Row:
        """Check a row.

        Args:
            row: one text, or two; for the labels of words a text can be a list of words.
            number: the row's, for the message.

        Returns:
            Its texts, which every tokenizer takes.

        Raises:
            BundleError: the row is something else.
        """
        # A str is a sequence, too: its characters are no texts.
        is_row = isinstance(row, Sequence) and not isinstance(row, (str, bytes)) and len(row) == 1 + self.takes_pairs
        if not is_row or not all(map(self._is_text, row)):
            wanted = "tuples of two texts" if self.takes_pairs else "tuples of one text"
            raise BundleError(f"row {number} is {shown(row)}: this bundle takes {wanted}")
        if self.kind != "token_classification":
            return Row([safe_text(text) for text in row], None)
        if isinstance(row[0], str):
            text = safe_text(row[0])
            return Row([text], split_words(text))
        text, words = join_words([safe_text(word) for word in row[0]])
        return Row([text], words)

    def _is_text(self, value: object) -> bool:
        if self.kind == "token_classification" and isinstance(value, (list, tuple)):
            return all(isinstance(word, str) for word in value)
        return isinstance(value, str)

    def encode(self, row: Row, tokens: Sequence[Tokens]) -> Encoded:
        """Add the special tokens.

        Args:
            row: from `read`.
            tokens: of each of its texts, without special tokens.

        Returns:
            Its windows; only a question has more than one.
        """
        if self.kind == "token_classification":
            return self._encode_words(row, tokens[0])
        if self.kind == "question_answering":
            return self._encode_question(row, *tokens)
        cut = truncate([text.ids for text in tokens], self._room)
        return Encoded([self._template.wrap(*cut)], lambda logits: self._classify(logits[0]))

    def _classify(self, logits: np.ndarray) -> Prediction:
        if not self.labels:
            return Prediction(None, float(logits[0]), {})
        scores = dict(zip(self.labels, softmax(logits).tolist()))  # noqa: B905 - Python 3.7 knows no strict
        label = self.labels[int(logits.argmax())]
        return Prediction(label, scores[label], scores)

    def _encode_words(self, row: Row, tokens: Tokens) -> Encoded:
        (text,), words = row.texts, row.words or []
        first = first_tokens(tokens.offsets[: self._room], words, before=len(self._template.ids[0]))

        def decode(logits: list[np.ndarray]) -> WordLabels:
            labels, scores = label_words(logits[0], first, self.labels)
            entities = find_entities(text, words, labels, scores)
            return WordLabels([text[start:end] for start, end in words], labels, entities)

        return Encoded([self._template.wrap(tokens.ids[: self._room])], decode)

    def _encode_question(self, row: Row, question: Tokens, context: Tokens) -> Encoded:
        settings = dict(self._answers)
        room = {"max_seq_length": self._max_seq_length, "doc_stride": settings.pop("doc_stride")}
        windows = question_windows(self._template, question.ids, context.ids, **room)

        def decode(logits: list[np.ndarray]) -> Answer:
            parts = [
                (values, window.first, context.offsets[window.start : window.end])
                for values, window in zip(logits, windows)  # noqa: B905
            ]
            return best_answer(row.texts[1], parts, **settings)

        return Encoded([(window.ids, window.type_ids) for window in windows], decode)
