"""The event loop of a worker: uvicorn on a socket that other processes listen on, too."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dynabert_paddle.serving.http.middleware import App
from dynabert_paddle.serving.http.models import Models, State
from dynabert_paddle.serving.http.problems import problem_body

_KEEP_ALIVE_SECONDS = 75  # longer than clients keep connections, so that none is closed under a request
_IDLE_SECONDS = 2.0  # while draining: idle clients may still send a request, and learn that the connection ends
_BACKLOG = 2048


class Protocol(H11Protocol):
    """HTTP on one connection, which ends if a request takes too long to arrive, and answers broken HTTP in JSON.

    Args:
        words: as for uvicorn's own protocol.
        request_seconds: time from a request's first byte until its last one has arrived.
        settings: as for uvicorn's own protocol.
    """

    def __init__(self, *words: Any, request_seconds: float, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self._request_seconds = request_seconds
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin: the first request has to arrive."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._request_seconds, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self._timer is None:
            self._timer = self.loop.call_later(self._request_seconds, self._give_up)
        super().data_received(data)
        is_incomplete = self.conn.their_state is h11.SEND_BODY or (
            self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        )
        if not is_incomplete:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        body = problem_body("invalid_http", msg, "")
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        events: list[Any] = [h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(data=body)]
        with contextlib.suppress(h11.LocalProtocolError):  # an answer to an earlier request is on its way
            for event in (*events, h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self.transport.abort()


class _Server(uvicorn.Server):
    """Ends without cutting off clients that keep a connection; signals are the worker's."""

    def __init__(self, config: uvicorn.Config, models: Models) -> None:
        super().__init__(config)
        self._models = models

    def _make_protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state={})

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        waiting = [connection for listener in sockets or () for connection in _accept_all(listener)]
        for server in self.servers:
            server.close()  # no new connections; those that wait would be reset
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, connection)
        self._models.state = State.DRAINING  # each answer now ends its connection
        for _ in range(int(_IDLE_SECONDS / 0.05)):
            if not self.server_state.connections:
                break
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """Accept all connections that wait."""
    accepted = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            accepted.append(connection)
    return accepted


class ServerThread(threading.Thread):
    """Serves an application in a thread of its own, so that the main thread can load bundles and wait for signals.

    Args:
        app: the application.
        listener: a bound socket.
        models: whose state turns to draining.
        request_seconds: time for a request to arrive.
        drain_seconds: time for running requests at the end.
        on_end: called when the thread ends, whatever the reason.
    """

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        models: Models,
        *,
        request_seconds: float,
        drain_seconds: float,
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(name="dynabert-http")
        self._app, self._listener, self._models = app, listener, models
        self._request_seconds, self._drain_seconds = request_seconds, drain_seconds
        self._on_end = on_end
        self._server: _Server | None = None
        self._ends = False

    def run(self) -> None:
        """Serve until `stop`."""
        try:
            config = uvicorn.Config(
                self._app,
                http=partial(Protocol, request_seconds=self._request_seconds),  # type: ignore[arg-type]
                loop="asyncio",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, int(self._drain_seconds - _IDLE_SECONDS)),
            )
            self._server = _Server(config, self._models)
            self._server.should_exit = self._ends
            asyncio.run(self._server.serve(sockets=[self._listener]))
        finally:
            self._on_end()

    @property
    def listens(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None and self._server.started

    def stop(self) -> None:
        """Accept no more connections, answer what has been asked, and end the thread."""
        self._ends = True
        if self._server is not None:
            self._server.should_exit = True
