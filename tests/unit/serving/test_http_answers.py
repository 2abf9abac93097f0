"""The answers of the server for several labels a text: those that reach their thresholds, or the most probable ones."""

import json

import pytest

from dynabert_paddle.serving.adaptive import TimedPredictions
from dynabert_paddle.serving.http.answers import PredictAnswer, answer_body, check_role, check_top_k
from dynabert_paddle.serving.http.inference_protocol import _write_outputs
from dynabert_paddle.serving.http.problems import Problem
from dynabert_paddle.text.decode import Embedding, LabelSet

SCORES = {"a": 0.4, "b": 0.8, "c": 0.1}
FOUND = TimedPredictions(
    [LabelSet(["b"], SCORES), LabelSet([], dict.fromkeys("abc", 0.2))],
    subnet="w1.00d1.00",
    latency_ms=1.0,
    on_time=True,
)


def test_labels_have_their_scores():
    body = json.loads(answer_body(FOUND, request_id="1", model="m", top_k=None))
    assert body["predictions"] == [{"labels": ["b"], "scores": [0.8]}, {"labels": [], "scores": []}]
    PredictAnswer.model_validate(body)


def test_the_most_probable_labels_are_listed_beside_them():
    check_top_k(2, "multi_label")
    body = json.loads(answer_body(FOUND, request_id="1", model="m", top_k=2))
    assert body["predictions"][0]["top"] == [{"label": "b", "score": 0.8}, {"label": "a", "score": 0.4}]
    PredictAnswer.model_validate(body)
    with pytest.raises(Problem):
        check_top_k(2, "regression")


@pytest.mark.parametrize(("top_k", "labels"), [(None, [["b"], []]), (2, [["b", "a"], ["a", "b"]])])
def test_the_protocols_outputs_are_lists_in_json(top_k, labels):
    outputs = {output["name"]: output for output in _write_outputs(FOUND, "multi_label", ["labels", "scores"], top_k)}
    assert [json.loads(cell) for cell in outputs["labels"]["data"]] == labels
    assert [len(json.loads(cell)) for cell in outputs["scores"]["data"]] == list(map(len, labels))
    assert {(output["datatype"], *output["shape"]) for output in outputs.values()} == {("BYTES", 2)}


def test_vectors_are_lists_of_numbers():
    found = TimedPredictions([Embedding([0.25, -1.0])], subnet="w1.00d1.00", latency_ms=1.0, on_time=True)
    body = json.loads(answer_body(found, request_id="1", model="m", top_k=None))
    assert body["predictions"] == [{"vector": [0.25, -1.0]}] and found.vectors.tolist() == [[0.25, -1.0]]
    PredictAnswer.model_validate(body)
    check_role("query", "embedding")
    with pytest.raises(Problem, match="embeds no texts"):
        check_role("query", "classification")
    with pytest.raises(Problem):
        check_top_k(2, "embedding")
