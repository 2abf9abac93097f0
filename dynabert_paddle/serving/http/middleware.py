"""What surrounds every request: its id, the API key, the log line, the counters, and errors that nobody expected."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.responses import Response

from dynabert_paddle.serving.http.log import JsonLog, describe_error
from dynabert_paddle.serving.http.metrics import Metrics
from dynabert_paddle.serving.http.models import Models, State
from dynabert_paddle.serving.http.problems import Problem, problem_body

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Without a key: probes have none, and the page asks for it.
_OPEN = re.compile(r"/health|/v2/health/(live|ready)|/docs(/.*)?|/openapi\.json|/static-offline-docs/.*")
_REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_RECORD = "dynabert.record"
_LOGGED_CHARACTERS = 200  # of a path


@dataclass
class Record:
    """What the log says of a request; its handler fills it in.

    Args:
        request_id: the client's, or a new one.
        arrived: time at which the request came.
        status: of the answer.
        code: of the problem.
        model: name of the bundle.
        subnet: the sub-network that answered.
        rows: number of texts.
        on_time: whether the answer was in time.
        texts: the texts, where they are logged.
    """

    request_id: str
    arrived: float
    status: int = 0
    code: str | None = None
    model: str | None = None
    subnet: str | None = None
    rows: int | None = None
    on_time: bool | None = None
    texts: Sequence[Any] | None = None


def record_of(scope: Scope) -> Record:
    """Return the record of a request."""
    return scope[_RECORD]


class Surroundings:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        models: whose state ends connections while the worker drains.
        keys: accepted API keys; none for no check.
        metrics: counts requests.
        log: gets a line for each request.
    """

    def __init__(self, app: App, models: Models, *, keys: Sequence[bytes], metrics: Metrics, log: JsonLog) -> None:
        self._app, self._models, self._metrics, self._log = app, models, metrics, log
        self._keys = [hashlib.sha256(key).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; anything but HTTP goes to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, method = dict(scope["headers"]), scope["method"]
        if method == "HEAD":  # as GET; the server leaves the body out
            scope = {**scope, "method": "GET"}
        record = Record(_request_id(headers.get(b"x-request-id", b"")), perf_counter())
        scope[_RECORD] = record

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                added = [(b"x-request-id", record.request_id.encode())]
                if self._models.state is State.DRAINING:  # the client's next request goes to another worker
                    added.append((b"connection", b"close"))
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            self._check_key(scope["path"], headers)
            await self._app(scope, receive, send_with_id)
        except Problem as problem:
            await answer_problem(problem, record)(scope, receive, send_with_id)
        except Exception as error:  # the application has answered it already, as far as it can be answered
            self._log.write("failure", level="error", request_id=record.request_id, **describe_error(error))
        finally:
            self._finish(scope, method, record)

    def _check_key(self, path: str, headers: dict[bytes, bytes]) -> None:
        if not self._keys or _OPEN.fullmatch(path):
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = hashlib.sha256(key.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")).digest()
        matches = [hmac.compare_digest(given, expected) for expected in self._keys]  # all of them: in constant time
        if not any(matches):
            message = "no valid API key: send it as 'Authorization: Bearer KEY'"
            raise Problem(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})

    def _finish(self, scope: Scope, method: str, record: Record) -> None:
        # The template of the path: there are few templates, while a client can send any number of paths.
        self._metrics.observe_request(getattr(scope.get("route"), "path", "other"), record.status)
        if record.status == 503 and record.code:
            self._metrics.observe_refusal(record.code)
        self._log.write(
            "request",
            request_id=record.request_id,
            method=method,
            path=scope["path"][:_LOGGED_CHARACTERS],
            status=record.status,
            code=record.code,
            model=record.model,
            subnet=record.subnet,
            rows=record.rows,
            on_time=record.on_time,
            latency_ms=round(1000 * (perf_counter() - record.arrived), 3),
            texts=record.texts,
        )


def answer_problem(problem: Problem, record: Record) -> Response:
    """Answer with a problem.

    Args:
        problem: the problem.
        record: of the request.

    Returns:
        The answer.
    """
    record.code = problem.code
    body = problem_body(problem.code, problem.message, record.request_id)
    return Response(body, problem.status, headers=problem.headers, media_type="application/json")


def _request_id(given: bytes) -> str:
    text = given.decode("ascii", "replace")
    return text if _REQUEST_ID.fullmatch(text) else uuid.uuid4().hex
