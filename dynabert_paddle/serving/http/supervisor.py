"""The main process of a server: holds the socket, and starts, replaces and ends the worker processes.

A reload starts new workers beside the old ones, and ends those when the new ones answer. A process that has ended keeps
nothing, whereas OpenVINO keeps a model until its process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.interpreter import python_command
from dynabert_paddle.serving.http.log import JsonLog
from dynabert_paddle.serving.http.metrics import FOLDER_VARIABLE, forget_process
from dynabert_paddle.serving.http.settings import ServeSettings

T = TypeVar("T")

_MAX_PAUSE = 30.0  # seconds before a worker is started again that keeps ending


class _Stopped(Exception):
    """A signal came that ends the server."""


@dataclass(eq=False)
class _Worker:
    process: Process
    status_end: int  # of the pipe that it writes its state to
    versions: dict[str, str] = field(default_factory=dict)  # of the bundles that it has loaded

    @property
    def pid(self) -> int:
        return self.process.pid


def serve(settings: ServeSettings, announce: Callable[[str, float], None]) -> int:
    """Serve until SIGTERM or Ctrl-C; SIGHUP loads the bundles anew.

    Args:
        settings: of the server.
        announce: called with the server's URL and the seconds that the start took, when requests are answered.

    Returns:
        The exit code: 0 after SIGTERM, 130 after Ctrl-C.

    Raises:
        DynabertError: the port is in use, or a bundle cannot be loaded.
    """
    with _bind(settings) as listener, TemporaryDirectory(prefix="dynabert-serve-") as folder:
        return asyncio.run(_Supervisor(settings, listener, Path(folder)).run(announce))


def _bind(settings: ServeSettings) -> socket.socket:
    where = f"{setting('host')} {settings.host}, {setting('port')} {settings.port}"
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DynabertError(f"{where}: no such address: {error}: name one of this machine") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise DynabertError(
            f"{where}: {error.strerror}: end the program that listens there, or name another {setting('port')}"
        ) from None
    return listener


class _Supervisor:
    def __init__(self, settings: ServeSettings, listener: socket.socket, folder: Path) -> None:
        self._settings, self._listener = settings, listener
        self._metrics, self._scratch = folder / "metrics", folder / "scratch"
        self._metrics.mkdir()
        self._scratch.mkdir()  # what a worker that is killed while it loads would leave behind
        self._log = JsonLog()
        self._workers: list[_Worker] = []
        self._ending: set[asyncio.Task[None]] = set()  # of workers that drain
        self._stop: int | None = None  # the signal
        self._reload = False
        self._signalled = asyncio.Event()

    async def run(self, announce: Callable[[str, float], None]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            began = loop.time()
            self._workers = await self._start_all(at_once=True)
            self._check_versions()
            announce(self._url(), loop.time() - began)
            await self._watch()
        except _Stopped:
            pass
        finally:
            await self._end_all()
        return 128 + signal.SIGINT if self._stop == signal.SIGINT else 0

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        elif self._stop is None:
            self._stop = number
        else:  # asked twice
            for worker in self._workers:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()
        self._signalled.set()

    def _url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    async def _watch(self) -> None:
        """Replace workers: all of them on SIGHUP, and each that has ended."""
        pause = 0.0
        while True:
            ended = [worker for worker in self._workers if worker.process.returncode is not None]
            if self._reload:
                self._reload = False
                await self._replace_all()
            elif ended:
                pause = await self._restart(ended, pause)
            else:
                await self._wait_for_change()
                pause = 0.0

    async def _wait_for_change(self) -> None:
        ends = [asyncio.ensure_future(worker.process.wait()) for worker in self._workers]
        try:
            await self._unless_stopped(asyncio.wait([*ends], return_when=asyncio.FIRST_COMPLETED), or_reload=True)
        finally:
            for end in ends:
                end.cancel()

    async def _replace_all(self) -> None:
        try:
            new = await self._start_all(at_once=False)
        except DynabertError as error:
            self._log.write("reload_refused", level="error", message=str(error))
            return
        old, self._workers = self._workers, new
        for worker in old:
            task = asyncio.ensure_future(self._end(worker))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        self._log.write("reloaded", workers=[worker.pid for worker in new])
        self._check_versions()

    async def _restart(self, ended: list[_Worker], pause: float) -> float:
        """Start as many workers as have ended; returns the pause before the next attempt."""
        for worker in ended:
            self._forget(worker)
            self._log.write("worker_ended", level="error", worker=worker.pid, exit_code=worker.process.returncode)
        await self._unless_stopped(asyncio.sleep(pause))
        remaining = [worker for worker in self._workers if worker not in ended]
        try:
            new = await self._start_all(at_once=False, count=len(ended))
            self._workers = [*remaining, *new]
            self._log.write("worker_started", workers=[worker.pid for worker in new])
            self._check_versions()
        except DynabertError as error:
            self._log.write("worker_failed", level="error", message=str(error))
        return min(_MAX_PAUSE, 2 * pause or 1.0)

    def _check_versions(self) -> None:
        """Load the bundles anew where one was replaced between two workers: else two versions would answer."""
        if any(worker.versions != self._workers[0].versions for worker in self._workers):
            self._log.write("bundles_differ", level="warning", message="a bundle was replaced: all workers load it")
            self._reload = True

    async def _start_all(self, *, at_once: bool, count: int | None = None) -> list[_Worker]:
        """Start workers, and wait until all are ready; if one fails, or a signal comes, all of them are ended."""
        new: list[_Worker] = []
        try:
            for _ in range(count or self._settings.workers):
                new.append(await self._spawn(at_once=at_once))
            await self._unless_stopped(asyncio.gather(*map(self._until_ready, new)))
        except BaseException:
            for worker in new:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()
                await worker.process.wait()
                self._forget(worker)
            raise
        return new

    async def _spawn(self, *, at_once: bool) -> _Worker:
        status_end, workers_end = os.pipe()
        listener = self._listener.fileno()
        words = (self._settings.to_json(), listener, workers_end, "at_once" if at_once else "when_ready")
        command = python_command("dynabert_paddle.serving.http.worker:run_worker", *words)
        environment = {**os.environ, FOLDER_VARIABLE: str(self._metrics), "TMPDIR": str(self._scratch)}
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, pass_fds=(listener, workers_end), env=environment
            )
        finally:
            os.close(workers_end)
        return _Worker(process, status_end)

    async def _until_ready(self, worker: _Worker) -> None:
        reader = asyncio.StreamReader()
        with os.fdopen(worker.status_end, "rb") as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), pipe
            )
            try:
                line = await reader.readline()
            finally:
                transport.close()
        state = json.loads(line) if line else {}
        if "ready" in state:
            worker.versions = state["versions"]
            self._log.write("ready", worker=worker.pid, seconds=state["ready"])
            return
        code = await worker.process.wait()
        raise DynabertError(state.get("error") or f"a worker has ended with exit code {code} before it was ready")

    async def _end(self, worker: _Worker) -> None:
        """Let a worker answer what it has been asked."""
        with contextlib.suppress(ProcessLookupError):
            worker.process.terminate()
        try:
            await asyncio.wait_for(worker.process.wait(), self._settings.drain_seconds)
        except asyncio.TimeoutError:
            self._log.write("worker_killed", level="warning", worker=worker.pid)
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            await worker.process.wait()
        self._forget(worker)

    async def _end_all(self) -> None:
        self._listener.close()  # else connections would wait that nobody accepts
        if self._workers:
            self._log.write("stopping")
            await asyncio.gather(*map(self._end, self._workers), *self._ending)
            self._log.write("stopped")

    def _forget(self, worker: _Worker) -> None:
        forget_process(worker.pid, str(self._metrics))

    async def _unless_stopped(self, work: Awaitable[T], *, or_reload: bool = False) -> T | None:
        """Wait for work, until a signal ends the server, or asks for a reload; then the work is cancelled."""
        task = asyncio.ensure_future(work)
        while True:
            signalled = asyncio.ensure_future(self._signalled.wait())
            try:
                await asyncio.wait((task, signalled), return_when=asyncio.FIRST_COMPLETED)
            finally:
                signalled.cancel()
            self._signalled.clear()
            stopped = self._stop is not None
            if task.done() and not stopped:
                return task.result()
            if stopped or (or_reload and self._reload):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, DynabertError):
                    await task
                if stopped:
                    raise _Stopped
                return None
