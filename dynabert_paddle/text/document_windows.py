"""The windows of a long document: each gives logits of its own, and those of the document are their mean or maximum.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dynabert_paddle.text.encode import windows


class NoRoomError(ValueError):
    """A first text of a pair that leaves no room for windows of the second; the message says how long it may be."""


class DocumentWindow(NamedTuple):
    """The tokens of one window of a document.

    Args:
        texts: those of the document, or of a pair's first text, which is whole, and a window of the second.
        num_new: how many of them no earlier window has, which the window counts for; all of the first window.
    """

    texts: list[list[int]]
    num_new: int


def document_windows(texts: Sequence[list[int]], *, max_tokens: int, stride: int) -> list[DocumentWindow]:
    """Split a document into overlapping windows; of a pair the second text.

    Args:
        texts: token ids of one text or a pair, without special tokens.
        max_tokens: tokens of a row, at most, without special tokens.
        stride: tokens between the starts of successive windows.

    Returns:
        The windows; one where all tokens fit.

    Raises:
        NoRoomError: the windows of a pair's second text would not overlap.
    """
    *first, divided = texts
    num_first = sum(map(len, first))
    room = max_tokens - num_first
    if room <= stride and len(divided) > room:
        length = f"{num_first}" if num_first <= max_tokens else f"more than {max_tokens}"
        raise NoRoomError(
            f"its first text has {length} tokens, and the second is read in windows that begin {stride} tokens "
            f"apart, which leave room for {max(0, max_tokens - stride - 1)}"
        )
    found, seen = [], 0
    for start, end in windows(len(divided), room, stride):
        found.append(DocumentWindow([*first, divided[start:end]], end - seen))
        seen = end
    return found


def pool_windows(
    logits: Sequence[np.ndarray], num_new: Sequence[int] | np.ndarray, starts: Sequence[int] | np.ndarray, pooling: str
) -> np.ndarray:
    """Combine the logits of windows to those of their documents.

    Args:
        logits: `[n, c]`, of the windows; a document's follow one another.
        num_new: `[n]`, the tokens that each counts for.
        starts: `[m]`, the first window of each document.
        pooling: `mean`, weighted by these tokens, or `max`.

    Returns:
        `[m, c]` float64; those of a document with one window are the window's.
    """
    values = np.asarray(logits, dtype=np.float64)
    if pooling == "max":
        return np.maximum.reduceat(values, starts)
    counts = np.maximum(np.asarray(num_new, dtype=np.float64), 1)  # a text without tokens has one window
    sums = np.add.reduceat(counts, starts)
    shares = counts / np.repeat(sums, np.diff([*starts, len(values)]))
    return np.add.reduceat(values * shares[:, None], starts)
