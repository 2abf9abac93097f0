"""Texts without labels beside the training rows: which files are read, and which labels they get."""

import gzip

import numpy as np
import pytest

from dynabert_paddle.data import stored_texts
from dynabert_paddle.data.readers import Columns, Examples
from dynabert_paddle.data.stored_texts import StoredTexts
from dynabert_paddle.data.unlabelled import add_unlabelled
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.errors import DataError

SINGLE, PAIR = Columns("text", None, "label"), Columns("text", "other", "label")


def examples(path, labels=None, *, pairs=None):
    path.write_text("text\tlabel\n")
    return Examples(["a", "b"], pairs, labels, path, 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tsv", "label\ttext\n1\tc\n0\td d\n"),
        ("x.csv", 'text\nc\n"d d"\n'),
        ("x.jsonl", '{"text": "c"}\n{"text": "d d", "more": 1}\n'),
        ("x.txt", "c\n\nd d\n"),
        ("x.txt.gz", "c\nd d\n"),
    ],
)
def test_files_of_texts_follow_the_training_rows(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    train = examples(tmp_path / "train.tsv", np.array([1, 0]))
    added = add_unlabelled(train, [str(file), str(file)], SINGLE)
    assert list(added.texts) == ["a", "b", "c", "d d", "c", "d d"]
    assert (added.pairs, added.source, added.positive) == (None, train.source, 0)
    np.testing.assert_array_equal(added.labels, [1, 0, *[IGNORED] * 4])


def test_pairs_need_both_columns(tmp_path):
    (tmp_path / "x.tsv").write_text("other\ttext\n2\t1\n")
    train = examples(tmp_path / "train.tsv", pairs=["x", "y"])
    added = add_unlabelled(train, [str(tmp_path / "x.tsv")], PAIR)
    assert list(zip(added.texts, added.pairs, strict=True)) == [("a", "x"), ("b", "y"), ("1", "2")]
    (tmp_path / "x.txt").write_text("one\n")
    with pytest.raises(DataError, match=r"x\.txt: has one text a line, and the task has pairs"):
        add_unlabelled(train, [str(tmp_path / "x.txt")], PAIR)
    (tmp_path / "y.tsv").write_text("text\n1\n")
    with pytest.raises(DataError, match="other"):
        add_unlabelled(train, [str(tmp_path / "y.tsv")], PAIR)


@pytest.mark.parametrize("labels", [np.array([0.5, 2], "float32"), np.array([[True, False], [True, True]])])
def test_values_and_sets_of_labels_are_missing_where_there_are_none(tmp_path, labels):
    (tmp_path / "x.txt").write_text("one\n")
    added = add_unlabelled(examples(tmp_path / "train.tsv", labels), [str(tmp_path / "x.txt")], SINGLE)
    np.testing.assert_array_equal(added.labels[:2], labels)
    assert np.isnan(added.labels[2:]).all()
    assert added.labels.shape == (3, *labels.shape[1:])


@pytest.mark.parametrize(("name", "content"), [("x.txt", "\n \n"), ("x.tsv", "text\n"), ("x.tsv", "")])
def test_a_file_without_text_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}"):
        add_unlabelled(examples(tmp_path / "train.tsv"), [str(tmp_path / name)], SINGLE)


def test_texts_of_a_large_file_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_texts, "_LARGE_FILE", 20)
    (tmp_path / "x.txt").write_text("one two three\nfour five\n")
    added = add_unlabelled(examples(tmp_path / "train.tsv"), [str(tmp_path / "x.txt")], SINGLE)
    assert isinstance(added.texts, StoredTexts)
    assert list(added.texts[:]) == ["a", "b", "one two three", "four five"]
