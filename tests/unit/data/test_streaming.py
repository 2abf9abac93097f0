"""Texts of a large file stay on disk and behave as texts in memory."""

import json
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data import stored_texts
from dynabert_paddle.data.augment import read_augmented
from dynabert_paddle.data.features import Features
from dynabert_paddle.data.readers import Columns, read_examples
from dynabert_paddle.data.stored_texts import StoredTexts
from dynabert_paddle.data.streaming import StreamedFeatures
from dynabert_paddle.errors import DataError
from dynabert_paddle.text.tokenizer import Tokenizer
from dynabert_paddle.training.batches import length_bucketed_batches

TEXTS = ["play some jazz", "", "größer als 東京", "a\u2028b", "book a table for two " * 30, "🎷"] * 40
PAIRS = [text[::-1] for text in TEXTS]
COLUMNS = {False: Columns("text", None, "label"), True: Columns("text", "pair", "label")}


@pytest.fixture
def path(tmp_path):
    rows = [
        {"text": text, "pair": pair, "label": str(i % 3)}
        for i, (text, pair) in enumerate(zip(TEXTS, PAIRS, strict=True))
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def read(path, monkeypatch):
    def read(*, large, pairs=False, few=0):
        monkeypatch.setattr(stored_texts, "_LARGE_FILE", few if large else 2**28)
        return read_examples(path, COLUMNS[pairs], labels=("0", "1", "2"))

    return read


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_pretrained(find_backbone("minilm-l6"))


def store(texts):
    stored = StoredTexts("memory.tsv")
    for text in texts:
        stored.append(text)
    return stored


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=200), st.data())
def test_stored_texts_equal_a_list(texts, data):
    stored = store(texts)
    assert len(stored) == len(texts)
    assert list(stored) == texts
    assert stored.sizes.tolist() == [len(text.encode()) for text in texts]
    start, stop = sorted(data.draw(st.tuples(*[st.integers(-len(texts), len(texts))] * 2)))
    assert stored[start:stop] == texts[start:stop]
    assert stored[-1] == texts[-1]
    indices = np.array(data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1)))
    chosen = stored.select(indices)
    assert list(chosen) == [texts[i] for i in indices]
    assert chosen.sizes.tolist() == stored.sizes[indices].tolist()
    assert list(chosen.select(np.arange(len(indices))[::-1])) == [texts[i] for i in indices[::-1]]


def test_the_fingerprint_depends_on_boundaries_between_texts():
    prints = {store(texts).fingerprint.tobytes() for texts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""])}
    assert len(prints) == 4
    both = store(["ab", "cd"])
    chosen = [both.select(np.array(rows)).fingerprint.tobytes() for rows in ([0], [1], [0, 1], [1, 0])]
    assert len(set(chosen)) == 4


@pytest.mark.parametrize("pairs", [False, True])
def test_batches_of_large_and_small_files_are_equal(read, tokenizer, pairs):
    eager = read(large=False, pairs=pairs).tokenize(tokenizer, max_seq_length=32)
    streamed = read(large=True, pairs=pairs).tokenize(tokenizer, max_seq_length=32)
    assert type(eager) is Features
    assert type(streamed) is StreamedFeatures
    assert len(streamed) == len(eager) == streamed.num_scored
    rng = np.random.default_rng(0)
    for _ in range(5):
        indices = rng.integers(0, len(eager), 7)
        ours, theirs = (features.collate(indices, 0) for features in (streamed, eager))
        assert {name: (values.dtype, values.tolist()) for name, values in ours.items()} == {
            name: (values.dtype, values.tolist()) for name, values in theirs.items()
        }
    mask = rng.random(len(eager)) < 0.5
    ours, theirs = (features.select(mask).collate(np.arange(5), 0) for features in (streamed, eager))
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    flipped = streamed.with_labels(np.zeros(len(eager), dtype=np.int64))
    assert flipped.collate(np.arange(5), 0)["labels"].tolist() == [0] * 5


def test_batches_of_a_large_file_are_of_similar_length(read, tokenizer):
    streamed = read(large=True).tokenize(tokenizer, max_seq_length=128)
    batches = [streamed.collate(rows, 0) for rows in length_bucketed_batches(streamed.lengths, 8, seed=0, epoch=0)]
    padding = sum((batch["attention_mask"] == 0).sum() for batch in batches)
    assert padding < 0.1 * sum(batch["attention_mask"].size for batch in batches)


def test_holdout_of_a_large_file_equals_a_small_one_and_is_in_memory(read):
    small, large = read(large=False), read(large=True, few=100)
    kept, held_out = large.hold_out(5, seed=1)
    assert [rows.tolist() for rows in (kept, held_out)] == [rows.tolist() for rows in small.hold_out(5, seed=1)]
    assert isinstance(large.select(kept).texts, StoredTexts)
    few = large.select(np.array([1, 5]))
    assert few.texts == [TEXTS[1], TEXTS[5]]
    assert list(large.select(kept).texts) == small.select(kept).texts


def test_a_small_selection_of_a_large_file_equals_that_of_a_small_one(read, tokenizer):
    features = read(large=True, few=100).tokenize(tokenizer, max_seq_length=32)
    rows = np.array([5, 1])
    few = features.select(rows)
    assert type(few) is Features
    assert isinstance(features.select(np.arange(len(features))), StreamedFeatures)
    expected = read(large=False).tokenize(tokenizer, max_seq_length=32).select(rows)
    assert few.lengths.tolist() == expected.lengths.tolist()
    assert few.labels.tolist() == expected.labels.tolist()


def test_columns_in_memory_and_on_disk_are_selected_alike(monkeypatch):
    texts = store(TEXTS)
    for bound, kind in ((0, StoredTexts), (2**28, list)):
        monkeypatch.setattr(stored_texts, "_LARGE_FILE", bound)
        columns = stored_texts.select_rows([texts, PAIRS, None], np.array([3, 0]))
        assert isinstance(columns[0], kind)
        assert [list(column) for column in columns[:2]] == [[TEXTS[3], TEXTS[0]], [PAIRS[3], PAIRS[0]]]
        assert columns[2] is None


def test_content_distinguishes_large_files(read, tokenizer):
    def content(examples, length=32):
        return tuple(array.tobytes() for array in examples.tokenize(tokenizer, max_seq_length=length).content)

    examples = read(large=True)
    order = np.arange(len(examples))
    assert content(examples) == content(read(large=True))
    others = [examples.select(order[::-1]), examples.select(order[1:]), read(large=True, pairs=True)]
    assert len({content(examples), content(examples, 16), *map(content, others)}) == 5


def test_an_augmented_file_can_be_large(tmp_path, monkeypatch, read):
    train = read(large=True)
    path = tmp_path / "augmented.tsv"
    path.write_text("text\tsource_row\nplay some jazz\t0\nplay some music\t0\n\t1\n", encoding="utf-8")
    examples, sources = read_augmented(path, Columns("text"), train)
    assert isinstance(examples.texts, StoredTexts)
    assert list(examples.texts) == ["play some jazz", "play some music", ""]
    assert sources.tolist() == [0, 0, 1]


def test_a_missing_temporary_folder_is_named(read, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(DataError, match=r"train\.jsonl: its texts cannot be stored in /no/such/folder .*TMPDIR"):
        read(large=True)


def test_a_full_disk_is_named(read, monkeypatch):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    examples = store([])
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(DataError, match=r"memory\.tsv: its texts cannot be stored in .*TMPDIR"):
            for _ in range(1000):
                examples.append("a text " * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
