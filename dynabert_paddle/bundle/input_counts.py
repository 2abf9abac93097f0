"""Counts over the texts that a bundle has read, for a warning at the end.

This file is part of every bundle's `infer.py` and `infer_lite.py`, so it stays Python 3.7 syntax.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_UNKNOWN = 0.05  # share of the tokens, also in training; symbols and foreign names are below it


class InputCounts:
    """Counts the texts that were cut, unknown tokens, and texts with special tokens.

    Threads that call a bundle at the same time may lose a few counts.

    Args:
        description: the content of `bundle.json`; one that does not name the tokens was exported before they were.
    """

    def __init__(self, description: dict[str, Any]) -> None:
        self._max_seq_length: int = description["max_seq_length"]
        self._unknown = description.get("unk_token_id")
        self._special = frozenset(description.get("special_token_ids", ()))
        self._rows = self._cut_rows = self._cut_words = 0
        self._tokens = self._unknown_tokens = self._rows_with_special = 0

    def add(self, texts: Sequence[Sequence[int]], *, is_cut: bool, num_cut_words: int = 0) -> None:
        """Count one row.

        Args:
            texts: token ids of each of its texts that the model reads, without the special tokens around them.
            is_cut: whether it has more tokens.
            num_cut_words: its labelled words that were cut.
        """
        self._rows += 1
        self._cut_rows += is_cut
        self._cut_words += num_cut_words
        for ids in texts:
            self._tokens += len(ids)
            self._unknown_tokens += ids.count(self._unknown)
        self._rows_with_special += not all(map(self._special.isdisjoint, texts))

    def messages(self) -> list[str]:
        """Return warnings of one line each."""
        messages = []
        if self._cut_rows:
            words = "what is beyond was not read"
            if self._cut_words:
                words = _plural(self._cut_words, "word", "words") + " at the end were not read and are labelled O"
            verb = _plural(self._cut_rows, "text is", "texts are")
            messages.append(f"{verb} longer than {self._max_seq_length} tokens: {words}: split the texts")
        if self._unknown_tokens > MAX_UNKNOWN * self._tokens:
            share = f"{self._unknown_tokens / self._tokens:.0%} of the tokens are not in the model's vocabulary"
            messages.append(f"{share}: the answers may mean little")
        if self._rows_with_special:
            verb = _plural(self._rows_with_special, "text contains", "texts contain")
            messages.append(f"{verb} the text of a special token, such as [SEP], which was read as that token")
        return messages


def _plural(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
