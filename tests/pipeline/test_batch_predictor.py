"""`db.BatchPredictor`: columns in, columns with predictions out, in every form of a batch and in other processes."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from bundles import SIZES, make_bundle, make_sizes

import dynabert_paddle as db
from dynabert_paddle.files.atomic import write_json

TEXTS = ["play some jazz", "will it rain tomorrow", "", "rate this book \ud800 five stars " * 8, "play some jazz"]
PAIRS = [("谁写的", "老舍"), ("why", "because it is"), ("", "")]


@pytest.fixture(scope="module")
def bundle(make_once):
    return make_sizes(make_once)


@pytest.fixture(scope="module")
def predict(bundle):
    return db.BatchPredictor(bundle)


@pytest.fixture(scope="module")
def expected(bundle):
    return db.Predictor(bundle, num_threads=1)(TEXTS)


def check(labels, scores, expected):
    assert list(labels) == [one.label for one in expected]
    assert list(scores) == pytest.approx([one.score for one in expected], abs=1e-6)


def test_a_dict_of_arrays(predict, expected):
    texts = np.array(TEXTS, dtype=object)
    for column in (texts, np.array(TEXTS)):  # str objects, and NumPy's own type of strings
        batch = {"id": np.arange(5), "sentence": column}
        found = predict(batch)
        assert list(found) == ["id", "sentence", "label", "score"] and list(batch) == ["id", "sentence"]
        assert found["sentence"] is column and found["score"].dtype == np.float64
        check(found["label"], found["score"], expected)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_an_arrow_table(predict, bundle, kind):
    texts = [text.replace("\ud800", "") for text in TEXTS]  # which UTF-8 lacks
    schema = pa.schema({"label": pa.int64(), "text": kind}, metadata={"a": "b"})
    table = pa.table([pa.chunked_array([[7, 8], [9, 10, 11]]), pa.array(texts, kind)], schema=schema)
    found = predict(table)
    assert found.schema.names == ["label", "text", "predicted_label", "score"] and found.schema.metadata == {b"a": b"b"}
    assert found.select(["label", "text"]) == table and found.schema.types[2:] == predict.schema.types
    check(found["predicted_label"].to_pylist(), found["score"].to_pylist(), db.Predictor(bundle)(texts))
    (batch,) = table.slice(2).to_batches()
    (found,) = predict.stream([batch])
    assert isinstance(found, pa.RecordBatch) and found.column(0) == batch.column(0)


def test_a_pandas_frame_keeps_its_index_and_its_missing_texts(bundle, predict, expected):
    frame = pd.DataFrame({"body": [*TEXTS, None], "score": 0.5}, index=list("abcxyz"))
    some = db.BatchPredictor(bundle, text_column="body", keep_columns=["score"], nulls="keep", batch_size=2)
    for column in (frame["body"], frame["body"].astype("category"), frame["body"].replace({None: np.nan})):
        found = some(frame.assign(body=column))
        assert list(found) == ["score", "label", "predicted_score"] and list(found.index) == list("abcxyz")
        check(found["label"][:5], found["predicted_score"][:5], expected)
        assert found["label"].isna().tolist() == found["predicted_score"].isna().tolist() == [False] * 5 + [True]
    with pytest.raises(db.DynabertError, match="1 rows of a batch have no text in 'sentence', the first is row 6 of 6"):
        predict(frame.rename(columns={"body": "sentence"}))


def test_an_empty_batch_has_the_columns_of_the_others(predict):
    table = pa.table({"text": pa.array([], pa.string()), "id": pa.array([], pa.int8())})
    assert predict(table).schema == predict(pa.table({"text": ["hi"], "id": pa.array([1], pa.int8())})).schema
    assert predict(table.to_pandas()).shape == (0, 4)
    empty = predict({"text": np.array([], dtype=object)})
    assert {name: len(values) for name, values in empty.items()} == {"text": 0, "label": 0, "score": 0}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pa.table({"txt": ["hi"]}), r"no column 'sentence'; the columns here are 'txt'\."),
        (pa.table({"text": [1]}), "column 'text' is int64, not texts: name the right column"),
        (pa.table({"text": [["a"]]}), "column 'text' is list<item: string>, not texts"),
        (pa.table([["a"], ["b"]], names=["text", "text"]), "2 columns are called 'text': rename them"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "2 columns are called 'text': rename them"),
        (pd.DataFrame({"text": [1.5]}), "column 'text' is float64, not texts"),
        ({"text": np.array([b"a"])}, r"column 'text' is \|S1, not texts"),
        ({"text": np.array(["a", b"b"], dtype=object)}, "column 'text' is b'b' in row 2 of the batch, not texts"),
        ({"text": np.array(["a"]), "id": np.arange(2)}, "columns of different lengths"),
        ({"text": "a"}, "column 'text' is 'a': give a NumPy array"),
        (["a"], "a batch is a dict of NumPy arrays, an Arrow table or a pandas DataFrame, not list"),
    ],
    ids=range(11),
)
def test_bad_batches(predict, batch, message):
    with pytest.raises(db.DynabertError, match=message):
        predict(batch)


def test_bad_settings(bundle, tmp_path):
    for options, message in (
        ({"nulls": "drop"}, "nulls is 'error' or 'keep', not 'drop'"),
        ({"batch_size": 0}, "batch_size is at least 1, not 0"),
        ({"text_pair_column": "b"}, "this bundle's task has single texts"),
    ):
        with pytest.raises(db.DynabertError, match=message):
            db.BatchPredictor(bundle, **options)
    with pytest.raises(db.DynabertError, match="no such folder"):
        db.BatchPredictor(tmp_path / "none")
    with pytest.raises(db.DynabertError, match="no column 'id'"):
        db.BatchPredictor(bundle, keep_columns=["id"])({"text": np.array(["a"])})
    with pytest.raises(db.DynabertError, match="w9"):
        db.BatchPredictor(bundle, subnet="w9")({"text": np.array(["a"])})


def test_a_bundle_that_is_replaced_meanwhile_is_refused(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    made = pickle.dumps(db.BatchPredictor(copy))
    description = db.Predictor(copy)._bundle.description
    write_json(copy / "bundle.json", {**description, "labels": description["labels"][::-1]})
    with pytest.raises(db.DynabertError, match="not the bundle that the predictor was made for"):
        pickle.loads(made)({"text": np.array(["a"])})


@pytest.mark.full
def test_other_processes_load_it_once_each(bundle, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    made = db.BatchPredictor(bundle.name, subnet=SIZES[1])
    want = made({"text": np.array(TEXTS, dtype=object)})
    code = """
import os, pickle, sys, numpy as np
texts = np.array(pickle.load(sys.stdin.buffer), dtype=object)
made = pickle.load(sys.stdin.buffer)
first = made({"text": texts})
loaded = made.load()
again = pickle.loads(pickle.dumps(made))
assert again.load() is loaded
if os.fork() == 0:  # such as Spark's workers
    assert made.load() is not loaded
    np.testing.assert_allclose(made({"text": texts})["score"], first["score"])
    os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
pickle.dump((first["label"], first["score"]), sys.stdout.buffer)
"""
    given = pickle.dumps(TEXTS) + pickle.dumps(made)
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr.decode()
    labels, scores = pickle.loads(done.stdout)
    assert list(labels) == list(want["label"]) and np.allclose(scores, want["score"], atol=1e-6)


@pytest.mark.full
def test_pairs(make_once):
    bundle = make_bundle(make_once, "pairs")
    batch = {"sentence": np.array([a for a, _ in PAIRS]), "answer": np.array([b for _, b in PAIRS])}
    found = db.BatchPredictor(bundle)(batch)
    check(found["label"], found["score"], db.Predictor(bundle)(*map(list, zip(*PAIRS, strict=True))))
    with pytest.raises(db.DynabertError, match="no column 'answer'"):
        db.BatchPredictor(bundle)({"sentence": batch["sentence"]})
