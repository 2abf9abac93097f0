"""The batches of raw text: every text once an epoch, found again from the step alone."""

import itertools

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.config.settings import GeneralConfig
from dynabert_paddle.data import raw_texts
from dynabert_paddle.data.raw_texts import open_raw_texts
from dynabert_paddle.training import text_stream
from dynabert_paddle.training.batches import step_batches
from dynabert_paddle.training.text_stream import TextStream, tokenize_texts


@pytest.fixture(scope="module")
def tokenizer():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_texts, "_BLOCK_TEXTS", 10)
    monkeypatch.setattr(text_stream, "_BLOCKS_TOGETHER", 2)
    (tmp_path / "a.txt").write_text("".join(f"{number} {'word ' * (number % 7)}\n" for number in range(75)))
    return open_raw_texts(tmp_path / "a.txt", holdout_size=5, seed=0, key="general.text_file")


def rows_of(arrays):
    return [
        tuple(row[: int(mask.sum())]) for row, mask in zip(arrays["input_ids"], arrays["attention_mask"], strict=True)
    ]


def test_an_epoch_has_every_text_once_in_an_order_of_its_own(texts, tokenizer):
    stream = TextStream(texts, tokenizer, 16)
    epochs = [[stream.collate(batch, 0) for batch in stream.batches(4, seed=3, epoch=epoch)] for epoch in (0, 1, 0)]
    kept = [text for block in range(texts.num_blocks) for text in texts.read(block)]
    expected = sorted(map(tuple, tokenizer.encode(kept, max_seq_length=16)[0]))
    for batches in epochs:
        assert sorted(row for batch in batches for row in rows_of(batch)) == expected
    first, second, again = ([rows_of(batch) for batch in batches] for batches in epochs)
    assert first == again != second


def test_a_resumed_run_finds_its_place_without_reading_what_is_before_it(texts, tokenizer, monkeypatch):
    config = GeneralConfig(per_device_train_batch_size=4, seed=3)

    def steps(first):
        stream = TextStream(texts, tokenizer, 16)
        found = step_batches(stream, config, 0, first_step=first, num_replicas=1)
        return [step.shards[0][0].inputs["input_ids"].numpy() for step in itertools.islice(found, 30 - first)]

    whole = steps(0)
    read = []
    original = raw_texts.RawTexts.read
    monkeypatch.setattr(raw_texts.RawTexts, "read", lambda self, block: read.append(block) or original(self, block))
    for ours, theirs in zip(steps(27), whole[27:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(read) <= 4


def test_of_a_long_text_each_epoch_reads_another_part(tokenizer):
    words = [f"{number}" for number in range(10, 90)]
    ids = tokenizer.encode([" ".join(words)], max_seq_length=100)[0][0]
    starts = set()
    for epoch in range(20):
        features = tokenize_texts([" ".join(words), "short"], tokenizer, 12, np.random.default_rng(epoch))
        row = features.input_ids[: features.offsets[1]].tolist()
        assert (row[0], row[-1], len(row)) == (ids[0], ids[-1], 12)
        start = ids.index(row[1])
        assert row[1:-1] == ids[start : start + 10]
        starts.add(start)
    assert len(starts) > 10
    np.testing.assert_array_equal(tokenize_texts([" ".join(words)], tokenizer, 12).input_ids[1:-1], ids[1:11])
