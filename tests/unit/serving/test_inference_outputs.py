"""The outputs of the Open Inference Protocol, for every kind of task that a bundle can have."""

import dataclasses
import json

import pytest

from dynabert_paddle.bundle.manifest import KINDS
from dynabert_paddle.serving.http import inference_protocol as protocol
from dynabert_paddle.text.decode import Answer, Embedding, LabelSet, Prediction, WordLabels

CLASSES = {
    "classification": Prediction,
    "regression": Prediction,
    "multi_label": LabelSet,
    "token_classification": WordLabels,
    "question_answering": Answer,
    "embedding": Embedding,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_is_a_field_of_the_kinds_predictions(kind):
    fields = {field.name for field in dataclasses.fields(CLASSES[kind])}
    assert protocol._OUTPUTS[kind] and set(protocol._OUTPUTS[kind]) <= fields


def test_sets_of_labels_are_json_a_row():
    rows = [LabelSet(["a", "b"], {"a": 0.9, "b": 0.8}), LabelSet([], {"a": 0.1, "b": 0.2})]
    labels, scores = protocol._write_outputs(rows, "multi_label", ["labels", "scores"], None)
    assert (labels["shape"], [json.loads(one) for one in labels["data"]]) == ([2], [["a", "b"], []])
    assert [json.loads(one) for one in scores["data"]] == [[0.9, 0.8], []]


def test_vectors_are_the_rows_of_a_matrix():
    rows = [Embedding([0.25, -1.0, 2.0]), Embedding([1.0, 0.0, 0.5])]
    (vectors,) = protocol._write_outputs(rows, "embedding", ["vector"], None)
    assert vectors["shape"] == [2, 3] and vectors["datatype"] == "FP32"
    assert vectors["data"] == [0.25, -1.0, 2.0, 1.0, 0.0, 0.5]
