"""Punctuation as labels of words: which mark a label stands for, and a text with its marks.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

from collections.abc import Sequence

from dynabert_paddle.text.encode import is_unspaced

_PUNCTUATION = {
    "COMMA": ",",
    "PERIOD": ".",
    "FULLSTOP": ".",
    "QUESTION": "?",
    "QUESTIONMARK": "?",
    "EXCLAMATION": "!",
    "EXCLAMATIONMARK": "!",
    "COLON": ":",
    "SEMICOLON": ";",
}
_WIDE = dict(zip(",.?!:;", "\uff0c\u3002\uff1f\uff01\uff1a\uff1b"))  # noqa: B905 - Python 3.7 has no strict


def mark_of(label: str) -> str | None:
    """Return the punctuation mark that a label of words stands for.

    Args:
        label: such as `COMMA`, `question_mark`, `,COMMA` or the mark itself.

    Returns:
        The mark; None for a label of another kind.
    """
    if label in _WIDE or label in _WIDE.values():
        return label
    return _PUNCTUATION.get(label.lstrip(",.?!:;-").replace("_", "").replace("-", "").replace(" ", "").upper())


def write_marks(text: str, words: Sequence[tuple[int, int]], labels: Sequence[str]) -> str:
    """Insert marks into a text.

    Args:
        text: the text.
        words: start and end of each word.
        labels: each word's label; its mark stands behind the word.

    Returns:
        The text with its marks, wide ones behind Chinese and Japanese characters.
    """
    parts, written = [], 0
    for (_, end), label in zip(words, labels):  # noqa: B905
        mark = mark_of(label)
        if mark is not None:
            parts += [text[written:end], _WIDE.get(mark, mark) if is_unspaced(text[end - 1 : end]) else mark]
            written = end
    return "".join([*parts, text[written:]])
