"""Queries with their positive texts, as training that contrasts them reads them. Shapes: g groups, k texts in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynabert_paddle.data.embedding_examples import EmbeddingFeatures
from dynabert_paddle.data.features import FeatureSet


@dataclass(frozen=True, eq=False)
class GroupedFeatures(FeatureSet):
    """Examples of several tokenized texts: a query, its positive text, and maybe a negative one.

    Args:
        texts: `g * k` texts, those of a group one after the other.
    """

    texts: EmbeddingFeatures
    kind = "embedding"
    labels = None
    positive = 1

    def __len__(self) -> int:
        return len(self.texts) // self.texts.group_size

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of the longest text of each group, `[g]`."""
        return self.texts.lengths.reshape(-1, self.texts.group_size).max(axis=1)

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """As in `Features`."""
        return self.texts.content

    def select(self, indices: np.ndarray) -> FeatureSet:
        """Select some of the groups, as texts."""
        return self.texts.select(self._rows(np.arange(len(self))[indices]).reshape(-1))

    def collate(self, indices: np.ndarray, pad_token_id: int) -> dict[str, np.ndarray]:
        """As `FeatureSet.collate`, with all queries first, then their positive texts, and then the negative ones.

        Args:
            indices: the groups of the batch, `[b]`.
            pad_token_id: id of the padding token.

        Returns:
            `[k * b, s]` arrays, and `labels`: the group and the role of each text, `[k * b, 2]` int64. A shard of every
            n-th row has whole groups if n divides b.
        """
        rows = self._rows(indices).T  # [k, b]
        batch = self.texts.collate(rows.reshape(-1), pad_token_id)
        roles = np.repeat(np.arange(len(rows)), len(indices))
        return batch | {"labels": np.stack([np.tile(indices, len(rows)), roles], axis=1).astype(np.int64)}

    def with_labels(self, labels: np.ndarray) -> FeatureSet:
        """Not for groups, which have roles in place of labels."""
        raise NotImplementedError("groups of texts have no labels")

    def _rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The indices of the groups' texts, `[b, k]`."""
        return np.asarray(indices)[:, None] * self.texts.group_size + np.arange(self.texts.group_size)
