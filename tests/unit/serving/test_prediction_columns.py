"""Predictions of every kind as columns of Arrow: types, values, missing ones, names that are taken."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dynabert_paddle.bundle.manifest import KINDS
from dynabert_paddle.serving.column_batches import with_columns
from dynabert_paddle.serving.prediction_columns import prediction_arrays, prediction_schema, rename_taken
from dynabert_paddle.text.decode import Answer, Embedding, Entity, LabelSet, MarkedText, Prediction, WordLabels

ENTITY = Entity("PER", "Maria Smith", 0, 11, 0.5)
CASES = {
    "classification": (Prediction("a", 0.75, {"a": 0.75, "b": 0.25}), {"label": "a", "score": 0.75}),
    "regression": (Prediction(None, -2.5, {}), {"score": -2.5}),
    "multi_label": (
        LabelSet(["b", "a"], {"a": 0.5, "b": 0.75, "c": 0.25}),
        {"labels": ["b", "a"], "scores": [0.75, 0.5]},
    ),
    "token_classification": (
        WordLabels(["Maria", "Smith"], ["B-PER", "I-PER"], [ENTITY], 1),
        {
            "words": ["Maria", "Smith"],
            "labels": ["B-PER", "I-PER"],
            "entities": [{"label": "PER", "text": "Maria Smith", "start": 0, "end": 11, "score": 0.5}],
            "num_cut": 1,
        },
    ),
    "question_answering": (Answer("Paris", 0.5, 3, 8), {"answer": "Paris", "score": 0.5, "start": 3, "end": 8}),
    "embedding": (Embedding([0.5, -1.0]), {"vector": [0.5, -1.0]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_columns(kind):
    prediction, values = CASES[kind]
    schema = prediction_schema(kind, vector_size=2)
    table = pa.table(prediction_arrays([prediction, None], schema), schema=schema)
    assert table.to_pylist() == [values, dict.fromkeys(values)]
    assert pa.table(prediction_arrays([], schema), schema=schema).num_rows == 0


def test_vectors_become_a_matrix_of_numpy():
    schema = prediction_schema("embedding", vector_size=2)
    arrays = prediction_arrays([Embedding([0.5, -1.0]), Embedding([0.0, 2.0])], schema)
    found = with_columns({"n": np.arange(2)}, ["n"], schema.names, arrays)["vector"]
    assert found.dtype == np.float32 and found.tolist() == [[0.5, -1.0], [0.0, 2.0]]
    frame = with_columns(pd.DataFrame({"n": [1, 2]}, index=[7, 8]), ["n"], schema.names, arrays)
    assert [vector.tolist() for vector in frame["vector"]] == [[0.5, -1.0], [0.0, 2.0]] and list(frame.index) == [7, 8]
    missing = prediction_arrays([Embedding([0.5, -1.0]), None], schema)
    assert with_columns({}, [], schema.names, missing)["vector"].tolist() == [[0.5, -1.0], None]


def test_texts_with_marks():
    schema = prediction_schema("token_classification", has_marks=True)
    marked = MarkedText(["hi"], ["!"], [], text="hi!")
    assert pa.table(prediction_arrays([marked], schema), schema=schema).column("text").to_pylist() == ["hi!"]


def test_a_taken_name_gets_a_prefix_until_it_is_free():
    assert rename_taken(["label", "score"], ["label", "predicted_label"]) == ["predicted_predicted_label", "score"]
