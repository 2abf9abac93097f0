"""Metrics of sentence embeddings. Shapes: n texts, d size of a vector, q queries, m documents."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

_CUT = 10  # documents of a query's answer
PAIR_METRICS = ("spearman", "pearson")
RETRIEVAL_METRICS = (f"recall@{_CUT}", f"mrr@{_CUT}", f"ndcg@{_CUT}")
TEACHER_METRIC = "cosine"
EMBEDDING_METRICS = (TEACHER_METRIC, *PAIR_METRICS, *RETRIEVAL_METRICS)
_QUERIES_AT_A_TIME = 256
_CUT_VECTORS = re.compile(r"(.+)_(\d+)d")  # a metric of the first dimensions, such as spearman_128d


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Pairs of texts whose similarity people have scored.

    Args:
        first: `[p]`, the index of each pair's first text.
        second: `[p]`, that of the second.
        scores: `[p]` float32.
    """

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def without(self, group: np.ndarray) -> ScoredPairs:
        """Return the pairs without some, by their indices."""
        return ScoredPairs(*(np.delete(values, group) for values in (self.first, self.second, self.scores)))

    def score(self, name: str, vectors: np.ndarray) -> float:
        """Correlate the cosines of pairs with their scores.

        Args:
            name: one of `PAIR_METRICS`.
            vectors: `[n, d]`.

        Returns:
            The correlation; 0.0 where either side is constant.
        """
        from scipy.stats import pearsonr, spearmanr

        unit = unit_vectors(vectors)
        cosines, scores = (unit[self.first] * unit[self.second]).sum(axis=1), self.scores.astype(np.float64)
        if np.ptp(cosines) == 0 or np.ptp(scores) == 0:
            return 0.0
        return float((spearmanr if name == "spearman" else pearsonr)(scores, cosines)[0])


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Queries, and which documents answer them.

    Args:
        queries: `[q]`, the index of each query's text.
        documents: `[m]`, the index of each document's text.
        relevant: for each query the gain of each document that answers it, by the document's place in `documents`.
        same: `[q]`, the place of the document that has the query's own id, and is no answer; -1 where there is none.
    """

    queries: np.ndarray
    documents: np.ndarray
    relevant: Sequence[Mapping[int, float]]
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)

    def without(self, group: np.ndarray) -> Retrieval:
        """Return the judgements without some queries, by their indices; all documents stay."""
        kept = np.delete(np.arange(len(self)), group)
        relevant = [self.relevant[index] for index in kept]
        return replace(self, queries=self.queries[kept], relevant=relevant, same=self.same[kept])

    def score(self, name: str, vectors: np.ndarray, query_vectors: np.ndarray | None = None) -> float:
        """Rank the documents of each query by their cosine, and score the first ten.

        Args:
            name: one of `RETRIEVAL_METRICS`; the gain of a document counts for nDCG alone, as `trec_eval` has it.
            vectors: `[n, d]`.
            query_vectors: `[n, d]` of another model, whose rows of the queries count in place of those of `vectors`.

        Returns:
            The mean over the queries.
        """
        documents = unit_vectors(vectors[self.documents])
        queries = unit_vectors((vectors if query_vectors is None else query_vectors)[self.queries])
        measure, scores = _RANKED[name], []
        for start in range(0, len(self), _QUERIES_AT_A_TIME):
            rows = slice(start, start + _QUERIES_AT_A_TIME)
            for index, places in enumerate(_rank(queries[rows] @ documents.T, self.same[rows]), start=start):
                scores.append(measure([self.relevant[index].get(int(p), 0.0) for p in places], self.relevant[index]))
        return float(np.mean(scores))


@dataclass(frozen=True, eq=False)
class Judged:
    """What people have said about the texts of a development set.

    Args:
        pairs: scored pairs, if there are any.
        retrieval: queries and their documents, if there are any.
    """

    pairs: ScoredPairs | None = None
    retrieval: Retrieval | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that can be computed, besides the cosine to the teacher."""
        pairs = PAIR_METRICS if self.pairs else ()
        return (*pairs, *(RETRIEVAL_METRICS if self.retrieval else ()))

    @property
    def num_scored(self) -> int:
        """The pairs, or else the queries."""
        return len(self.pairs or self.retrieval or ())

    def select(self, indices: np.ndarray) -> tuple[np.ndarray, Judged]:
        """Select some of the pairs; where there are none, some of the queries.

        Args:
            indices: `[k]` integers, below `num_scored`.

        Returns:
            The indices of the texts that are left, and what is said about them, by their places among these.
        """
        if self.pairs:
            parts = (self.pairs.first[indices], self.pairs.second[indices])
            texts = np.concatenate(parts)
            places = np.arange(len(texts)).reshape(2, -1)
            return texts, Judged(ScoredPairs(places[0], places[1], self.pairs.scores[indices]))
        found = self.retrieval
        assert found is not None  # one of both is given
        texts = np.concatenate([found.documents, found.queries[indices]])
        num_documents = len(found.documents)
        relevant = [found.relevant[index] for index in indices]
        queries = np.arange(num_documents, len(texts))
        return texts, Judged(retrieval=Retrieval(queries, np.arange(num_documents), relevant, found.same[indices]))

    def part_of(self, metric: str) -> ScoredPairs | Retrieval:
        """Return what a metric is computed on."""
        part = self.pairs if metric in PAIR_METRICS else self.retrieval
        assert part is not None  # `load_task` refuses metrics without their data
        return part


def split_metric(name: str) -> tuple[str, int | None]:
    """Split the name of a metric of cut vectors.

    Args:
        name: such as `spearman_128d`.

    Returns:
        The metric, such as `spearman`, and the size that vectors are cut to; None for whole ones.
    """
    match = _CUT_VECTORS.fullmatch(name)
    return (match[1], int(match[2])) if match else (name, None)


def needs_teacher(names: Sequence[str]) -> bool:
    """Whether one of some metrics compares vectors with the teacher's."""
    return any(split_metric(name)[0] == TEACHER_METRIC for name in names)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Divide vectors, `[n, d]`, by their length, in double precision; zeros stay."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)


def mean_cosine(vectors: np.ndarray, targets: np.ndarray) -> float:
    """The mean cosine of vectors and others of the same texts, `[n, d]` each.

    Args:
        vectors: a model's.
        targets: those of its teacher. If the sizes differ, the first dimensions count that both have.

    Returns:
        Between -1 and 1.
    """
    size = min(vectors.shape[1], targets.shape[1])
    return float(np.mean((unit_vectors(vectors[:, :size]) * unit_vectors(targets[:, :size])).sum(axis=1)))


def _rank(similarities: np.ndarray, same: np.ndarray) -> np.ndarray:
    """The places of each query's ten most similar documents, the first of equal ones first, `[q, 10]`."""
    hits = np.flatnonzero(same >= 0)
    similarities[hits, same[hits]] = -np.inf
    return np.argsort(-similarities, axis=1, kind="stable")[:, :_CUT]


def _recall(gains: list[float], relevant: Mapping[int, float]) -> float:
    return sum(gain > 0 for gain in gains) / len(relevant)


def _reciprocal_rank(gains: list[float], relevant: Mapping[int, float]) -> float:
    return next((1 / rank for rank, gain in enumerate(gains, start=1) if gain > 0), 0.0)


def _ndcg(gains: list[float], relevant: Mapping[int, float]) -> float:
    best = sorted(relevant.values(), reverse=True)[:_CUT]
    return _discounted(gains) / _discounted(best)


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


_RANKED: dict[str, Any] = dict(zip(RETRIEVAL_METRICS, (_recall, _reciprocal_rank, _ndcg), strict=True))
