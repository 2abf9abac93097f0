"""Tasks: the built-in snips, the user's files, and invalid arguments."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dynabert_paddle.data.kinds import check_kind_settings
from dynabert_paddle.data.readers import Columns
from dynabert_paddle.data.tasks import load_task
from dynabert_paddle.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path):
    """A folder with a small custom task of two classes."""
    (tmp_path / "train.tsv").write_text("text\tlabel\ngood film\tpos\nbad film\tneg\nfine\tpos\n")
    (tmp_path / "dev.csv").write_text('text,label\n"good, fine",pos\n')
    return tmp_path


def refusal(error, name, **options) -> str:
    with pytest.raises(error) as caught:
        load_task(name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_same(first, second):
    """Two tasks have the same declaration and the same data."""
    assert first.to_dict() == second.to_dict()
    for ours, theirs in ((first.train, second.train), (first.dev, second.dev)):
        assert (ours.texts, ours.pairs) == (theirs.texts, theirs.pairs)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_snips_is_complete():
    task = load_task("snips")
    assert (len(task.train), len(task.dev)) == (13_784, 700)  # as its README states
    assert task.metrics[0] == "accuracy"
    # The development set was drawn with 100 sentences of each class.
    assert Counter(task.dev.labels.tolist()) == dict.fromkeys(range(7), 100)


def test_declared_labels_of_snips_are_those_of_its_file():
    snips = load_task("snips")
    custom = load_task("custom", data_dir=snips.train.source.parent)
    assert snips.labels == custom.labels
    np.testing.assert_array_equal(snips.train.labels, custom.train.labels)


def test_snips_label_indices_match_the_labels():
    task = load_task("snips")
    lines = task.dev.source.read_text(encoding="utf-8").splitlines()[1:]
    pairs = zip(task.dev.texts, task.dev.labels, strict=True)
    assert [f"{text}\t{task.labels[label]}" for text, label in pairs] == lines


def test_snips_description_names_no_path():
    description = load_task("snips").to_dict()
    assert str(Path(__file__).parents[3]) not in json.dumps(description)
    assert not {"train_file", "dev_file"} & set(description)


def test_custom_folder(folder):
    task = load_task("custom", data_dir=folder)
    assert (task.name, task.kind, task.labels) == ("custom", "classification", ("neg", "pos"))
    assert task.metrics == ("accuracy", "macro_f1")
    assert task.columns == Columns("text", None, "label")
    assert task.train.labels.tolist() == [1, 0, 1]
    assert task.dev.texts == ["good, fine"]


def test_sentence_is_preferred_to_text(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("text\tsentence\tlabel\nt\ts\ta\nt\ts\tb\n")
    assert load_task("custom", data_dir=tmp_path).dev.texts == ["s", "s"]
    assert load_task("custom", data_dir=tmp_path, text_column="text").dev.texts == ["t", "t"]


def test_custom_pairs_and_columns(tmp_path):
    for name in ("train.jsonl", "dev.jsonl"):
        rows = [{"q1": "a", "q2": "b", "same": 1}, {"q1": "c", "q2": "d", "same": 0}]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task(
        "custom", data_dir=tmp_path, text_column="q1", text_pair_column="q2", label_column="same", metrics=["f1"]
    )
    assert (task.dev.texts, task.dev.pairs, task.labels) == (["a", "c"], ["b", "d"], ("0", "1"))
    assert task.dev.labels.tolist() == [1, 0]


def test_regression(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("sentence\tlabel\ns\t0.5\nt\t5\n")
    task = load_task("custom", data_dir=tmp_path, kind="regression")
    assert (task.labels, task.metrics) == ((), ("pearson", "spearman"))
    assert task.dev.labels.tolist() == [0.5, 5.0]


def test_the_labels_option_determines_the_order(folder):
    task = load_task("custom", data_dir=folder, labels=["pos", "neg", "neutral"])
    assert task.labels == ("pos", "neg", "neutral")
    assert task.train.labels.tolist() == [0, 1, 0]


def test_a_file_option_replaces_the_file_in_the_folder(folder):
    other = folder / "augmented.tsv"
    other.write_text("text\tlabel\nnew\tpos\nold\tneg\n")
    task = load_task("custom", data_dir=folder, train_file=other)
    assert (task.train.texts, task.dev.texts) == (["new", "old"], ["good, fine"])


def test_a_file_option_replaces_a_built_in_file(tmp_path):
    train = tmp_path / "few.tsv"
    train.write_text("sentence\tlabel\nplay jazz\tPlayMusic\nrate it 5\tRateBook\n")
    task = load_task("snips", train_file=train)
    assert (len(task.train), len(task.dev), len(task.labels)) == (2, 700, 7)
    assert task.to_dict()["train_file"] == str(train)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_description_loads_the_same_task(tmp_path, monkeypatch, kind):
    for name in ("train.csv", "dev.csv"):
        (tmp_path / name).write_text("first,second,score\na,b,1\nc,d,2\n")
    monkeypatch.chdir(tmp_path)
    task = load_task(
        "custom",
        train_file="train.csv",
        dev_file="dev.csv",
        text_column="first",
        text_pair_column="second",
        label_column="score",
        kind=kind,
    )
    description = json.loads(json.dumps(task.to_dict()))
    monkeypatch.chdir(tmp_path.parent)
    assert_same(load_task(**description), task)


def test_snips_description_loads_snips():
    assert_same(load_task(**json.loads(json.dumps(load_task("snips").to_dict()))), load_task("snips"))


def test_unknown_task():
    message = refusal(UsageError, "snip")
    assert message.startswith("unknown task 'snip'; built in: 'snips', 'cola', ")
    assert message.endswith("'lcqmc'; 'custom' reads your own files. Did you mean 'snips'? Choose one with name.")


@pytest.mark.parametrize("given", [(), ("train_file",), ("dev_file",)])
def test_custom_without_files(folder, given):
    files = {"train_file": folder / "train.tsv", "dev_file": folder / "dev.csv"}
    message = refusal(UsageError, "custom", **{flag: files[flag] for flag in given})
    assert message == "task 'custom' needs files: pass data_dir, or both train_file and dev_file."


def test_folder_that_is_absent(tmp_path):
    message = refusal(DataError, "custom", data_dir=tmp_path / "absent")
    assert message == f"{tmp_path / 'absent'}: no such folder. Give one with data_dir, or a file with train_file."


def test_folder_without_a_file(folder):
    (folder / "dev.csv").rename(folder / "valid.csv")
    message = refusal(DataError, "custom", data_dir=folder)
    assert message == (
        f"{folder}: none of dev.tsv, dev.csv, dev.jsonl, dev.json, dev.parquet; the folder contains "
        "train.tsv, valid.csv. Give the file with dev_file."
    )


def test_folder_with_two_candidates(folder):
    (folder / "train.csv").write_text("text,label\n")
    message = refusal(DataError, "custom", data_dir=folder)
    assert message == f"{folder}: train.csv and train.tsv all match. Choose one with train_file."


def test_no_default_text_column(folder):
    (folder / "train.tsv").write_text("review\tlabel\ngood\tpos\n")
    message = refusal(DataError, "custom", data_dir=folder)
    assert message.startswith(
        f"{folder / 'train.tsv'}:1: no column 'sentence'; the columns here are 'review', 'label'."
    )
    assert message.endswith("Choose one with text_column.")


def test_a_label_only_in_dev_is_refused(folder):
    (folder / "dev.csv").write_text("text,label\nok,pos\nhm,neutral\n")
    message = refusal(DataError, "custom", data_dir=folder)
    assert message.startswith(f"{folder / 'dev.csv'}:3: label 'neutral' is not one of the task's labels, 'neg', 'pos'.")
    assert "add a training row that has it" in message


@pytest.mark.parametrize("labels", [None, ["neg", "pos"]])
def test_single_class_in_train(folder, labels):
    (folder / "train.tsv").write_text("text\tlabel\ngood\tpos\nfine\tpos\n")
    message = refusal(DataError, "custom", data_dir=folder, labels=labels)
    assert message == (
        f"{folder / 'train.tsv'}: every row has the label 'pos'; a classifier needs rows of at least two classes. "
        "Choose another column with label_column, or add rows."
    )


@pytest.mark.parametrize("labels", [[True, False], ["true", "false"]])
def test_labels_in_python_have_the_same_text_as_in_json(tmp_path, labels):
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text('{"text": "s", "label": true}\n{"text": "s", "label": "false"}\n')
    task = load_task("custom", data_dir=tmp_path, labels=labels)
    assert (task.labels, task.dev.labels.tolist()) == (("true", "false"), [0, 1])


@pytest.mark.parametrize(
    "labels", [[], ["pos"], ["pos", "neg", "pos"], ["pos", " pos"], ["pos", ""], ["pos", None], ["pos", float("nan")]]
)
def test_invalid_lists_of_labels_are_refused(folder, labels):
    message = refusal(UsageError, "custom", data_dir=folder, labels=labels)
    assert message == f"labels must list at least two labels, each once, not {labels}."


def test_labels_with_regression(folder):
    message = refusal(UsageError, "custom", data_dir=folder, kind="regression", labels=["neg", "pos"])
    assert "leave out labels" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "token_classification", "text_pair_column": "b"}, "text_pair_column is 'b', but in token_class"),
        (
            {"kind": "question_answering", "text_column": "b"},
            "text_column is 'b', but in question_answering it is 'q",
        ),
        ({"long_text": "window"}, "long_text is 'window'; it must be one of windows, truncate"),
        ({"long_text": "windows", "window_pooling": "sum"}, "window_pooling is 'sum'; it must be one of mean, max"),
        ({"long_text": "windows", "doc_stride": 0}, "doc_stride is at least 1, not 0"),
        ({"max_answer_length": 8}, "max_answer_length is for question_answering, this task is classification"),
        ({"label_scheme": "IOB2"}, "label_scheme is for token_classification, this task is classification"),
        ({"kind": "regression", "decode": "free"}, "decode is for token_classification, this task is regression"),
        ({"kind": "question_answering", "labels": ["a", "b"]}, "a question_answering task has answers, not labels"),
    ],
)
def test_settings_of_another_kind_are_refused(folder, arguments, message):
    assert message in refusal(UsageError, "custom", data_dir=folder, **arguments)


@pytest.mark.parametrize(
    "kind, setting, owners",
    [
        ("token_classification", "window_pooling", "classification, regression and multi_label"),
        ("question_answering", "long_text", "classification, regression, multi_label and token_classification"),
        ("embedding", "long_text", "classification, regression, multi_label and token_classification"),
    ],
)
def test_kinds_with_windows_of_their_own_have_no_others(kind, setting, owners):
    with pytest.raises(UsageError, match=f"{setting} is for {owners}, this task is {kind}: leave it out."):
        check_kind_settings(kind, {setting: "x"})


def test_unknown_kind(folder):
    message = refusal(UsageError, "custom", data_dir=folder, kind="regresion")
    assert message.startswith("unknown kind of task 'regresion'; kind is one of classification, regression, ")
    assert message.endswith("Did you mean 'regression'?")


@pytest.mark.parametrize(
    ("kind", "metrics", "expected"),
    [
        (None, ["acuracy"], "unknown metric 'acuracy'; metrics takes accuracy, macro_f1, f1, matthews, pearson, "),
        (None, ["pearson"], "metric 'pearson' is not for classification; choose from accuracy, macro_f1, "),
        ("regression", ["accuracy"], "metric 'accuracy' is not for regression; choose from pearson, spearman with "),
    ],
)
def test_metrics_of_another_kind_are_refused(folder, kind, metrics, expected):
    assert refusal(UsageError, "custom", data_dir=folder, kind=kind, metrics=metrics).startswith(expected)


def test_f1_of_more_than_two_classes():
    message = refusal(UsageError, "snips", metrics=["accuracy", "f1"])
    assert message == "metric 'f1' is for two classes and the task has 7; set metrics to macro_f1."


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            ("0.5", "1.0", "4.25"),
            "its 3 labels are numbers, such as 0.5, and are trained as classes; if they are scores, "
            "set kind to regression",
        ),
        (
            ("3,5", "4"),
            "its 2 labels are numbers, such as 3,5, and are trained as classes; if they are scores, set "
            "kind to regression, and write them with a decimal point",
        ),
        (("0", "1.0"), None),
        (("1.5", "good"), None),
    ],
)
def test_labels_that_look_like_scores_are_warned_about(tmp_path, caplog, labels, said):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(f"a\t{label}\n" for label in labels))
    load_task("custom", data_dir=tmp_path)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == ([said] if said else [])
    caplog.clear()
    load_task("custom", data_dir=tmp_path, labels=labels)  # the user says so
    assert not caplog.records


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text_column": "label"}, "text_column and label_column are both 'label'"),
        ({"label_column": "sentence"}, "text_column and label_column are both 'sentence'"),
        ({"text_pair_column": "label"}, "text_pair_column and label_column are both 'label'"),
        ({"text_pair_column": "sentence"}, "text_column and text_pair_column are both 'sentence'"),
    ],
)
def test_one_column_for_two_purposes_is_refused(tmp_path, columns, words):
    (tmp_path / "train.tsv").write_text("sentence\tlabel\na\tx\nb\ty\n")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na\tx\nb\ty\n")
    with pytest.raises(UsageError, match=f"^{words}: name another column"):
        load_task("custom", data_dir=tmp_path, **columns)
