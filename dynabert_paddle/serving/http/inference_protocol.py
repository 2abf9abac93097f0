"""KServe's Open Inference Protocol, version 2, with texts as BYTES in JSON.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from math import prod
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dynabert_paddle import __version__
from dynabert_paddle.serving.adaptive import TimedPredictions
from dynabert_paddle.serving.http.answers import check_top_k, top_classes
from dynabert_paddle.serving.http.app import PROBLEMS, Service, body_schema
from dynabert_paddle.serving.http.body import read_body
from dynabert_paddle.serving.http.middleware import record_of
from dynabert_paddle.serving.http.models import ServedModel, State
from dynabert_paddle.serving.http.problems import Problem
from dynabert_paddle.serving.http.requests import Options, Row, check_rows, parse
from dynabert_paddle.text.decode import LabelSet, Prediction


class Tensor(BaseModel):
    """An input: its texts, in the order of the rows."""

    model_config = ConfigDict(extra="allow", strict=True)  # tensors may have parameters, which mean nothing here

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class OutputName(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str


class InferRequest(BaseModel):
    """A request for inference."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "example": {
                "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["play some jazz"]}],
                "parameters": {"deadline_ms": 50},
            }
        },
    )

    id: str | None = None
    inputs: list[Tensor]
    outputs: list[OutputName] | None = None
    parameters: Options = Field(default_factory=Options)


# Kind of task -> its outputs and their types.
_OUTPUTS = {
    "classification": {"label": "BYTES", "score": "FP64"},
    "regression": {"score": "FP64"},
    "multi_label": {"labels": "BYTES", "scores": "BYTES"},
    "token_classification": {"words": "BYTES", "labels": "BYTES", "entities": "BYTES"},
    "embedding": {"vector": "FP32"},
    "question_answering": {"answer": "BYTES", "score": "FP64", "start": "INT64", "end": "INT64"},
}


def create_router(service: Service) -> APIRouter:
    """Make the routes of the protocol.

    Args:
        service: what the routes share.

    Returns:
        The router.
    """
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    models = service.models

    @router.get("", summary="The server")
    async def server() -> dict[str, Any]:
        """Describe the server."""
        return {"name": "dynabert_paddle", "version": __version__, "extensions": []}

    @router.get("/health/live", summary="Whether the process answers")
    async def live() -> dict[str, bool]:
        """Tell that the process answers."""
        return {"live": True}

    @router.get("/health/ready", summary="Whether all bundles are loaded and warm")
    async def ready(response: Response) -> dict[str, bool]:
        """Tell whether requests are answered: 200, else 503."""
        is_ready = models.state is State.READY
        response.status_code = 200 if is_ready else 503
        return {"ready": is_ready}

    @router.get("/models/{name}", summary="A bundle", responses=PROBLEMS)
    async def model(name: str) -> dict[str, Any]:
        """Describe a bundle's inputs and outputs."""
        found = models.find(name)
        return {
            "name": name,
            "versions": [found.version],
            "platform": "dynabert_paddle",
            "inputs": [{"name": one, "datatype": "BYTES", "shape": [-1]} for one in _input_names(found)],
            "outputs": [
                {"name": one, "datatype": datatype, "shape": [-1, *found.vector_shape]}
                for one, datatype in _OUTPUTS[found.kind].items()
            ],
        }

    @router.get("/models/{name}/ready", summary="Whether a bundle is loaded and warm", responses=PROBLEMS)
    async def model_ready(name: str) -> dict[str, Any]:
        """Tell that a bundle answers: 200, else 503 or 404."""
        return {"name": models.find(name).name, "ready": True}

    @router.post("/models/{name}/infer", summary="Predict", responses=PROBLEMS, openapi_extra=body_schema(InferRequest))
    async def infer(name: str, request: Request) -> Response:
        """Predict for the texts of the inputs."""
        if b"inference-header-content-length" in dict(request.scope["headers"]):
            raise Problem(415, "binary_data", "tensors in binary form are not read here: send them as JSON")
        body = parse(InferRequest, await read_body(request, max_bytes=service.limits.max_body_bytes))
        found = models.find(name)
        check_top_k(body.parameters.top_k, found.kind)
        outputs = _asked_outputs(body, found.kind)
        rows = _rows(body.inputs, _input_names(found))
        check_rows(rows, service.limits)
        predictions = await service.predict(request, found, rows, body.parameters)
        content = {
            "model_name": name,
            "model_version": found.version,
            "id": body.id or record_of(request.scope).request_id,
            "parameters": {
                "subnet": predictions.subnet,
                "latency_ms": round(predictions.latency_ms, 3),
                "on_time": predictions.on_time,
            },
            "outputs": _write_outputs(predictions, found.kind, outputs, body.parameters.top_k),
        }
        return Response(json.dumps(content, ensure_ascii=False).encode(), media_type="application/json")

    return router


def _input_names(model: ServedModel) -> tuple[str, ...]:
    if model.kind == "question_answering":
        return ("question", "context")
    return ("text", "text_pair") if model.takes_pairs else ("text",)


def _asked_outputs(body: InferRequest, kind: str) -> list[str]:
    known = list(_OUTPUTS[kind])
    asked = known if not body.outputs else [output.name for output in body.outputs]
    for name in asked:
        if name not in known:
            raise Problem(422, "unknown_output", f"no output '{name[:100]}' for {kind}, only {', '.join(known)}")
    return asked


def _rows(inputs: Sequence[Tensor], names: Sequence[str]) -> list[Row]:
    """Take the texts out of the inputs."""
    given = {tensor.name: tensor for tensor in inputs}
    if len(given) != len(inputs) or set(given) != set(names):
        found = ", ".join(f"'{tensor.name[:100]}'" for tensor in inputs) or "none"
        raise Problem(422, "wrong_kind", f"this bundle's inputs are {' and '.join(names)}, the request has {found}")
    columns = [_texts(given[name]) for name in names]
    if len(set(map(len, columns))) != 1:
        raise Problem(422, "invalid_value", f"{' and '.join(names)} have different numbers of texts")
    return list(zip(*columns, strict=True))


def _texts(tensor: Tensor) -> list[str]:
    """Return a tensor's texts; its shape is [n], or [n, 1] as some clients write it."""
    name = tensor.name[:100]
    if tensor.datatype != "BYTES":
        raise Problem(422, "invalid_value", f"input '{name}' is {tensor.datatype[:20]}: texts are BYTES")
    is_column = len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)
    is_nested = all(isinstance(part, list) and len(part) == 1 for part in tensor.data)
    data = list(chain(*tensor.data)) if is_nested else tensor.data
    if not is_column or prod(tensor.shape) != len(data):
        raise Problem(
            422,
            "invalid_value",
            f"input '{name}' has {len(data)} texts, and shape {str(tensor.shape)[:60]}: give [{len(data)}]",
        )
    if not all(isinstance(text, str) for text in data):
        raise Problem(422, "invalid_value", f"input '{name}' has an element that is not a text")
    return data


def _write_outputs(
    predictions: TimedPredictions, kind: str, names: Sequence[str], top_k: int | None
) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for prediction in predictions:
        values = asdict(prediction)
        if top_k is not None and isinstance(prediction, Prediction):
            top = top_classes(prediction, top_k)
            values |= {"label": [label for label, _ in top], "score": [score for _, score in top]}
        if isinstance(prediction, LabelSet):
            pairs = [(label, prediction.scores[label]) for label in prediction.labels]
            pairs = pairs if top_k is None else top_classes(prediction, top_k)
            values = {"labels": [label for label, _ in pairs], "scores": [score for _, score in pairs]}
        for name, column in columns.items():
            value = values[name]
            if kind in ("token_classification", "multi_label"):  # of another length in each row
                column.append(json.dumps(value, ensure_ascii=False))
            else:
                column.extend(value if isinstance(value, list) else [value])
    rows = len(predictions)
    is_matrix = kind == "embedding" or (top_k is not None and kind != "multi_label")
    return [
        {
            "name": name,
            "datatype": _OUTPUTS[kind][name],
            "shape": [rows, len(column) // rows] if is_matrix else [rows],
            "data": column,
        }
        for name, column in columns.items()
    ]
