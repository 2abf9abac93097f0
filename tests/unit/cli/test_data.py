"""The verb `data`: how files are read, against what training reads; nothing is written."""

import json
import re

import pytest
from conftest import SNIPS

from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.text.tokenizer import Tokenizer

pytestmark = pytest.mark.reference

ROWS = [("play jazz", "music"), ("book a table", "food"), ("play jazz", "food"), ("rain?", "music")]
ANSWER = {"id": "1", "question": "who", "answers": [{"text": "I", "answer_start": 0}]}
SQUAD = json.dumps({"data": [{"paragraphs": [{"context": "I am", "qas": [ANSWER, {**ANSWER, "answers": []}]}]}]})
DOCCANO = json.dumps({"text": "a b", "label": [[0, 1, "X"]]})
RESULT = {"from_name": "ner", "type": "labels", "value": {"start": 0, "end": 1, "text": "a", "labels": ["X"]}}
STUDIO = json.dumps([{"data": {"text": "a b"}, "annotations": [{"result": [RESULT]}]}])
NUMBERED = "# text = a b c\n1\ta\tB-X\n2\tb\tO\n3\tc\tO\n"
CLASSES, WORDS, SETS = "classification", "token_classification", "multi_label"
RECORD_A, RECORD_B = '{"text": "a", "label": 1}', '{"text": "b", "label": 0}'


def write(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in [("sentence", "label"), *rows]))
    return path


def described(dynabert, *words):
    done = dynabert("data", *words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_folder_with_what_may_spoil_a_training(dynabert, tmp_path):
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "dev.tsv", [("book a table", "food"), ("new", "music")])
    found = described(dynabert, tmp_path)
    assert (found["kind"], found["read"]) == ("classification", {"text": "sentence", "label": "label"})
    train, dev = found["files"]
    assert (train["rows"], dev["rows"]) == (4, 2)
    assert (train["target"], dev["target"]) == ({"food": 2, "music": 2}, {"food": 1, "music": 1})
    assert train["format"] == "TSV, quotes are text" and train["columns"] == ["sentence", "label"]
    overlap, repeated, conflict = found["warnings"]
    assert "1 of 2 rows (50.0%) have the same text as a training row, such as 'book a table'" in overlap
    assert "1 of 4 rows (25.0%) repeat" in repeated
    assert "1 text with different labels in 2 of 4 rows" in conflict
    done = dynabert("data", tmp_path)
    assert (done.code, done.out.count("warning: ")) == (0, 3)
    assert re.search(r"food +2 +1 *\n", done.out)
    assert f"next: dynabert finetune --task_name custom --data_dir {tmp_path} --output_dir NEW_DIR" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.tsv", "train.tsv"]


@pytest.mark.parametrize(
    ("name", "content", "kind", "format", "rows", "target"),
    [
        ("x.csv", "text;label\na;1\nb;2\n", CLASSES, "CSV, cells are separated by semicolons", 2, {"1": 1, "2": 1}),
        ("x.tsv", 'text\tlabel\n"a\tb"\t1\nb\t2\n', CLASSES, "TSV, cells with tabs, quotes", 2, {"1": 1, "2": 1}),
        ("x.jsonl", f"{RECORD_A}\n{RECORD_B}\n", CLASSES, "JSON lines", 2, {"0": 1, "1": 1}),
        ("x.json", f"[{RECORD_A},\n{RECORD_B}]", CLASSES, "JSON, an array of objects", 2, {"0": 1, "1": 1}),
        ("x.conll", "Ann B-PER\nis O\n\nO O\n", WORDS, "CoNLL's, 2 columns", 2, {"O": 2, "B-PER": 1}),
        ("x.tsv", "Ann\tB-PER\nis\tO\n\nO\tO\n", WORDS, "CoNLL's, 2 columns", 2, {"O": 2, "B-PER": 1}),
        ("x.jsonl", '{"tokens": ["a", "b"], "labels": ["O", "B-X"]}', WORDS, "JSON lines", 1, {"O": 1, "B-X": 1}),
        (
            "x.jsonl",
            '{"text": "a", "labels": ["x", "y"]}\n{"text": "b", "labels": []}',
            SETS,
            "JSON lines",
            2,
            {"x": 1, "y": 1},
        ),
        ("x.jsonl", DOCCANO, WORDS, "JSON lines, spans of characters", 1, {"O": 1, "B-X": 1, "I-X": 0}),
        (
            "x.json",
            STUDIO,
            WORDS,
            "JSON, an array of objects, Label Studio's",
            1,
            {"O": 1, "B-X": 1, "I-X": 0},
        ),
        ("x.tsv", "a\x02b\tO\x02B-X\n", WORDS, "PaddleNLP's, a sentence a line", 1, {"O": 1, "B-X": 1}),
        ("x.conllu", NUMBERED, WORDS, "CoNLL-U's, words with numbers", 1, {"O": 2, "B-X": 1}),
        ("x.json", SQUAD, "question_answering", "JSON, one object", 2, {"questions": 2, "without an answer": 1}),
    ],
)
def test_the_format_and_the_kind_of_one_file(dynabert, tmp_path, name, content, kind, format, rows, target):
    (tmp_path / name).write_text(content)
    found = described(dynabert, tmp_path / name)
    (file,) = found["files"]
    assert (found["kind"], file["rows"], file["target"]) == (kind, rows, target)
    assert file["format"].startswith(format)
    assert not any("both the training and the dev file" in message for message in found["warnings"])


def test_scores_and_pairs(dynabert, tmp_path):
    (tmp_path / "x.tsv").write_text("a\tb\tscore\nx\ty\t0.5\nz\tw\t2\n")
    words = ("--kind", "regression", "--text_column", "a", "--text_pair_column", "b", "--label_column", "score")
    found = described(dynabert, tmp_path / "x.tsv", *words)
    assert found["read"] == {"text": "a", "second text": "b", "label": "score"}
    assert found["files"][0]["target"] == {"lowest": 0.5, "mean": 1.25, "highest": 2.0}


def test_lengths_in_tokens_are_the_tokenizers(dynabert, tmp_path):
    path = write(tmp_path / "x.tsv", [*ROWS, ("word " * 40, "food")])
    words = ("--model_name_or_path", "minilm-l6", "--max_seq_length", "16")
    found = described(dynabert, path, *words)
    texts = [text for text, _ in [*ROWS, ("word " * 40, "food")]]
    ids, _ = Tokenizer.from_pretrained(find_backbone("minilm-l6")).encode(texts, max_seq_length=1000)
    lengths = sorted(map(len, ids))
    assert found["files"][0]["tokens"] == {
        "rows": 5, "median": lengths[2], "p95": lengths[4], "longest": 42, "cut": 1,
    }  # fmt: skip
    assert any("1 of 5 rows (20.0%) are longer than max_seq_length 16" in message for message in found["warnings"])
    assert "longer than 16" in dynabert("data", path, *words).out


def test_a_narrow_terminal_and_a_pipe_have_all_figures(dynabert, monkeypatch):
    done = dynabert("data", SNIPS, "--task_name", "snips")
    assert done.code == 0, done.err
    monkeypatch.setenv("COLUMNS", "40")
    assert re.search(r"SearchScreeningEvent +1,959 +100 *\n", done.out), done.out
    assert "train.tsv  13,784" in re.sub(" +", "  ", done.out)


@pytest.mark.parametrize(
    ("name", "content", "words", "code", "seen"),
    [
        ("x.tsv", None, (), 1, "x.tsv: no such file"),
        ("x.tsv", "", (), 1, "x.tsv:1: the file is empty"),
        ("x.xlsx", "PK", (), 1, "unknown file ending '.xlsx'"),
        ("x.tsv", "text\nx\n", (), 1, "no column 'label'; the columns here are 'text'"),
        ("x.tsv", "text\tlabel\nx\t1\n", ("--train_file", "y.tsv"), 2, "leave out --data_dir and --train_file"),
        ("x.tsv", "text\tlabel\nx\t1\n", ("--label_column", "lable"), 1, "Did you mean 'label'?"),
        ("x.conll", "\n\n", (), 1, "x.conll:1: the file is empty"),
        ("x.jsonl", "[1]\n", (), 1, "x.jsonl:1: [1] is not a JSON object"),
    ],
)
def test_what_cannot_be_read(dynabert, tmp_path, name, content, words, code, seen):
    if content is not None:
        (tmp_path / name).write_text(content)
    done = dynabert("data", tmp_path / name, *words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done.err
    assert seen in done.err
