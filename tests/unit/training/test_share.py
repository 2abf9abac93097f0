"""The parts of a batch."""

import itertools

import numpy as np
import pytest
from conftest import make_batch

from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.data.features import Features
from dynabert_paddle.data.token_classification import IGNORED
from dynabert_paddle.training import loop
from dynabert_paddle.training.share import WHOLE, Share, take_share


def batch_of(num_rows, **labels):
    return {name: values for name, values in make_batch(batch_size=num_rows).items() if name != "labels"} | labels


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("num_rows", [1, 2, 5, 8])
def test_every_row_is_in_one_share_and_the_shares_add_up(num_rows, parts):
    batch = batch_of(num_rows, labels=np.arange(num_rows))
    taken = [take_share(batch, part, parts) for part in range(parts)]
    counted = [rows["labels"] for rows, share in taken if share.rows]
    assert sorted(itertools.chain.from_iterable(counted)) == list(range(num_rows))
    for name in ("rows", "tokens", "pairs", "labels"):
        assert sum(getattr(share, name) for _, share in taken) == pytest.approx(1)
    for rows, _ in taken:
        assert {values.shape[0] for values in rows.values()} <= set(range(1, num_rows + 1))
        assert rows["input_ids"].shape[1] == batch["input_ids"].shape[1]


def test_one_part_is_the_whole():
    batch = batch_of(5)
    rows, share = take_share(batch, 0, 1)
    assert share is WHOLE
    assert all(rows[name] is values for name, values in batch.items())


def test_a_part_without_rows_has_one_that_counts_for_nothing():
    rows, share = take_share(batch_of(2), 2, 3)
    assert len(rows["input_ids"]) == 1
    assert share == Share(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("shape", [(5,), (5, 9), (5, 2)])
def test_labels_that_do_not_count_are_in_no_share(shape):
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(shape) < 0.4, IGNORED, rng.integers(0, 3, shape))
    counted = (labels != IGNORED).reshape(5, -1).sum(axis=1)
    for part in (0, 1):
        _, share = take_share(batch_of(5, labels=labels), part, 2)
        assert share.labels == pytest.approx(counted[part::2].sum() / counted.sum())


def test_values_all_count_whatever_they_are():
    _, share = take_share(batch_of(4, labels=np.full(4, float(IGNORED), "float32")), 0, 2)
    assert share.labels == 0.5


def test_means_of_shares_add_up_to_the_mean_of_the_whole():
    batch = batch_of(7)
    mask = batch["attention_mask"].astype(float)
    values = np.random.default_rng(0).normal(size=mask.shape)
    total = 0.0
    for part in range(3):
        rows, share = take_share(batch | {"values": values}, part, 3)
        own = rows["attention_mask"]
        total += share.tokens * (rows["values"] * own).sum() / own.sum()
    assert total == pytest.approx((values * mask).sum() / mask.sum())


@pytest.mark.parametrize(("processes", "replicas"), [(1, 2), (2, 1), (2, 2), (3, 1)])
def test_in_an_epoch_processes_and_replicas_read_every_example_once(monkeypatch, processes, replicas):
    """Rows are told by their first token; 50 of them leave a last batch that not every process has a row of."""
    num_rows = 49 if processes == 2 else 50
    lengths = np.random.default_rng(0).integers(2, 9, num_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.zeros(offsets[-1], dtype=np.int32)
    ids[offsets[:-1]] = np.arange(num_rows)
    features = Features(ids, np.zeros(len(ids), dtype=np.uint8), offsets, None)
    config = TrainConfig(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(processes))
    steps = loop.steps_per_epoch(num_rows, config)
    seen, told = [], []
    for process in range(processes):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(process))
        epoch = list(itertools.islice(loop._batches_from(0, features, config, 0, num_replicas=replicas), steps))
        told.append([count for count, _ in epoch])
        for batch, share in (part for _, shares in epoch for parts in shares for part in parts):
            seen += batch["input_ids"][:, 0].tolist() if share.rows else []
    assert sorted(seen) == list(range(num_rows))
    assert sum(told[0]) == num_rows
    assert told == told[:1] * processes
