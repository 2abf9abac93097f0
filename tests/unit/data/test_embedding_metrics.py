"""Metrics of sentence embeddings, against plain loops."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from dynabert_paddle.data.embedding_examples import EmbeddingFeatures
from dynabert_paddle.data.embedding_metrics import Judged, Retrieval, ScoredPairs, mean_cosine, unit_vectors


def make_vectors(count, *, seed=0, size=6):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def cosine(a, b):
    return float(np.dot(a, b) / math.sqrt(np.dot(a, a) * np.dot(b, b)))


def rank_by_hand(vectors, retrieval, query):
    """The documents of a query, the most similar first, without the one that has its id."""
    places = [place for place in range(len(retrieval.documents)) if place != retrieval.same[query]]
    own = vectors[retrieval.queries[query]].astype(np.float64)
    return sorted(places, key=lambda place: -cosine(own, vectors[retrieval.documents[place]].astype(np.float64)))[:10]


@pytest.fixture
def retrieval():
    """40 documents and 12 queries, some with several answers of different gains, one that is a document, too."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 14, 12)
    gains = [zip(rng.choice(40, size, False), rng.integers(1, 4, size), strict=True) for size in sizes]
    relevant = [{int(place): float(gain) for place, gain in some} for some in gains]
    same = np.full(12, -1)
    same[3] = 7
    relevant[3].pop(7, None)
    return Retrieval(40 + np.arange(12), np.arange(40), relevant, same)


def test_retrieval_metrics_are_those_of_a_plain_loop(retrieval):
    vectors = make_vectors(52)
    recall, reciprocal, ndcg = [], [], []
    for query, relevant in enumerate(retrieval.relevant):
        ranked = rank_by_hand(vectors, retrieval, query)
        found = [place in relevant for place in ranked]
        recall.append(sum(found) / len(relevant))
        reciprocal.append(1 / (found.index(True) + 1) if any(found) else 0.0)
        gained = sum(relevant.get(place, 0) / math.log2(i + 2) for i, place in enumerate(ranked))
        best = sum(gain / math.log2(i + 2) for i, gain in enumerate(sorted(relevant.values(), reverse=True)[:10]))
        ndcg.append(gained / best)
    scores = [retrieval.score(name, vectors) for name in ("recall@10", "mrr@10", "ndcg@10")]
    np.testing.assert_allclose(scores, [np.mean(recall), np.mean(reciprocal), np.mean(ndcg)], atol=1e-12)
    assert 0 < scores[0] < 1  # neither everything nor nothing is found


def test_queries_can_have_the_vectors_of_another_model(retrieval):
    """Queries by a small sub-network, documents by the full model: with both the same it is the plain score."""
    vectors, others = make_vectors(52), make_vectors(52, seed=5)
    assert retrieval.score("mrr@10", vectors, vectors) == retrieval.score("mrr@10", vectors)
    mixed = np.concatenate([vectors[:40], others[40:]])
    assert retrieval.score("mrr@10", vectors, others) == retrieval.score("mrr@10", mixed)


def test_scored_pairs_correlate_cosines_with_scores():
    vectors, scores = make_vectors(20), np.random.default_rng(2).random(10).astype(np.float32)
    pairs = ScoredPairs(np.arange(0, 20, 2), np.arange(1, 20, 2), scores)
    by_hand = [cosine(vectors[i], vectors[i + 1]) for i in range(0, 20, 2)]
    assert pairs.score("spearman", vectors) == pytest.approx(spearmanr(by_hand, scores)[0])
    assert pairs.score("pearson", vectors) == pytest.approx(np.corrcoef(by_hand, scores)[0, 1])
    assert pairs.score("spearman", np.ones_like(vectors)) == 0.0
    scaled = vectors * np.random.default_rng(3).uniform(0.1, 9, (20, 1))  # a cosine knows no lengths
    assert pairs.score("spearman", scaled) == pytest.approx(pairs.score("spearman", vectors))


def test_the_cosine_to_a_teacher():
    vectors, targets = make_vectors(9), make_vectors(9, seed=1)
    expected = np.mean([cosine(a, b) for a, b in zip(vectors, targets, strict=True)])
    assert mean_cosine(vectors, targets) == pytest.approx(expected)
    assert mean_cosine(vectors, 3 * vectors) == pytest.approx(1)
    assert mean_cosine(vectors[:, :4], vectors) == pytest.approx(1)  # a truncated vector
    assert not np.isnan(unit_vectors(np.zeros((2, 3)))).any()


def test_a_jackknife_leaves_out_pairs_and_queries(retrieval):
    vectors = make_vectors(52)
    scores = np.random.default_rng(2).random(20).astype(np.float32)
    pairs = ScoredPairs(np.arange(0, 40, 2), np.arange(1, 40, 2), scores)
    empty = np.empty(0, np.int32)
    features = EmbeddingFeatures(empty, empty, np.zeros(53, np.int64), None, judged=Judged(pairs, retrieval))
    group = np.array([0, 4, 5])
    (without,) = features.score_without("recall@10", vectors, [group])
    kept = [index for index in range(12) if index not in group]
    alone = [
        Retrieval(retrieval.queries[[i]], retrieval.documents, [retrieval.relevant[i]], retrieval.same[[i]])
        for i in kept
    ]
    assert without == pytest.approx(np.mean([one.score("recall@10", vectors) for one in alone]))
    (without,) = features.score_without("spearman", vectors, [group])
    rest = np.delete(np.arange(20), group)
    assert without == pytest.approx(ScoredPairs(2 * rest, 2 * rest + 1, scores[rest]).score("spearman", vectors))
    assert features.num_scored == 20


def test_metrics_of_cut_vectors_are_those_of_the_first_dimensions(retrieval):
    vectors, targets = make_vectors(52), make_vectors(52, seed=4)
    empty = np.empty(0, np.int32)
    features = EmbeddingFeatures(empty, empty, np.zeros(53, np.int64), targets, judged=Judged(retrieval=retrieval))
    scores = features.score(["mrr@10_3d", "cosine_3d", "mrr@10"], vectors)
    assert scores == {
        "mrr@10_3d": retrieval.score("mrr@10", vectors[:, :3]),
        "cosine_3d": mean_cosine(vectors[:, :3], targets[:, :3]),
        "mrr@10": retrieval.score("mrr@10", vectors),
    }
    (left,) = features.score_without("mrr@10_3d", vectors, [np.array([1])])
    assert left == retrieval.without(np.array([1])).score("mrr@10", vectors[:, :3])
