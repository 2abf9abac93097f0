"""Files with a special layout: without header, with skipped rows, with derived columns."""

import json
import logging

import pytest

from dynabert_paddle.data.layout import Layout, join_keywords, mark_spans
from dynabert_paddle.data.readers import Columns, find_labels, read_examples, read_rows
from dynabert_paddle.errors import DataError

COLA = Layout(header=("source", "label", "star", "sentence"), bare_quotes=True)
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
def test_an_unexpected_header_is_not_a_row(tmp_path, header):
    rows = ("x\t1\t\tFine.", "y\t0\t*\tNot fine.")
    if header and header[0].startswith("star"):
        rows = ("\tFine.\tx\t1", "*\tNot fine.\ty\t0")
    path = write(tmp_path / "train.tsv", *header, *rows)
    found = list(read_rows(path, COLUMNS, COLA))
    assert [(row.line, row.text, row.label) for row in found] == [
        (1 + len(header), "Fine.", "1"),
        (2 + len(header), "Not fine.", "0"),
    ]


def test_a_row_with_a_column_name_is_not_a_header(tmp_path):
    path = write(tmp_path / "train.tsv", "source\t1\t\tsentence", "label\t0\t*\tlabel")
    assert [row.text for row in read_rows(path, COLUMNS, COLA)] == ["sentence", "label"]


def test_unpaired_quotes_do_not_join_rows(tmp_path):
    """A CSV reader would join the first two rows."""
    path = write(tmp_path / "train.tsv", 'x\t1\t\t"Fine', 'y"\t0\t*\tNot fine."', '"\t1\t"\tFine.')
    assert [row.text for row in read_rows(path, COLUMNS, COLA)] == ['"Fine', 'Not fine."', "Fine."]


def test_a_tab_inside_a_text_is_an_error_with_its_line(tmp_path):
    path = write(tmp_path / "train.tsv", "x\t1\t\tFine.", 'y\t0\t*\t"Not\tfine."')
    assert refusal(path, COLUMNS, COLA).startswith(f"{path}:2: 5 fields, but the header has 4; separate the fields by")


def test_a_missing_column_is_named(tmp_path):
    path = write(tmp_path / "train.tsv", "x\t1\t\tFine.")
    message = refusal(path, Columns("sentense", label="label"), COLA)
    assert message.startswith(f"{path}:1: no column 'sentense'; the columns here are 'source', 'label', 'star', ")


def test_a_header_is_ignored_for_json_lines(tmp_path):
    path = write(tmp_path / "train.jsonl", '{"sentence": "Fine.", "label": 1}')
    assert [row.text for row in read_rows(path, COLUMNS, COLA)] == ["Fine."]


def test_short_rows_are_skipped_and_counted_if_the_layout_allows(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "train.tsv", "label\tsentence", "1\ta", "0", "0\tb", "", "1")
    assert read_examples(path, COLUMNS, labels=("0", "1"), layout=SHORT).texts == ["a", "b"]
    assert caplog.messages == [
        f"{path}: left out 2 of its rows, with fewer fields than the header's 2; the first is line 3"
    ]
    assert refusal(path, COLUMNS, Layout()).startswith(f"{path}:3: 1 fields, but the header has 2")


def test_long_rows_are_never_skipped(tmp_path):
    path = write(tmp_path / "train.tsv", "label\tsentence", "1\ta", "0\tb\tc")
    assert refusal(path, COLUMNS, SHORT).startswith(f"{path}:3: 3 fields, but the header has 2")


def test_rows_with_the_skipped_label(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [{"sentence": text, "label": label} for text, label in zip("abcd", ("x", "-", " - ", "y"), strict=True)]
    path = write(tmp_path / "train.json", *map(json.dumps, rows))
    assert [row.text for row in read_rows(path, COLUMNS, DISPUTED)] == ["a", "d"]
    assert caplog.messages == [f"{path}: left out 2 of its rows, with the label '-'; the first is line 2"]
    assert find_labels(path, COLUMNS, DISPUTED) == ("x", "y")
    assert find_labels(path, COLUMNS) == ("-", "x", "y")


@pytest.mark.parametrize(("layout", "line"), [(DISPUTED, "-\ta"), (SHORT, "0")])
def test_a_file_with_only_skipped_rows_is_refused(tmp_path, layout, line):
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
def test_mark_spans(text, span1, span2, marked, claim):
    record = wsc(text, span1, span2)
    assert mark_spans(record) == {**record, "marked_text": marked, "claim": claim}


@pytest.mark.parametrize("start", [1, 5, 99, -6])
def test_a_misplaced_span_is_refused(start):
    with pytest.raises(ValueError, match=r"^'span1_text' is '张三', but at .* the text has "):
        mark_spans(wsc("张三说他病了。", (start, "张三"), (3, "他")))


def test_join_keywords():
    assert join_keywords({"keyword": ["a", "b"], "label": "1"}) == {"keyword": "a、b", "label": "1"}
    for keyword in ("a, b", [1], None):
        with pytest.raises(ValueError, match="'keyword' must be a list of strings, not "):
            join_keywords({"keyword": keyword})
