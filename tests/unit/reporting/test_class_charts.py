"""The report's charts of classes: every class in a table, both languages, and labels of any script."""

from xml.sax.saxutils import escape

import matplotlib
import numpy as np
import pytest
from report_folder import write_run

from dynabert_paddle.data.class_scores import score_classes
from dynabert_paddle.data.features import Features
from dynabert_paddle.reporting.chart import STYLE
from dynabert_paddle.reporting.class_charts import describe_positive, draw_classes
from dynabert_paddle.reporting.collect import collect
from dynabert_paddle.reporting.run import write_page

pytestmark = pytest.mark.reference

FULL, SMALL = "w1.00d1.00", "w0.50d0.50"


def make_scores(names, *, noise=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(40 * len(names)) % len(names)
    logits = rng.normal(0, noise, (len(labels), len(names))) + 3 * np.eye(len(names))[labels]
    offsets = np.arange(len(labels) + 1)
    features = Features(np.zeros(len(labels), "int32"), np.zeros(len(labels), "uint8"), offsets, labels)
    return score_classes(features, logits, names)


@pytest.mark.parametrize("names", [("no", "yes"), ("积极", "消极", "<b>"), tuple(f"class {n}" for n in range(40))])
def test_every_class_is_in_a_table(names):
    scores = {FULL: make_scores(names), SMALL: make_scores(names, noise=3.0)}
    f1, confusion, calibration = draw_classes(scores)
    assert [row[0] for row in f1.table.rows] == list(names)
    with matplotlib.rc_context(STYLE):
        drawn = f1.svg()  # where wide characters have room, and are those of the labels
    assert "WW" not in drawn and all(escape(name) in drawn for name in names[:2])
    for row, of_full, of_small in zip(f1.table.rows, scores[FULL].classes, scores[SMALL].classes, strict=True):
        assert row[1:] == (
            str(of_full.support),
            *(f"{value:.4f}" for one in (of_full, of_small) for value in (one.precision, one.recall, one.f1)),
        )
    assert all(len(row) == len(f1.table.columns) for row in f1.table.rows)
    worst = min(scores[SMALL].classes, key=lambda score: score.f1)
    assert f"{SMALL} is worst at {worst.name}: F1 {worst.f1:.4f}" in f1.finding.en
    assert (f1.note is not None) == (confusion.note is not None) == (len(names) == 40)
    right, total = np.trace(scores[SMALL].confusion), scores[SMALL].confusion.sum()
    assert f"{right} of {total} are right." in confusion.finding.en
    for name, one in scores.items():
        assert f"{name} {one.calibration.ece:.4f}" in calibration.finding.en
    assert sum(int(row[2]) for row in calibration.table.rows) == 2 * total


def test_the_page_has_the_classes_whatever_their_names(tmp_path, recwarn):
    run = collect(write_run(tmp_path / "run"))
    options = {"output_file": tmp_path / "page.html", "language": "en", "visualdl": False}
    classes = {FULL: make_scores(("积极", "<消极>")), SMALL: make_scores(("积极", "<消极>"))}
    write_page(run, **options, classes=classes)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for name in ("class-f1", "confusion", "calibration"):
        assert f'<figure id="{name}">' in text
    assert "积极" in text and "&lt;消极&gt;" in text and "<消极>" not in text
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]


def test_the_positive_label_is_named_where_a_metric_depends_on_it():
    assert [text.en for text in describe_positive(["accuracy", "f1"], "spam")] == [
        "The metric f1 is that of the label spam."
    ]
    (note,) = describe_positive(["matthews"], None)
    assert "the same whichever label is the positive one" in note.en
    assert describe_positive(["accuracy"], None) == []
