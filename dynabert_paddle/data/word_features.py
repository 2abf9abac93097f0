"""Tokenized sentences with labelled words, and their scores.

Shapes: b batch, s sequence, c classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynabert_paddle.data.features import Features
from dynabert_paddle.text.decode import label_words
from dynabert_paddle.text.word_labels import WordLabelScheme

IGNORED = -100  # label of tokens that are not the first of a word


@dataclass(frozen=True, eq=False)
class WordFeatures(Features):
    """Tokenized sentences.

    Args:
        token_labels: `[tokens]` int64, the class of each word's first token, -100 for other tokens.
        tokens: for each sentence, the first token of each word; -1 for a truncated word.
        word_labels: for each sentence, the labels of its words.
        names: the classes in the order of the logits.
        num_cut: `[n]`, the words of each sentence that were truncated.
    """

    kind = "token_classification"

    token_labels: np.ndarray
    tokens: list[np.ndarray]
    word_labels: list[list[str]]
    names: tuple[str, ...]
    num_cut: np.ndarray

    @property
    def targets(self) -> np.ndarray:
        """The labels that training uses."""
        return self.token_labels

    def select(self, indices: np.ndarray) -> WordFeatures:
        """Copy some of the sentences.

        Args:
            indices: `[b]` integers in any order, or an `[n]` mask.

        Returns:
            The sentences in the order of `indices`.
        """
        indices = np.arange(len(self))[indices]
        tokens, offsets = self._tokens_of(indices)
        return replace(
            self,
            input_ids=self.input_ids[tokens],
            token_type_ids=self.token_type_ids[tokens],
            offsets=offsets,
            token_labels=self.token_labels[tokens],
            tokens=[self.tokens[i] for i in indices],
            word_labels=[self.word_labels[i] for i in indices],
            num_cut=self.num_cut[indices],
        )

    def _batch_labels(self, mask: np.ndarray) -> np.ndarray:
        labels = np.full(mask.shape, IGNORED, dtype=np.int64)  # [b, s]
        labels[mask] = self.token_labels
        return labels

    def score(self, metrics: Sequence[str], logits: Sequence[np.ndarray]) -> dict[str, float]:
        """Score predicted labels; for a truncated word the prediction is `O`.

        Args:
            metrics: names from `WORD_METRICS`, computed over all sentences as by seqeval.
            logits: `[s, c]` for each sentence.

        Returns:
            Each metric as a fraction.
        """
        scores = _scores(self._count(logits).sum(axis=0))
        return {metric: scores[metric] for metric in metrics}

    def score_without(self, metric: str, logits: Sequence[np.ndarray], groups: Iterable[np.ndarray]) -> np.ndarray:
        """As `FeatureSet.score_without`, by sentence."""
        counts = self._count(logits)
        total = counts.sum(axis=0)
        return np.array([_scores(total - counts[group].sum(axis=0))[metric] for group in groups])

    def _count(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        """`[n, 5]`: a sentence's entities that are right, found and expected, its words that are right, its words."""
        scheme = WordLabelScheme(self.names)
        counts = []
        for row, tokens, expected_labels in zip(logits, self.tokens, self.word_labels, strict=True):
            predicted = label_words(row, tokens.tolist(), self.names)[0]
            # A truncated word's label is O, which may be none of the names: it is no entity in any scheme.
            found, expected = (set(scheme.spans(labels)) for labels in (predicted, expected_labels))
            equal = sum(a == b for a, b in zip(predicted, expected_labels, strict=True))
            counts.append((len(found & expected), len(found), len(expected), equal, len(predicted)))
        return np.array(counts, dtype=np.int64).reshape(-1, 5)


def _scores(counts: np.ndarray) -> dict[str, float]:
    """The metrics of the sums of `WordFeatures._count`."""
    num_right, num_found, num_expected, num_equal, num_words = counts.tolist()
    return {
        "entity_f1": _ratio(2 * num_right, num_found + num_expected),
        "entity_precision": _ratio(num_right, num_found),
        "entity_recall": _ratio(num_right, num_expected),
        "token_accuracy": _ratio(num_equal, num_words),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
