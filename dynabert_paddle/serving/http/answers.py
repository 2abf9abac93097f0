"""The JSON of `POST /predict`'s answers, and its schema for the OpenAPI page."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field

from dynabert_paddle.serving.adaptive import TimedPredictions
from dynabert_paddle.serving.http.problems import Problem
from dynabert_paddle.text.decode import AnyPrediction, LabelSet, Prediction


class ClassScore(BaseModel):
    """A class and its probability."""

    label: str
    score: float


class PredictionJson(BaseModel):
    """The prediction for one row; which fields it has depends on the task."""

    label: str | None = Field(default=None, description="Classification: the most probable class.")
    score: float | None = Field(
        default=None, description="Its probability; regression: the value; a question: the answer's."
    )
    top: list[ClassScore] | None = Field(default=None, description="The top_k most probable classes.")
    words: list[str] | None = Field(default=None, description="Labels of words: the text's words.")
    labels: list[str] | None = Field(
        default=None, description="Labels of words: one a word; several labels: those that reach their thresholds."
    )
    scores: list[float] | None = Field(default=None, description="Several labels: the probability of each of these.")
    entities: list[dict[str, Any]] | None = Field(
        default=None, description="Labels of words: label, text, start, end, score."
    )
    num_cut: int | None = Field(default=None, description="Labels of words: words at the end that were not read.")
    text: str | None = Field(default=None, description="Labels of words that are punctuation: the text with its marks.")
    answer: str | None = Field(default=None, description="A question: a span of the context; empty for none.")
    vector: list[float] | None = Field(default=None, description="Embeddings: the text's vector.")
    start: int | None = Field(default=None, description="A question: the index of the answer's first character.")
    end: int | None = Field(default=None, description="A question: the index after its last character.")


class PredictAnswer(BaseModel):
    """The answer to a request."""

    request_id: str
    model: str
    subnet: str = Field(description="The sub-network that answered.")
    latency_ms: float = Field(description="From the arrival of the request until the predictions were made.")
    on_time: bool = Field(description="Whether that is within the deadline.")
    predictions: list[PredictionJson]


class ProblemJson(BaseModel):
    """Every error."""

    error: str = Field(description="What is wrong, and what to do.")
    code: str
    request_id: str


def check_top_k(top_k: int | None, kind: str) -> None:
    """Refuse `top_k` for a task without classes.

    Args:
        top_k: of the request.
        kind: of the task.

    Raises:
        Problem: the task is not classification, with one label or several.
    """
    if top_k is not None and kind not in ("classification", "multi_label"):
        raise Problem(422, "wrong_kind", f"this bundle's task is {kind}, which has no classes: leave out top_k")


def check_role(role: str | None, kind: str) -> None:
    """Refuse `role` for a task that does not embed texts.

    Args:
        role: of the request.
        kind: of the task.

    Raises:
        Problem: the task is another one.
    """
    if role is not None and kind != "embedding":
        raise Problem(422, "wrong_kind", f"this bundle's task is {kind}, which embeds no texts: leave out role")


def top_classes(prediction: Prediction | LabelSet, count: int) -> list[tuple[str, float]]:
    """List the most probable classes, the first one first.

    Args:
        prediction: of classification, with one label or several.
        count: how many, or fewer where there are fewer.

    Returns:
        Classes and their probabilities.
    """
    return sorted(prediction.scores.items(), key=lambda item: -item[1])[:count]


def to_json(prediction: AnyPrediction, top_k: int | None) -> dict[str, Any]:
    """Write one prediction.

    Args:
        prediction: of any kind.
        top_k: also list this many classes.

    Returns:
        The fields of `PredictionJson` that its kind has.
    """
    content = asdict(prediction)
    if isinstance(prediction, Prediction):
        del content["scores"]
        if prediction.label is None:
            del content["label"]
    if isinstance(prediction, (Prediction, LabelSet)):
        if isinstance(prediction, LabelSet):
            content["scores"] = [prediction.scores[label] for label in prediction.labels]
        if top_k is not None:
            content["top"] = [{"label": label, "score": score} for label, score in top_classes(prediction, top_k)]
    return content


def answer_body(predictions: TimedPredictions, *, request_id: str, model: str, top_k: int | None) -> bytes:
    """Write the body of an answer.

    Args:
        predictions: with sub-network and latency.
        request_id: of the request.
        model: name of the bundle.
        top_k: also list this many classes.

    Returns:
        JSON.
    """
    content = {
        "request_id": request_id,
        "model": model,
        "subnet": predictions.subnet,
        "latency_ms": round(predictions.latency_ms, 3),
        "on_time": predictions.on_time,
        "predictions": [to_json(prediction, top_k) for prediction in predictions],
    }
    return json.dumps(content, ensure_ascii=False).encode()
