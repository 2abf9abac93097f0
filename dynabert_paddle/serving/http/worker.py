"""A worker process: loads the bundles, serves them on the supervisor's socket, and drains on SIGTERM."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.environment import set_cpu_environment
from dynabert_paddle.runtime.memory import MEMORY_ADVICE, is_memory_error
from dynabert_paddle.serving.adaptive import shorten_pauses
from dynabert_paddle.serving.http.app import Service, create_app, surround
from dynabert_paddle.serving.http.inference_protocol import create_router
from dynabert_paddle.serving.http.log import JsonLog, ToJsonLog, describe_error
from dynabert_paddle.serving.http.metrics import Metrics
from dynabert_paddle.serving.http.middleware import App
from dynabert_paddle.serving.http.models import Models
from dynabert_paddle.serving.http.server import ServerThread
from dynabert_paddle.serving.http.settings import ServeSettings, read_keys

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # Ctrl-C and a closed terminal are the supervisor's


def run_worker() -> None:
    """Run a worker; its arguments: settings, the listening socket, a pipe for its state, whether to answer at once.

    The state is one line of JSON: the seconds until it was `ready` and the `versions` of its bundles, or an `error`. A
    worker that answers at once says 503 until its bundles are loaded; one that replaces another listens only then.
    """
    began = time.monotonic()
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # for all threads: the main one waits for them below
    settings = ServeSettings.from_json(sys.argv[1])
    listener, status = socket.socket(fileno=int(sys.argv[2])), os.fdopen(int(sys.argv[3]), "w", encoding="utf-8")
    answers_at_once = sys.argv[4] == "at_once"
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    log, models = JsonLog(), Models()
    _log_messages(log)

    def report(**state: object) -> None:
        status.write(json.dumps(state) + "\n")
        status.flush()

    try:
        thread = ServerThread(
            _make_app(settings, models, log),
            listener,
            models,
            request_seconds=settings.limits.request_seconds,
            drain_seconds=settings.drain_seconds,
            on_end=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )
        if answers_at_once:
            thread.start()
        _load(settings, models, log)
    except Exception as error:
        report(error=_explain(error, log))
        os._exit(1)  # the thread may be answering probes
    if not answers_at_once:
        thread.start()
    while not thread.listens and thread.is_alive():
        time.sleep(0.005)
    if not thread.listens:
        report(error="the server's thread has ended: see what it wrote on stderr")
        sys.exit(1)
    report(ready=round(time.monotonic() - began, 3), versions={model.name: model.version for model in models})
    signal.sigwait(_SIGNALS[:1])
    thread.stop()
    thread.join()


def _explain(error: Exception, log: JsonLog) -> str:
    """Return one line; the log has more of an error that nobody expected."""
    if is_memory_error(error):
        return MEMORY_ADVICE
    if isinstance(error, (BundleError, DynabertError)):
        return str(error)
    log.write("failure", level="error", **describe_error(error))
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _load(settings: ServeSettings, models: Models, log: JsonLog) -> None:
    set_cpu_environment()
    threads = settings.num_threads or max(1, (num_cores() - 1) // settings.workers)
    loaded = models.load(settings.bundles, settings.limits, device=settings.device, num_threads=threads)
    shorten_pauses()
    for model in loaded:
        for warning in model.warnings:
            log.write("message", level="warning", model=model.name, message=warning)


def _make_app(settings: ServeSettings, models: Models, log: JsonLog) -> App:
    metrics = Metrics()
    service = Service(models, settings.limits, metrics, settings.log_texts)
    app = create_app(service)
    app.include_router(create_router(service))
    keys = read_keys(Path(settings.api_key_file)) if settings.api_key_file else []
    return surround(app, models, keys=keys, metrics=metrics, log=log)


def _log_messages(log: JsonLog) -> None:
    """Write what libraries log as lines of the log, too."""
    for name in ("dynabert_paddle", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [ToJsonLog(log)], False
        logger.setLevel(logging.ERROR if name == "uvicorn.error" else logging.WARNING)


def _end_with_supervisor() -> None:
    """End when the supervisor has ended without a word: it holds the other end of stdin."""
    while os.read(0, 1):
        pass
    os._exit(1)
