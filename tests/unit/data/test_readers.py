"""Readers return the written texts, and report a faulty file in one line: file, line number, remedy."""

import csv
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynabert_paddle.data.layout import BARE_QUOTES
from dynabert_paddle.data.readers import Columns, find_labels, read_column_names, read_examples, read_rows
from dynabert_paddle.errors import DataError

COLUMNS = Columns("sentence", label="label")

# Text has no zero bytes; a byte order mark at the start of a line is of a file that was joined.
any_text = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"))
one_line_text = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff\t\r\n"))


def refusal(path, columns=COLUMNS, **options) -> str:
    """The message of the error that reading the file raises."""
    with pytest.raises(DataError) as caught:
        read_examples(path, columns, **({"labels": ("a", "b")} | options))
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@settings(deadline=None)
@given(rows=st.lists(st.tuples(one_line_text, one_line_text), min_size=1))
def test_tsv_returns_the_texts_that_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tsv") / "pairs.tsv"
    write(path, "first\tsecond\n" + "".join(f"{first}\t{second}\n" for first, second in rows))
    examples = read_examples(path, Columns("first", pair="second"), layout=BARE_QUOTES)
    assert list(zip(examples.texts, examples.pairs, strict=True)) == rows
    assert examples.labels is None


@settings(deadline=None)
@given(texts=st.lists(one_line_text, min_size=1))
def test_tsv_of_one_column_keeps_empty_texts(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("tsv") / "texts.tsv"
    write(path, "sentence\n" + "".join(f"{text}\n" for text in texts))
    assert read_examples(path, Columns("sentence"), layout=BARE_QUOTES).texts == texts


@settings(deadline=None)
@given(rows=st.lists(st.tuples(any_text, any_text), min_size=1))
def test_csv_returns_the_texts_that_were_written(tmp_path_factory, rows):
    # A carriage return inside a field is a line break like any other.
    rows = [tuple(re.sub("\r+\n?", "\n", field) for field in row) for row in rows]
    path = tmp_path_factory.mktemp("csv") / "pairs.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("first", "second"), *rows])
    examples = read_examples(path, Columns("first", pair="second"))
    assert list(zip(examples.texts, examples.pairs, strict=True)) == rows


@settings(deadline=None)
@given(rows=st.lists(st.tuples(any_text, any_text), min_size=1), ascii_only=st.booleans())
def test_jsonl_returns_the_texts_that_were_written(tmp_path_factory, rows, ascii_only):
    path = tmp_path_factory.mktemp("jsonl") / "pairs.jsonl"
    records = ({"first": first, "id": 7, "second": second} for first, second in rows)
    write(path, "".join(json.dumps(record, ensure_ascii=ascii_only) + "\n" for record in records))
    examples = read_examples(path, Columns("first", pair="second"))
    assert list(zip(examples.texts, examples.pairs, strict=True)) == rows


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tsv", 'sentence\tlabel\nsay "hi\tb\n\t a\n'),
        ("x.TSV", 'label\tid\tsentence\nb\t1\tsay "hi\na\t2\t\n'),
        ("x.tsv", '\ufeffsentence\tlabel\r\nsay "hi\tb\r\n\r\n\ta'),
        ("x.csv", 'sentence,label\n"say ""hi",b\n,a\n'),
        ("x.csv", '\ufefflabel,sentence\r\nb,"say ""hi"\r\n\r\na,""\r\n'),
        ("x.jsonl", '{"sentence": "say \\"hi", "label": "b"}\n{"label": "a", "sentence": ""}'),
        ("x.json", '\ufeff{"sentence": "say \\"hi", "label": "b"}\r\n\r\n{"sentence": "", "label": "a"}\r\n'),
    ],
)
def test_formats_agree(tmp_path, name, content):
    path = write(tmp_path / name, content)
    examples = read_examples(path, COLUMNS, labels=("a", "b"))
    assert examples.texts == ['say "hi', ""]
    assert examples.pairs is None
    assert np.issubdtype(examples.labels.dtype, np.integer)
    assert examples.labels.tolist() == [1, 0]
    assert examples.source == path
    assert len(examples) == 2


def test_line_numbers_are_those_of_the_file(tmp_path):
    path = write(tmp_path / "x.csv", 'sentence,label\n"two\nlines",a\n\none,b\n')
    assert [row.line for row in read_rows(path, COLUMNS)] == [2, 5]


def test_rows_are_read_one_at_a_time(tmp_path):
    path = write(tmp_path / "x.tsv", "sentence\tlabel\ngood\ta\nbroken\n")
    rows = read_rows(path, COLUMNS)
    assert next(rows).text == "good"
    with pytest.raises(DataError):
        next(rows)


def test_regression_labels_are_scores(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"sentence": "s", "label": 2.5}\n{"sentence": "t", "label": "-1e2"}\n')
    labels = read_examples(path, COLUMNS, kind="regression").labels
    assert labels.dtype == np.float32
    assert labels.tolist() == [2.5, -100.0]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["true ", " false"], ("false", "true")),
    ],
)
def test_labels_are_found_and_sorted(tmp_path, labels, expected):
    path = write(tmp_path / "x.tsv", "sentence\tlabel\n" + "".join(f"s\t{label}\n" for label in labels))
    assert find_labels(path, COLUMNS) == expected


def test_json_numbers_and_booleans_are_labels(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"sentence": "s", "label": 1}\n{"sentence": "s", "label": true}\n')
    assert find_labels(path, COLUMNS) == ("1", "true")


def test_column_names(tmp_path):
    assert read_column_names(write(tmp_path / "x.csv", '"a,b",c\n')) == ["a,b", "c"]
    assert read_column_names(write(tmp_path / "x.jsonl", '{"a": 1, "b": 2}\n')) == ["a", "b"]


def test_missing_file(tmp_path):
    write(tmp_path / "train.tsv", "sentence\tlabel\n")
    message = refusal(tmp_path / "trian.tsv")
    assert message.startswith(f"{tmp_path / 'trian.tsv'}: no such file. Did you mean 'train.tsv'?")


def test_missing_folder(tmp_path):
    assert refusal(tmp_path / "absent" / "x.tsv").startswith(f"{tmp_path / 'absent' / 'x.tsv'}: no such file.")


def test_folder_in_place_of_a_file(tmp_path):
    path = tmp_path / "x.tsv"
    path.mkdir()
    assert refusal(path) == f"{path}: cannot be read (Is a directory); give a readable file."


def test_unknown_ending(tmp_path):
    path = write(tmp_path / "x.tvs", "sentence\tlabel\ns\ta\n")
    message = refusal(path)
    assert message.startswith(
        f"{path}: unknown file ending '.tvs'; the endings are .tsv, .csv, .jsonl, .json, .parquet."
    )
    assert "Did you mean '.tsv'?" in message
    assert message.endswith("Rename or convert the file.")


@pytest.mark.parametrize("name", ["x.tsv", "x.csv"])
def test_empty_table(tmp_path, name):
    path = write(tmp_path / name, b"")
    assert refusal(path).startswith(f"{path}:1: the file is empty; add rows, in TSV and CSV below a line that names")


@pytest.mark.parametrize(
    ("name", "content"), [("x.tsv", "sentence\tlabel\n"), ("x.csv", "sentence,label"), ("x.json", "")]
)
def test_no_rows(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert refusal(path) == f"{path}:1: the file has no rows of data; add at least one."


@pytest.mark.parametrize(
    ("columns", "name", "flag", "hint"),
    [
        (Columns("sentense", label="label"), "sentense", "text_column", " Did you mean 'sentence'?"),
        (Columns("sentence", pair="zzz", label="label"), "zzz", "text_pair_column", ""),
        (Columns("sentence", label="lable"), "lable", "label_column", " Did you mean 'label'?"),
    ],
)
@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("x.tsv", "sentence\tlabel\ns\ta\n", 1),
        ("x.csv", "\nsentence,label\ns,a\n", 2),
        ("x.jsonl", '\n{"sentence": "s", "label": "a"}\n', 2),
    ],
)
def test_missing_column(tmp_path, file, content, line, columns, name, flag, hint):
    path = write(tmp_path / file, content)
    expected = f"no column '{name}'; the columns here are 'sentence', 'label'.{hint} Choose one with {flag}."
    assert refusal(path, columns) == f"{path}:{line}: {expected}"


def test_missing_key_in_a_later_object(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"sentence": "s", "label": "a"}\n{"sentence": "s"}\n')
    assert refusal(path).startswith(f"{path}:2: no column 'label'; the columns here are 'sentence'.")


def test_duplicate_column_names_are_refused(tmp_path):
    path = write(tmp_path / "x.tsv", "sentence\tlabel\tlabel\ns\ta\tb\n")
    expected = "2 columns are called 'label'; rename them or choose another with label_column."
    assert refusal(path) == f"{path}:1: {expected}"


@pytest.mark.parametrize(
    ("name", "row", "actual", "remedy"),
    [
        ("x.tsv", "only a text", 1, "separate the fields by one TAB each"),
        ("x.tsv", "a\ttext\ta", 3, "replace a TAB or line break inside a text by a space"),
        ("x.csv", "only a text", 1, "double quotes"),
        ("x.csv", "one, two,a", 3, "double quotes"),
    ],
)
def test_wrong_number_of_fields(tmp_path, name, row, actual, remedy):
    separator = "\t" if name == "x.tsv" else ","
    path = write(tmp_path / name, f"sentence{separator}label\ngood{separator}a\n{row}\n")
    message = refusal(path)
    assert message.startswith(f"{path}:3: {actual} fields, but the header has 2; ")
    assert remedy in message


def test_text_in_another_encoding(tmp_path):
    path = write(tmp_path / "x.tsv", b"sentence\tlabel\ngood\ta\n" + "提花\ta\n".encode("gb18030"))
    message = refusal(path)
    assert message.startswith(f"{path}:3: byte 1 of the line is not UTF-8; convert the file with: ")
    assert f"iconv -f ENCODING -t UTF-8 {path} > {tmp_path / 'x.utf8.tsv'} (ENCODING: GB18030" in message


def test_utf16_is_recognised(tmp_path):
    path = write(tmp_path / "a b.tsv", "sentence\tlabel\ngood\ta\n".encode("utf-16"))
    message = refusal(path)
    assert message.startswith(f"{path}:1: ")
    assert message.endswith(f"iconv -f UTF-16 -t UTF-8 '{path}' > '{tmp_path / 'a b.utf8.tsv'}'")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", f"sentence,label\n{'x' * 200_000},a\n"),
        ("x.tsv", f"sentence\tlabel\n{'x' * 200_000}\ta\n"),
        ("x.tsv", f'sentence\tlabel\n"{"x" * 199_999}\t"\ta\n'),
    ],
)
def test_cells_above_the_csv_modules_limit(tmp_path, name, content):
    (text,) = read_examples(write(tmp_path / name, content), COLUMNS, labels=("a",)).texts
    assert len(text) == 200_000


@pytest.mark.parametrize(
    "content",
    [
        'label;sentence\r\na;one, two\r\nb;"x; ""y"""\r\n',  # Excel where numbers have a decimal comma
        'label\tsentence\na\tone, two\nb\t"x; ""y"""\n',
    ],
)
def test_a_csv_file_with_another_delimiter(tmp_path, content):
    path = write(tmp_path / "x.csv", content)
    assert [row.text for row in read_rows(path, COLUMNS)] == ["one, two", 'x; "y"']


@pytest.mark.parametrize(("name", "delimiter"), [("x.csv", ","), ("x.tsv", "\t")])
def test_lines_of_excel_for_mac(tmp_path, name, delimiter):
    lines = [delimiter.join(row) for row in (("label", "sentence"), ("a", "one"), ("b", '"say ""two"""'))]
    found = list(read_rows(write(tmp_path / name, "\r".join([*lines, ""])), COLUMNS))
    assert [(row.line, row.text, row.label) for row in found] == [(2, "one", "a"), (3, 'say "two"', "b")]


def test_a_tsv_file_of_pandas(tmp_path):
    rows = [('He said "hi"', "a"), ("two\nlines", "b"), ("a\ttab", "a"), ('"quoted"', "b"), ("plain", "a")]
    path = tmp_path / "x.tsv"
    pd.DataFrame(rows, columns=["sentence", "label"]).to_csv(path, sep="\t")
    found = list(read_rows(path, COLUMNS))
    assert [(row.text, row.label) for row in found] == rows
    assert [row.line for row in found] == [2, 3, 5, 6, 7]
    # Those who know that quotes are part of the texts read them so.
    path = write(path, 'sentence\tlabel\n"say ""hi"""\ta\n')
    assert [row.text for row in read_rows(path, COLUMNS, BARE_QUOTES)] == ['"say ""hi"""']


def test_a_tsv_file_that_can_be_read_in_two_ways_is_refused(tmp_path):
    message = refusal(write(tmp_path / "x.tsv", 'sentence\tlabel\n"say ""hi"""\ta\n"hi"\tb\n'))
    assert message.startswith(f"{tmp_path / 'x.tsv'}:2: a cell begins and ends with a double quote")


def test_a_score_with_a_decimal_comma(tmp_path):
    message = refusal(write(tmp_path / "x.csv", "sentence;label\none;3,5\n"), kind="regression")
    assert message.endswith(
        "label '3,5' is not a finite number, which regression needs; correct it (with a decimal point), "
        "or set kind to classification."
    )


@pytest.mark.parametrize("row", ['"never closed,a\nnext,b\n', '"a"b,a\n'])
def test_csv_with_stray_quotes(tmp_path, row):
    path = write(tmp_path / "x.csv", f"sentence,label\ngood,a\n{row}")
    message = refusal(path)
    assert message.startswith(f"{path}:3: the row that begins here is not valid CSV (")
    assert 'write a double quote inside a quoted field as "", or save the file as TSV' in message


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"sentence": "s", "label": ', "not valid JSON (Expecting value"),
        ("[" * 100_000, "not valid JSON (maximum recursion depth"),
        ('["s", "a"]', "['s', 'a'] is not a JSON object"),
        ("3", "3 is not a JSON object"),
    ],
)
def test_json_that_is_not_an_object(tmp_path, line, fault):
    path = write(tmp_path / "x.jsonl", f'{{"sentence": "s", "label": "a"}}\n{line}\n')
    message = refusal(path)
    assert message.startswith(f"{path}:2: {fault}")
    assert message.endswith("write one JSON object per line.")


def test_json_text_that_is_a_list(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"sentence": ["s"], "label": "a"}\n')
    assert refusal(path) == f"{path}:1: 'sentence' is ['s']; it must be a string or a number."


def test_json_text_with_half_a_surrogate_pair(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"sentence": "\\ud83d", "label": "a"}\n')
    message = refusal(path)
    assert message.startswith(f"{path}:1: 'sentence' contains half of a surrogate pair")
    assert message.endswith("write the whole character or remove it.")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tsv", "sentence\tlabel\ns\ta\ns\t \n"),
        ("x.csv", "sentence,label\ns,a\ns,\n"),
        ("x.jsonl", '{"sentence": "s", "label": "a"}\n\n{"sentence": "s", "label": " "}\n'),
    ],
)
def test_empty_label(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert refusal(path) == f"{path}:3: the label is empty; fill it in or delete the row."


@pytest.mark.parametrize("column", ["sentence", "label"])
@pytest.mark.parametrize("value", ["null", "NaN", "Infinity", "-Infinity"])
def test_missing_values_in_json(tmp_path, column, value):
    other = "label" if column == "sentence" else "sentence"
    path = write(tmp_path / "x.jsonl", f'{{"sentence": "s", "label": "a"}}\n{{"{column}": {value}, "{other}": "a"}}\n')
    assert refusal(path) == f"{path}:2: {column!r} is {value}, a missing value; fill it in or delete the row."


def test_missing_second_texts_in_json(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"first": "s", "second": null}\n')
    with pytest.raises(DataError, match="'second' is null, a missing value"):
        list(read_rows(path, Columns("first", "second")))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "1.0", '"1"', "2"], ["1", "1", "1", "2"]),
        (["true", '"true"', "false"], ["true", "true", "false"]),
        (["2.0", '"2"', "10"], ["2", "2", "10"]),
        (["0.5", '"0.50"', "1"], ["0.5", "0.5", "1"]),
        (["-0.0", "0", "1"], ["0", "0", "1"]),
        (["1e2", "100", "2"], ["100", "100", "2"]),
        (['"007"', '"7"'], ["007", "7"]),  # codes, not numbers
        (['"1_0"', '"10"'], ["1_0", "10"]),
        (['"True"', '"true"'], ["True", "true"]),
        (['"nan"', '"NaN"', '"null"'], ["nan", "NaN", "null"]),  # texts
        ([f'"{"1" * 31}2"', f'"{"1" * 31}3"'], ["1" * 31 + "2", "1" * 31 + "3"]),
    ],
)
def test_a_label_is_its_text_and_equal_numbers_are_one(tmp_path, values, expected):
    path = write(tmp_path / "x.jsonl", "".join(f'{{"sentence": "s", "label": {value}}}\n' for value in values))
    labels = find_labels(path, COLUMNS)
    assert [labels[index] for index in read_examples(path, COLUMNS, labels=labels).labels] == expected
    assert set(labels) == set(expected)


def test_equal_numbers_in_two_files(tmp_path):
    """pandas writes whole numbers with a point where a column has gaps."""
    train = write(tmp_path / "train.csv", "sentence,label\ns,0.0\ns,1.0\n")
    dev = write(tmp_path / "dev.jsonl", '{"sentence": "s", "label": 1}\n{"sentence": "s", "label": "0"}\n')
    labels = find_labels(train, COLUMNS)
    assert labels == ("0.0", "1.0")
    assert read_examples(dev, COLUMNS, labels=labels).labels.tolist() == [1, 0]


REWRITTEN = "labels that write a number or a character in another way are counted as one class: "


def test_labels_that_are_one_number_are_kept_apart_where_all_are_listed(tmp_path, caplog):
    path = write(tmp_path / "x.tsv", "sentence\tlabel\ns\t1.1\ns\t1.10\ns\t1.2\ns\t1.10\n")
    assert find_labels(path, COLUMNS) == ("1.1", "1.2")
    assert read_examples(path, COLUMNS, labels=("1.1", "1.10", "1.2")).labels.tolist() == [0, 1, 2, 1]
    assert not caplog.records
    assert read_examples(path, COLUMNS, labels=("1.1", "1.2")).labels.tolist() == [0, 0, 1, 0]
    (record,) = caplog.records
    remedy = "to keep them apart, list all labels with labels"
    assert record.getMessage() == f"{path}: {REWRITTEN}'1.10' (2 rows) as '1.1'; {remedy}"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_label_in_two_forms_of_unicode_is_one_class(tmp_path, caplog, form):
    """They look the same; macOS and some editors write the second one."""
    one, two = "caf\u00e9", "cafe\u0301"
    train, dev = (one, two) if form == "NFC" else (two, one)
    path = write(tmp_path / "train.tsv", f"sentence\tlabel\ns\t{train}\ns\tthé\n")
    other = write(tmp_path / "dev.tsv", f"sentence\tlabel\ns\t{dev}\n")
    labels = find_labels(path, COLUMNS)
    assert labels == (train, "thé")
    assert read_examples(other, COLUMNS, labels=labels).labels.tolist() == [0]
    (record,) = caplog.records
    assert f"{REWRITTEN}{dev!a} (1 row) as {train!a}; " in record.getMessage()
    both = write(tmp_path / "both.tsv", f"sentence\tlabel\ns\t{train}\ns\t{dev}\ns\tthé\n")
    assert find_labels(both, COLUMNS) == (one, "thé")


def test_many_labels_in_another_form_are_one_line(tmp_path, caplog):
    path = write(tmp_path / "x.csv", "sentence,label\n" + "".join(f"s,{number}.0\n" for number in range(9)))
    read_examples(path, COLUMNS, labels=map(str, range(9)))
    (record,) = caplog.records
    assert record.getMessage().count("(1 row) as") == 5 and "as '4', ...; to keep" in record.getMessage()


def test_unknown_label(tmp_path):
    path = write(tmp_path / "x.tsv", "sentence\tlabel\ns\tPlayMusic\ns\tPlaymusic\n")
    message = refusal(path, labels=("GetWeather", "PlayMusic"))
    assert message.startswith(
        f"{path}:3: label 'Playmusic' is not one of the task's labels, 'GetWeather', 'PlayMusic'. "
        "Did you mean 'PlayMusic'? Correct it, add a training row that has it, or list all labels with labels."
    )
    assert "kind" not in message


def test_unknown_label_that_is_a_number_points_to_regression(tmp_path):
    path = write(tmp_path / "x.tsv", "sentence\tlabel\ns\t2.75\n")
    assert refusal(path, labels=("1.5", "2.5")).endswith("For scores, set kind to regression.")


@pytest.mark.parametrize("label", ["good", "nan", "inf", "1e39"])
def test_score_that_is_not_a_finite_number(tmp_path, label):
    path = write(tmp_path / "x.tsv", f"sentence\tlabel\ns\t0.5\ns\t{label}\n")
    expected = (
        f"label '{label}' is not a finite number, which regression needs; correct it, or set kind to classification."
    )
    assert refusal(path, kind="regression") == f"{path}:3: {expected}"


def test_long_values_are_truncated_in_messages(tmp_path):
    path = write(tmp_path / "x.tsv", "sentence\tlabel\ns\t" + "x" * 10_000 + "\n")
    assert len(refusal(path)) < len(str(path)) + 300


@settings(max_examples=300, deadline=None)
@given(
    ending=st.sampled_from([".tsv", ".csv", ".jsonl"]),
    head=st.sampled_from([b"", b"sentence\tlabel\n", b"sentence,label\n", b'{"sentence": "x", "label": "a"}\n']),
    tail=st.one_of(st.binary(max_size=80), st.text('\t,"{}[]:ab\r\n \\\\u', max_size=60).map(str.encode)),
)
def test_any_bytes_are_read_as_rows_or_refused_in_one_line(tmp_path_factory, ending, head, tail):
    path = write(tmp_path_factory.mktemp("any") / f"data{ending}", head + tail)
    try:
        rows = list(read_rows(path, COLUMNS))
    except DataError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert all(isinstance(row.text, str) and row.label for row in rows)


def test_a_header_of_a_million_columns_is_refused_at_once(tmp_path):
    path = write(tmp_path / "data.tsv", "\t".join(f"sentenc{i}" for i in range(1_000_000)) + "\n")
    assert "no column 'sentence'" in refusal(path)


def test_a_label_of_ten_megabytes_is_truncated_in_the_message(tmp_path):
    path = write(tmp_path / "data.tsv", f"sentence\tlabel\nx\t{'a' * 10**7}\n")
    assert len(refusal(path)) < 1000


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "data.tsv")
    assert "because data is read twice: write it to a file first" in refusal(tmp_path / "data.tsv")


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_of_pandas(tmp_path, indent):
    rows = [("one", "a"), ('say "two", [3]', "b"), ("", "a")]
    path = tmp_path / "x.json"
    pd.DataFrame(rows, columns=["sentence", "label"]).to_json(path, orient="records", indent=indent)
    found = list(read_rows(path, COLUMNS))
    assert [(row.text, row.label) for row in found] == rows
    assert [row.line for row in found] == ([1, 1, 1] if indent is None else [2, 6, 10])
    assert read_column_names(path) == ["sentence", "label"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "1: the file has no rows of data"),
        ('[{"sentence": "s", "label": "a"}', "1: not valid JSON (a comma or ] is missing)"),
        ('[{"sentence": "s", "label": "a"}]\n{}', "1: not valid JSON (the array does not end as one)"),
        ('[{"sentence": "s", "label": "a"},\n\n{"sentence": "s"}]', "3: no column 'label'"),
        ('[{"sentence": "s", "label": "a"},\n5]', "2: 5 is not a JSON object"),
        (
            '[{"sentence": "s", "label": "a"}, {"a": 1, "a": 2}]',
            "1: after the object that begins here, the key 'a' occurs",
        ),
        ("[" * 100_000, "1: not valid JSON"),
    ],
)
def test_a_json_array_with_a_fault(tmp_path, content, message):
    path = write(tmp_path / "x.json", content)
    assert refusal(path).startswith(f"{path}:{message}")


def test_a_json_object_with_a_key_twice_is_refused(tmp_path):
    path = write(
        tmp_path / "x.jsonl", '{"sentence": "s", "label": "a"}\n{"sentence": "s", "label": "a", "label": "b"}\n'
    )
    assert refusal(path) == f"{path}:2: the key 'label' occurs twice in one object; keep one of them."
