#!/usr/bin/env python
"""Soak test of `dynabert serve`: no request may be lost while clients are killed, bundles reloaded and nonsense sent.

Clients in threads send texts without a pause, each followed by a check of its answer against the sub-network's alone.
Beside them, client processes are killed in the middle of their requests, bad requests of many kinds and up to 50 slow
connections come, and SIGHUP reloads the bundle. At the end SIGTERM comes while the clients still send.

    python scripts/soak/serve.py out/adaptive --minutes 10
"""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import IO, Annotated

import typer

import dynabert_paddle as db
from dynabert_paddle.bundle.manifest import read_bundle
from dynabert_paddle.bundle.members import members_of
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.errors import DynabertError

sys.path.insert(0, str(Path(__file__).parents[1] / "lib"))
from http_load import REFUSED, Client, memory_mb

CLIENTS = 8
SLOW_CONNECTIONS = 50
TOLERANCE = 1e-4  # of probabilities: padding differs between batches
TEXTS = ["play some jazz", "rain tomorrow?", "", "book a table for two " * 12, "一 二 三", "a" * 3000]
KILLED_CLIENT = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
body = json.dumps({"texts": ["one of many texts " * 20] * 64})
while True:
    connection.request("POST", "/predict", body)
    connection.getresponse().read()
"""
BAD_BODIES = (
    b"",
    b"{",
    b"null",
    b"[1]",
    b'{"texts": []}',
    b'{"texts": [1, null]}',
    b'{"texts": ["\xff\xfe"]}',
    b'{"texts": ["\\ud83d"]}',
    b'{"texts": ["a"], "deadline_ms": NaN}',
    b'{"texts": ["a"], "deadline_ms": -1}',
    b'{"texts": ["a"], "deadline_ms": 1e999}',
    b'{"texts": ["a"], "top_k": ' + b"9" * 5000 + b"x}",
    b'{"texts": ["a"], "subnet": "w9"}',
    b'{"texts": ["a"], "model": "none"}',
    b'{"pairs": [["a"]]}',
    b"[" * 20_000,
    b'{"texts": ["' + b"a" * 2_000_000 + b'"]}',
    json.dumps({"texts": ["a"] * 1000}).encode(),
)


class Tally:
    """Counts of what became of the requests, and the first failures."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def add(self, name: str, failure: str | None = None) -> None:
        """Count an outcome; with a failure, remember it."""
        with self._lock:
            self.counts[name] += 1
            if failure and len(self.failures) < 20:
                self.failures.append(f"{name}: {failure}")


class Expected:
    """What each sub-network says of each text by itself."""

    def __init__(self, bundle: str) -> None:
        names = members_of(read_bundle(Path(bundle)))
        self._scores = {
            name: [one.scores for one in db.Predictor(bundle, subnet=name, num_threads=1)(TEXTS)] for name in names
        }

    def is_right(self, answer: dict, rows: list[int]) -> bool:
        """Whether the answer to some of the texts is what its sub-network says."""
        scores = self._scores[answer["subnet"]]
        return all(
            abs(scores[row][found["label"]] - found["score"]) < TOLERANCE
            and max(scores[row].values()) - found["score"] < TOLERANCE
            for row, found in zip(rows, answer["predictions"], strict=True)
        )


def main(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle of classification.")],
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, max=600, help="How long.")] = 10,
    reload_seconds: Annotated[
        float, typer.Option("--reload_seconds", min=0, help="Pause between reloads; 0 for none.")
    ] = 60,
    bad: Annotated[bool, typer.Option("--bad/--no_bad", help="Also kill clients, and send bad requests.")] = True,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes of the server.")] = 1,
    max_growth: Annotated[
        float | None, typer.Option("--max_growth", help="Growth of memory after the first minute that fails, in %.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the requests.")] = 0,
) -> None:
    """Run the server and its clients, and print the counts; exit code 1 if a request was lost or wrongly answered."""
    expected, tally, ends = Expected(bundle), Tally(), threading.Event()
    with tempfile.TemporaryFile("w+") as log:
        process, port = start(bundle, workers, log)
        disturbers = [(kill_clients, (port,)), (send_nonsense, (port, seed)), (hold_slowly, (port,))] if bad else []
        threads = [
            threading.Thread(target=call, args=(port, expected, tally, ends, random.Random(seed + i)))
            for i in range(CLIENTS)
        ]
        threads += [threading.Thread(target=work, args=(*words, tally, ends)) for work, words in disturbers]
        for thread in threads:
            thread.start()
        growth = watch(process, tally, minutes=minutes, reload_seconds=reload_seconds)
        process.send_signal(signal.SIGTERM)  # the clients end when nobody listens any more
        time.sleep(1)
        ends.set()
        for thread in threads:
            thread.join()
        code = process.wait(60)
        log.seek(0)
        events = Counter(json.loads(line)["event"] for line in log if line.startswith("{"))
    print(", ".join(f"{name} {count}" for name, count in sorted(tally.counts.items())))
    print(f"exit code {code}, reloads {events['reloaded']}, failures in the log {events['failure']}")
    print(f"memory after the first minute and at the end: {growth:+.1%}")
    print(*tally.failures, sep="\n")
    lost = tally.counts["lost"] + tally.counts["wrong"] + tally.counts["bad request accepted"]
    if lost or code or events["failure"] or events["worker_ended"] or (max_growth and 100 * growth > max_growth):
        raise DynabertError("the server has failed: see above")


def start(bundle: str, workers: int, log: IO[str]) -> tuple[subprocess.Popen, int]:
    """Start the server; returns its process and port."""
    words = ["serve", bundle, "--port", "0", "--workers", str(workers), "--request_seconds", "3"]
    command = [sys.executable, "-m", "dynabert_paddle", *words]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline() if process.stderr else ""
    found = re.match(r"serving http://[^:]+:(\d+) ", line)
    if found is None:
        raise DynabertError(f"the server has not started: {line.strip()}")
    return process, int(found[1])


def watch(process: subprocess.Popen, tally: Tally, *, minutes: float, reload_seconds: float) -> float:
    """Reload now and then until the time is over; returns the growth of memory since the first minute."""
    began, reloaded, first = time.monotonic(), time.monotonic(), None
    warm = min(60.0, 30 * minutes)
    while time.monotonic() - began < 60 * minutes:
        time.sleep(0.2)
        if process.poll() is not None:
            raise DynabertError(f"the server has ended with exit code {process.returncode}")
        if first is None and time.monotonic() - began > warm:
            first = memory_mb(process.pid)
        if reload_seconds and time.monotonic() - reloaded > reload_seconds:
            reloaded = time.monotonic()
            process.send_signal(signal.SIGHUP)
            tally.add("reloads asked for")
    return memory_mb(process.pid) / first - 1 if first else 0.0


def call(port: int, expected: Expected, tally: Tally, ends: threading.Event, rng: random.Random) -> None:
    """Send texts, and check the answers."""
    client = Client(port)
    while True:
        rows = [rng.randrange(len(TEXTS)) for _ in range(rng.choice((1, 1, 2, 8)))]
        body: dict = {"texts": [TEXTS[row] for row in rows]}
        if rng.random() < 0.7:
            body["deadline_ms"] = rng.choice((5, 50, 500))
        status, answer = client.post(json.dumps(body).encode())
        if status == 200:
            tally.add("answered" if expected.is_right(answer, rows) else "wrong", None)
        elif status == 503:
            tally.add("refused")
        elif status == REFUSED and ends.wait(2):  # the final SIGTERM has come
            return
        else:
            tally.add("lost", f"status {status} {answer}")


def kill_clients(port: int, tally: Tally, ends: threading.Event) -> None:
    """Start client processes, and kill them in the middle of a request."""
    while not ends.is_set():
        client = subprocess.Popen([sys.executable, "-c", KILLED_CLIENT, str(port)], stderr=subprocess.DEVNULL)
        ends.wait(0.5)
        client.kill()
        client.wait()
        tally.add("clients killed")


def send_nonsense(port: int, seed: int, tally: Tally, ends: threading.Event) -> None:
    """Send bad requests: each is answered with a 4xx, or its connection is closed."""
    rng, client = random.Random(seed), Client(port)
    while not ends.wait(0.02):
        if rng.random() < 0.2:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                    connection.sendall(rng.randbytes(rng.randrange(1, 200)))
                tally.add("connections cut")
            except OSError:
                tally.add("connections refused")
            continue
        status, answer = client.post(rng.choice(BAD_BODIES))
        if 400 <= status < 500 or status in (0, REFUSED):
            tally.add("bad requests refused")
        elif status != 503:
            tally.add("bad request accepted", f"status {status} {answer}")


def hold_slowly(port: int, tally: Tally, ends: threading.Event) -> None:
    """Keep connections open that send a request byte by byte."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    while not ends.is_set():
        held = []
        for _ in range(SLOW_CONNECTIONS):
            try:
                held.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            except OSError:
                break
        for byte in head + b" " * 60:
            if ends.wait(0.05):
                break
            for connection in list(held):
                try:
                    connection.sendall(bytes([byte]))
                except OSError:  # closed by the server
                    held.remove(connection)
                    tally.add("slow connections closed")
        for connection in held:
            connection.close()


if __name__ == "__main__":
    run_command(main)
