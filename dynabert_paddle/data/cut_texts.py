"""How much of the texts of a file is not read where they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.stored_texts import Column, StoredTexts

# Rows that are tokenized whole, chosen at random among those that may be cut, and the characters of their texts.
_SAMPLE, _SAMPLE_CHARACTERS = 500, 2**22


class WholeTextEncoder(Protocol):
    """A tokenizer that returns all token ids of texts."""

    def num_special_tokens(self, texts: int) -> int: ...

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]: ...


class CutTexts(NamedTuple):
    """Of cut rows, tokenized whole, without the special tokens around the texts.

    Args:
        share: of their tokens, those that are not read.
        longest: tokens of the longest one.
    """

    share: float
    longest: int


def measure_cut(examples: Examples, tokenizer: WholeTextEncoder, max_seq_length: int) -> CutTexts | None:
    """Measure what is not read of the rows of a file that are cut; of many, of some at random.

    Args:
        examples: the rows.
        tokenizer: cuts the texts into tokens.
        max_seq_length: longer rows are cut to this number of tokens, including special tokens.

    Returns:
        The measure; None if none of the rows that were looked at is cut.
    """
    columns = [column for column in (examples.texts, examples.pairs) if column is not None]
    max_tokens = max_seq_length - tokenizer.num_special_tokens(len(columns))
    sizes = np.sum([_sizes(column) for column in columns], axis=0)
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(sizes > max_tokens))[:_SAMPLE]
    chosen = chosen[np.cumsum(sizes[chosen], dtype=np.int64) <= _SAMPLE_CHARACTERS]
    if not len(chosen):
        return None
    part = examples.select(np.sort(chosen))
    texts = [column[:] for column in (part.texts, part.pairs) if column is not None]
    counts = np.sum([list(map(len, tokenizer.encode_whole(column))) for column in texts], axis=0)
    cut = counts[counts > max_tokens]
    if not len(cut):
        return None
    return CutTexts(float((cut - max_tokens).sum() / cut.sum()), int(cut.max()))


def _sizes(column: Column) -> np.ndarray:
    """Characters of each text, or bytes of those on disk: no text has more tokens than bytes."""
    return column.sizes if isinstance(column, StoredTexts) else np.array(list(map(len, column)))
