"""Files that are no plain table: without a header, with rows to leave out, with columns made from others."""

import json
import logging

import pytest

from dynabert_paddle.data.layout import Layout, join_keywords, mark_spans
from dynabert_paddle.data.readers import Columns, find_labels, read_examples, read_rows
from dynabert_paddle.errors import DataError

COLA = Layout(header=("source", "label", "star", "sentence"))
COLUMNS = Columns("sentence", label="label")
SHORT = Layout(skip_short_rows=True)
DISPUTED = Layout(skipped_label="-")


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def refusal(path, columns, layout) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(path, columns, layout))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("header", [(), ("source\tlabel\tstar\tsentence",), ("star\tsentence\tsource\tlabel",)])
def test_a_header_that_should_not_be_there_is_no_row(tmp_path, header):
    rows = ("x\t1\t\tFine.", "y\t0\t*\tNot fine.")
    if header and header[0].startswith("star"):
        rows = ("\tFine.\tx\t1", "*\tNot fine.\ty\t0")
    path = write(tmp_path / "train.tsv", *header, *rows)
    found = list(read_rows(path, COLUMNS, COLA))
    assert [(row.line, row.text, row.label) for row in found] == [
        (1 + len(header), "Fine.", "1"),
        (2 + len(header), "Not fine.", "0"),
    ]


def test_a_word_of_the_header_in_a_row_makes_it_no_header(tmp_path):
    path = write(tmp_path / "train.tsv", "source\t1\t\tsentence", "label\t0\t*\tlabel")
    assert [row.text for row in read_rows(path, COLUMNS, COLA)] == ["sentence", "label"]


def test_quotes_that_hold_tabs_and_line_ends_join_nothing(tmp_path):
    """A reader of CSV would take the first two rows for one, and so lose one."""
    path = write(tmp_path / "train.tsv", 'x\t1\t\t"Fine', 'y"\t0\t*\tNot fine."', '"\t1\t"\tFine.')
    assert [row.text for row in read_rows(path, COLUMNS, COLA)] == ['"Fine', 'Not fine."', "Fine."]


def test_a_tab_inside_a_text_is_an_error_with_its_line(tmp_path):
    path = write(tmp_path / "train.tsv", "x\t1\t\tFine.", 'y\t0\t*\t"Not\tfine."')
    assert refusal(path, COLUMNS, COLA).startswith(f"{path}:2: 5 fields, but the header has 4; separate the fields by")


def test_a_column_that_the_header_lacks(tmp_path):
    path = write(tmp_path / "train.tsv", "x\t1\t\tFine.")
    message = refusal(path, Columns("sentense", label="label"), COLA)
    assert message.startswith(f"{path}:1: no column 'sentense'; the columns here are 'source', 'label', 'star', ")


def test_a_header_is_for_tables_alone(tmp_path):
    path = write(tmp_path / "train.jsonl", '{"sentence": "Fine.", "label": 1}')
    assert [row.text for row in read_rows(path, COLUMNS, COLA)] == ["Fine."]


def test_short_rows_are_counted_and_left_out_where_the_task_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "train.tsv", "label\tsentence", "1\ta", "0", "0\tb", "", "1")
    assert read_examples(path, COLUMNS, labels=("0", "1"), layout=SHORT).texts == ["a", "b"]
    assert caplog.messages == [
        f"{path}: left out 2 of its rows, with fewer fields than the header's 2; the first is line 3"
    ]
    assert refusal(path, COLUMNS, Layout()).startswith(f"{path}:3: 1 fields, but the header has 2")


def test_long_rows_are_never_left_out(tmp_path):
    path = write(tmp_path / "train.tsv", "label\tsentence", "1\ta", "0\tb\tc")
    assert refusal(path, COLUMNS, SHORT).startswith(f"{path}:3: 3 fields, but the header has 2")


def test_rows_with_a_label_that_means_none(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [{"sentence": text, "label": label} for text, label in zip("abcd", ("x", "-", " - ", "y"), strict=True)]
    path = write(tmp_path / "train.json", *map(json.dumps, rows))
    assert [row.text for row in read_rows(path, COLUMNS, DISPUTED)] == ["a", "d"]
    assert caplog.messages == [f"{path}: left out 2 of its rows, with the label '-'; the first is line 2"]
    assert find_labels(path, COLUMNS, DISPUTED) == ("x", "y")
    assert find_labels(path, COLUMNS) == ("-", "x", "y")


@pytest.mark.parametrize(("layout", "line"), [(DISPUTED, "-\ta"), (SHORT, "0")])
def test_a_file_of_which_nothing_is_left(tmp_path, layout, line):
    path = write(tmp_path / "train.tsv", "label\tsentence", line)
    assert refusal(path, COLUMNS, layout) == f"{path}:1: the file has no rows of data; add at least one."


def wsc(text, span1, span2):
    target = {"span1_index": span1[0], "span1_text": span1[1], "span2_index": span2[0], "span2_text": span2[1]}
    return {"text": text, "target": target, "label": "true"}


@pytest.mark.parametrize(
    ("text", "span1", "span2", "marked", "claim"),
    [
        ("张三说他病了", (0, "张三"), (3, "他"), "[张三]说_他_病了", "他指的是张三"),
        ("他说张三病了", (2, "张三"), (0, "他"), "_他_说[张三]病了", "他指的是张三"),
        ("他的书是他的", (0, "他的书"), (4, "他"), "[他的书]是_他_的", "他指的是他的书"),
        ("张三他", (0, "张三"), (2, "他"), "[张三]_他_", "他指的是张三"),
    ],
)
def test_spans_are_marked_where_they_are(text, span1, span2, marked, claim):
    record = wsc(text, span1, span2)
    assert mark_spans(record) == {**record, "marked_text": marked, "claim": claim}


@pytest.mark.parametrize("start", [1, 5, 99, -6])
def test_a_span_that_is_elsewhere(start):
    with pytest.raises(ValueError, match=r"^'span1_text' is '张三', but at .* the text has "):
        mark_spans(wsc("张三说他病了。", (start, "张三"), (3, "他")))


def test_keywords_become_one_text():
    assert join_keywords({"keyword": ["a", "b"], "label": "1"}) == {"keyword": "a、b", "label": "1"}
    for keyword in ("a, b", [1], None):
        with pytest.raises(ValueError, match="'keyword' is a list of strings, not "):
            join_keywords({"keyword": keyword})
