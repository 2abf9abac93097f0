"""Features of texts that do not fit into memory: each batch is tokenized when needed.

Shapes: n examples, b batch, s sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dynabert_paddle.data.features import Features, FeatureSet, TextEncoder, encode_examples
from dynabert_paddle.data.stored_texts import StoredTexts

if TYPE_CHECKING:
    from dynabert_paddle.data.readers import Examples


@dataclass(frozen=True, eq=False)
class StreamedFeatures(FeatureSet):
    """Examples whose texts are on disk.

    Args:
        examples: the examples.
        tokenizer: the tokenizer.
        max_seq_length: longer inputs are truncated to this number of tokens, including special tokens.
    """

    examples: Examples
    tokenizer: TextEncoder
    max_seq_length: int

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each example's texts, `[n]` int32, which group batches almost as well as numbers of tokens."""
        texts, *pairs = self._columns()
        return texts.sizes + pairs[0].sizes if pairs else texts.sizes

    def _columns(self) -> list[StoredTexts]:
        columns = (self.examples.texts, self.examples.pairs)
        return [column for column in columns if isinstance(column, StoredTexts)]

    @property
    def labels(self) -> np.ndarray | None:  # type: ignore[override] # read-only here, a field elsewhere
        """As in `Features`."""
        return self.examples.labels

    @property
    def positive(self) -> int:  # type: ignore[override] # read-only here, a field elsewhere
        """The class whose F1 the metric `f1` is."""
        return self.examples.positive

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """The arrays that identify these examples."""
        tokenizer = np.frombuffer(f"{self.tokenizer.fingerprint} {self.max_seq_length}".encode(), dtype=np.uint8)
        labels = () if self.labels is None else (self.labels,)
        return (*(column.fingerprint for column in self._columns()), tokenizer, *labels)

    def select(self, indices: np.ndarray) -> FeatureSet:
        """Select some of the examples; a small selection is loaded into memory.

        Args:
            indices: `[k]` integers in any order, repeats allowed, or an `[n]` mask.

        Returns:
            The examples in the order of `indices`.
        """
        examples = self.examples.select(np.arange(len(self))[indices])
        if isinstance(examples.texts, StoredTexts):
            return StreamedFeatures(examples, self.tokenizer, self.max_seq_length)
        return encode_examples(examples, self.tokenizer, self.max_seq_length)

    def tokenize(self, indices: np.ndarray) -> Features:
        """Tokenize some of the examples, `[k]` integers in any order, in memory."""
        return encode_examples(self.examples.select(indices), self.tokenizer, self.max_seq_length)

    def collate(self, indices: np.ndarray, pad_token_id: int) -> dict[str, np.ndarray]:
        """As `FeatureSet.collate`."""
        batch = self.tokenize(indices)
        return batch.collate(np.arange(len(batch)), pad_token_id)

    def with_labels(self, labels: np.ndarray) -> StreamedFeatures:
        """Return the same examples with other labels, `[n]`."""
        return replace(self, examples=replace(self.examples, labels=labels))
