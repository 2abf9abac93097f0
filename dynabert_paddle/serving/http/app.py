"""The application: its routes, and how errors are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline  # the page of the API without scripts from another host
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from dynabert_paddle import __version__
from dynabert_paddle.serving.adaptive import TimedPredictions
from dynabert_paddle.serving.http.answers import PredictAnswer, ProblemJson, answer_body, check_role, check_top_k
from dynabert_paddle.serving.http.body import read_body
from dynabert_paddle.serving.http.log import JsonLog
from dynabert_paddle.serving.http.metrics import Metrics, render_metrics
from dynabert_paddle.serving.http.middleware import App, Surroundings, answer_problem, record_of
from dynabert_paddle.serving.http.models import Disconnected, Models, ServedModel, State
from dynabert_paddle.serving.http.problems import Problem, status_problem
from dynabert_paddle.serving.http.requests import Options, PredictRequest, Row, parse, rows_of
from dynabert_paddle.serving.http.settings import Limits

_CLIENT_GONE = 499  # nginx's status for it; nobody reads it but the log and the metrics
_DESCRIPTION = (
    "Predicts with the sub-networks of bundles: each request is answered by the best one that meets its deadline. "
    "The Open Inference Protocol (v2) is served, too. Errors have one form: error, code, request_id."
)
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemJson, "description": text}
    for status, text in (
        (400, "No JSON in UTF-8"),
        (401, "No valid API key"),
        (404, "No such bundle or sub-network"),
        (413, "Too large a body"),
        (422, "Fields that do not fit, or inputs of another kind than the bundle's task has"),
        (503, "Too many requests wait: see Retry-After"),
    )
}


@dataclass(frozen=True)
class Service:
    """What the routes share.

    Args:
        models: the bundles.
        limits: of requests.
        metrics: counts answers.
        log_texts: whether the log holds the texts.
    """

    models: Models
    limits: Limits
    metrics: Metrics
    log_texts: bool

    async def predict(
        self, request: Request, model: ServedModel, rows: Sequence[Row], options: Options
    ) -> TimedPredictions:
        """Answer a request whose body has been read.

        Args:
            request: the request.
            model: the bundle.
            rows: the texts.
            options: how to answer.

        Returns:
            The predictions.

        Raises:
            Problem: an option that the bundle does not have, or a full queue.
            Disconnected: the client has gone away.
        """
        check_top_k(options.top_k, model.kind)
        check_role(options.role, model.kind)
        record = record_of(request.scope)
        record.model, record.rows = model.name, len(rows)
        if self.log_texts:
            record.texts = rows
        try:
            predictions = await model.predict(
                rows,
                request.receive,
                arrived=record.arrived,
                deadline_ms=options.deadline_ms,
                subnet=options.subnet,
                role=options.role,
            )
        finally:
            self.metrics.set_waiting(model.name, model.queue.num_waiting)
        record.subnet, record.on_time = predictions.subnet, predictions.on_time
        self.metrics.observe_answer(
            model.name,
            predictions.subnet,
            texts=len(rows),
            latency_ms=predictions.latency_ms,
            on_time=predictions.on_time,
        )
        return predictions


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a body that a route reads itself.

    Args:
        model: of the body.

    Returns:
        The route's `openapi_extra`.
    """
    schema = model.model_json_schema()
    schema = _inline(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    """Put definitions in the place of references, which would count from the top of the whole document."""
    if isinstance(node, list):
        return [_inline(part, definitions) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _inline(definitions[node["$ref"].rpartition("/")[2]], definitions)
    return {key: _inline(value, definitions) for key, value in node.items()}


def create_app(service: Service) -> FastAPI:
    """Make the application with the routes of this package's own API.

    Args:
        service: what the routes share.

    Returns:
        The application.
    """
    app = FastAPIOffline(redoc_url=None, title="DynaBERT", version=__version__, description=_DESCRIPTION)
    models = service.models

    @app.post(
        "/predict",
        summary="Predict for texts",
        response_model=PredictAnswer,
        responses=PROBLEMS,
        openapi_extra=body_schema(PredictRequest),
    )
    async def predict(request: Request) -> Response:
        """Predict for the texts of the body."""
        body = parse(PredictRequest, await read_body(request, max_bytes=service.limits.max_body_bytes))
        model = models.find(body.model)
        rows = rows_of(body, model.kind, takes_pairs=model.takes_pairs, limits=service.limits)
        predictions = await service.predict(request, model, rows, body)
        request_id = record_of(request.scope).request_id
        content = answer_body(predictions, request_id=request_id, model=model.name, top_k=body.top_k)
        return Response(content, media_type="application/json")

    @app.get("/health", summary="Whether requests are answered, and the bundles")
    async def health(response: Response) -> dict[str, Any]:
        """Describe the state: 200 if requests are answered, else 503."""
        response.status_code = 200 if models.state is State.READY else 503
        described = {
            model.name: {
                "kind": model.kind,
                "labels": model.labels,
                "subnets": model.subnets,
                "version": model.version,
                "waiting": model.queue.num_waiting,
            }
            for model in models
        }
        return {"status": models.state.value, "models": described}

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Report the counters of all processes of the server."""
        content, kind = render_metrics()
        return Response(content, media_type=kind)

    _answer_errors(app)
    return app


def surround(app: FastAPI, models: Models, *, keys: Sequence[bytes], metrics: Metrics, log: JsonLog) -> App:
    """Put the middleware around the application.

    Args:
        app: the application.
        models: the bundles.
        keys: accepted API keys; none for no check.
        metrics: counts requests.
        log: gets a line for each request.

    Returns:
        The ASGI application for the server.
    """
    return Surroundings(app, models, keys=keys, metrics=metrics, log=log)


def _answer_errors(app: FastAPI) -> None:
    """Answer every error in one form."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> Response:
        return answer_problem(problem, record_of(request.scope))

    @app.exception_handler(HTTPException)
    async def on_status(request: Request, error: HTTPException) -> Response:
        allow = (error.headers or {}).get("Allow")
        return answer_problem(status_problem(error.status_code, allow), record_of(request.scope))

    @app.exception_handler(Disconnected)
    async def on_disconnected(request: Request, error: Disconnected) -> Response:
        return Response(status_code=_CLIENT_GONE)

    @app.exception_handler(Exception)
    async def on_failure(request: Request, error: Exception) -> Response:
        record = record_of(request.scope)
        message = f"the server failed: its log says more of request {record.request_id}"
        return answer_problem(Problem(500, "failure", message), record)
