"""Submission files: the rows of test files, and the lines written for them."""

import re
from pathlib import Path

import pytest

from dynabert_paddle.data.catalog import CATALOG, find_submission
from dynabert_paddle.data.submission import SubmissionForm
from dynabert_paddle.errors import DataError

SAMPLES = Path(__file__).parents[2] / "samples" / "glue"
FILES = {
    "cola": "CoLA/test.tsv",
    "sst-2": "SST-2/test.tsv",
    "mrpc": "MRPC/test.tsv",
    "sts-b": "STS-B/test.tsv",
    "qqp": "QQP/test.tsv",
    "mnli": "MNLI/test_matched.tsv",
    "mnli-mm": "MNLI/test_mismatched.tsv",
    "qnli": "QNLI/test.tsv",
    "rte": "RTE/test.tsv",
    "wnli": "WNLI/test.tsv",
}


def read(name, path):
    task = find_submission(name)
    return list(task.submission.read(path, task.text_column, task.text_pair_column))


def test_every_glue_task_has_a_submission():
    assert [name for name, task in CATALOG.items() if task.submission] == list(FILES)


@pytest.mark.parametrize("name", FILES)
def test_test_files_are_read_with_their_indices(name):
    rows = read(name, SAMPLES / FILES[name])
    assert [row.label for row in rows] == ["0", "1", "2", "3"]
    assert all(row.text for row in rows)
    assert all((row.pair is None) == (name in ("cola", "sst-2")) for row in rows)


def test_ax_is_a_test_file_of_mnli():
    rows = read("mnli", SAMPLES / "diagnostic" / "diagnostic.tsv")
    assert rows[0][1:4] == ("The boat lay in the harbour.", "The boat did not lie in the harbour.", "0")


@pytest.mark.parametrize(
    ("name", "file", "needed", "found"),
    [
        ("rte", "QNLI/test.tsv", "index, sentence1, sentence2", "index, question, sentence"),
        ("sst-2", "SST-2/dev.tsv", "index, sentence", "sentence, label"),
        ("cola", "CoLA/dev.tsv", "index, sentence", "ex26"),
        ("qqp", "RTE/test.tsv", "id, question1, question2", "index, sentence1, sentence2"),
    ],
)
def test_another_file_is_refused(name, file, needed, found):
    seen = f"{SAMPLES / file}: a test file of this task has the columns {needed}, and this file has {found}"
    with pytest.raises(DataError, match=re.escape(seen)):
        read(name, SAMPLES / file)


@pytest.mark.parametrize(
    ("score", "line"),
    [(2.71828, "7\t2.718"), (-0.4, "7\t0.000"), (5.2, "7\t5.000"), (4.9996, "7\t5.000"), (3, "7\t3.000")],
)
def test_scores_are_clipped_and_rounded(score, line):
    assert find_submission("sts-b").submission.line("7", None, score) == line


def test_classes_are_written_by_name():
    assert SubmissionForm().line("7", "not_entailment", 0.93) == "7\tnot_entailment"
