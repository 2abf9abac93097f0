"""Examples with several labels are held out so that each label keeps its share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynabert_paddle.data.batches import split_holdout
from dynabert_paddle.errors import DataError


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), num_rows=st.integers(4, 120), share=st.floats(0.05, 0.5))
def test_a_split_is_whole_and_keeps_every_label(seed, num_rows, share):
    rng = np.random.default_rng(seed)
    labels = rng.random((num_rows, 6)) < rng.random(6) * 0.7
    size = max(1, int(num_rows * share))
    if (labels & (labels.sum(axis=0) == 1)).any(axis=1).all():  # each row has a label of its own
        with pytest.raises(DataError, match="can be held out"):
            split_holdout(labels, num_examples=size, seed=seed)
        return
    kept, held_out = split_holdout(labels, num_examples=size, seed=seed)
    assert sorted([*kept, *held_out]) == list(range(num_rows))
    assert 1 <= len(held_out) <= size
    assert labels[kept].any(axis=0)[labels.any(axis=0)].all()  # each label has a row to train on
    again = split_holdout(labels, num_examples=size, seed=seed)
    np.testing.assert_array_equal(held_out, again[1])


def test_each_label_keeps_its_share():
    rng = np.random.default_rng(0)
    labels = rng.random((2000, 8)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005])
    _, held_out = split_holdout(labels, num_examples=200, seed=1)
    assert len(held_out) == 200
    counts, wanted = labels[held_out].sum(axis=0), labels.sum(axis=0) / 10
    assert np.abs(counts - wanted).max() <= 6  # at random, the first label's count has a standard deviation of 7
    assert np.abs(counts - wanted)[3:].max() <= 2
    assert abs((~labels[held_out].any(axis=1)).sum() - (~labels.any(axis=1)).sum() / 10) <= 6
    assert len({tuple(split_holdout(labels, num_examples=200, seed=seed)[1]) for seed in range(3)}) == 3


def test_rare_labels_are_divided_before_frequent_ones():
    """Ten rows of a rare label that have the frequent one, too: at random, one or four are held out now and then."""
    labels = np.zeros((100, 2), dtype=bool)
    labels[:, 0], labels[:10, 1] = True, True
    for seed in range(20):
        _, held_out = split_holdout(labels, num_examples=20, seed=seed)
        assert (len(held_out), (held_out < 10).sum()) == (20, 2)


def test_labels_of_single_rows_leave_none_to_hold_out():
    with pytest.raises(DataError, match="none of 4 training examples can be held out"):
        split_holdout(np.eye(4, dtype=bool), num_examples=2, seed=0)


def test_rows_without_labels_can_be_held_out():
    labels = np.vstack([np.eye(3, dtype=bool), np.zeros((5, 3), dtype=bool)])
    kept, held_out = split_holdout(labels, num_examples=3, seed=0)
    assert len(held_out) == 3 and set(range(3)) <= set(kept)
