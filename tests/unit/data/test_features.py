"""Features: flat arrays, the cache, batches and splits preserve the tokenizer's output."""

import gc
import logging
import resource
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenizers import BertWordPieceTokenizer

from dynabert_paddle.data.batches import sequential_batches, split_holdout
from dynabert_paddle.data.features import Features, default_cache_dir, tokenize
from dynabert_paddle.data.readers import Examples
from dynabert_paddle.errors import DataError

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "play", "some", "jazz", "##z", "music", "book", "a", "table"]
TEXTS = ["play some jazz", "", "book a table", "unknowable", "play music play music play music"]
PAIRS = ["play", "music", "", "book a table", "a"]


class WordPiece:
    """A real WordPiece tokenizer with the interface of `TextEncoder`; counts its calls."""

    pad_token_id = VOCAB.index("[PAD]")

    def __init__(self, fingerprint="words"):
        self.fingerprint = fingerprint
        self.calls = 0
        self._tokenizer = BertWordPieceTokenizer({token: index for index, token in enumerate(VOCAB)})

    def encode_rows(self, texts, pairs, *, max_seq_length):
        self.calls += 1
        self._tokenizer.enable_truncation(max_seq_length)
        inputs = texts if pairs is None else list(zip(texts, pairs, strict=True))
        encodings = self._tokenizer.encode_batch(inputs)
        ids, type_ids = [encoding.ids for encoding in encodings], [encoding.type_ids for encoding in encodings]
        return ids, type_ids, [bool(encoding.overflowing) for encoding in encodings]


def make_examples(texts=TEXTS, pairs=None, labels=None):
    labels = np.arange(len(texts)) if labels is None else labels
    return Examples(list(texts), pairs, labels, Path("memory.tsv"))


def make_features(rows):
    """Features from lists of token ids; odd ids have token type 1."""
    flat = np.array([token for row in rows for token in row], dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Features(flat, (flat % 2).astype(np.uint8), offsets, np.arange(len(rows)))


def rows_of(features):
    return [row.tolist() for row in np.split(features.input_ids, features.offsets[1:-1])]


def assert_same(first, second):
    for name in ("input_ids", "token_type_ids", "offsets", "labels", "is_cut"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), strict=True)


token_rows = st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=12), min_size=1, max_size=30)
length_arrays = arrays(np.int64, st.integers(0, 400), elements=st.integers(1, 128))


@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("max_seq_length", [5, 32])
def test_tokenize_returns_the_tokenizers_output(tmp_path, pairs, max_seq_length):
    ids, type_ids, is_cut = WordPiece().encode_rows(TEXTS, pairs, max_seq_length=max_seq_length)
    features = tokenize(make_examples(pairs=pairs), WordPiece(), max_seq_length=max_seq_length, cache_dir=tmp_path)
    assert len(features) == len(TEXTS)
    assert rows_of(features) == ids
    assert features.token_type_ids.tolist() == [type_id for row in type_ids for type_id in row]
    assert features.lengths.tolist() == [len(row) for row in ids]
    assert features.lengths.max() <= max_seq_length
    assert features.is_cut.tolist() == is_cut
    assert any(is_cut) == (max_seq_length == 5)
    assert features.labels.tolist() == list(range(len(TEXTS)))
    assert (features.input_ids.dtype, features.token_type_ids.dtype) == (np.int32, np.uint8)


def test_chunks_do_not_change_the_result(tmp_path, monkeypatch):
    whole = tokenize(make_examples(pairs=PAIRS), WordPiece(), max_seq_length=16, cache_dir=tmp_path / "whole")
    monkeypatch.setattr("dynabert_paddle.data.features._ROWS_PER_CALL", 2)
    tokenizer = WordPiece()
    assert_same(tokenize(make_examples(pairs=PAIRS), tokenizer, max_seq_length=16, cache_dir=tmp_path / "cut"), whole)
    assert tokenizer.calls == 3


def test_cache_returns_the_same_features_without_the_tokenizer(tmp_path):
    tokenizer = WordPiece()
    first = tokenize(make_examples(pairs=PAIRS), tokenizer, max_seq_length=16, cache_dir=tmp_path / "new" / "folder")
    second = tokenize(make_examples(pairs=PAIRS), tokenizer, max_seq_length=16, cache_dir=tmp_path / "new" / "folder")
    assert tokenizer.calls == 1
    assert_same(first, second)


def test_cache_leaves_one_file(tmp_path):
    tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


@pytest.mark.parametrize(
    ("examples", "fingerprint", "max_seq_length"),
    [
        (make_examples(["play some jazz!", *TEXTS[1:]]), "words", 16),
        (make_examples([TEXTS[0] + TEXTS[1], "", *TEXTS[2:]][::-1]), "words", 16),
        (make_examples(pairs=PAIRS), "words", 16),
        (make_examples(), "other words", 16),
        (make_examples(), "words", 5),
    ],
)
def test_cache_distinguishes_inputs(tmp_path, examples, fingerprint, max_seq_length):
    tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=tmp_path)
    tokenizer = WordPiece(fingerprint)
    tokenize(examples, tokenizer, max_seq_length=max_seq_length, cache_dir=tmp_path)
    assert tokenizer.calls == 1


def test_cache_distinguishes_boundaries_between_texts(tmp_path):
    for texts in (["a b", "c"], ["a ", "bc"], ["a b1:c", ""]):
        tokenizer = WordPiece()
        tokenize(make_examples(texts), tokenizer, max_seq_length=16, cache_dir=tmp_path)
        assert tokenizer.calls == 1


def test_labels_are_not_cached(tmp_path):
    tokenizer = WordPiece()
    tokenize(make_examples(), tokenizer, max_seq_length=16, cache_dir=tmp_path)
    labels = np.linspace(0, 1, len(TEXTS), dtype=np.float32)
    features = tokenize(make_examples(labels=labels), tokenizer, max_seq_length=16, cache_dir=tmp_path)
    assert tokenizer.calls == 1
    np.testing.assert_array_equal(features.labels, labels, strict=True)


@settings(deadline=None)
@given(data=st.data())
def test_damaged_cache_is_rebuilt(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cache")
    expected = tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=folder)
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans(), label="cut"):
        path.write_bytes(content[:position])
    else:
        content[position] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
    assert_same(tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=folder), expected)


def test_a_cache_file_of_before_and_one_of_other_texts_are_rebuilt(tmp_path):
    """A file under another's name has a checksum that fits its content."""
    for texts in (TEXTS, TEXTS[::-1]):
        tokenize(make_examples(texts), WordPiece(), max_seq_length=16, cache_dir=tmp_path)
    first, second = tmp_path.iterdir()
    expected = tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=tmp_path / "other")
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert_same(tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=tmp_path), expected)
    for path in (first, second):
        with np.load(path) as arrays:
            np.savez(path, **{name: array for name, array in arrays.items() if name != "checksum"})
    assert_same(tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=tmp_path), expected)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("offsets", lambda offsets: offsets[[0, -1]]),
        ("input_ids", lambda input_ids: input_ids[1:]),
        ("token_type_ids", lambda type_ids: type_ids[1:]),
        ("input_ids", lambda input_ids: input_ids.astype(object)),  # stored as a pickle, which could run code
        ("input_ids", lambda input_ids: input_ids[::-1]),
        ("input_ids", lambda input_ids: input_ids + 10_000_000),  # beyond any vocabulary
        ("input_ids", lambda input_ids: input_ids.astype("int64")),
        ("token_type_ids", lambda type_ids: 1 - type_ids),
        ("offsets", lambda offsets: np.sort(offsets * 2 % offsets[-1])),
        ("is_cut", lambda is_cut: ~is_cut),
        ("is_cut", lambda is_cut: is_cut[1:]),
        ("checksum", lambda checksum: np.array("0" * 32)),
        ("checksum", lambda checksum: checksum.astype(bytes)),
    ],
)
def test_cache_with_invalid_arrays_is_rebuilt(tmp_path, name, change):
    expected = tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path) as arrays:
        contents = dict(arrays)
    np.savez(path, **(contents | {name: change(contents[name])}))
    tokenizer = WordPiece()
    for _ in range(2):
        assert_same(tokenize(make_examples(), tokenizer, max_seq_length=16, cache_dir=tmp_path), expected)
    assert tokenizer.calls == 1, "rebuilt once and kept"


def test_a_read_only_cache_folder_is_ignored(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        features = tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=tmp_path / "file")
    assert len(features) == len(TEXTS)
    assert "tokenized data is not cached" in caplog.text


@pytest.mark.parametrize("num_bytes", [0, 100, 1000])  # the archive has some 1,600
def test_full_disk_leaves_no_temporary_file(tmp_path, caplog, monkeypatch, num_bytes):
    uncaught = []
    monkeypatch.setattr(sys, "unraisablehook", uncaught.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))  # the same error, but for its number
    try:
        features = tokenize(make_examples(), WordPiece(), max_seq_length=16, cache_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    gc.collect()
    assert len(features) == len(TEXTS)
    assert list(tmp_path.iterdir()) == uncaught == []
    assert "tokenized data is not cached" in caplog.text


def test_default_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DYNABERT_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_cache_dir() == tmp_path / ".cache" / "dynabert_paddle"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "dynabert_paddle"
    monkeypatch.setenv("DYNABERT_CACHE_DIR", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own"
    tokenize(make_examples(), WordPiece(), max_seq_length=16)
    assert len(list((tmp_path / "own").iterdir())) == 1


@settings(deadline=None)
@given(rows=token_rows, data=st.data())
def test_select_equals_list_indexing(rows, data):
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
    chosen = make_features(rows).select(np.array(indices))
    assert rows_of(chosen) == [rows[i] for i in indices]
    np.testing.assert_array_equal(chosen.token_type_ids, chosen.input_ids % 2)
    assert chosen.labels.tolist() == indices


def test_select_takes_a_mask():
    features = make_features([[1, 2], [3], [4, 5, 6]])
    assert rows_of(features.select(np.array([True, False, True]))) == [[1, 2], [4, 5, 6]]


@settings(deadline=None)
@given(rows=token_rows, data=st.data())
def test_collate_pads_rows_to_the_longest(rows, data):
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
    batch = make_features(rows).collate(np.array(indices), pad_token_id=0)
    longest = max(len(rows[i]) for i in indices)
    expected = [rows[i] + [0] * (longest - len(rows[i])) for i in indices]
    assert batch["input_ids"].tolist() == expected
    # Token ids are positive here, so 0 is padding.
    np.testing.assert_array_equal(batch["attention_mask"], batch["input_ids"] != 0)
    np.testing.assert_array_equal(batch["token_type_ids"], batch["input_ids"] % 2)
    assert batch["labels"].tolist() == indices
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


def test_collate_pads_with_the_tokenizers_id_and_masks_it():
    batch = make_features([[8], [7, 7]]).collate(np.array([0, 1]), pad_token_id=9)
    assert batch["input_ids"].tolist() == [[8, 9], [7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert batch["token_type_ids"].tolist() == [[0, 0], [1, 1]]


def test_collate_without_labels():
    features = replace(make_features([[1], [2]]), labels=None)
    assert set(features.collate(np.array([1]), 0)) == {"input_ids", "token_type_ids", "attention_mask"}


@settings(deadline=None)
@given(lengths=length_arrays, batch_size=st.integers(1, 9))
def test_sequential_batches_restore_the_order(lengths, batch_size):
    batches = sequential_batches(lengths, batch_size)
    if batches:
        indices = np.concatenate(batches)
        restored = np.empty_like(lengths)
        restored[indices] = lengths[indices]
        np.testing.assert_array_equal(restored, lengths)
        assert np.all(np.diff(lengths[indices]) <= 0)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == batch_size for batch in batches[:-1])


@settings(deadline=None)
@given(
    labels=arrays(np.int64, st.integers(2, 200), elements=st.integers(0, 6)),
    num_examples=st.integers(0, 300),
    seed=st.integers(0, 99),
)
def test_holdout_is_a_stratified_partition(labels, num_examples, seed):
    counts = Counter(labels.tolist())
    spare = len(labels) - len(counts)
    if spare == 0:
        with pytest.raises(DataError, match="every class must keep one"):
            split_holdout(labels, num_examples=num_examples, seed=seed)
        return
    train, holdout = split_holdout(labels, num_examples=num_examples, seed=seed)
    assert sorted([*train, *holdout]) == list(range(len(labels)))
    assert len(holdout) == min(max(num_examples, 1), len(labels) // 2, spare)
    assert set(labels[train].tolist()) == set(counts)
    if min(counts.values()) > 1:
        for label, count in counts.items():
            quota = len(holdout) * count / len(labels)
            assert abs(np.sum(labels[holdout] == label) - quota) < 1
    again = split_holdout(labels, num_examples=num_examples, seed=seed)
    np.testing.assert_array_equal(again[1], holdout)


def test_holdout_rounds_by_the_largest_remainder():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    _, holdout = split_holdout(labels, num_examples=12, seed=0)
    # Quotas 7.2, 3.6 and 1.2: the twelfth example goes to the second class.
    assert np.bincount(labels[holdout]).tolist() == [7, 4, 1]


@settings(deadline=None)
@given(size=st.integers(2, 100), fraction=st.floats(0, 1), seed=st.integers(0, 99))
def test_holdout_of_scores(size, fraction, seed):
    train, holdout = split_holdout(np.zeros(size, dtype=np.float32), fraction=fraction, seed=seed)
    assert sorted([*train, *holdout]) == list(range(size))
    assert len(holdout) == min(max(round(fraction * size), 1), size // 2)


def test_the_seed_determines_the_holdout():
    labels = np.repeat([0, 1], 50)
    chosen = {tuple(split_holdout(labels, num_examples=10, seed=seed)[1]) for seed in range(10)}
    assert len(chosen) == 10


def test_holdout_of_a_single_example_is_refused():
    with pytest.raises(DataError, match=r"^none of 1 training examples can be held out.*; add training rows"):
        split_holdout(np.array([0.5], dtype=np.float32), num_examples=1, seed=0)


@pytest.mark.parametrize("size", [{}, {"num_examples": 1, "fraction": 0.5}])
def test_holdout_needs_exactly_one_size(size):
    with pytest.raises(ValueError, match="num_examples or fraction"):
        split_holdout(np.array([0, 0]), seed=0, **size)
