"""The order of an epoch, the shards of a micro-batch, and what each step reads."""

import itertools
from collections import Counter

import numpy as np
import pytest
from conftest import make_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.features import Features
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.training.batches import (
    WHOLE,
    ShardWeight,
    cut_shard,
    length_bucketed_batches,
    step_batches,
    steps_per_epoch,
)

length_arrays = arrays(np.int64, st.integers(0, 400), elements=st.integers(1, 128))


def batch_of(num_rows, **labels):
    return {name: values for name, values in make_batch(batch_size=num_rows).items() if name != "labels"} | labels


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7])
@pytest.mark.parametrize("num_rows", [1, 2, 5, 8])
def test_every_row_is_in_one_shard_and_the_weights_add_up(num_rows, num_shards):
    batch = batch_of(num_rows, labels=np.arange(num_rows))
    shards = [cut_shard(batch, index, num_shards) for index in range(num_shards)]
    counted = [shard.labels.tolist() for shard in shards if shard.weight.rows]
    assert sorted(itertools.chain.from_iterable(counted)) == list(range(num_rows))
    for name in ("rows", "tokens", "pairs", "labels"):
        assert sum(getattr(shard.weight, name) for shard in shards) == pytest.approx(1)
    for shard in shards:
        assert {values.shape[0] for values in shard.inputs.values()} <= set(range(1, num_rows + 1))
        assert shard.inputs["input_ids"].shape[1] == batch["input_ids"].shape[1]


def test_one_shard_is_the_whole():
    batch = batch_of(5)
    shard = cut_shard(batch, 0, 1)
    assert shard.weight is WHOLE
    assert shard.labels is None
    assert all(np.array_equal(shard.inputs[name].numpy(), values) for name, values in batch.items())


def test_a_shard_without_rows_has_one_of_weight_zero():
    shard = cut_shard(batch_of(2), 2, 3)
    assert len(shard.inputs["input_ids"]) == 1
    assert shard.weight == ShardWeight(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("shape", [(5,), (5, 9), (5, 2)])
def test_ignored_labels_have_no_weight(shape):
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(shape) < 0.4, IGNORED, rng.integers(0, 3, shape))
    counted = (labels != IGNORED).reshape(5, -1).sum(axis=1)
    for index in (0, 1):
        weight = cut_shard(batch_of(5, labels=labels), index, 2).weight
        assert weight.labels == pytest.approx(counted[index::2].sum() / counted.sum())


def test_every_regression_value_has_weight():
    weight = cut_shard(batch_of(4, labels=np.full(4, float(IGNORED), "float32")), 0, 2).weight
    assert weight.labels == 0.5


def test_weighted_means_of_shards_add_up_to_the_mean_of_the_micro_batch():
    batch = batch_of(7)
    mask = batch["attention_mask"].astype(float)
    values = np.random.default_rng(0).normal(size=mask.shape)
    total = 0.0
    for index in range(3):
        shard = cut_shard(batch | {"values": values}, index, 3)
        own = shard.inputs["attention_mask"].numpy()
        total += shard.weight.tokens * (shard.inputs["values"].numpy() * own).sum() / own.sum()
    assert total == pytest.approx((values * mask).sum() / mask.sum())


@pytest.mark.parametrize(("processes", "replicas"), [(1, 2), (2, 1), (2, 2), (3, 1)])
def test_in_an_epoch_processes_and_replicas_read_every_example_once(monkeypatch, processes, replicas):
    """Rows are recognized by their first token; 50 of them leave a last batch too small for every process."""
    num_rows = 49 if processes == 2 else 50
    lengths = np.random.default_rng(0).integers(2, 9, num_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.zeros(offsets[-1], dtype=np.int32)
    ids[offsets[:-1]] = np.arange(num_rows)
    features = Features(ids, np.zeros(len(ids), dtype=np.uint8), offsets, None)
    config = TrainConfig(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(processes))
    num_steps = steps_per_epoch(num_rows, config)
    seen, counts = [], []
    for process in range(processes):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(process))
        epoch = list(
            itertools.islice(step_batches(features, config, 0, first_step=0, num_replicas=replicas), num_steps)
        )
        counts.append([batch.num_examples for batch in epoch])
        for shard in (shard for batch in epoch for shards in batch.shards for shard in shards):
            seen += shard.inputs["input_ids"][:, 0].tolist() if shard.weight.rows else []
    assert sorted(seen) == list(range(num_rows))
    assert sum(counts[0]) == num_rows
    assert counts == counts[:1] * processes


@settings(deadline=None)
@given(lengths=length_arrays, batch_size=st.integers(1, 9), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_an_epoch_has_every_row_once_and_at_most_one_short_batch(lengths, batch_size, seed, epoch):
    batches = list(length_bucketed_batches(lengths, batch_size, seed=seed, epoch=epoch))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    full, rest = divmod(len(lengths), batch_size)
    assert Counter(map(len, batches)) == Counter([batch_size] * full + [rest] * (rest > 0))


def test_seed_and_epoch_determine_the_order():
    lengths = np.arange(1, 101)

    def order(seed, epoch):
        return np.concatenate(list(length_bucketed_batches(lengths, 8, seed=seed, epoch=epoch))).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_bucketing_reduces_padding():
    lengths = np.random.default_rng(0).integers(1, 129, size=4000)

    def padded(batches):
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    shuffled = np.array_split(np.random.default_rng(1).permutation(4000), 4000 // 16)
    bucketed = list(length_bucketed_batches(lengths, 16, seed=0, epoch=0))
    # Rows within a bucket of 800 differ from their batch's longest by 128 / 50 tokens at most, plus random variation.
    assert padded(bucketed) < 1.05 * lengths.sum() < padded(shuffled)
    assert np.any(np.diff([lengths[batch].max() for batch in bucketed]) < 0), "the order of the batches is not shuffled"
