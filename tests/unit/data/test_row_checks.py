"""What a user should know about a task's rows: texts in both files or with several labels, labels without rows."""

import ast
import json

import pytest

from dynabert_paddle.data import stored_texts
from dynabert_paddle.data.row_checks import describe_rows
from dynabert_paddle.data.tasks import load_task

TRAIN = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]
DEV = [("e", "x"), ("f", "y")]


def write_table(path, rows):
    header = ("sentence", "label") if len(rows[0]) == 2 else ("sentence", "other", "label")
    path.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]), encoding="utf-8")
    return path


def describe(folder, train=TRAIN, dev=DEV, **settings):
    """The messages about a task of two tables, without the folder."""
    if len(train[0]) == 3:
        settings["text_pair_column"] = "other"
    files = {"train_file": write_table(folder / "train.tsv", train), "dev_file": write_table(folder / "dev.tsv", dev)}
    return [m.replace(f"{folder}/", "") for m in describe_rows(load_task("custom", **files, **settings))]


def test_good_rows_cause_no_warning(tmp_path):
    assert describe(tmp_path) == []
    assert describe(tmp_path, [("a", "1"), ("b", "2.5")], [("c", "1"), ("d", "3")], kind="regression") == []


def test_dev_rows_of_the_training_file_are_counted(tmp_path):
    (message,) = describe(tmp_path, dev=[("e", "x"), (" b ", "y"), ("a", "x"), ("f", "y")])
    assert message.startswith("dev.tsv: 2 of 4 rows (50.0%) have the same text as a training row, such as ' b ':")


def test_a_pair_is_the_same_if_both_texts_are(tmp_path):
    pairs = [("a", "b", "x"), ("b", "c", "y"), ("c", "d", "x"), ("d", "e", "y")]
    assert describe(tmp_path, pairs, [("b", "a", "x"), ("a", "c", "y")]) == []
    (message,) = describe(tmp_path, pairs, [("b", "c", "y"), ("a", "d", "x")])
    assert message.startswith("dev.tsv: 1 of 2 rows (50.0%) have the same text")


def test_one_file_for_both_is_named(tmp_path):
    path = write_table(tmp_path / "all.tsv", TRAIN)
    (message,) = describe_rows(load_task("custom", train_file=path, dev_file=path))
    assert message.startswith(f"{path} is both the training and the dev file")


def test_texts_with_two_labels_are_counted_in_each_file(tmp_path):
    messages = describe(tmp_path, [*TRAIN, ("a", "y"), ("a", "x"), ("b", "x")], [*DEV, ("f", "x")])
    assert [message for message in messages if "different" in message] == [
        "train.tsv: 2 texts with different labels in 5 of 7 rows (71.4%), such as 'a' with 'x' and 'y': keep one of "
        "them",
        "dev.tsv: 1 text with different labels in 2 of 3 rows (66.7%), such as 'f' with 'x' and 'y': keep one of them",
    ]


def test_scores_that_differ_are_named(tmp_path):
    train = [("a", "1"), ("b", "2"), ("a", "4.5")]
    *_, message = describe(tmp_path, train, [("c", "1"), ("d", "2")], kind="regression")
    assert message.startswith(
        "train.tsv: 1 text with different scores in 2 of 3 rows (66.7%), such as 'a' with 1 and 4.5"
    )


def test_repeated_rows_are_counted_where_they_are_many(tmp_path):
    (message,) = describe(tmp_path, [*TRAIN, ("a", "x")])
    assert message == "train.tsv: 1 of 5 rows (20.0%) repeat the text of an earlier row"
    many = [(f"text {number}", "xy"[number % 2]) for number in range(100)]
    assert describe(tmp_path, [*many, *many[:5]]) == []  # 5 of 105 are fewer than one in twenty


def test_classes_without_rows_are_named(tmp_path):
    assert describe(tmp_path, dev=[("e", "x")]) == ["dev.tsv: no row has the label 'y': the dev scores do not cover it"]
    assert describe(tmp_path, labels=["x", "y", "z", "w"]) == [
        "train.tsv: no row has one of 2 of the 4 labels ('z', 'w'): the model cannot learn to predict it"
    ]
    (message,) = describe(tmp_path, [*TRAIN, ("g", "z")], [*DEV, ("h", "z")])
    assert message == "train.tsv: only one row has the label 'z': too few to learn from"


def test_a_label_of_nearly_all_rows_is_named(tmp_path):
    train = [(f"text {number}", "y" if number < 2 else "x") for number in range(40)]
    (message,) = describe(tmp_path, train)
    assert message.startswith("train.tsv: 38 of 40 rows (95.0%) have the label 'x': accuracy")
    train[2] = ("text 2", "y")
    assert describe(tmp_path, train) == []


def test_empty_texts_and_columns_of_one_text_are_named(tmp_path):
    messages = describe(
        tmp_path, [("a", " ", "x"), ("b", "c", "y"), ("d", "e", "x"), ("", "", "y")], [("f", "g", "x"), ("h", "", "y")]
    )
    assert messages == [
        "train.tsv: 2 of 4 rows (50.0%) have an empty text",
        "dev.tsv: 1 of 2 rows (50.0%) have an empty text",
    ]
    messages = describe(tmp_path, [("a", "s", "x"), ("b", "s", "y")], [("c", "t", "x"), ("d", "u", "y")])
    assert messages[0] == "train.tsv: every row has the text 's': choose another column"


def test_dev_scores_that_are_all_equal_are_named(tmp_path):
    (message,) = describe(tmp_path, [("a", "1"), ("b", "2")], [("c", "3"), ("d", "3")], kind="regression")
    assert message == "dev.tsv: every row has the score 3, with which nothing correlates"


def test_sentences_of_labelled_words(tmp_path):
    train = "Ada B-PER\nworks O\n\nAda O\nworks O\n\nParis B-LOC\n\nBob B-PER\n"
    (tmp_path / "train.conll").write_text(train)
    (tmp_path / "dev.conll").write_text("Ada B-PER\nworks O\n\nEve B-PER\n")
    task = load_task("custom", kind="token_classification", data_dir=tmp_path)
    assert [m.replace(f"{tmp_path}/", "").partition(":")[2].partition(", such")[0] for m in describe_rows(task)] == [
        " 1 of 2 rows (50.0%) have the same text as a training row",
        " 1 of 4 rows (25.0%) repeat the text of an earlier row",
        " 1 text with different labels in 2 of 4 rows (50.0%)",
        " no word has the label 'B-LOC': the dev scores do not cover it",
        " only one word has the label 'B-LOC': too few to learn from",
    ]


def test_questions(tmp_path):
    def question(number, context, answer):
        return {
            "id": str(number),
            "question": "who?",
            "context": context,
            "answers": [{"text": answer, "answer_start": context.index(answer)}],
        }

    rows = [question(1, "Ada met Bob", "Ada"), question(2, "Ada met Bob", "Bob"), question(3, "Eve left", "Eve")]
    for name, part in (("train", rows), ("dev", [rows[2], question(4, "Kim left", "Kim")])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    task = load_task("custom", kind="question_answering", data_dir=tmp_path)
    assert [m.replace(f"{tmp_path}/", "") for m in describe_rows(task)] == [
        "dev.jsonl: 1 of 2 rows (50.0%) have the same text as a training row, such as 'who?': the dev scores count "
        "them as new texts; remove them from one file",
        "train.jsonl: 1 of 3 rows (33.3%) repeat the text of an earlier row",
        "train.jsonl: 1 text with different answers in 2 of 3 rows (66.7%), such as 'who?': keep one of them",
    ]


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_that_stay_on_disk_are_compared_alike(tmp_path, monkeypatch, pairs):
    def rows(*texts):
        return [(text, *([text[::-1]] if pairs else []), label) for text, label in texts]

    data = rows(*TRAIN, ("a", "y"), ("größer", "x")), rows(*DEV, ("c", "x"))
    in_memory = describe(tmp_path, *data)
    monkeypatch.setattr(stored_texts, "_LARGE_FILE", 0)
    monkeypatch.setattr("dynabert_paddle.data.row_checks._ROWS_PER_READ", 2)
    assert describe(tmp_path, *data) == in_memory
    assert len(in_memory) == 3


@pytest.mark.parametrize("other", ["X", "x\u200b", "\uff58", "\ufeffx"])
def test_labels_that_look_alike_are_named(tmp_path, other):
    train = [*TRAIN, ("g", other), ("h", other)]
    messages = [message for message in describe(tmp_path, train, [*DEV, ("i", other)]) if "differ in" in message]
    names = " and ".join(sorted((ascii("x"), ascii(other)), key=lambda name: ast.literal_eval(name)))
    assert messages == [
        f"train.tsv: the labels {names} differ in capitals, blanks or the form of their characters alone, and are two "
        "classes: write them alike if they are one"
    ]


def test_labels_with_blanks_that_look_alike_are_named(tmp_path):
    train = [("a", "New York"), ("b", "New\u00a0York"), ("c", "New York"), ("d", "New\u00a0York")]
    messages = describe(tmp_path, train, [("e", "New York"), ("f", "New\u00a0York")])
    assert ["differ in capitals, blanks" in message for message in messages] == [True]


def test_names_of_missing_values_are_named(tmp_path):
    train = [*TRAIN, ("NaN", "x"), ("g", "nan"), ("h", "nan")]
    assert describe(tmp_path, train, [*DEV, ("i", "nan")]) == [
        "train.tsv: 1 of 7 rows (14.3%) have a text that may stand for a missing one, such as 'NaN'",
        "train.tsv: the label 'nan' may stand for a missing one, and is a class: delete its rows if it does",
    ]
