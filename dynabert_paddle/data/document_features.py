"""Tokenized documents in windows, for tasks of whole texts: the logits of a document are pooled over its windows.

Shapes: n windows, m documents, b batch, c outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.features import Features, TextEncoder, flatten
from dynabert_paddle.errors import DataError
from dynabert_paddle.text.document_windows import NoRoomError, document_windows, pool_windows

if TYPE_CHECKING:
    from dynabert_paddle.data.readers import Examples

_DOCUMENTS_PER_CALL = 1024


@dataclass(frozen=True, eq=False)
class DocumentFeatures(Features):
    """Tokenized documents, with one example for every window; `labels` are those of the documents, `[m]` or `[m, c]`.

    Args:
        owners: `[n]`, the index of each window's document, ascending.
        num_new: `[n]`, the tokens of each window that no earlier window has.
        pooling: one of `WINDOW_POOLINGS`.
    """

    owners: np.ndarray
    num_new: np.ndarray
    pooling: str

    @property
    def num_scored(self) -> int:
        """The number of documents."""
        return len(self._num_windows)

    @property
    def _num_windows(self) -> np.ndarray:
        """`[m]`, the number of each document's windows, at least 1."""
        return np.bincount(self.owners)

    @property
    def _starts(self) -> np.ndarray:
        """`[m]`, the first window of each document."""
        return np.searchsorted(self.owners, np.arange(self.num_scored))

    @property
    def row_weights(self) -> np.ndarray | None:
        """`[n]` float32: 1 / windows of the document, scaled so that the mean is 1; None if all have one window."""
        counts = self._num_windows
        if len(counts) == len(self):
            return None
        return (len(self) / len(counts) / counts[self.owners]).astype(np.float32)

    def _labels_of(self, indices: np.ndarray) -> np.ndarray | None:
        return super()._labels_of(self.owners[indices])

    def select(self, indices: np.ndarray) -> DocumentFeatures:
        """Copy some of the documents.

        Args:
            indices: `[k]` integers in any order, or an `[m]` mask.

        Returns:
            The documents in the order of `indices`, all windows of each.
        """
        documents = np.arange(self.num_scored)[indices]
        counts, starts = self._num_windows[documents], self._starts[documents]
        first = np.cumsum(counts) - counts  # of each document's windows in the selection
        windows = np.arange(counts.sum()) + np.repeat(starts - first, counts)
        taken = self._take(windows)
        return replace(
            self,
            input_ids=taken.input_ids,
            token_type_ids=taken.token_type_ids,
            offsets=taken.offsets,
            labels=None if self.labels is None else self.labels[documents],
            owners=np.repeat(np.arange(len(documents)), counts),
            num_new=self.num_new[windows],
        )

    def restore(self, batches: Sequence[np.ndarray], logits: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """As `FeatureSet.restore`, of documents.

        Args:
            batches: indices of each batch's windows; every window is in one.
            logits: `[b, c]` of each batch.

        Returns:
            `[m, c]`, pooled over each document's windows.
        """
        values: Any = pool_windows(super().restore(batches, logits), self.num_new, self._starts, self.pooling)
        return values


def tokenize_documents(
    examples: Examples, tokenizer: TextEncoder, *, max_seq_length: int, stride: int, pooling: str
) -> DocumentFeatures:
    """Tokenize documents, in windows where they are long; of pairs the second texts.

    Args:
        examples: the documents.
        tokenizer: the tokenizer.
        max_seq_length: tokens of a window, at most, including special tokens.
        stride: tokens between the starts of successive windows.
        pooling: one of `WINDOW_POOLINGS`.

    Returns:
        The tokenized documents, in their order.

    Raises:
        DataError: the first text of a pair leaves no room for windows of the second.
    """
    columns = [column for column in (examples.texts, examples.pairs) if column is not None]
    max_tokens = max_seq_length - tokenizer.num_special_tokens(len(columns))
    parts, num_new, owners = [], [], []
    for start in range(0, len(examples), _DOCUMENTS_PER_CALL):
        encoded = [tokenizer.encode_whole(column[start : start + _DOCUMENTS_PER_CALL]) for column in columns]
        rows = []
        for number, texts in enumerate(zip(*encoded, strict=True), start=start):
            try:
                found = document_windows(texts, max_tokens=max_tokens, stride=stride)
            except NoRoomError as error:
                raise DataError(
                    f"{examples.source}: a row cannot be read in windows: {error} tokens: choose a smaller "
                    f"{setting('task.doc_stride')} or a larger {setting('task.max_seq_length')}, or exchange the "
                    f"columns; the row's first text is {' '.join(columns[0][number].split())[:60]!r}"
                ) from None
            rows += [tokenizer.wrap(*window.texts) for window in found]
            num_new += [window.num_new for window in found]
            owners += [number] * len(found)
        parts.append(flatten(rows))
    input_ids, type_ids, offsets = zip(*parts, strict=True)
    lengths = np.concatenate([np.diff(part) for part in offsets])
    return DocumentFeatures(
        np.concatenate(input_ids),
        np.concatenate(type_ids),
        np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        examples.labels,
        positive=examples.positive,
        owners=np.array(owners),
        num_new=np.array(num_new),
        pooling=pooling,
    )
