"""Quoting of TSV cells is told by the file's content: against pandas and the csv module as writers."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.text.lines import LineError
from dynabert_paddle.text.quoting import (
    find_delimiter,
    has_quoted_cells,
    split_header,
    split_rows,
    split_table,
    split_tsv_once,
)


def read(content):
    """Read a TSV file's content as the package does."""
    lines = content.split("\n")[:-1]
    return [cells for _, cells in split_table(lambda: lines, is_tsv=True) if cells != [""]]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0\ufeff") | st.sampled_from('"\t\n, a'))
TABLES = st.lists(st.tuples(TEXTS.filter(bool), st.sampled_from(["0", "1"])), min_size=1)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@given(rows=TABLES)
def test_files_of_pandas_are_read_back_or_refused(quoting, rows):
    frame = pd.DataFrame(rows, columns=["sentence", "label"])
    content = frame.to_csv(sep="\t", index=False, quoting=quoting)
    try:
        found = read(content)
    except LineError:
        return
    assert found == [["sentence", "label"], *map(list, rows)]


@given(rows=st.lists(TEXTS.filter(lambda text: not set("\t\n") & set(text)), min_size=1))
def test_quotes_anywhere_are_part_of_the_texts(rows):
    lines = ["sentence\tlabel", *(f"{row}\t1" for row in rows), 'a "b" c\t0']
    assert not has_quoted_cells(lines)


def test_pandas_is_not_refused_for_usual_texts():
    rows = [('He said "hi", then left', 1), ("two\nlines", 0), ("a\ttab", 1), ('"quoted"', 0), ("plain, text", 1)]
    content = pd.DataFrame(rows, columns=["sentence", "label"]).to_csv(sep="\t")
    expected = [["", "sentence", "label"], *([str(i), text, str(label)] for i, (text, label) in enumerate(rows))]
    assert read(content) == expected


@pytest.mark.parametrize(
    ("content", "quoted"),
    [
        ("a\tb\nx\t1\n", False),
        ('a\tb\n"x y" z\t1\n', False),  # a quote in the middle
        ('a\tb\n" x y\t1\n', False),  # one that is never closed
        ('a\tb\n"x y"\t1\nz\t0\n', False),  # no writer quotes it
        ('a\tb\n"x, y"\t1\nz, z\t0\n', False),  # nor this: the other comma has no quotes
        ('a\tb\n"x ""y"" z"\t1\n', True),
        ('a\tb\n"x\ty"\t1\n', True),
        ('a\tb\n"x\n\ny"\t1\n', True),
        ('"a"\t"b"\n"x"\t1\n', True),
        ('"a"\tb\n"x"\t1\n', True),  # the header's quotes are none of its names
        ('"a"\t"b"\n"x"\t1\t\n', True),  # the row is refused later, for its width
        ('a\tb\n"x, y"\t1\n"u, v"\t0\n"w,"\t0\nz\t1\n', True),  # Excel
        ('a\tb\n"x, y"\t1\n"u ""v"""\t0\nz\t1\n', True),
        ('a\n""\nx\n', True),  # the csv module writes an empty row of one cell so
        ('a\n"x\ny"\n"u ""v"""\n', True),
    ],
)
def test_quoting_is_detected_from_the_content(content, quoted):
    assert has_quoted_cells(content.split("\n")[:-1]) is quoted


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('a\tb\nx\t1\n"x, y"\t1\n', 3),  # Excel, or a text in quotes
        ('a\tb\n"x ""y"""\t1\n"z"\t0\n', 2),
        ('a\tb\n"x\t1\ny"\t0\n', 2),  # a line break in a cell, or two texts with a quote each
        ('a\nx\n"x\ny"\n', 3),
    ],
)
def test_a_file_that_can_be_read_in_two_ways_is_refused(content, line):
    with pytest.raises(LineError, match=r"save the file as \.csv or \.jsonl") as caught:
        has_quoted_cells(content.split("\n")[:-1])
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('"a"\t"b"\n"x"\t"1"\n"y \\"z\\""\t"0"\n', 3),  # R's write.table
        ('"a"\tb\nx\t1\ny "z"\t0\n', 3),
    ],
)
def test_quotes_of_the_header_hold_for_all_lines(content, line):
    with pytest.raises(LineError, match=r'write "" for a quote inside of a cell') as caught:
        has_quoted_cells(content.split("\n")[:-1])
    assert caught.value.line == line


def test_a_long_file_takes_linear_time():
    lines = ["a\tb", '"' + 'x""' * 1_000_000, 'y"\t1']
    assert has_quoted_cells(lines)
    assert not has_quoted_cells(["a\tb", '"' + "x" * 5_000_000 + "\t1"])


@pytest.mark.parametrize(
    ("header", "delimiter"), [("a,b", ","), ("a;b", ";"), ("a\tb", "\t"), ("a", ","), ("a,b;c", ","), ("", ",")]
)
def test_the_header_tells_the_delimiter_of_a_csv_file(header, delimiter):
    assert find_delimiter(header) == delimiter


@pytest.mark.parametrize(
    ("line", "cells"), [("a\tb", ["a", "b"]), ('"a"\t"b ""c"""', ["a", 'b "c"']), ('"a\tb', ['"a', "b"])]
)
def test_a_header_may_be_quoted(line, cells):
    assert split_header(line) == cells


def test_cells_may_be_long():
    text = "x" * 200_000
    assert list(split_rows(io.StringIO(f"a,b\n{text},1\n"), ",")) == [["a", "b"], [text, "1"]]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("sep=;\na, b;c\n1;2", [(2, ["a, b", "c"]), (3, ["1", "2"])]),  # as Excel writes it for itself
        ("sep=,\na,b", [(2, ["a", "b"])]),
        ('a,b\r"x\ny",1\rz,0', [(1, ["a", "b"]), (2, ["x\ny", "1"]), (4, ["z", "0"])]),  # Excel for Mac
        ('a,b\n"x\ry",1', [(1, ["a", "b"]), (2, ["x\ry", "1"])]),
    ],
)
def test_csv_files_of_excel(content, rows):
    assert list(split_table(lambda: content.split("\n"), is_tsv=False)) == rows


LINES = st.lists(st.text(st.sampled_from('"\t, a'), max_size=8), min_size=1, max_size=6)


@given(lines=LINES)
def test_a_pipe_has_the_rows_of_a_file(lines):
    """Or is refused as the file is, if perhaps later. Empty lines are left out in a table of several columns alone."""

    def rows(split):
        try:
            return [row for row in split if row[1] != [""]]
        except LineError:
            return None

    assert rows(split_tsv_once(iter(lines))) == rows(split_table(lambda: lines, is_tsv=True))


@pytest.mark.parametrize(
    ("lines", "waits"),
    [
        (["text\tlabel", "a\tb", 'c "d"\te', '"f"\tg'], 0),  # a quote in the middle tells
        (['"text"\t"label"', '"a\tb"\t"c"', '"d"\t"e"'], 0),  # and so does the header
        (["text\tlabel", "a\tb", '"c"\td', "e\tf", 'g "h"\ti', '"j"\tk'], 2),
        (["text\tlabel", '"a ""b"""\tc', "d\te"], 1),
    ],
)
def test_a_row_of_a_pipe_waits_only_where_later_lines_tell_its_quotes(lines, waits):
    read = 0

    def stream():
        nonlocal read
        for line in lines:
            read += 1
            yield line

    behind = [read - number for number, _ in split_tsv_once(stream())]
    assert max(behind) == waits
