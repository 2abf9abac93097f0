"""Texts to embed, tokenized with their prompts, and how their vectors are scored. Shapes: n texts, d vector size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from dynabert_paddle.data.batches import split_holdout
from dynabert_paddle.data.embedding_metrics import TEACHER_METRIC, Judged, mean_cosine, split_metric
from dynabert_paddle.data.embedding_settings import NO_SETTINGS, EmbeddingSettings
from dynabert_paddle.data.features import Features, FeatureSet, TextEncoder
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.data.stored_texts import Column, StoredTexts


@dataclass(frozen=True, eq=False)
class TextsToEmbed(Examples):
    """Texts without labels.

    Args:
        settings: has the prompts.
        is_query: `[n]` booleans, the texts that are read with the prompt of queries; None: every second one, where
            queries have a prompt of their own, so that a model learns both.
        judged: what people have said about them.
        group_size: texts that belong together, one after the other: a query, its positive text, and maybe a negative
            one; 1 for texts that are alone.
    """

    settings: EmbeddingSettings = NO_SETTINGS
    is_query: np.ndarray | None = None
    judged: Judged | None = None
    group_size: int = 1

    def hold_out(self, num_examples: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Examples.hold_out`; there are no classes, and texts that belong together stay together."""
        size = self.group_size
        groups = np.zeros(len(self) // size, dtype=np.float32)
        parts = split_holdout(groups, num_examples=max(1, num_examples // size), seed=seed)
        kept, held_out = ((part[:, None] * size + np.arange(size)).reshape(-1) for part in parts)
        return kept, held_out

    def tokenize(self, tokenizer: TextEncoder, *, max_seq_length: int) -> FeatureSet:
        """Tokenize the texts, each behind its prompt; as `Examples.tokenize`."""
        features = replace(self, texts=self._prompted()).tokenize_as_they_are(tokenizer, max_seq_length)
        if not isinstance(features, Features):
            return features
        values = {field.name: getattr(features, field.name) for field in fields(Features)}
        return EmbeddingFeatures(**values, judged=self.judged, group_size=self.group_size)

    def tokenize_as_they_are(self, tokenizer: TextEncoder, max_seq_length: int) -> FeatureSet:
        """Tokenize the texts without prompts."""
        return super().tokenize(tokenizer, max_seq_length=max_seq_length)

    def _prompted(self) -> Column:
        """The texts behind their prompts, on disk if they are on disk."""
        prompts = [self.settings.document_prompt or "", self.settings.query_prompt or ""]
        if not any(prompts):
            return self.texts
        prompted: Column = StoredTexts(self.source) if isinstance(self.texts, StoredTexts) else []
        for index, text in enumerate(self.texts):
            is_query = index % 2 == 1 if self.is_query is None else self.is_query[index]
            prompted.append(prompts[int(is_query)] + text)
        return prompted

    @property
    def num_scored(self) -> int:
        """What a score is the mean of: the pairs, or else the queries, or else the texts."""
        return self.judged.num_scored if self.judged else len(self)

    def select_scored(self, indices: np.ndarray) -> TextsToEmbed:
        """Select some of the pairs, or else of the queries with all documents, or else of the texts.

        Args:
            indices: `[k]` integers, below `num_scored`.

        Returns:
            Their texts, with what people have said about them.
        """
        if self.judged is None:
            return self.select(indices)
        texts, judged = self.judged.select(indices)
        return replace(self.select(texts), judged=judged)

    def select(self, indices: np.ndarray) -> TextsToEmbed:
        """Select some of the texts, which keep their prompts; what people have said is of all texts, and is left out.

        Args:
            indices: `[k]` integers, in any order.

        Returns:
            The texts in the order of `indices`.
        """
        selected = super().select(indices)
        assert isinstance(selected, TextsToEmbed)
        is_query = np.arange(len(self)) % 2 == 1 if self.is_query is None else self.is_query
        return replace(selected, is_query=is_query[indices], judged=None)


@dataclass(frozen=True, eq=False)
class EmbeddingFeatures(Features):
    """Tokenized texts; their labels are the vectors of the teacher, `[n, d]` float32, where they are needed.

    Args:
        judged: what people have said about the texts.
        group_size: as in `TextsToEmbed`.
    """

    kind = "embedding"
    judged: Judged | None = None
    group_size: int = 1

    @property
    def num_scored(self) -> int:
        """As `TextsToEmbed.num_scored`."""
        return self.judged.num_scored if self.judged else len(self)

    @property
    def content(self) -> tuple[np.ndarray, ...]:
        """As in `Features`, without the teacher's vectors, which follow from it."""
        return (self.input_ids, self.offsets)

    @property
    def targets(self) -> np.ndarray | None:
        """None: the teacher's vectors of a batch are computed when they are needed."""
        return None

    def select(self, indices: np.ndarray) -> EmbeddingFeatures:
        """As `Features.select`; what people have said is of all texts, and is left out."""
        selected = super().select(indices)
        return EmbeddingFeatures(**{field.name: getattr(selected, field.name) for field in fields(Features)})

    def score(
        self, metrics: Sequence[str], logits: Sequence[np.ndarray], thresholds: np.ndarray | None = None
    ) -> dict[str, float]:
        """Score vectors.

        Args:
            metrics: from `EMBEDDING_METRICS`.
            logits: the vectors, `[n, d]`.
            thresholds: None.

        Returns:
            Each metric; a perfect score is 1.0.
        """
        vectors = np.asarray(logits)
        return {name: self._score(name, vectors, self.judged, self.labels) for name in metrics}

    def score_without(self, metric: str, logits: Sequence[np.ndarray], groups: Iterable[np.ndarray]) -> np.ndarray:
        """As `FeatureSet.score_without`: a group has indices of pairs, queries or texts, as the metric is of them."""
        vectors, scores = np.asarray(logits), []
        for group in groups:
            base, size = split_metric(metric)
            if base == TEACHER_METRIC:
                assert self.labels is not None
                others = np.delete(np.arange(len(self)), group)
                scores.append(self._score(metric, vectors[others], None, self.labels[others]))
            else:
                assert self.judged is not None
                scores.append(self.judged.part_of(base).without(group).score(base, vectors[:, :size]))
        return np.array(scores)

    @staticmethod
    def _score(name: str, vectors: np.ndarray, judged: Judged | None, targets: np.ndarray | None) -> float:
        name, size = split_metric(name)
        vectors = vectors[:, :size]
        if name == TEACHER_METRIC:
            assert targets is not None  # `add_targets` comes before
            return mean_cosine(vectors, targets)
        assert judged is not None
        return judged.part_of(name).score(name, vectors)
