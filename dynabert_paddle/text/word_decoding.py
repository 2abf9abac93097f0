"""Labels words by the logits of their tokens: the most probable labels that a scheme allows one after the other.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
Shapes: n words, c classes, s sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynabert_paddle.text.decode import softmax
from dynabert_paddle.text.word_labels import WordLabelScheme
from dynabert_paddle.text.word_windows import WordWindow

# What another label than O costs a word that the tokenizer drops, twice for one that begins an entity: the word is O,
# unless an entity goes on around it.
_DROPPED = -1e-6


def allowed_transitions(scheme: WordLabelScheme, labels: Sequence[str]) -> np.ndarray:
    """Tell which labels may follow one another.

    Args:
        scheme: the scheme.
        labels: the classes.

    Returns:
        `[c + 1, c + 1]` bool: whether the column's label may follow the row's; the last index stands for the beginning
        of a text in a row, and for its end in a column. All of a scheme without a name is allowed.
    """
    types, *flags = zip(*scheme.rules([*labels, scheme.outside]))  # noqa: B905 - Python 3.7 has no strict
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(types))}
    kinds = np.array([numbers[kind] if kind else -1 for kind in types])
    begins, ends, after_its_type, before_its_type = map(np.array, flags)
    same = (kinds[:, None] == kinds) & (kinds >= 0)
    continues = same & (ends[:, None] < 1) & (begins < 1)
    breaks = (ends[:, None] > -1) & (begins > -1)
    breaks &= (~after_its_type & ~before_its_type[:, None]) | same
    return continues | breaks


def best_path(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Find the sequence of labels with the highest sum of scores among those that are allowed (Viterbi, 1967).

    Args:
        scores: `[n, c]`, such as logarithms of probabilities.
        allowed: from `allowed_transitions`.

    Returns:
        `[n]` classes; each word's best if no sequence is allowed.
    """
    free = scores.argmax(axis=1)
    if not len(free) or allowed[np.append(-1, free), np.append(free, -1)].all():
        return free  # of all sequences the best
    penalty = np.where(allowed, 0.0, -np.inf)
    between, columns = penalty[:-1, :-1], np.arange(scores.shape[1])
    before = np.empty(scores.shape, dtype=np.int64)
    total = penalty[-1, :-1] + scores[0]
    for word in range(1, len(scores)):
        sums = total[:, None] + between
        before[word] = sums.argmax(axis=0)
        total = sums[before[word], columns] + scores[word]
    total = total + penalty[:-1, -1]
    path = np.empty(len(scores), dtype=np.int64)
    path[-1] = total.argmax()
    if total[path[-1]] == -np.inf:
        return free
    for word in range(len(scores) - 1, 0, -1):
        path[word - 1] = before[word, path[word]]
    return path


class WordDecoder:
    """Labels the words of texts.

    Args:
        labels: the classes.
        scheme: what they say about entities.
        decode: one of `DECODINGS`; `constrained` allows only what the scheme, which has a name, does.
    """

    def __init__(self, labels: Sequence[str], scheme: WordLabelScheme, *, decode: str) -> None:
        self._labels, self._outside = list(labels), scheme.outside
        allowed = allowed_transitions(scheme, labels) if decode == "constrained" else np.array(True)
        self._allowed = None if allowed.all() else allowed
        costs = [0 if not rule.type else 2 if rule.begins > 0 else 1 for rule in scheme.rules(labels)]
        self._dropped = _DROPPED * np.array(costs)

    def __call__(
        self, num_words: int, windows: Sequence[WordWindow], logits: Sequence[np.ndarray], *, before: int
    ) -> tuple[list[str], list[float]]:
        """Label the words of one text.

        Args:
            num_words: the number of its words.
            windows: from `word_windows`.
            logits: `[s, c]` of each window's row.
            before: special tokens before the text in a row.

        Returns:
            The words' labels and their probabilities; `O` and 1 for words that are cut.
        """
        labels, scores = [self._outside] * num_words, [1.0] * num_words
        read = np.concatenate([window.words for window in windows])
        if not len(read):
            return labels, scores
        read_logits = np.concatenate([row[before + window.tokens] for row, window in zip(logits, windows)])  # noqa: B905
        probabilities = softmax(read_logits)
        path = self._find_path(read, read_logits)
        best = path[read - read[0]]
        for word, label in zip(range(read[0], read[-1] + 1), path.tolist()):  # noqa: B905
            labels[word] = self._labels[label] if label >= 0 else self._outside
        for word, score in zip(read.tolist(), probabilities[np.arange(len(read)), best].tolist()):  # noqa: B905
            scores[word] = score
        return labels, scores

    def _find_path(self, read: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return the class of each word from the first to the last one with a token; -1 for O of a dropped word."""
        num_words = int(read[-1] - read[0]) + 1
        if self._allowed is None:
            path = np.full(num_words, -1)
            path[read - read[0]] = logits.argmax(axis=-1)
            return path
        scores = np.tile(self._dropped, (num_words, 1))
        shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
        scores[read - read[0]] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return best_path(scores, self._allowed)
