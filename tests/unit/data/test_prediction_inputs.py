"""The rows to predict: the same from a file, a compressed one and a pipe; a format is never guessed wrongly."""

import gzip
import json
import os
import threading
from dataclasses import replace

import pytest

from dynabert_paddle.data.prediction_inputs import InputForm
from dynabert_paddle.errors import DataError, UsageError

pytestmark = pytest.mark.reference

SINGLE = InputForm("classification", ("a", "b"), False, ("body", None))
PAIRS = InputForm("classification", ("a", "b"), True, ("first", "second"))
WORDS = InputForm("token_classification", ("O", "B-PER"), False, ("tokens", None))
ANSWERS = InputForm("question_answering", (), True, ("question", "context"))
QUESTION = {"id": "1", "question": "who", "answers": [{"text": "I", "answer_start": 0}]}
SQUAD = json.dumps({"data": [{"paragraphs": [{"context": "I am", "qas": [QUESTION]}]}]}, indent=0)
ASKED = {"question": "who", "context": "I"}

# How rows are read, the file's ending and content, its texts, and the columns of the first row.
FILES = [
    (SINGLE, "txt", "one\n\ntwo\n", [("one",), ("",), ("two",)], {"body": "one"}),
    (SINGLE, "tsv", 'id\tbody\n1\ta "b"\n2\t"c"\n', [('a "b"',), ('"c"',)], {"id": "1", "body": 'a "b"'}),
    (SINGLE, "tsv", 'id\ttext\n1\t"a ""b"""\n', [('a "b"',)], {"id": "1", "text": 'a "b"'}),
    (SINGLE, "csv", 'text;id\n"a\nb";1\n', [("a\nb",)], {"text": "a\nb", "id": "1"}),
    (SINGLE, "jsonl", '{"body": "a", "n": [1]}\n{"body": 2}\n', [("a",), ("2",)], {"body": "a", "n": [1]}),
    (SINGLE, "json", '[\n{"body": "a"},\n\n{"body": "b"}]', [("a",), ("b",)], {"body": "a"}),
    (PAIRS, "tsv", "second\tfirst\na\tb\n", [("b", "a")], {"second": "a", "first": "b"}),
    (
        WORDS,
        "conll",
        "# a b\nAnn B-PER\nsings O\n\nshe O\n",
        [(["Ann", "sings"],), (["she"],)],
        {"tokens": ["Ann", "sings"]},
    ),
    (WORDS, "txt", "Ann sings\n", [("Ann sings",)], {"text": "Ann sings"}),
    (WORDS, "jsonl", '{"tokens": ["Ann"], "n": 1}\n', [(["Ann"],)], {"tokens": ["Ann"], "n": 1}),
    (WORDS, "jsonl", '{"text": "Ann", "n": 1}\n', [("Ann",)], {"text": "Ann", "n": 1}),
    (
        WORDS,
        "jsonl",
        '{"tokens": []}\n{"tokens": ["Ann"]}\n{"tokens": [" "]}\n',
        [([],), (["Ann"],), ([],)],
        {"tokens": []},
    ),
    (WORDS, "tsv", "tokens\tid\nAnn\t1\nshe\t2\n", [("Ann",), ("she",)], {"tokens": "Ann", "id": "1"}),
    (ANSWERS, "json", SQUAD, [("who", "I am")], {"id": "1", "question": "who", "context": "I am"}),
    (
        ANSWERS,
        "jsonl",
        '{"question": "who", "context": "I", "n": 1}\n',
        [("who", "I")],
        {"question": "who", "context": "I", "n": 1},
    ),
]


def through_pipe(form, content):
    """Read what a pipe delivers."""
    reading, writing = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(writing, content.encode()), os.close(writing)))
    writer.start()
    try:
        return list(form.open(f"/dev/fd/{reading}").rows)
    finally:
        writer.join()
        os.close(reading)


def with_format(form, name):
    return InputForm(form.kind, form.labels, form.takes_pairs, form.trained, format=name)


@pytest.mark.parametrize(("form", "ending", "content", "texts", "columns"), FILES)
def test_a_file_and_a_pipe_have_the_same_rows(tmp_path, form, ending, content, texts, columns):
    (tmp_path / f"x.{ending}").write_text(content)
    (tmp_path / f"x.{ending}.gz").write_bytes(gzip.compress(content.encode()))
    (tmp_path / "x.log").write_text(content)
    named = with_format(form, ending)
    found = [list(form.open(str(tmp_path / name)).rows) for name in (f"x.{ending}", f"x.{ending}.gz")]
    for rows in (*found, list(named.open(str(tmp_path / "x.log")).rows), through_pipe(named, content)):
        assert [row.texts for row in rows] == texts
        assert dict(rows[0].columns) == columns


@pytest.mark.parametrize(
    ("form", "content", "named"),
    [
        (SINGLE, '{"text": "a"}\n', "jsonl"),
        (SINGLE, '[{"text": "a"}]\n', "json"),
        (SINGLE, "body\n", "tsv"),
        (SINGLE, "id\ttext\n", "tsv"),
        (SINGLE, "sentence,label\n", "csv"),
        (WORDS, "Ann\tB-PER\n", "conll"),
    ],
)
def test_a_pipe_that_looks_like_another_format_is_refused(form, content, named):
    with pytest.raises(DataError, match=f"say input_format {named}, or input_format txt if it is a text"):
        through_pipe(form, content)
    rows = through_pipe(with_format(form, "txt"), content)
    assert [row.texts for row in rows] == [(content.strip(),)]


@pytest.mark.parametrize("content", ["a text, with commas: a b\n", "{curly}\n", "[1] is a number\n", "Ann\n"])
def test_a_text_of_a_pipe_is_a_text(content):
    assert [row.texts for row in through_pipe(WORDS, content)] == [(content.strip(),)]


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_columns_that_are_not_written_may_share_a_name(tmp_path, ending):
    (tmp_path / f"x.{ending}").write_text(",body,,\n0,one,,\n".replace(",", "\t" if ending == "tsv" else ","))
    (row,) = replace(SINGLE, with_columns=False).open(str(tmp_path / f"x.{ending}")).rows
    assert row.texts == ("one",)
    with pytest.raises(DataError, match="3 columns are called ''; rename them to write all columns"):
        list(SINGLE.open(str(tmp_path / f"x.{ending}")).rows)


def test_rows_of_a_pipe_are_grouped_as_they_come():
    reading, writing = os.pipe()
    groups = SINGLE.open(f"/dev/fd/{reading}").groups()
    for lines in (b"one\n", b"two\nthree\n"):
        os.write(writing, lines)
        assert [row.texts[0] for row in next(groups)] == lines.decode().split()
    os.close(writing)
    assert list(groups) == []
    os.close(reading)


def test_texts_of_a_command_line():
    assert [row.texts for row in SINGLE.of_texts(["a", "b"]).rows] == [("a",), ("b",)]
    rows = list(PAIRS.of_texts(["a", "b", "c", "d"]).rows)
    assert [row.texts for row in rows] == [("a", "b"), ("c", "d")]
    assert rows[0].columns == {"first": "a", "second": "b"}
    with pytest.raises(UsageError, match="give two texts for each, not 3"):
        PAIRS.of_texts(["a", "b", "c"])


def test_single_texts_and_pairs_are_not_mixed_up(tmp_path):
    with pytest.raises(UsageError, match="leave out text_pair_column"):
        InputForm("classification", (), False, (None, None), pair_column="b")
    with pytest.raises(UsageError, match="give pairs as .tsv, .csv or .jsonl"):
        list(PAIRS.open(str(tmp_path / "x.txt")).rows)
    unnamed = InputForm("classification", (), True, (None, None))
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(UsageError, match="name the second text's column with text_pair_column"):
        list(unnamed.open(str(tmp_path / "x.tsv")).rows)
