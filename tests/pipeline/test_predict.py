"""Bundles in use: from Python, from the command line, by their own script; the source model is the oracle."""

import csv
import ctypes
import functools
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import paddle
import pytest
from bundles import GLUE, SNIPS_LABELS, TASKS, WITHOUT_PACKAGE, make_bundle, make_model
from conftest import FORMATS, SNIPS, make_batch, make_bert
from test_bundle_bad_input import seal

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.bundle import infer
from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.errors import DynabertError

pytestmark = pytest.mark.full

SAMPLES = Path(__file__).parents[1] / "samples" / "glue"

# The largest memory of a process is in its own /proc: getrusage's counts what the parent had when it forked.
MEASURED = """
import re, sys
from dynabert_paddle.cli.main import main
sys.argv[0] = "dynabert"
try:
    main()
finally:
    loaded = [name for name in ("paddlenlp", "transformers", "safetensors.paddle") if name in sys.modules]
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
    print(f"loaded {loaded} peak {peak}", file=sys.stderr)
"""


@pytest.fixture(scope="session")
def bundle(make_once):
    return functools.partial(make_bundle, make_once)


@pytest.fixture(scope="session")
def predictor(bundle):
    return functools.cache(lambda kind, format="paddle": db.Predictor(bundle(kind, format)))


@pytest.fixture(scope="session")
def source(make_once):
    """What the model itself says, one text at a time and without padding: its outputs, as probabilities or a value."""

    @functools.cache
    def load(kind):
        supernet = db.load_model(make_model(make_once, kind))
        supernet.eval()
        return supernet

    def run(kind, texts, pairs=None):
        supernet, rows = load(kind), []
        length = TASKS[kind].get("max_seq_length", 128)
        encoded = supernet.tokenizer.encode(texts, pairs, max_seq_length=length)
        for ids, type_ids in zip(*encoded, strict=True):
            inputs = {"input_ids": ids, "token_type_ids": type_ids, "attention_mask": [1] * len(ids)}
            with paddle.no_grad():
                logits = supernet(**{name: paddle.to_tensor([value]) for name, value in inputs.items()}).logits
            rows.append(logits.numpy()[0].astype(np.float64))
        if kind == "values":
            return np.array(rows)
        weights = np.exp(np.array(rows))
        return weights / weights.sum(1, keepdims=True)

    return run


@pytest.fixture(scope="session")
def texts():
    """Rows of snips, whose lengths go up and down, and some that are cut."""
    lines = (SNIPS / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:71]
    found = [line.split("\t")[0] for line in lines]
    return [*found, "one " * 300, "", "two", *found[:3]]


ANSWERS = ("yes please", "", "no " * 40, "perhaps so, and perhaps not, as far as one can tell today")


@pytest.fixture(scope="session")
def answers(texts):
    return [ANSWERS[i % 4] for i in range(len(texts))]


def labels_of(kind):
    return TASKS[kind].get("labels", ["LABEL_0", "LABEL_1"])


def agree(predictions, expected, kind, tolerance=1e-5):
    """Predictions in the order of the source's rows, with its labels and its scores."""
    assert len(predictions) == len(expected)
    for prediction, row in zip(predictions, expected, strict=True):
        if kind == "values":
            assert prediction.label is None
            assert prediction.scores == {}
            assert prediction.score == pytest.approx(row[0], abs=tolerance)
            continue
        assert list(prediction.scores) == labels_of(kind)
        np.testing.assert_allclose(list(prediction.scores.values()), row, atol=tolerance)
        assert prediction.label == labels_of(kind)[row.argmax()]
        assert prediction.score == prediction.scores[prediction.label]


def test_ids_are_those_of_training(predictor, texts, answers):
    """Special tokens are there once."""
    for kind, columns in (("snips", (texts,)), ("pairs", (texts, answers))):
        tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
        ids, type_ids = tokenizer.encode(*columns, max_seq_length=TASKS[kind]["max_seq_length"])
        encoded = predictor(kind)._bundle.encode(list(zip(*columns, strict=True)))
        assert [row.windows for row in encoded] == [[row] for row in zip(ids, type_ids, strict=True)]


@pytest.mark.parametrize("kind", ["plain", "snips", "values"])
def test_predictions_are_the_source_models(predictor, source, texts, kind):
    agree(predictor(kind)(texts), source(kind, texts), kind)


def test_predictions_for_pairs_are_the_source_models(predictor, source, texts, answers):
    expected = source("pairs", texts, answers)
    agree(predictor("pairs")(texts, answers), expected, "pairs")
    swapped = predictor("pairs")(answers, texts)
    assert any(abs(one.score - row.max()) > 1e-3 for one, row in zip(swapped, expected, strict=True))


def test_onnx_runtime_predicts_the_same(predictor, source, texts):
    agree(predictor("snips", "onnx")(texts), source("snips", texts), "snips", tolerance=1e-4)


def test_the_random_models_predict_different_scores_for_different_texts(source, texts):
    """Otherwise the order of the predictions would not matter."""
    scores = source("snips", texts[:70])
    assert len({int(row.argmax()) for row in scores}) > 1
    assert np.ptp(scores, axis=0).max() > 0.05


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing(predictor, texts, batch_size):
    one, other = predictor("snips")(texts, batch_size=batch_size), predictor("snips")(texts)
    assert [row.label for row in one] == [row.label for row in other]
    # A product of other sizes adds up in another order; by how much that changes a sum depends on the processor.
    np.testing.assert_allclose([row.score for row in one], [row.score for row in other], atol=1e-5)


def test_one_text_is_a_list_of_one(predictor, texts):
    assert predictor("snips")(texts[0]) == predictor("snips")([texts[0]])
    assert predictor("pairs")("a", "b") == predictor("pairs")(["a"], ["b"])


@pytest.mark.parametrize("container", [tuple, np.array, iter], ids=["tuple", "numpy", "iterator"])
def test_texts_may_come_in_any_container(predictor, texts, container):
    assert predictor("snips")(container(texts[:5])) == predictor("snips")(texts[:5])


def test_no_texts_no_predictions(predictor):
    assert predictor("snips")([]) == []
    assert predictor("pairs")([], []) == []
    assert list(predictor("snips").stream([])) == []


def test_the_properties_describe_the_bundle(predictor):
    assert (predictor("snips").labels, predictor("snips").takes_pairs) == (SNIPS_LABELS, False)
    assert (predictor("plain").labels, predictor("plain").takes_pairs) == (["LABEL_0", "LABEL_1"], False)
    assert (predictor("pairs").labels, predictor("pairs").takes_pairs) == (["是", "否", "也许"], True)
    assert (predictor("values").labels, predictor("values").takes_pairs) == ([], False)
    assert [predictor(kind).task_name for kind in ("snips", "plain", "pairs")] == ["snips", "custom", "custom"]


def test_a_stream_is_read_as_far_as_needed_and_in_order(predictor, texts):
    """Chunks of 4,096 rows are sorted by length, and the next one is encoded meanwhile: two are read, not all."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            yield (texts[taken % 70][: 9 + taken % 30],)
            taken += 1

    predictions = predictor("plain").stream(endless(), batch_size=256)
    found = [next(predictions)]
    assert taken <= 2 * 4096
    found += [next(predictions) for _ in range(4099)]
    assert taken <= 3 * 4096
    picked = [0, 1, 4094, 4095, 4096, 4099]
    again = predictor("plain")([texts[i % 70][: 9 + i % 30] for i in picked])
    for i, prediction in zip(picked, again, strict=True):
        assert found[i].score == pytest.approx(prediction.score, abs=1e-6)


def test_a_chunk_is_encoded_while_the_one_before_it_runs(predictor, texts, monkeypatch):
    expected = predictor("snips")(texts[:30])
    monkeypatch.setattr(infer, "_CHUNK", 8)
    bundle = predictor("snips")._bundle
    threads = []

    def encode(rows, *, first=0):
        threads.append(threading.current_thread().name.split("_")[0])
        return type(bundle).encode(bundle, rows, first=first)

    monkeypatch.setattr(bundle, "encode", encode)
    found = bundle.predict(texts[:30])
    assert [row.label for row in found] == [row.label for row in expected]
    np.testing.assert_allclose([row.score for row in found], [row.score for row in expected], atol=1e-6)
    assert threads == ["MainThread", *["dynabert-encoder"] * 3]


def test_rows_that_cannot_be_read_end_a_stream_after_the_chunks_before_them(predictor, texts, monkeypatch):
    monkeypatch.setattr(infer, "_CHUNK", 8)

    def rows():
        yield from ((text,) for text in texts[:12])
        raise OSError("the disk is gone")

    predictions = predictor("snips").stream(rows())
    assert [next(predictions).label for _ in range(8)] == [row.label for row in predictor("snips")(texts[:8])]
    with pytest.raises(OSError, match="the disk is gone"):
        next(predictions)


def test_a_row_that_is_no_text_ends_a_stream_after_the_chunks_before_it(predictor, texts, monkeypatch):
    monkeypatch.setattr(infer, "_CHUNK", 8)
    predictions = predictor("snips").stream([*((text,) for text in texts[:12]), (5,), *((text,) for text in texts[:9])])
    assert [next(predictions).label for _ in range(8)] == [row.label for row in predictor("snips")(texts[:8])]
    with pytest.raises(DynabertError, match="row 13"):
        next(predictions)


UNUSUAL_TEXTS = {
    "empty": "",
    "blank": " \t\u00a0\u3000\n ",
    "long": "word " * 20_000,
    "long without blanks": "x" * 100_000,
    "control": "a\x01\x07\x1b[31mb\x7f\r\n",
    "nul": "a\x00b",
    "nul alone": "\x00",
    "lone surrogate": "a \ud83d b",
    "lone surrogates": "\udfff\ud800",
    "surrogate pair": "so \ud83d\ude00",
    "emoji": "\U0001f469\u200d\U0001f4bb \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "right to left": "\u0634\u063a\u0644 \u202e\u05e9\u05dc\u05d5\u05dd\u202c",
    "chinese": "播放一些爵士乐",
    "combining": "e\u0301" * 50 + "\u0300" * 500,
    "byte order mark": "\ufeffplay",
    "special tokens": "[CLS] [SEP] [PAD] [MASK] [UNK]",
    "noncharacters": "\ufffe\uffff\U0010ffff",
}


@pytest.mark.parametrize("text", UNUSUAL_TEXTS.values(), ids=UNUSUAL_TEXTS)
def test_unusual_texts_are_predicted_as_by_the_source_model(predictor, source, text):
    agree(predictor("snips")(["before", text, "after"]), source("snips", ["before", text, "after"]), "snips")


def test_unusual_pairs_are_predicted_as_by_the_source_model(predictor, source):
    texts, pairs = list(UNUSUAL_TEXTS.values()), list(UNUSUAL_TEXTS.values())[::-1]
    agree(predictor("pairs")(texts, pairs), source("pairs", texts, pairs), "pairs")


BAD_CALLS = {
    "None": ("plain", (None,), "texts are a list of str, not None"),
    "a number": ("plain", (3,), "texts are a list of str, not 3"),
    "bytes": ("plain", (b"play",), "texts are a list of str, not b'play'"),
    "a row of None": ("plain", (["a", None],), "row 2 is (None,): this bundle takes tuples of one text"),
    "a row of a number": ("plain", ([3],), "row 1 is (3,)"),
    "a row of nan": ("plain", ([float("nan")],), "row 1 is (nan,)"),
    "a row of bytes": ("plain", ([b"a"],), "row 1 is (b'a',)"),
    "a row of a list": ("plain", ([["a"]],), "row 1 is (['a'],)"),
    "a row of lines": ("plain", ([np.zeros((9, 9))],), "row 1 is (array("),
    "a late row": ("plain", (["a"] * 5000 + [None],), "row 5001 is (None,)"),
    "pairs for texts": ("plain", (["a"], ["b"]), "this bundle's task has single texts: give no second ones"),
    "no pairs for texts": ("plain", ([], []), "this bundle's task has single texts"),
    "texts for pairs": ("pairs", (["a"],), "this bundle's task has pairs of texts: give a second text for each"),
    "a pair too few": ("pairs", (["a", "b"], ["c"]), "2 texts and 1 second texts: give one for each"),
    "a pair too many": ("pairs", (["a"], ["b", "c"]), "1 texts and 2 second texts"),
    "a pair with None": ("pairs", (["a"], [None]), "row 1 is ('a', None): this bundle takes tuples of two texts"),
    "pairs of a number": ("pairs", (["a"], 3), "texts are a list of str, not 3"),
}


def one_line(caught):
    assert isinstance(caught.value, DynabertError)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("call", BAD_CALLS)
def test_an_input_that_is_not_a_text_is_named(predictor, call):
    kind, arguments, seen = BAD_CALLS[call]
    with pytest.raises(DynabertError) as caught:
        predictor(kind)(*arguments)
    assert seen in one_line(caught)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        *(("plain", row) for row in ("text", "t", "two\nlines", None, 3, ("a", "b"), ())),
        *(("pairs", row) for row in ("ab", b"ab", ("a",), ("a", "b", "c"))),
    ],
)
def test_rows_of_a_stream_are_tuples(predictor, kind, row):
    """A str is a sequence as well: its characters must not be taken for texts."""
    with pytest.raises(DynabertError) as caught:
        list(predictor(kind).stream([row]))
    assert "row 1 is" in one_line(caught)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_sizes_below_one(predictor, batch_size):
    with pytest.raises(DynabertError, match=f"batch_size is at least 1, not {batch_size}"):
        predictor("plain")(["a"], batch_size=batch_size)


@pytest.mark.parametrize("format", ["paddle", "onnx"])
@pytest.mark.parametrize("device", ["gpu", "gpu:0", "banana", ""])
def test_a_device_that_is_not_there_is_not_replaced_by_the_cpu(bundle, format, device):
    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle may have a GPU")
    with pytest.raises(DynabertError, match=f"device '{device}'"):
        db.Predictor(bundle("snips", format), device=device)


def test_calls_of_another_bundle_change_no_predictions(predictor, texts):
    first = predictor("snips")(texts[:3])
    predictor("values")(texts[:5])
    assert predictor("snips")(texts[:3]) == first


# The command line.


def write_rows(path, header, rows):
    """Write a file of texts as its ending says."""
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) for row in rows]
    elif path.suffix == ".csv":
        lines = [",".join(f'"{cell}"' for cell in row) for row in [header, *rows]]
    elif path.suffix == ".txt":
        lines = [row[0] for row in rows]
    else:
        lines = ["\t".join(row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".txt", ".tsv", ".csv", ".jsonl"])
def test_predict_a_file(dynabert, bundle, source, texts, tmp_path, ending):
    path = write_rows(tmp_path / f"texts{ending}", ["id", "sentence"], [(str(i), text) for i, text in enumerate(texts)])
    if ending == ".txt":
        write_rows(path, [], [(text,) for text in texts])
    scores = source("snips", texts)
    done = dynabert("predict", bundle("snips"), "-i", path)
    assert done.code == 0, done.err
    header, *lines = done.out.splitlines()
    assert header == "label\tscore"
    assert [line.split("\t")[0] for line in lines] == [SNIPS_LABELS[row.argmax()] for row in scores]
    np.testing.assert_allclose([float(line.split("\t")[1]) for line in lines], scores.max(1), atol=6e-5)
    assert f"next: dynabert bench {bundle('snips')}" in done.err

    done = dynabert("predict", bundle("snips"), "-i", path, "--json", "--batch_size", "3")
    rows = [json.loads(line) for line in done.out.splitlines()]
    agree([db.Prediction(**row) for row in rows], scores, "snips")


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl"])
def test_predict_a_file_of_pairs(dynabert, bundle, source, texts, answers, tmp_path, ending):
    path = write_rows(tmp_path / f"p{ending}", ["answer", "question"], list(zip(answers, texts, strict=True)))
    words = ("predict", bundle("pairs"), "-i", path, "--text_column", "question", "--text_pair_column", "answer")
    done = dynabert(*words, "--json")
    assert done.code == 0, done.err
    rows = [db.Prediction(**json.loads(line)) for line in done.out.splitlines()]
    agree(rows, source("pairs", texts, answers), "pairs")


def test_predict_values(dynabert, bundle, source, texts, tmp_path):
    path = write_rows(tmp_path / "texts.tsv", ["text"], [(text,) for text in texts])
    done = dynabert("predict", bundle("values"), "-i", path)
    assert done.code == 0, done.err
    header, *lines = done.out.splitlines()
    assert header == "score"
    np.testing.assert_allclose([float(line) for line in lines], source("values", texts)[:, 0], atol=6e-5)


def test_predict_to_a_file(dynabert, bundle, texts, tmp_path):
    path = write_rows(tmp_path / "texts.txt", [], [(text,) for text in texts])
    shown = dynabert("predict", bundle("snips"), "-i", path)
    output = tmp_path / "labels.tsv"
    output.write_text("what was there before")
    words = ("predict", bundle("snips"), "-i", path, "--output_file", output)
    assert "pass --overwrite_output_file to replace it" in failed(dynabert(*words), 2)
    assert output.read_text() == "what was there before"
    done = dynabert(*words, "--overwrite_output_file")
    assert (done.code, done.out) == (0, "")
    assert output.read_text(encoding="utf-8") == shown.out
    assert f"wrote {output}" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.tsv", "texts.txt"]


def test_texts_on_the_command_line(dynabert, bundle, predictor, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    texts = ["play some jazz", "5", "~/music and 7", "6", "folder", "a\nb"]  # as they are, not words of the command
    expected = [f"{row.label}\t{row.score:.4f}" for row in predictor("snips")(texts)]
    done = dynabert("predict", bundle("snips"), "--device", "cpu", *texts)
    assert (done.code, done.out.splitlines()) == (0, ["label\tscore", *expected]), done.err
    done = dynabert("predict", bundle("snips"), *texts, "--columns", "--output_format", "csv", "-o", "-")
    rows = list(csv.reader(done.out.splitlines(keepends=True)))
    assert rows == [
        ["text", "label", "score"],
        *([text, *row.split("\t")] for text, row in zip(texts, expected, strict=True)),
    ]
    expected = [row.score for row in predictor("pairs")(["a", "c"], ["b", "d"])]
    lines = dynabert("predict", bundle("pairs"), "a", "b", "c", "d", "--json").out.splitlines()
    assert [json.loads(line)["score"] for line in lines] == pytest.approx(expected, abs=1e-6)
    assert "give two texts for each" in failed(dynabert("predict", bundle("pairs"), "a"), 2)


def test_several_files_and_their_columns(dynabert, bundle, predictor, texts, tmp_path):
    first = write_rows(tmp_path / "a.tsv", ["id", "sentence", "label"], [(str(i), texts[i], "x") for i in range(5)])
    second = write_rows(tmp_path / "b.jsonl", ["sentence", "id"], [(texts[5], "5")])
    packed = tmp_path / "c.csv.gz"
    packed.write_bytes(gzip.compress(b'id,sentence\n6,"a, b"\n'))
    output = tmp_path / "labels.tsv.gz"
    inputs = ("-i", first, "-i", second, "-i", packed)
    done = dynabert("predict", bundle("snips"), *inputs, "--columns", "--quoting", "all", "-o", output)
    assert done.code == 0, done.err
    expected = predictor("snips")([*texts[:6], "a, b"])
    rows = list(csv.reader(gzip.decompress(output.read_bytes()).decode().splitlines(), delimiter="\t"))
    assert rows[0] == ["id", "sentence", "label", "predicted_label", "score"]
    assert [(row[0], row[2]) for row in rows[1:]] == [*((str(i), "x") for i in range(5)), ("5", ""), ("6", "")]
    assert [row[3:] for row in rows[1:]] == [[row.label, f"{row.score:.4f}"] for row in expected]
    done = dynabert("predict", bundle("snips"), "-i", second, "-i", first, "--columns", "-o", tmp_path / "x.tsv")
    assert "has 'label', which the first row lacks: write --output_format jsonl" in failed(done, 1)
    assert not (tmp_path / "x.tsv").exists()


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        ((), ["play some jazz", "book a table", "", "what is the weather"]),
        (("--input_format", "jsonl"), [json.dumps({"sentence": text}) for text in ("play", "a\tb", "c")]),
        (("--input_format", "tsv"), ["id\tsentence", "1\tplay", '2\tthe "best" song', "3\tbook"]),
    ],
)
def test_a_pipe_gets_each_answer_when_its_text_is_there(bundle, predictor, flags, lines):
    """As a filter between two programs: the reader waits for the answer before the next text is written."""
    command = [sys.executable, "-m", "dynabert_paddle", "predict", bundle("snips"), "-i", "-", "--columns", "--json"]
    with subprocess.Popen(
        [*command, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        if "tsv" in flags:
            process.stdin.write(lines.pop(0) + "\n")
        found = []
        for line in lines:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            found.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.stdout.read() == ""
    texts = [row.get("sentence", row.get("text")) for row in found]
    assert texts == [json.loads(line)["sentence"] if "jsonl" in flags else line.split("\t")[-1] for line in lines]
    expected = predictor("snips")(texts)
    assert [row["label"] for row in found] == [row.label for row in expected]
    np.testing.assert_allclose([row["score"] for row in found], [row.score for row in expected], atol=1e-6)


def test_a_long_pipe_is_the_file(bundle, texts, tmp_path):
    """In groups of what is there, whose sizes nobody knows."""
    path = write_rows(tmp_path / "texts.txt", [], [(text,) for text in texts * 30])
    command = (sys.executable, "-m", "dynabert_paddle", "predict", bundle("snips"))
    expected = shell(*command, "-i", path).stdout
    with path.open() as file:
        done = shell(*command, "-i", "-", stdin=file)
    assert done.stdout == expected
    done = shell("bash", "-c", 'cat "$0" | "$@"', path, *command, "-i", "/dev/stdin")
    assert done.stdout == expected
    assert expected.count("\n") == 1 + 30 * len(texts)
    done = shell(*command, "-i", "-", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, "label\tscore\n")


def test_windows_line_ends_and_bom_change_no_predictions(dynabert, bundle, texts, tmp_path):
    plain = write_rows(tmp_path / "plain.txt", [], [(text,) for text in texts[:9]])
    windows = tmp_path / "windows.txt"
    windows.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    expected = dynabert("predict", bundle("snips"), "-i", plain).out
    assert dynabert("predict", bundle("snips"), "-i", windows).out == expected


def test_an_empty_text_file_has_no_rows(dynabert, bundle, tmp_path):
    (tmp_path / "empty.txt").touch()
    done = dynabert("predict", bundle("snips"), "-i", tmp_path / "empty.txt")
    assert (done.code, done.out) == (0, "label\tscore\n")
    assert dynabert("predict", bundle("snips"), "-i", tmp_path / "empty.txt", "--json").out == ""


BAD_FILES = {
    "missing": ("texts.tsv", None, (), 1, "texts.tsv: no such file"),
    "empty": ("texts.tsv", b"", (), 1, "texts.tsv:1: the file is empty"),
    "header only": ("texts.tsv", b"sentence\n", (), 1, "texts.tsv:1: the file has no rows"),
    "other columns": ("texts.csv", b"query\nplay\n", (), 1, "no column 'sentence'; the columns here are 'query'"),
    "misspelt column": ("t.tsv", b"sentence\na\n", ("--text_column", "sentense"), 1, "Did you mean 'sentence'?"),
    "not UTF-8": ("texts.txt", b"caf\xe9\n", (), 1, "texts.txt:1: byte 4 of the line is not UTF-8"),
    "not JSON": ("texts.jsonl", b"play\n", (), 1, "texts.jsonl:1: not valid JSON"),
    "ending": ("texts.xlsx", b"PK", (), 1, "texts.xlsx: unknown file ending '.xlsx'"),
    "a folder": (".", None, (), 1, ""),
    "pairs": ("texts.tsv", b"a\tb\nx\ty\n", ("--text_pair_column", "b"), 2, "leave out --text_pair_column"),
}


def failed(done, code):
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, done.err
    return done.err


@pytest.mark.parametrize("fault", BAD_FILES)
def test_invalid_files_write_no_output(dynabert, bundle, tmp_path, fault):
    name, content, flags, code, seen = BAD_FILES[fault]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    words = ("predict", bundle("snips"), "-i", tmp_path / name, *flags)
    done = dynabert(*words)
    assert seen in failed(done, code)
    assert done.out == ""
    output = tmp_path / "labels.tsv"
    failed(dynabert(*words, "--output_file", output), code)
    assert not output.exists()


def test_a_bad_line_in_the_middle_leaves_the_old_output(dynabert, bundle, tmp_path):
    path, output = tmp_path / "texts.txt", tmp_path / "labels.tsv"
    path.write_bytes(b"play\n" * 5000 + b"caf\xe9\n")
    output.write_text("what was there before")
    words = ("predict", bundle("snips"), "-i", path, "--output_file", output)
    done = dynabert(*words, "--overwrite_output_file")
    assert "texts.txt:5001: byte 4" in failed(done, 1)
    assert output.read_text() == "what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.tsv", "texts.txt"]


def test_the_input_is_not_overwritten(dynabert, bundle, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("play\n")
    (tmp_path / "link.txt").symlink_to(path)
    for output in (path, tmp_path / "link.txt", tmp_path / "." / "texts.txt"):
        done = dynabert("predict", bundle("snips"), "-i", path, "--output_file", output)
        assert "is the file to read: name another --output_file" in failed(done, 2)
        assert path.read_text() == "play\n"


@pytest.mark.parametrize(("output", "code"), [("missing/labels.tsv", 2), ("folder", 1)])
def test_outputs_that_cannot_be_written(dynabert, bundle, tmp_path, output, code):
    (tmp_path / "texts.txt").write_text("play\n")
    (tmp_path / "folder").mkdir()
    words = ("predict", bundle("snips"), "-i", tmp_path / "texts.txt", "--output_file", tmp_path / output)
    assert output.split("/")[0] in failed(dynabert(*words), code)


def read_back(path, delimiter="\t"):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_labels_with_tabs_and_line_breaks_read_back(dynabert, bundle, predictor, texts, tmp_path):
    """By the columns that the task was trained on, in both programs, and in the format of the file's ending."""
    source = tmp_path / "texts.csv"
    with source.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "body"), *enumerate(texts)])
    expected = [(row.label, f"{row.score:.4f}") for row in predictor("tabs")(texts)]
    assert {label for label, _ in expected} == set(TASKS["tabs"]["labels"])
    for name, delimiter in (("out.tsv", "\t"), ("out.csv", ","), ("out", "\t")):
        done = dynabert("predict", bundle("tabs"), "-i", source, "-o", tmp_path / name)
        assert done.code == 0, done.err
        assert read_back(tmp_path / name, delimiter) == [["label", "score"], *map(list, expected)]
    done = dynabert("predict", bundle("tabs"), "-i", source, "-o", tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == [label for label, _ in expected]
    done = shell(sys.executable, bundle("tabs") / "infer.py", "-i", source)
    (tmp_path / "infer.tsv").write_text(done.stdout, encoding="utf-8")
    assert read_back(tmp_path / "infer.tsv") == list(map(list, expected)), done.stderr


def test_pairs_have_their_own_columns(dynabert, bundle, tmp_path):
    path = write_rows(tmp_path / "pairs.tsv", ["sentence", "answer"], [("a", "b")])
    done = dynabert("predict", bundle("pairs"), "-i", path)
    assert (done.code, done.out.count("\n")) == (0, 2)
    assert dynabert("predict", bundle("pairs"), "-i", path, "--text_pair_column", "answer").out == done.out
    path = write_rows(tmp_path / "others.tsv", ["sentence", "reply"], [("a", "b")])
    assert "no column 'answer'" in failed(dynabert("predict", bundle("pairs"), "-i", path), 1)
    (tmp_path / "x.txt").write_text("a\n", encoding="utf-8")
    done = dynabert("predict", bundle("pairs"), "-i", tmp_path / "x.txt", "--text_pair_column", "answer")
    assert "give pairs as .tsv, .csv or .jsonl" in failed(done, 2)


@pytest.mark.parametrize("flags", [("--batch_size", "0"), ("--num_threads", "0"), ("--batch_size", "x"), ("--jsn",)])
def test_bad_flags_of_predict(dynabert, bundle, tmp_path, flags):
    (tmp_path / "texts.txt").write_text("play\n")
    failed(dynabert("predict", bundle("snips"), "-i", tmp_path / "texts.txt", *flags), 2)


SUBMISSIONS = {
    "cola": "CoLA/test.tsv",
    "rte": "RTE/test.tsv",
    "mnli": "diagnostic/diagnostic.tsv",
    "sts-b": "STS-B/test.tsv",
}


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_a_submission_has_a_line_for_every_row_of_the_test_file(dynabert, bundle, predictor, tmp_path, name):
    header, *lines = (SAMPLES / SUBMISSIONS[name]).read_text(encoding="utf-8").splitlines()
    # Other indices than the lines' numbers, and more rows than a batch has.
    lines = [line.split("\t", 1)[1] for line in lines] * 10
    test_file, output = tmp_path / "test.tsv", tmp_path / f"{name}.tsv"
    test_file.write_text("\n".join([header, *(f"{3 * i}\t{line}" for i, line in enumerate(lines))]) + "\n")
    done = dynabert("predict", bundle(name), "-i", test_file, "--submission", "-o", output)
    assert (done.code, done.out) == (0, ""), done.err

    columns = [[line.split("\t")[i] for line in lines] for i in ((-2, -1) if predictor(name).takes_pairs else (-1,))]
    expected = predictor(name)(*columns)
    if name == "sts-b":
        assert any(row.score < 0 or row.score > 5 for row in expected), "or clipping would not be tested"
        predicted = [f"{min(max(row.score, 0), 5):.3f}" for row in expected]
    else:
        predicted = [row.label for row in expected]
        assert set(predicted) <= set(GLUE[name]["labels"])
    assert len(set(predicted)) > 1, "or their order would not be tested"
    assert output.read_text().splitlines() == [
        "index\tprediction",
        *(f"{3 * i}\t{value}" for i, value in enumerate(predicted)),
    ]


@pytest.mark.parametrize(
    ("kind", "file", "flags", "code", "seen"),
    [
        ("snips", "RTE/test.tsv", (), 2, "task 'snips' has no submission file; these have one: cola, sst-2, "),
        ("plain", "RTE/test.tsv", (), 2, "task 'custom' has no submission file"),
        ("rte", "RTE/test.tsv", ("--json",), 2, "--submission fixes the columns and the format: leave out --json"),
        ("rte", "RTE/test.tsv", ("--text_column", "sentence1"), 2, "leave out --json and the column flags"),
        (
            "rte",
            "QNLI/test.tsv",
            (),
            1,
            "has the columns index, sentence1, sentence2, and this file has index, question",
        ),
        ("rte", "RTE/absent.tsv", (), 1, "absent.tsv: no such file"),
    ],
)
def test_a_submission_that_cannot_be_made(dynabert, bundle, tmp_path, kind, file, flags, code, seen):
    output = tmp_path / "out.tsv"
    done = dynabert("predict", bundle(kind), "-i", SAMPLES / file, "--submission", "-o", output, *flags)
    assert seen in failed(done, code)
    assert not output.exists()


def shell(*words, **options):
    return subprocess.run([*map(str, words)], capture_output=True, encoding="utf-8", check=False, **options)


def test_predicting_in_python_loads_no_paddlenlp(bundle):
    code = "import sys, dynabert_paddle as db\nprint(db.Predictor(sys.argv[1])('play')[0].label)\n"
    code += "print([name for name in ('paddlenlp', 'transformers', 'torch') if name in sys.modules])"
    done = shell(sys.executable, "-c", code, bundle("snips"))
    label, loaded = done.stdout.splitlines()
    assert label in SNIPS_LABELS
    assert loaded == "[]"
    assert done.stderr == ""


def test_a_long_file_takes_no_more_memory(bundle, tmp_path):
    """And the command loads no PaddleNLP."""
    peaks = []
    for count in (2_000, 60_000):
        path = tmp_path / f"{count}.txt"
        path.write_text("".join(f"row {i} of a file\n" for i in range(count)))
        words = (
            "predict",
            bundle("plain"),
            "-i",
            path,
            "--output_file",
            tmp_path / f"{count}.tsv",
            "--batch_size",
            "128",
        )
        done = shell(sys.executable, "-c", MEASURED, *words)
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / f"{count}.tsv").read_text().splitlines()) == 1 + count
        said = done.stderr.splitlines()[-1]
        assert said.startswith("loaded [] peak ")
        peaks.append(int(said.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks


# The script in the bundle.


def run_script(folder, *words, cwd):
    """Run `infer.py` from elsewhere, isolated, without what only this package needs."""
    return shell(sys.executable, "-I", "-c", WITHOUT_PACKAGE, folder / "infer.py", *words, cwd=cwd)


@pytest.fixture(scope="module")
def moved(bundle, tmp_path_factory):
    """A bundle that was copied to another machine, into a folder whose name has a blank."""
    return shutil.copytree(bundle("snips"), tmp_path_factory.mktemp("another machine") / "bundle")


def test_the_script_of_a_bundle_stands_alone(moved, predictor, texts, tmp_path):
    (tmp_path / "texts.txt").write_text("\ufeff" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
    expected = predictor("snips")(texts)
    done = run_script(moved, "-i", "texts.txt", "--json", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == "warning: 1 text is longer than 24 tokens: what is beyond was not read: split the texts\n"
    for line, prediction in zip(done.stdout.splitlines(), expected, strict=True):
        found = json.loads(line)
        assert found["label"] == prediction.label
        assert found["score"] == pytest.approx(prediction.score, abs=1e-6)
        assert found["scores"] == pytest.approx(prediction.scores, abs=1e-6)

    done = run_script(moved, texts[0], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{expected[0].label}\t{expected[0].score:.4f}\n")


def test_the_scripts_of_pairs_and_values(bundle, predictor, tmp_path):
    (tmp_path / "pairs.tsv").write_text("a\tb\nc d\t\n")
    done = run_script(bundle("pairs"), "-i", "pairs.tsv", cwd=tmp_path)
    expected = predictor("pairs")(["a", "c d"], ["b", ""])
    assert done.stdout.splitlines() == [f"{row.label}\t{row.score:.4f}" for row in expected]
    done = run_script(bundle("values"), "play some jazz", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {
        "label": None,
        "score": pytest.approx(predictor("values")("play some jazz")[0].score, abs=1e-6),
        "scores": {},
    }


def test_labels_of_any_language_on_a_terminal_of_none(bundle, predictor, tmp_path):
    (tmp_path / "pairs.tsv").write_text("sentence\tanswer\na\tb\n")
    label = predictor("pairs")("a", "b")[0].label
    package = ("-m", "dynabert_paddle", "predict", bundle("pairs"), "-i", tmp_path / "pairs.tsv")
    for words in ((bundle("pairs") / "infer.py", "a", "b"), (*package, "--text_pair_column", "answer")):
        done = shell(sys.executable, *words, env={**os.environ, "PYTHONIOENCODING": "ascii"})
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].split("\t")[0] == label


def test_the_script_runs_an_onnx_bundle_without_paddle(bundle, predictor, tmp_path):
    alone = WITHOUT_PACKAGE.replace('"dynabert_paddle", ', '"dynabert_paddle", "paddle", "onnx", "paddle2onnx", ')
    done = shell(sys.executable, "-I", "-c", alone, bundle("snips", "onnx") / "infer.py", "play", cwd=tmp_path)
    expected = predictor("snips", "onnx")("play")[0]
    assert (done.returncode, done.stdout) == (0, f"{expected.label}\t{expected.score:.4f}\n"), done.stderr


@pytest.mark.parametrize(
    ("format", "module", "package"), [("paddle", "paddle", "paddlepaddle"), ("onnx", "onnxruntime", "onnxruntime")]
)
def test_a_runtime_that_is_not_installed_is_named(bundle, tmp_path, format, module, package):
    alone = WITHOUT_PACKAGE.replace('"dynabert_paddle", ', f'"dynabert_paddle", "{module}", ')
    done = shell(sys.executable, "-I", "-c", alone, bundle("snips", format) / "infer.py", "play", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"format {format} needs {module}: run 'pip install {package}'\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "seen"),
    [
        ((), 2, "give a text, or a file with -i"),
        (("text", "-i", "file"), 2, "give a text, or a file with -i"),
        (("-i", "missing.txt"), 1, "error: missing.txt: No such file or directory"),
        (("-i", "."), 1, "error: .: Is a directory"),
        (("-i", "latin.txt"), 1, "error: latin.txt:1: byte 4 of the line is not UTF-8"),
        (("one", "two"), 1, "error: row 1 is ['one', 'two']: this bundle takes tuples of one text"),
        (("text", "--device", "gpu"), 1, "error: device 'gpu': the installed Paddle is a CPU build: use cpu"),
        (("text", "--num_threads", "0"), 2, "argument --num_threads: a whole number of at least 1, not 0"),
    ],
)
def test_wrong_use_of_the_script(moved, tmp_path, words, code, seen):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    done = run_script(moved, *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert seen in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.count("\n") == 1


def test_a_closed_output_pipe_is_no_error(bundle, tmp_path):
    (tmp_path / "texts.txt").write_text("play\n" * 9000)
    command = f'"{sys.executable}" "{bundle("plain") / "infer.py"}" -i texts.txt | head -1'
    done = shell("bash", "-c", command, cwd=tmp_path)
    assert done.stdout.startswith("LABEL_")
    assert done.stderr == ""


# The benchmark.


def test_bench_measures_bundles_side_by_side(dynabert, bundle, tmp_path):
    output = tmp_path / "bench.json"
    words = ("--batch_size", "1 2", "--seq_length", "8", "--rounds", "1", "--num_threads", "1")
    words = (bundle("snips"), bundle("plain"), *words, "--vs", "onnxruntime", "--output_file", output, "--json")
    done = dynabert("bench", *words)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert json.loads(output.read_text()) == report
    assert set(report) == {"environment", "threads", "rounds", "rows"}
    assert (report["threads"], report["rounds"]) == (1, 1)
    names = [str(bundle("snips")), f"{bundle('snips')} (onnxruntime)"]
    names += [str(bundle("plain")), f"{bundle('plain')} (onnxruntime)"]
    assert [(row["name"], row["batch_size"], row["seq_length"]) for row in report["rows"]] == [
        (name, batch_size, 8) for batch_size in (1, 2) for name in names
    ]
    for row in report["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["sentences_per_second"] == pytest.approx(row["batch_size"] / row["p50_ms"] * 1000)
        assert row["peak_memory_mb"] > 10
        assert row["size_mb"] > 1
        assert row["speedup"] > 0
    assert [row["speedup"] for row in report["rows"] if row["name"] == names[0]] == [1, 1]
    weights = sum((bundle("snips") / name).stat().st_size for name in ("model.pdmodel", "model.pdiparams"))
    assert report["rows"][0]["size_mb"] == pytest.approx(weights / 1e6)
    for row, name in zip(report["rows"], ("snips", "snips", "plain", "plain"), strict=False):
        assert row["bundle_mb"] == pytest.approx(sum(path.stat().st_size for path in bundle(name).iterdir()) / 1e6)


def test_bench_shows_a_table(dynabert, bundle):
    done = dynabert("bench", bundle("plain"), "--batch_size", "1", "--seq_length", "8", "--rounds", "1")
    assert done.code == 0, done.err
    assert "p50 ms" in done.out
    assert "1x8" in done.out


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (("--vs", "torch"), "--vs must be 'onnxruntime', not 'torch'"),
        (("--batch_size", "0"), "--batch_size takes whole numbers from 1, such as '1 32', not '0'"),
        (("--batch_size", ""), "--batch_size takes whole numbers from 1"),
        (("--batch_size", "²"), "--batch_size takes whole numbers from 1"),
        (("--seq_length", "32 x"), "--seq_length takes whole numbers from 1"),
        (("--seq_length", "129"), "takes at most 128 tokens: pass smaller ones"),
        (("--rounds", "0"), "--rounds"),
        (("--num_threads", "0"), "--num_threads"),
        (("--output_file", "missing/bench.json"), "there is no folder missing"),
    ],
)
def test_bad_flags_of_bench(dynabert, bundle, tmp_path, monkeypatch, words, seen):
    monkeypatch.chdir(tmp_path)
    done = dynabert("bench", bundle("plain"), *words)
    assert done.out == ""
    assert seen in failed(done, 2)
    assert not list(tmp_path.iterdir())


def test_bench_without_a_bundle(dynabert, tmp_path):
    assert "BUNDLE" in failed(dynabert("bench"), 2)
    assert "no bundle.json in it" in failed(dynabert("bench", tmp_path), 1)


def test_the_function_that_exports_is_not_its_package():
    assert callable(db.export)
    assert callable(db.export)


def test_predicting_leaves_training_as_it_was(bundle):
    """To the last bit: Paddle's predictors set the number of threads for the whole process."""

    def gradients():
        model = make_bert()
        model.train()
        paddle.seed(3)
        batch = make_batch(batch_size=8, seq_length=16)
        batch.pop("labels")
        logits = model(**{name: paddle.to_tensor(value) for name, value in batch.items()})
        (logits * logits).sum().backward()
        return [parameter.grad.numpy() for parameter in model.parameters() if parameter.grad is not None]

    before = gradients()
    for num_threads in (1, None):
        db.Predictor(bundle("plain"), num_threads=num_threads)(["play some jazz"])
    assert all((a == b).all() for a, b in zip(before, gradients(), strict=True))


def test_loading_a_bundle_leaves_the_number_of_threads(bundle, tmp_path):
    """Also one that cannot be loaded: products on more threads sum in another order, to the last bit of a training."""
    libraries = Path(paddle.__file__).parent / "libs"
    names = {"libmklml_intel.so": "MKL_Get_Max_Threads", "libiomp5.so": "omp_get_max_threads"}
    counts = [getattr(ctypes.CDLL(str(libraries / name)), function) for name, function in names.items()]
    before = [count() for count in counts]
    other = 1 + (before[0] == 1)
    db.Predictor(bundle("plain"), num_threads=other)
    assert [count() for count in counts] == before
    damaged = shutil.copytree(bundle("plain"), tmp_path / "damaged")
    (damaged / "model.pdiparams").write_bytes(b"")
    seal(damaged)
    with pytest.raises(DynabertError, match="cannot load it"):
        db.Predictor(damaged, num_threads=other)
    assert [count() for count in counts] == before


@pytest.mark.parametrize("open_it", [db.Predictor, db.AdaptivePredictor, infer.Bundle])
@pytest.mark.parametrize("times", [1, 99])
def test_a_bundle_that_is_replaced_while_it_is_loaded_is_loaded_anew_or_refused(
    bundle, tmp_path, monkeypatch, open_it, times
):
    """Its labels were those of the old one, its weights those of the new."""
    folder, others, real = tmp_path / "bundle", ("snips", "values"), infer.open_subnet
    shutil.copytree(bundle("plain"), folder)
    left = iter(range(times))

    def replace_first(path, *args, **kwargs):
        if (turn := next(left, None)) is not None:
            folder.rename(tmp_path / f"before-{turn}")
            shutil.copytree(bundle(others[turn % 2]), folder)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(infer, "open_subnet", replace_first)
    if times == 1:
        assert open_it(folder).labels == SNIPS_LABELS
    else:
        monkeypatch.setattr("dynabert_paddle.files.unchanged._PAUSE_SECONDS", 0)
        with pytest.raises((DynabertError, BundleError), match="its files change while they are read|was replaced"):
            open_it(folder)


@pytest.mark.skipif("onnx" not in FORMATS, reason="Paddle cannot write it")
def test_a_bundle_of_onnx_answers_without_paddle(bundle):
    heavy = (
        "paddle",
        "paddlenlp",
        "paddleslim",
        "onnx",
        "paddle2onnx",
        "torch",
        "pydantic",
        "scipy",
        "pandas",
        "sklearn",
    )
    code = "import sys, dynabert_paddle as db; print(db.Predictor(sys.argv[1])(['play some jazz'])[0].label); "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", code, bundle("snips", "onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    label, loaded = done.stdout.splitlines()
    assert label in SNIPS_LABELS and loaded == "[]"
