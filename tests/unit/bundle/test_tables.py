"""Files that a bundle's scripts read, and rows that read back."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.bundle.tables import format_row, read_texts, task_columns
from dynabert_paddle.data.question_answering import iterate_questions
from dynabert_paddle.text.decode import Answer, Entity, WordLabels

SINGLE = {"task": {"text_column": "review"}, "pair": False}
PAIR = {"task": {"text_column": "question1", "text_pair_column": "question2"}, "pair": True}
UNNAMED = {"task": {}, "pair": False}
ANSWERS = {"task": {"kind": "question_answering"}, "pair": True}


WORDS = {"task": {"kind": "token_classification", "text_column": "tokens"}, "pair": False, "labels": ["O", "B-PER"]}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.conll", "# id 1 2\na O\nb B-LOC\n\nc O\n", [[["a", "b"]], [["c"]]]),
        ("x.BIO", "\ufeffa\r\nb\r\n\r\nc\r\n", [[["a", "b"]], [["c"]]]),
        ("x.txt", "a O\nb B-PER\n\nc O\n", [[["a", "b"]], [["c"]]]),
        ("x.tsv", "a\tO\nb\tB-PER\n", [[["a", "b"]]]),
        ("x", "a O\nb B-PER\n", [[["a", "b"]]]),
        ("x.txt", "a O\n", [["a O"]]),
        ("x.txt", "in Paris\n\nand O\n", [["in Paris"], [""], ["and O"]]),
        ("x.tsv", "text\tlabel\na b\tO\nc\tO\nd\tO\n", [["a b"], ["c"], ["d"]]),
        ("x.jsonl", '{"tokens": ["a", "b"]}\n', [[["a", "b"]]]),
        ("x.conll", "", []),
    ],
)
def test_sentences_of_words(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    assert list(read_texts(str(path), WORDS)) == expected
    assert not name.endswith("txt") or list(read_texts(str(path), SINGLE)) == [[row] for row in content.splitlines()]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("x.txt", "a O\nb O\nc PER\n", "x.txt:3: 'PER' is not one"), ("x.conll", "a O\nb\n", "x.conll:2: 1 columns")],
)
def test_sentences_in_a_wrong_form_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=message):
        list(read_texts(str(tmp_path / name), WORDS))


SQUAD = {"version": "1", "data": [{"paragraphs": [{"context": "a\nb", "qas": [{"id": 1, "question": "c"}]}]}]}
SQUAD["data"].append({"paragraphs": [{"context": "d", "qas": [{"question": "e"}, {"question": "f", "answers": None}]}]})


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_squad_is_read_as_predict_reads_it(tmp_path, indent, mark):
    file = tmp_path / "x.json"
    file.write_text(mark + json.dumps(SQUAD, indent=indent), encoding="utf-8")
    expected = [["c", "a\nb"], ["e", "d"], ["f", "d"]]
    assert list(read_texts(str(file), ANSWERS)) == expected
    assert [[row.question, row.context] for row in iterate_questions(file, answered=False)] == expected


def test_json_lines_may_end_in_json(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"question": "a", "context": "b"}\n{"context": "d", "question": "c"}\n', encoding="utf-8")
    assert list(read_texts(str(file), ANSWERS)) == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"data": 3}', '{"data": [{"paragraphs": [{"qas": []}]}]}'])
def test_a_file_that_is_not_squad_is_refused(tmp_path, content):
    file = tmp_path / "x.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r"x\.json: not in SQuAD's format"):
        list(read_texts(str(file), ANSWERS))


@pytest.mark.parametrize("text", ["New\tYork", "New  York", "New\nYork", "New\u3000York", " York"])
def test_entities_and_answers_keep_their_white_space(text):
    entity = WordLabels(["New", "York"], ["B-LOC", "I-LOC"], [Entity("LOC", text, 0, len(text), 0.5)])
    for cells, expected in ((entity.cells, [f"LOC: {text}"]), (Answer(text, 0.5, 0, 8).cells, [text, "0.5000"])):
        (row,) = csv.reader(io.StringIO(format_row(cells) + "\n"), delimiter="\t")
        assert row == expected == cells


@pytest.mark.parametrize("delimiter", ["\t", ","])
@given(rows=st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3)))
def test_rows_read_back(tmp_path_factory, delimiter, rows):
    """Whatever a label holds: tabs, line breaks, quotes."""
    path = tmp_path_factory.mktemp("rows") / "rows"
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            print(format_row(row, delimiter), file=file)
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file, delimiter=delimiter)) == rows


def test_plain_cells_are_written_plainly():
    assert format_row(["GetWeather", "0.1234"]) == "GetWeather\t0.1234"


@pytest.mark.parametrize(
    ("name", "content", "description", "expected"),
    [
        ("x.csv", 'review,label\n"a, b",1\n"c\nd",0\n', SINGLE, [["a, b"], ["c\nd"]]),
        ("x.CSV", "label,review\r\n1,a\r\n\r\n", SINGLE, [["a"]]),
        ("x.csv", "\ufeffsentence,label\na,1\n", UNNAMED, [["a"]]),
        ("x.csv", "text,label\na,1\n", SINGLE, [["a"]]),
        ("x.csv", f"review\n{'a' * 200_000}\n", SINGLE, [["a" * 200_000]]),
        ("x.csv", "id,question2,question1\n1,b,a\n", PAIR, [["a", "b"]]),
        ("x.csv", "context,question\nc,q\n", ANSWERS, [["q", "c"]]),
        ("x.tsv", "label\treview\n1\ta\n0\tb\n", SINGLE, [["a"], ["b"]]),
        ("x.tsv", "question1\tquestion2\na\tb\n", PAIR, [["a", "b"]]),
        ("x.tsv", "review\tlabel\na\t1\n\nb\t0\n\n", SINGLE, [["a"], ["b"]]),
        ("x.tsv", "review\n\nb\n", SINGLE, [[""], ["b"]]),
        # Quoted as pandas does, and quotes that are part of the text.
        ("x.tsv", '\treview\n0\t"say ""hi"""\n1\t"a\tb\n\nc"\n', SINGLE, [['say "hi"'], ["a\tb\n\nc"]]),
        ("x.tsv", '"review"\t"label"\r\n"a"\t"1"\r\n', SINGLE, [["a"]]),
        ("x.tsv", 'review\tlabel\n"a\t1\nb ""c""\t0\n', SINGLE, [['"a'], ['b ""c""']]),
        ("x.tsv", f'review\tlabel\n"{"a" * 200_000}\t"\t1\n', SINGLE, [["a" * 200_000 + "\t"]]),
        # Excel where numbers have a decimal comma, and pandas with another separator than the name says.
        ("x.csv", "label;review\r\n1,5;a, b\r\n", SINGLE, [["a, b"]]),
        ("x.csv", 'label\treview\n1\t"a ""b"""\n', SINGLE, [['a "b"']]),
        # Without a header, as a text file.
        ("x.tsv", "a\tb\n", PAIR, [["a", "b"]]),
        ("x.tsv", "some text\nmore\n", SINGLE, [["some text"], ["more"]]),
        ("x.txt", "review\nmore\r\n", SINGLE, [["review"], ["more"]]),
        ("x", "a\tb\n", PAIR, [["a", "b"]]),
        ("x.jsonl", '{"review": "a", "label": 1}\n\n{"review": "b"}\n', SINGLE, [["a"], ["b"]]),
        ("x.jsonl", '{"tokens": ["a", "b"]}\n', {"task": {"text_column": "tokens"}, "pair": False}, [[["a", "b"]]]),
        ("x.txt", "", SINGLE, []),
        ("x.tsv", "", SINGLE, []),
        # Lines of Excel for Mac.
        ("x.tsv", 'label\treview\r1\t"a ""b"""\r0\tc\r', SINGLE, [['a "b"'], ["c"]]),
        ("x.csv", "label,review\r1,a\r0,c\r", SINGLE, [["a"], ["c"]]),
        ("x.json", '[\n{"review": "a"},\n {"review": "b"} ]\n', SINGLE, [["a"], ["b"]]),
        ("x.json", '\n{"review": "a"}\n', SINGLE, [["a"]]),
        # As training reads them: blank lines at the start, and one kind of line break inside of cells.
        ("x.json", '\n[{"review": "a"}]\n', SINGLE, [["a"]]),
        ("x.csv", '\r\nreview,label\r\n"a\r\nb",1\r\n', SINGLE, [["a\nb"]]),
        ("x.json", "", SINGLE, []),
        ("x.jsonl", '{"review": 5}\n{"review": true}\n', SINGLE, [["5"], ["true"]]),
    ],
)
def test_texts_come_from_the_tasks_columns(tmp_path, name, content, description, expected):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    assert list(read_texts(str(path), description)) == expected


@pytest.mark.parametrize(
    ("name", "content", "description", "words"),
    [
        ("x.csv", "body,label\na,1\n", SINGLE, "needs the column 'review'; the columns here are 'body', 'label'"),
        ("x.csv", "question1,label\na,1\n", PAIR, "needs the column 'question1' and 'question2'"),
        ("x.csv", "", SINGLE, "the columns here are none"),
        ("x.tsv", "review\treview\na\tb\n", SINGLE, "2 columns are called 'review': rename them"),
        ("x.csv", "label,review\n1\n", SINGLE, "x.csv:2: 1 cells, the first row has 2"),
        ("x.csv", "review,label\nnever, ever,1\n", SINGLE, "x.csv:2: 3 cells, the first row has 2"),
        ("x.tsv", "review\tlabel\nnever\tever\t1\n", SINGLE, "x.tsv:2: 3 cells, the first row has 2"),
        ("x.csv", 'review\n"open', SINGLE, "not valid CSV"),
        (
            "x.tsv",
            'review\tlabel\n"a ""b"""\t1\n"c"\t0\n',
            SINGLE,
            "x.tsv:2: a cell begins and ends with a double quote",
        ),
        ("x.tsv", '"review"\t"label"\n"a \\"b\\""\t"1"\n', SINGLE, "x.tsv:2: the names of the columns are in double"),
        ("x.json", '\n[{"review": "a"},\n 3]', SINGLE, "x.json:3: not a JSON object"),
        ("x.json", '[{"review": "a"},\n {"review": "b"}', SINGLE, "x.json:2: not a JSON object"),
        ("x.json", '[{"review": "a"},\n 3]', SINGLE, "x.json:2: not a JSON object"),
        ("x.json", '[{"review": "a"},\n {"review": 1, "review": 2}]', SINGLE, "the key 'review' occurs twice"),
        ("x.tsv", "Review\tlabel\na\t1\n", SINGLE, "needs the column 'review'; the columns here are 'Review', 'label'"),
        ("x.jsonl", '{"review": "a"}\n{"review": null}\n', SINGLE, "x.jsonl:2: 'review' is null: give a text"),
        ("x.jsonl", '{"review": {"a": 1}}\n', SINGLE, "x.jsonl:1: 'review' is {\"a\": 1}: give a text"),
        ("x.jsonl", '{"review": NaN}\n', SINGLE, "x.jsonl:1: 'review' is NaN: give a text"),
        ("x.jsonl", '{"review": "a"}\n[]\n', SINGLE, "x.jsonl:2: not a JSON object"),
        ("x.jsonl", '{"review": "a", "review": "b"}', SINGLE, "x.jsonl:1: the key 'review' occurs twice"),
        ("x.jsonl", json.dumps({"body": "a"}), SINGLE, "x.jsonl:1: needs the column 'review'"),
    ],
)
def test_a_file_without_the_columns_is_refused(tmp_path, name, content, description, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(BundleError) as caught:
        list(read_texts(str(path), description))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_columns_of_older_and_of_invalid_bundles():
    assert task_columns(UNNAMED) == (None, None)
    assert task_columns({"task": {"text_column": 3, "text_pair_column": ["x"]}, "pair": True}) == (None, None)
    assert task_columns(ANSWERS) == ("question", "context")
