"""Prometheus' metrics of a server; its processes share files, so that any of them can report for all."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# The variable that prometheus_client reads on import: the folder of the files.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# Upper bounds in seconds: half a millisecond to ten seconds.
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()  # not the default one, which a second server in a process would share
        self._requests = Counter(
            "dynabert_requests", "Requests, by path and status; 499 for a client that went away.", ["path", "status"],
            registry=registry,
        )  # fmt: skip
        self._latency = Histogram(
            "dynabert_latency_seconds", "From the arrival of a request until its predictions.", ["model"],
            buckets=_BUCKETS, registry=registry,
        )  # fmt: skip
        self._texts = Counter(
            "dynabert_texts", "Texts answered, by sub-network.", ["model", "subnet"], registry=registry
        )
        self._late = Counter("dynabert_late_answers", "Answers after their deadline.", ["model"], registry=registry)
        self._refused = Counter(
            "dynabert_refused_requests", "Requests refused with 503, by reason.", ["reason"], registry=registry
        )
        self._waiting = Gauge(
            "dynabert_waiting_requests", "Requests that wait for their batch.", ["model"], registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip

    def observe_request(self, path: str, status: int) -> None:
        """Count a request.

        Args:
            path: the route's template; few of them exist.
            status: of the answer.
        """
        self._requests.labels(path, str(status)).inc()

    def observe_answer(self, model: str, subnet: str, *, texts: int, latency_ms: float, on_time: bool) -> None:
        """Count an answer.

        Args:
            model: name of the bundle.
            subnet: the sub-network that answered.
            texts: rows of the request.
            latency_ms: of the answer.
            on_time: whether it is within the deadline.
        """
        self._latency.labels(model).observe(latency_ms / 1000)
        self._texts.labels(model, subnet).inc(texts)
        self._late.labels(model).inc(not on_time)

    def observe_refusal(self, reason: str) -> None:
        """Count a request that is answered with 503.

        Args:
            reason: the code of the problem.
        """
        self._refused.labels(reason).inc()

    def set_waiting(self, model: str, requests: int) -> None:
        """Set the length of a queue.

        Args:
            model: name of the bundle.
            requests: that wait.
        """
        self._waiting.labels(model).set(requests)


def render_metrics() -> tuple[bytes, str]:
    """Write the metrics of all processes of the server.

    Returns:
        The text and its content type.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST


def forget_process(pid: int, folder: str) -> None:
    """Drop the gauges of a process that has ended; its counters stay.

    Args:
        pid: of the process.
        folder: of the files.
    """
    mark_process_dead(pid, folder)
