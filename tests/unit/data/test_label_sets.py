"""Files with several labels or none a row, in every format, and faulty ones: file, line, remedy."""

import gzip
import json
import re

import numpy as np
import pytest

from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data import stored_texts
from dynabert_paddle.data.fingerprint import hash_examples
from dynabert_paddle.data.row_checks import describe_rows
from dynabert_paddle.data.streaming import StreamedFeatures
from dynabert_paddle.data.tasks import load_task, read_training_texts
from dynabert_paddle.errors import DataError, DynabertError, UsageError
from dynabert_paddle.text.tokenizer import Tokenizer

ROWS = [("good film", ["b", "a"]), ("bad", []), ("so so", ["c"]), ("odd", ["a"])]
MATRIX = [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]]


def write(folder, name, content):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def as_table(rows, *, delimiter="\t", mark="|", column="labels"):
    lines = [("text", column), *((text, mark.join(labels)) for text, labels in rows)]
    return "".join(delimiter.join(line) + "\n" for line in lines)


def as_json(rows, column="labels"):
    return "".join(json.dumps({"text": text, column: labels}) + "\n" for text, labels in rows)


def load(folder, train, dev=None, name="train.jsonl", **settings):
    """Load a task of two files; `dev` is the training file's content by default."""
    files = {"train_file": write(folder, name, train), "dev_file": write(folder, f"dev-{name}", dev or train)}
    return load_task("custom", kind="multi_label", **files, **settings)


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("x.jsonl", as_json(ROWS), {}),
        ("x.json", json.dumps([{"text": text, "labels": labels} for text, labels in ROWS]), {}),
        ("x.jsonl", as_json(ROWS, "label"), {}),
        ("x.jsonl", as_json([(text, ";".join(labels)) for text, labels in ROWS]), {"label_separator": ";"}),
        ("x.jsonl", as_json(ROWS, "topics"), {"label_column": "topics"}),
        ("x.tsv", as_table(ROWS), {"label_separator": "|"}),
        ("x.tsv", as_table(ROWS, mark=" , ", column="label"), {"label_separator": ","}),
        ("x.csv", as_table(ROWS, delimiter=","), {"label_separator": "|"}),
        ("x.csv", 'text,labels\ngood film,"b,a"\nbad,\nso so, c \nodd,a\n', {"label_separator": ","}),
        ("x.tsv", as_table(ROWS, mark="::"), {"label_separator": "::"}),
    ],
)
def test_formats_agree(tmp_path, name, content, settings):
    task = load(tmp_path, content, name=name, **settings)
    assert (task.kind, task.labels, task.metrics[0]) == ("multi_label", ("a", "b", "c"), "micro_f1")
    for examples in (task.train, task.dev):
        assert examples.texts == [text for text, _ in ROWS]
        assert examples.labels.dtype == bool
        assert examples.labels.astype(int).tolist() == MATRIX
    again = load_task(**task.to_dict())
    np.testing.assert_array_equal(again.train.labels, task.train.labels)
    assert again.to_dict() == task.to_dict()
    assert ("label_separator" in task.to_dict()) is ("label_separator" in settings)


def test_lists_are_read_from_a_compressed_file(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(as_json(ROWS).encode()))
    task = load_task("custom", kind="multi_label", train_file=path, dev_file=path)
    np.testing.assert_array_equal(task.train.labels, np.array(MATRIX, dtype=bool))


def test_pairs_have_several_labels(tmp_path):
    train = "".join(json.dumps({"a": "x", "b": text, "labels": labels}) + "\n" for text, labels in ROWS)
    task = load(tmp_path, train, text_column="a", text_pair_column="b")
    assert task.train.pairs == [text for text, _ in ROWS]
    assert task.train.labels.astype(int).tolist() == MATRIX


def test_numbers_are_labels_as_in_other_kinds(tmp_path):
    task = load(tmp_path, as_json([("a", [10, 9]), ("b", [9.0]), ("c", [])]))
    assert task.labels == ("9", "10")
    assert task.train.labels.astype(int).tolist() == [[1, 1], [1, 0], [0, 0]]


def test_the_users_labels_give_the_order_and_name_more(tmp_path):
    task = load(tmp_path, as_json(ROWS), labels=["c", "d", "a", "b"])
    assert task.labels == ("c", "d", "a", "b") and task.labels_given
    assert task.train.labels.astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    assert load(tmp_path, as_json([("x", ["a"]), ("y", [])]), labels=["a"]).labels == ("a",)  # yes or no


def test_labels_take_a_models_order(tmp_path):
    task = load(tmp_path, as_json(ROWS))
    ordered = task.with_labels(("c", "a", "b"))
    assert ordered.labels == ("c", "a", "b")
    assert ordered.train.labels.astype(int).tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert hash_examples(ordered.train, ordered.labels) == hash_examples(task.train, task.labels)
    other = load(tmp_path, as_json([("good film", ["b"]), *ROWS[1:]]))
    assert hash_examples(other.train, task.labels) != hash_examples(task.train, task.labels)
    assert task.with_labels(("a", "b", "d")) is None


def test_texts_of_a_large_file_stay_on_disk(tmp_path, monkeypatch):
    tokenizer = Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    task = load(tmp_path, as_json(ROWS))
    expected = task.train.tokenize(tokenizer, max_seq_length=8).collate(np.array([2, 0]), 0)
    assert expected["labels"].dtype == np.float32 and expected["labels"].tolist() == [MATRIX[2], MATRIX[0]]
    monkeypatch.setattr(stored_texts, "_LARGE_FILE", 0)
    features = load(tmp_path, as_json(ROWS)).train.tokenize(tokenizer, max_seq_length=8)
    assert isinstance(features, StreamedFeatures)
    found = features.select(np.array([3, 2, 0])).collate(np.array([1, 2]), 0)
    assert all(np.array_equal(found[name], values) for name, values in expected.items())


def test_texts_are_augmented_without_their_labels(tmp_path):
    path = write(tmp_path, "x.tsv", as_table(ROWS))
    texts = read_training_texts("custom", train_file=path, kind="multi_label", text_column="text")
    assert list(texts) == [(text,) for text, _ in ROWS]


JSON, TSV = {"name": "x.jsonl"}, {"name": "x.tsv", "label_separator": "|"}


@pytest.mark.parametrize(
    ("line", "settings", "seen"),
    [
        ('{"text": "x", "labels": ["a", "b", "a"]}', JSON, "it has 'a' twice: keep one of them"),
        ('{"text": "x", "labels": [" a ", "a"]}', JSON, "it has 'a' twice"),
        ('{"text": "x", "labels": [0, 1, 0]}', JSON, "names of a row's labels, not 0 or 1 for each label"),
        ('{"text": "x", "labels": ["a", ""]}', JSON, "it has an empty label"),
        ('{"text": "x", "labels": ["a", 1]}', JSON, "it must be a list of strings"),
        ('{"text": "x", "labels": ["a", null]}', JSON, "it must be a list of strings"),
        ('{"text": "x", "labels": [["a"]]}', JSON, "it must be a list of strings"),
        ('{"text": "x", "labels": [true]}', JSON, "it must be a list of strings"),
        ('{"text": "x", "labels": [NaN]}', JSON, "it must be a list of strings"),
        ('{"text": "x", "labels": {"a": 1}}', JSON, "it must be a list of labels"),
        ('{"text": "x", "labels": null}', JSON, "write \\[\\] for no label, or delete the row"),
        ('{"text": "x", "labels": "a"}', JSON, "a list of labels, or label_separator must name what separates them"),
        ('{"text": "x", "labels": 3}', JSON, "it must be a list of labels"),
        ('{"text": "x", "labels": ["a|b"]}', {**JSON, "label_separator": "|"}, "'a|b' contains label_separator '|'"),
        ('{"text": "x"}', JSON, "no column 'labels'"),
        ("x\ta||b", TSV, "it has an empty label: remove the '|' that is too many"),
        ("x\ta|b|", TSV, "it has an empty label"),
        ("x\t|", TSV, "it has an empty label"),
        ("x\ta|b|a", TSV, "it has 'a' twice"),
        ("x\ta\tb", TSV, "3 fields, but the header has 2"),
    ],
)
def test_faulty_rows_are_named_by_their_line(tmp_path, line, settings, seen):
    rows = as_json(ROWS) if settings["name"] == "x.jsonl" else as_table(ROWS)
    if "label_separator" in settings and settings["name"] == "x.jsonl":
        rows = as_json([row for row in ROWS if len(row[1]) < 2])
    number = rows.count("\n") + 1
    with pytest.raises(DataError) as caught:
        load(tmp_path, f"{rows}{line}\n", **settings)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / settings['name']}:{number}: ") and "\n" not in message
    assert re.search(seen.replace("|", "\\|"), message), message


@pytest.mark.parametrize(
    ("train", "dev", "settings", "seen"),
    [
        (
            as_json(ROWS),
            as_json([("x", ["a", "d"])]),
            {},
            "dev-train.jsonl:1: label 'd' is not one of the task's labels",
        ),
        (as_json([("x", []), ("y", [])]), None, {}, "no row has a label; choose another column with label_column"),
        (as_json([("x", ["a", "b"]), ("y", ["b", "a"])]), None, {}, "every row has the labels 'a', 'b'"),
        (as_json(ROWS), None, {"labels": ["a", "b"]}, "label 'c' is not one of the task's labels, 'a', 'b'"),
        (as_json(ROWS), None, {"labels": []}, "labels must list at least one label, each once"),
        (as_json(ROWS), None, {"labels": ["a", "b", "c", "a"]}, "at least one label, each once"),
        (as_json(ROWS), None, {"positive_label": "a"}, "positive_label is for classification"),
        (as_json(ROWS), None, {"metrics": ["accuracy"]}, "metric 'accuracy' is not for multi_label"),
        (as_json(ROWS), None, {"label_separator": ""}, "label_separator is empty"),
        (
            as_table(ROWS),
            None,
            {"name": "x.tsv", "label_separator": "|", "labels": ["a", "b", "c", "a|b"]},
            "the label 'a\\|b' contains label_separator '\\|'",
        ),
        (as_table(ROWS), None, {"name": "x.tsv"}, "name what separates them with label_separator, such as '\\|'"),
        (as_table(ROWS), None, {"name": "x.csv"}, "name what separates them"),
        ("", None, {}, "the file is empty"),
        ("text\tlabels\n", None, {"name": "x.tsv", "label_separator": "|"}, "the file has no rows of data"),
    ],
)
def test_faulty_tasks_are_refused(tmp_path, train, dev, settings, seen):
    with pytest.raises(DynabertError, match=seen) as caught:
        load(tmp_path, train, dev, **settings)
    assert "\n" not in str(caught.value)


def test_lists_are_refused_where_a_row_has_one_label(tmp_path):
    files = {name: write(tmp_path, f"{name}.jsonl", as_json(ROWS)) for name in ("train_file", "dev_file")}
    with pytest.raises(DataError, match="For several labels a row, set kind to multi_label"):
        load_task("custom", label_column="labels", **files)
    with pytest.raises(UsageError, match="label_separator is for multi_label, this task is classification: leave it"):
        load_task("custom", label_separator="|", **files)


def messages(task, folder):
    return [message.replace(f"{folder}/", "") for message in describe_rows(task)]


def test_a_separator_that_no_row_has_is_told(tmp_path):
    rows = [("a", ["x,y"]), ("b", ["z"]), ("c", ["z,x"]), ("d", ["x,y"]), ("e", ["z"]), ("f", ["z,x"])]
    task = load(
        tmp_path, as_table(rows), as_table([("g", ["z"]), ("h", ["x,y"]), ("i", ["z,x"])]), "x.tsv", label_separator="|"
    )
    (message,) = messages(task, tmp_path)
    assert message.startswith("x.tsv: no row has the separator '|' between labels: every row has one label or none")


def test_good_rows_need_no_words_and_others_are_told(tmp_path):
    train = [(f"text {i}", labels) for i, labels in enumerate([["a", "b"], ["b"], [], ["a"], ["c"], ["c", "a"]])]
    dev = [("x", ["a", "c"]), ("y", ["b"])]
    assert messages(load(tmp_path, as_json(train), as_json(dev)), tmp_path) == []
    found = messages(load(tmp_path, as_json([*train, ("text 0", ["c"]), ("z", ["d"])]), as_json(dev[:1])), tmp_path)
    assert any("different labels" in text and "['a', 'b']" in text and "['c']" in text for text in found), found
    assert any("only one row has the label 'd'" in text for text in found)
    assert any("no row has one of 2 of the 4 labels ('b', 'd')" in text for text in found)
