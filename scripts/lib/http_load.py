"""HTTP clients that load a server: requests arrive on their own, whether or not earlier ones are answered."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

CLIENT_THREADS = 64
REFUSED = -1  # nobody listens


class Reply(NamedTuple):
    """What became of a request.

    Args:
        request: its number.
        status: of HTTP; 0 if the connection failed, `REFUSED` if there was none.
        latency_ms: from the time at which it should have been sent until its answer was read.
        content: the JSON of the answer.
    """

    request: int
    status: int
    latency_ms: float
    content: dict


class Client(threading.local):
    """A connection for each thread, opened again after a failure.

    Args:
        port: of the server on this machine.
    """

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, body: bytes) -> tuple[int, dict]:
        """Send a body to /predict; returns the status, see `Reply`, and the JSON of the answer."""
        try:
            if self.connection.sock is None:
                self.connection.connect()
        except ConnectionRefusedError:
            return REFUSED, {}
        except OSError:
            return 0, {}
        try:
            self.connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            answer = self.connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self.connection.close()
            return 0, {}


def run_open(port: int, bodies: Sequence[bytes], arrivals: np.ndarray, *, threads: int = CLIENT_THREADS) -> list[Reply]:
    """Send requests at given times.

    Args:
        port: of the server on this machine.
        bodies: of the requests.
        arrivals: seconds from the start at which each is sent.
        threads: how many requests can be on their way at once; later ones wait for a free one, which their latency has.

    Returns:
        One reply a request.
    """
    client = Client(port)
    start = time.perf_counter() + 0.05

    def send(number: int) -> Reply:
        status, content = client.post(bodies[number])
        return Reply(number, status, 1000 * (time.perf_counter() - start - arrivals[number]), content)

    with ThreadPoolExecutor(threads) as pool:
        futures = []
        for number, at in enumerate(arrivals.tolist()):
            if (wait := start + at - time.perf_counter()) > 0:
                time.sleep(wait)
            futures.append(pool.submit(send, number))
        return [future.result() for future in futures]


def run_closed(port: int, body_of: Callable[[int], bytes], seconds: float, *, threads: int) -> list[Reply]:
    """Send requests one after the other in each of several threads.

    Args:
        port: of the server on this machine.
        body_of: makes the body of a request from its number.
        seconds: how long.
        threads: how many.

    Returns:
        One reply a request.
    """
    client, end = Client(port), time.perf_counter() + seconds

    def call(first: int) -> list[Reply]:
        replies, number = [], first
        while (began := time.perf_counter()) < end:
            status, content = client.post(body_of(number))
            replies.append(Reply(number, status, 1000 * (time.perf_counter() - began), content))
            number += threads
        return replies

    with ThreadPoolExecutor(threads) as pool:
        return [reply for replies in pool.map(call, range(threads)) for reply in replies]


def poisson_arrivals(rate: float, seconds: float, *, seed: int) -> np.ndarray:
    """Return arrival times of a Poisson process, in seconds from its start."""
    count = max(1, int(rate * seconds))
    return np.random.default_rng(seed).exponential(1 / rate, count).cumsum()


def cpu_seconds(pid: int) -> float:
    """Seconds of computing that a process and those that it started have taken so far."""
    total = 0.0
    for process in (pid, *children_of(pid)):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def memory_mb(pid: int) -> float:
    """Memory in MB of a process and those that it started."""
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (pid, *children_of(pid))]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    text = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(word) for word in text.split()]
