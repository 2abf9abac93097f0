"""Predictions as rows: the csv module and the package's own reader read back what was written."""

import csv
import io
import json

import pytest

from dynabert_paddle.cli.prediction_rows import RowForm
from dynabert_paddle.data.readers import Columns, read_rows
from dynabert_paddle.errors import DataError
from dynabert_paddle.text.decode import Entity, Prediction, WordLabels

pytestmark = pytest.mark.reference

TEXTS = ["plain", 'a "quoted" one', "a\ttab", "two\nlines", "a\rreturn, comma", '"', "", " blank "]
LABELS = ["a\ttab", 'a\nbreak, "quoted"', "plain"]
ROWS = [
    (Prediction(LABELS[i % 3], 0.5 + i / 100, {}), {"id": str(i), "label": "x", "text": text})
    for i, text in enumerate(TEXTS)
]


def written(form, names=("label", "score")):
    lines = [*form.heading(names, ROWS[0][1]), *(form.line(*row, ROWS[0][1]) for row in ROWS)]
    return "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize("quoting", ["minimal", "all"])
@pytest.mark.parametrize(("format", "delimiter"), [("tsv", "\t"), ("csv", ",")])
def test_tables_read_back(tmp_path, format, delimiter, quoting):
    content = written(RowForm(format, quoting, with_columns=True))
    header, *rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter)
    assert header == ["id", "label", "text", "predicted_label", "score"]
    assert rows == [[*columns.values(), row.label, f"{row.score:.4f}"] for row, columns in ROWS]
    path = tmp_path / f"x.{format}"
    path.write_text(content, encoding="utf-8", newline="")
    texts = [(row.text, row.label) for row in read_rows(path, Columns("text", label="predicted_label"))]
    assert texts == [(columns["text"], row.label) for row, columns in ROWS]
    assert all(line.startswith('"') for line in content.split("\n")[:2]) == (quoting == "all")


def test_json_lines_read_back():
    rows = [json.loads(line) for line in written(RowForm("jsonl", with_columns=True)).splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert [(row["label"], row["predicted_label"]) for row in rows] == [("x", row.label) for row, _ in ROWS]
    assert "text" not in json.loads(RowForm("jsonl").line(*ROWS[0], ()))


def test_a_name_that_the_input_has_twice_over():
    columns = {"score": 1, "predicted_score": 2}
    line = RowForm("jsonl", with_columns=True).line(Prediction("a", 0.5, {}), columns, columns)
    assert json.loads(line) == {**columns, "label": "a", "predicted_predicted_score": 0.5, "scores": {}}


def test_a_name_means_the_same_in_all_json_lines():
    form, prediction = RowForm("jsonl", with_columns=True), Prediction("a", 0.5, {})
    lines = [form.line(prediction, columns, {"label": "x", "n": 1}) for columns in ({"label": "x", "n": 1}, {"n": 2})]
    assert [json.loads(line)["predicted_label"] for line in lines] == ["a", "a"]
    with pytest.raises(DataError, match="a row has 'label', which the first row lacks, where it is the prediction's"):
        form.line(prediction, {"n": 2, "label": "x"}, {"n": 1})
    assert json.loads(RowForm("jsonl").line(prediction, {"label": "x"}, {"n": 1}))["label"] == "a"


def test_columns_of_json_lines_in_a_table():
    form = RowForm("tsv", with_columns=True)
    prediction = WordLabels(["Ann"], ["B-PER"], [Entity("PER", "Ann", 0, 3, 0.9)])
    header = ["tokens", "n", "note"]
    assert form.line(prediction, {"tokens": ["Ann"], "n": 1.5}, header) == '"[""Ann""]"\t1.5\t\tPER: Ann'
    with pytest.raises(DataError, match="a row has 'other', which the first row lacks: write output_format jsonl"):
        form.line(prediction, {"other": 1}, header)


@pytest.mark.parametrize(
    ("output", "format", "chosen"),
    [
        (None, None, "tsv"),
        ("x.csv", None, "csv"),
        ("x.jsonl.gz", None, "jsonl"),
        ("x.log", None, "tsv"),
        ("x.csv", "jsonl", "jsonl"),
    ],
)
def test_the_format(output, format, chosen):
    assert RowForm.of(output, format, "minimal", with_columns=False).format == chosen
