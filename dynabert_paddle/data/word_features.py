"""Tokenized sentences with labelled words, in windows where they are long, and their scores.

Shapes: n windows, b batch, s sequence, c classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dynabert_paddle.data.features import Features
from dynabert_paddle.data.metrics import TYPE_F1
from dynabert_paddle.text.word_decoding import WordDecoder
from dynabert_paddle.text.word_labels import WordLabelScheme
from dynabert_paddle.text.word_windows import WordWindow

IGNORED = -100  # label of tokens that are not the first of a word, or of one that is labelled in another window


@dataclass(frozen=True, eq=False)
class WordFeatures(Features):
    """Tokenized sentences, with one example for every window.

    Args:
        token_labels: `[tokens]` int64, the class of each word's first token where it is labelled, -100 for others.
        windows: for each sentence, its windows; their examples follow one another in this order.
        before: special tokens before the text in a row.
        word_labels: for each sentence, the labels of its words.
        num_cut: for each sentence, the words that were truncated.
        names: the classes in the order of the logits.
        scheme: what they say about entities.
        decode: how logits become labels, one of `DECODINGS`.
    """

    kind = "token_classification"

    token_labels: np.ndarray
    windows: list[list[WordWindow]]
    before: int
    word_labels: list[list[str]]
    num_cut: np.ndarray
    names: tuple[str, ...]
    scheme: WordLabelScheme
    decode: str

    @property
    def targets(self) -> np.ndarray:
        """The labels that training uses."""
        return self.token_labels

    @property
    def num_scored(self) -> int:
        """The number of sentences."""
        return len(self.windows)

    @property
    def owners(self) -> np.ndarray:
        """`[n]`, the index of each window's sentence."""
        return np.repeat(np.arange(len(self.windows)), list(map(len, self.windows)))

    def collate(self, indices: np.ndarray, pad_token_id: int) -> dict[str, np.ndarray]:
        """As `FeatureSet.collate`; `labels` are `[b, s]`."""
        batch = super().collate(indices, pad_token_id)
        mask = batch["attention_mask"].astype(bool)
        labels = np.full(mask.shape, IGNORED, dtype=np.int64)
        labels[mask] = self.token_labels[self._tokens_of(np.asarray(indices))[0]]
        return batch | {"labels": labels}

    def predict(self, logits: Sequence[np.ndarray]) -> list[list[str]]:
        """Label the words of the sentences; a truncated word is `O`.

        Args:
            logits: `[s, c]` for each window.

        Returns:
            For each sentence, the labels of its words.
        """
        decoder = WordDecoder(self.names, self.scheme, decode=self.decode)
        return [
            decoder(len(labels), windows, rows, before=self.before)[0]
            for labels, windows, rows in zip(self.word_labels, self.windows, self._by_sentence(logits), strict=True)
        ]

    def read_words(self, logits: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Find the logits of the words that were read: all but those that were cut off, or that the tokenizer drops.

        Args:
            logits: `[s, c]` for each window.

        Yields:
            For each sentence, the indices of these words, `[w]`, and their logits, `[w, c]`.
        """
        for windows, rows in zip(self.windows, self._by_sentence(logits), strict=True):
            read = [row[self.before + window.tokens] for row, window in zip(rows, windows, strict=True)]
            yield np.concatenate([window.words for window in windows]), np.concatenate(read)

    def _by_sentence(self, logits: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
        start = 0
        for windows in self.windows:
            yield logits[start : start + len(windows)]
            start += len(windows)

    def score(
        self, metrics: Sequence[str], logits: Sequence[np.ndarray], thresholds: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score predicted labels; for a truncated word the prediction is `O`.

        Args:
            metrics: names from `WORD_METRICS`, computed over all sentences as by seqeval; `f1_PER` is that of a type.
            logits: `[s, c]` for each window.
            thresholds: unused; a word has one label.

        Returns:
            Each metric as a fraction.
        """
        predicted = self.predict(logits)
        return {metric: _score(metric, self._count(metric, predicted).sum(axis=0)) for metric in metrics}

    def score_without(self, metric: str, logits: Sequence[np.ndarray], groups: Iterable[np.ndarray]) -> np.ndarray:
        """As `FeatureSet.score_without`, by sentence."""
        counts = self._count(metric, self.predict(logits))
        total = counts.sum(axis=0)
        return np.array([_score(metric, total - counts[group].sum(axis=0)) for group in groups])

    def _count(self, metric: str, predicted: Sequence[Sequence[str]]) -> np.ndarray:
        """`[n, 3]`: of each sentence the entities, or the words, that are right, that are found, and that there are."""
        counts = []
        for found_labels, expected_labels in zip(predicted, self.word_labels, strict=True):
            if metric == "token_accuracy":
                num_right = sum(a == b for a, b in zip(found_labels, expected_labels, strict=True))
                counts.append((num_right, len(found_labels), len(expected_labels)))
                continue
            # A truncated word's label is O, which may be none of the names: it is no entity in any scheme.
            found, expected = (set(self.scheme.spans(labels)) for labels in (found_labels, expected_labels))
            if metric.startswith(TYPE_F1):
                kind = metric[len(TYPE_F1) :]
                found, expected = ({span for span in spans if span.type == kind} for spans in (found, expected))
            counts.append((len(found & expected), len(found), len(expected)))
        return np.array(counts, dtype=np.int64).reshape(-1, 3)


def _score(metric: str, counts: np.ndarray) -> float:
    """A metric of the sums of `WordFeatures._count`."""
    num_right, num_found, num_expected = counts.tolist()
    if metric == "entity_precision":
        return _ratio(num_right, num_found)
    if metric in ("entity_recall", "token_accuracy"):
        return _ratio(num_right, num_expected)
    return _ratio(2 * num_right, num_found + num_expected)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
