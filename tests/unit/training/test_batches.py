"""The shards of a micro-batch, and what each step reads."""

import itertools

import numpy as np
import pytest
from conftest import make_batch

from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.features import Features
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.training.batches import WHOLE, ShardWeight, cut_shard, step_batches, steps_per_epoch


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


def test_values_all_count_whatever_they_are():
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
