"""The windows of a long text whose words are labelled: each word gets its label where it is most central.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dynabert_paddle.text.encode import windows

LONG_TEXTS = ("windows", "truncate")


class WordWindow(NamedTuple):
    """A stretch of a text's tokens, and the words that get their labels from it.

    Args:
        start: index of its first token in the text.
        end: index after its last token.
        words: `[w]`, the indices of these words in the text, ascending.
        tokens: `[w]`, the index of each one's first token, counted from `start`.
    """

    start: int
    end: int
    words: np.ndarray
    tokens: np.ndarray


def word_windows(
    first: Sequence[int], num_tokens: int, *, max_tokens: int, stride: int | None
) -> tuple[list[WordWindow], int]:
    """Divide a text's tokens into windows that overlap, or take the first one alone.

    Args:
        first: from `first_tokens`: the index of each word's first token, -1 for a word without one.
        num_tokens: tokens of the text.
        max_tokens: tokens of a window, at most.
        stride: tokens between the starts of successive windows; None: what the first one does not hold is cut.

    Returns:
        The windows that label a word, or else the first one; and the number of words that are cut. A word is labelled
        in the window whose ends are farthest from it, in the earlier one at a tie.
    """
    starts = np.asarray(first, dtype=np.int64).reshape(-1)
    words = np.flatnonzero(starts >= 0)
    begins = starts[words]
    if stride is None or num_tokens <= max_tokens:
        end = min(max_tokens, num_tokens)
        fits = begins < end
        return [WordWindow(0, end, words[fits], begins[fits])], len(words) - int(np.count_nonzero(fits))
    ends = np.append(begins[1:], num_tokens)
    bounds = list(windows(num_tokens, max_tokens, stride))
    owners = np.zeros(len(words), dtype=np.int64)
    widest = np.full(len(words), -num_tokens - 1)  # tokens between a word and the nearer end of its window
    for number, (start, end) in enumerate(bounds):
        low, high = np.searchsorted(begins, (start, end))
        inside = slice(int(low), int(high))
        room = np.minimum(begins[inside] - start, end - ends[inside])
        owners[inside] = np.where(room > widest[inside], number, owners[inside])
        widest[inside] = np.maximum(room, widest[inside])
    found = []
    for number, (start, end) in enumerate(bounds):
        # The windows of successive words follow one another, too.
        low, high = np.searchsorted(owners, (number, number + 1))
        if low < high or (number == 0 and not len(words)):
            found.append(WordWindow(start, end, words[low:high], begins[low:high] - start))
    return found, 0
