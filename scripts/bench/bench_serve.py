#!/usr/bin/env python
"""Load on `dynabert serve` through HTTP: does it answer in time, and how much more than a plain server?

Requests of 8 texts arrive as a Poisson process on this machine, at multiples of the capacity of the best sub-network,
which is measured through HTTP, too. The same load meets the best sub-network alone. Then a plain FastAPI server with
the best sub-network is loaded until its p99 is the deadline, and the others at rising rates until they reach it.

    python scripts/bench/bench_serve.py out/adaptive                       # of snips, whose dev set is built in
    python scripts/bench/bench_serve.py bundle --data dev.tsv --seconds 20
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

import dynabert_paddle as db

sys.path.insert(0, str(Path(__file__).parents[1] / "lib"))
from http_load import Reply, cpu_seconds, memory_mb, poisson_arrivals, run_closed, run_open

from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.members import members_of
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.data.readers import Columns, read_rows
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.machine import processor_name

TEXTS = 8  # a request
LOADS = (0.5, 1.0, 2.0, 3.0)
DEADLINE_FACTOR = 5  # default deadline, in latencies of a request to the best sub-network
RATE_STEP = 1.15  # between two rates of the comparison with the plain server
MAX_REFUSED = 0.001  # share of the requests at the highest rate that counts
SNIPS_DEV = Path(db.__file__).parent / "data" / "snips" / "dev.tsv"


class Data(NamedTuple):
    """The texts that are sent, and their labels."""

    texts: list[str]
    labels: list[str | None]

    def body(self, number: int, **options: Any) -> bytes:
        """The body of a request, from its number."""
        rows = [(TEXTS * number + i) % len(self.texts) for i in range(TEXTS)]
        return json.dumps({"texts": [self.texts[row] for row in rows], **options}).encode()

    def num_right(self, reply: Reply) -> int:
        """How many texts of a reply have the right label."""
        rows = [(TEXTS * reply.request + i) % len(self.texts) for i in range(TEXTS)]
        found = [one["label"] for one in reply.content["predictions"]]
        return sum(self.labels[row] == label for row, label in zip(rows, found, strict=True))


class Running(NamedTuple):
    """A server in a process of its own."""

    port: int
    pid: int


def main(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle with several sub-networks.")],
    data: Annotated[Path, typer.Option("--data", help="TSV file with texts and labels.")] = SNIPS_DEV,
    text_column: Annotated[str, typer.Option("--text_column", help="Column of the texts.")] = "sentence",
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Duration of each load.")] = 60,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            "--deadline_ms", min=0.1, help="Deadline of each request.", show_default="5 latencies of the best"
        ),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain/--no_plain", help="Also compare with a plain FastAPI server.")] = True,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the arrivals.")] = 0,
    output_file: Annotated[Path | None, typer.Option("--output_file", help="JSON file for the figures.")] = None,
) -> None:
    """Measure the capacity, run the loads, and print a table."""
    rows = list(read_rows(data, Columns(text_column, None, "label")))
    sent = Data([row.texts[0] for row in rows], [row.label for row in rows])
    subnets = list(members_of(read_bundle(Path(bundle))))
    figures: dict[str, Any] = {"processor": processor_name(), "cores": num_cores(), "texts": TEXTS}
    with serving(bundle) as server:
        capacity, latency_ms = measure_capacity(server, sent, subnets[0], seconds=min(10, seconds))
        deadline_ms = deadline_ms or DEADLINE_FACTOR * latency_ms
        figures |= {"capacity": capacity, "latency_ms": latency_ms, "deadline_ms": deadline_ms}
        print(
            f"capacity of {subnets[0]}: {capacity:.1f} requests/s of {TEXTS} texts, p50 {latency_ms:.1f} ms alone; "
            f"deadline {deadline_ms:.0f} ms; {figures['processor']}, {figures['cores']} cores"
        )
        figures["loads"] = [
            load(server, sent, capacity, factor, seconds, deadline_ms=deadline_ms, subnet=subnet, seed=seed)
            for subnet in (None, subnets[0])
            for factor in LOADS
        ]
    show(figures["loads"], subnets)
    if plain:
        figures["plain"] = compare(bundle, sent, subnets[0], seconds=min(10, seconds), seed=seed)
    if output_file:
        output_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure_capacity(server: Running, sent: Data, subnet: str, *, seconds: float) -> tuple[float, float]:
    """Return the requests per second of a sub-network when clients wait for it, and the latency of a single client."""
    body = lambda number: sent.body(number, subnet=subnet)  # noqa: E731
    run_closed(server.port, body, 1.0, threads=2)  # warm-up
    alone = run_closed(server.port, body, seconds / 2, threads=1)
    busy = run_closed(server.port, body, seconds, threads=8)
    return len(busy) / seconds, float(np.median([reply.latency_ms for reply in alone]))


def load(
    server: Running,
    sent: Data,
    capacity: float,
    factor: float,
    seconds: float,
    *,
    deadline_ms: float,
    subnet: str | None,
    seed: int,
) -> dict[str, Any]:
    """Run one load; returns its row of the table."""
    arrivals = poisson_arrivals(factor * capacity, seconds, seed=seed)
    options = {"deadline_ms": deadline_ms, **({"subnet": subnet} if subnet else {})}
    bodies = [sent.body(number, **options) for number in range(len(arrivals))]
    before, client_before, began = cpu_seconds(server.pid), time.process_time(), time.perf_counter()
    replies = run_open(server.port, bodies, arrivals)
    elapsed = time.perf_counter() - began
    answered = [reply for reply in replies if reply.status == 200]
    if not answered:
        raise DynabertError(f"no request was answered at {factor}x the capacity: is the machine busy otherwise?")
    latencies = np.array([reply.latency_ms for reply in answered])
    right = sum(map(sent.num_right, answered))
    return {
        "subnet": subnet or "chosen",
        "load": factor,
        "requests": len(replies),
        "answered": len(answered),
        "refused": sum(reply.status == 503 for reply in replies),
        "lost": sum(reply.status not in (200, 503) for reply in replies),
        "on_time": float((latencies <= deadline_ms).mean()),
        "p50_ms": float(np.quantile(latencies, 0.5)),
        "p95_ms": float(np.quantile(latencies, 0.95)),
        "p99_ms": float(np.quantile(latencies, 0.99)),
        "accuracy": right / (TEXTS * len(answered)),
        "shares": {
            name: count / len(answered) for name, count in Counter(one.content["subnet"] for one in answered).items()
        },
        "server_cores": (cpu_seconds(server.pid) - before) / elapsed,
        "client_cores": (time.process_time() - client_before) / elapsed,
        "memory_mb": memory_mb(server.pid),
    }


def show(rows: list[dict[str, Any]], subnets: list[str]) -> None:
    """Print the table of the loads."""
    columns = [
        "sub-network",
        "load",
        "requests",
        "in time",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "accuracy",
        "refused",
        "lost",
    ]
    lines = [
        [
            row["subnet"],
            f"{row['load']}x",
            str(row["requests"]),
            f"{row['on_time']:.2%}",
            *(f"{row[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
            f"{row['accuracy']:.4f}",
            f"{row['refused'] / row['requests']:.1%}",
            str(row["lost"]),
            f"{row['server_cores']:.2f}",
            f"{row['client_cores']:.2f}",
            f"{row['memory_mb']:.0f}",
            *(f"{row['shares'].get(name, 0):.0%}" for name in subnets),
        ]
        for row in rows
    ]
    show_table([*columns, "server cores", "client cores", "MB", *subnets], lines, title="")


def compare(bundle: str, sent: Data, best: str, *, seconds: float, seed: int) -> dict[str, Any]:
    """Find the highest rates with the plain server's p99; prints and returns them."""
    with plain_serving(bundle) as server:
        run_closed(server.port, sent.body, 1.0, threads=2)
        capacity = len(run_closed(server.port, sent.body, seconds, threads=8)) / seconds
        rate = 0.8 * capacity
        arrivals = poisson_arrivals(rate, seconds, seed=seed)
        replies = run_open(server.port, [sent.body(number) for number in range(len(arrivals))], arrivals)
        p99_ms = float(np.quantile([reply.latency_ms for reply in replies], 0.99))
    print(f"plain FastAPI: {rate:.1f} requests/s with p99 {p99_ms:.1f} ms; capacity {capacity:.1f} requests/s")
    found = {"plain": rate, "plain_capacity": capacity, "p99_ms": p99_ms}
    with serving(bundle) as server:
        for name, options in (("chosen", {}), (best, {"subnet": best})):
            run_closed(server.port, lambda number, options=options: sent.body(number, **options), 1.0, threads=2)
            found[name] = highest_rate(server, sent, rate, p99_ms, options, seconds=seconds, seed=seed)
            print(f"{name}: {found[name]:.1f} requests/s at that p99, {found[name] / rate:.2f}x, "
                  f"{found[name] / capacity:.2f}x of the plain server's capacity")  # fmt: skip
    return found


def highest_rate(
    server: Running, sent: Data, rate: float, p99_ms: float, options: dict[str, Any], *, seconds: float, seed: int
) -> float:
    """Raise the rate until the p99 is above the limit, or requests are refused; returns the last rate before."""
    reached = 0.0
    while True:
        arrivals = poisson_arrivals(rate, seconds, seed=seed)
        # A little less than the limit: the server sees a request after the client has begun to send it.
        bodies = [sent.body(number, deadline_ms=0.8 * p99_ms, **options) for number in range(len(arrivals))]
        replies = run_open(server.port, bodies, arrivals)
        answered = [reply.latency_ms for reply in replies if reply.status == 200]
        if len(answered) < (1 - MAX_REFUSED) * len(replies) or np.quantile(answered, 0.99) > p99_ms:
            return reached
        reached, rate = rate, rate * RATE_STEP


@contextmanager
def serving(bundle: str) -> Iterator[Running]:
    """Run `dynabert serve`."""
    command = [sys.executable, "-m", "dynabert_paddle", "serve", bundle, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline() if process.stderr else ""
        found = re.match(r"serving http://[^:]+:(\d+) after ([\d.]+) s", line)
        if found is None:
            raise DynabertError(f"the server has not started: {line.strip()}")
        print(f"dynabert serve: ready after {found[2]} s")
        yield Running(int(found[1]), process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def plain_serving(bundle: str) -> Iterator[Running]:
    """Run the plain server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = (bundle, listener.fileno(), max(1, num_cores() - 1))
        command = [sys.executable, str(Path(__file__).with_name("plain_server.py")), *map(str, words)]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=os.environ)
        try:
            yield Running(listener.getsockname()[1], process.pid)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    run_command(main)
