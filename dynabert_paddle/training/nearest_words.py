"""Candidates for the words of a text without a masked LM: the nearest words in a backbone's own embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from dynabert_paddle.backbone.structure import find_word_embedding, num_positions, owner_of
from dynabert_paddle.data.augment import Word, is_replaceable
from dynabert_paddle.data.word_vectors import WordVectors
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.text.tokenizer import AnyTokenizer
from dynabert_paddle.training.masked_lm import find_spans, list_words, open_backend

_WORDS_KEPT = 10_000


class NearestWords:
    """The words of a backbone's vocabulary, each with the nearest ones by the cosine of their embeddings.

    Args:
        table: `[v, d]`, the embedding of each token.
        tokenizer: the backbone's.
        positions: tokens of the longest text.

    Raises:
        ModelError: the tokenizer has no form in the tokenizers library.
    """

    def __init__(self, table: np.ndarray, tokenizer: AnyTokenizer, *, positions: int) -> None:
        self._backend = open_backend(tokenizer)
        self.num_positions = positions
        words = list_words(self._backend, len(table))
        kept = [index for index, word in enumerate(words) if is_replaceable(word)]
        self._vectors = WordVectors([words[index] for index in kept], table[kept])
        self.fingerprint = f"{self._vectors.fingerprint} {tokenizer.fingerprint}"
        self._nearest = lru_cache(_WORDS_KEPT)(self._vectors.neighbours)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> NearestWords:
        """Read the embedding of a backbone.

        Args:
            name_or_path: as for `Supernet.from_pretrained`.

        Returns:
            Its words.

        Raises:
            ModelError: it cannot be loaded.
        """
        supernet = Supernet.from_pretrained(name_or_path)
        assert supernet.tokenizer is not None  # a folder without one is refused
        layer = getattr(*owner_of(supernet.model, find_word_embedding(supernet.model)))
        return cls(layer.weight.numpy(), supernet.tokenizer, positions=num_positions(supernet.model.config))

    def find_words(
        self,
        texts: Sequence[str],
        *,
        num_candidates: int,
        max_seq_length: int,
        neighbours: Callable[[str], Sequence[str]],
    ) -> list[list[Word]]:
        """Find the candidates that can replace each word of some texts.

        Args:
            texts: the texts.
            num_candidates: the nearest ones to take.
            max_seq_length: words after this number of tokens are not replaced.
            neighbours: other candidates for a word, which come before those of the embedding.

        Returns:
            Each text's words that have candidates, in their order.
        """
        self._backend.enable_truncation(max_seq_length)
        encodings = self._backend.encode_batch(list(texts))
        words: list[list[Word]] = []
        for text, encoding in zip(texts, encodings, strict=True):
            spans = [(span.start, span.end) for span in find_spans(text, encoding)]
            found = [
                Word(start, end, neighbours(word) or self._nearest(word, num_candidates))
                for start, end in spans
                for word in [text[start:end]]
            ]
            words.append([word for word in found if word.candidates])
        return words
