"""The encoding that all tokenizers share: `longest_first` truncation as in PaddleNLP, and special tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError
from dynabert_paddle.text.encode import safe_text, truncate

_ALL_TOKENS = 2**40
BATCH_SIZE = 1024  # rows per call: the library's encodings need many times the memory of their ids


class LongestFirst(ABC):
    """Base class of both tokenizers: replaces surrogates, truncates and adds special tokens."""

    @abstractmethod
    def num_special_tokens(self, texts: int) -> int:
        """Return the number of special tokens added to one text (`texts` is 1) or a pair (2)."""

    @property
    @abstractmethod
    def unk_token_id(self) -> int | None:
        """Id of the unknown token; None if the vocabulary has none."""

    @property
    @abstractmethod
    def special_tokens(self) -> Mapping[int, str]:
        """The special tokens by id, without that of unknown ones."""

    def count_special_tokens(self, texts: int) -> int:
        """Count the ids around one text (`texts` is 1) or a pair (2) that are in `special_tokens`."""
        return sum(token in self.special_tokens for token in self.wrap(*([] for _ in range(texts)))[0])

    @abstractmethod
    def _tokenize(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]: ...  # at least the first max_tokens

    @abstractmethod
    def wrap(self, *texts: list[int]) -> tuple[list[int], list[int]]:
        """Add the special tokens to the token ids of one text or a pair; returns ids and token type ids."""

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Return all token ids of texts of any length, without special tokens."""
        ids: list[list[int]] = []
        for start in range(0, len(texts), BATCH_SIZE):
            ids += self._tokenize(list(map(safe_text, texts[start : start + BATCH_SIZE])), _ALL_TOKENS)
        return ids

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_seq_length: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Encode texts or pairs of texts with special tokens, without padding.

        Args:
            texts: one text per row.
            pairs: a second text for each row.
            max_seq_length: maximum tokens of a row; a longer row loses tokens from the end of its longer text.

        Returns:
            The ids and the token type ids, one list per row.

        Raises:
            UsageError: `max_seq_length` is below the number of special tokens.
        """
        ids, type_ids, _ = self.encode_rows(texts, pairs, max_seq_length=max_seq_length)
        return ids, type_ids

    def encode_rows(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_seq_length: int
    ) -> tuple[list[list[int]], list[list[int]], list[bool]]:
        """Encode as `encode` does, and tell which rows lost tokens.

        Args:
            texts: as for `encode`.
            pairs: as for `encode`.
            max_seq_length: as for `encode`.

        Returns:
            The ids, the token type ids, and whether each row was truncated.

        Raises:
            UsageError: as from `encode`.
        """
        needed = self.num_special_tokens(2 if pairs is not None else 1)
        if max_seq_length < needed:
            kind = "a text" if pairs is None else "a pair"
            raise UsageError(
                f"{setting('task.max_seq_length')} is {max_seq_length}, but {kind} has {needed} special tokens: "
                "increase it"
            )
        ids, type_ids, is_cut = [], [], []
        for start in range(0, len(texts), BATCH_SIZE):
            columns = [column[start : start + BATCH_SIZE] for column in (texts, pairs) if column is not None]
            # One token more than a row holds tells that a text is cut; a pair loses the same tokens however long it is.
            rows = [self._tokenize(list(map(safe_text, column)), max_seq_length - needed + 1) for column in columns]
            for row in zip(*rows, strict=True):
                row_ids, row_type_ids = self.wrap(*truncate(row, max_seq_length - needed))
                ids.append(row_ids)
                type_ids.append(row_type_ids)
                is_cut.append(sum(map(len, row)) > max_seq_length - needed)
        return ids, type_ids, is_cut
