"""A real `dynabert serve` in a process of its own, for tests."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import httpx


class Server:
    """A running server.

    Args:
        words: of the command line after `dynabert serve`; the port is a free one.
        waits: whether to wait until it answers.
    """

    def __init__(self, *words, waits=True):
        self._errors, self._log = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [sys.executable, "-m", "dynabert_paddle", "serve", "--port", 0, *words]
        began = time.monotonic()
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=self._log, stderr=self._errors, stdin=subprocess.DEVNULL
        )
        self.url = None
        if waits:
            self.wait_for(lambda: "serving " in self.errors or self.process.poll() is not None)
            assert self.process.poll() is None, self.errors
            self.seconds = time.monotonic() - began
            self.url = re.search(r"serving (http://\S+)", self.errors)[1]
            self.client = httpx.Client(base_url=self.url, timeout=60)

    @property
    def errors(self):
        """What it wrote on stderr so far."""
        return self._read(self._errors)

    @property
    def log(self):
        """The events of its log so far."""
        return [json.loads(line) for line in self._read(self._log).splitlines() if line.endswith("}")]

    @staticmethod
    def _read(file):
        with open(f"/proc/self/fd/{file.fileno()}", encoding="utf-8") as copy:  # the server's own position stays
            return copy.read()

    def wait_for(self, condition, seconds=120):
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.errors + self._read(self._log)[-2000:]
            time.sleep(0.02)

    def events(self, name):
        """The events of one name."""
        return [event for event in self.log if event["event"] == name]

    def predict(self, *texts, **fields):
        """Send texts to /predict; returns the JSON of its answer."""
        return self.client.post("/predict", json={"texts": list(texts), **fields}).json()

    def send(self, number):
        """Send a signal to the main process."""
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=60):
        """Send a signal, and wait for the end; returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.send(number)
        return self.process.wait(seconds)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()  # its workers end with it
            self.process.wait()


class Callers:
    """Threads that call a server without a pause; every call counts.

    Args:
        server: the server.
        threads: how many.
        body: of the requests.
    """

    def __init__(self, server, threads, body):
        self.answers, self.failures, self._ends = [], [], False
        self._threads = [threading.Thread(target=self._call, args=(server.url, body)) for _ in range(threads)]

    def _call(self, url, body):
        with httpx.Client(base_url=url, timeout=60) as client:
            while not self._ends:
                try:
                    self.answers.append(client.post("/predict", json=body))
                except httpx.HTTPError as error:
                    self.failures.append(error)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ends = True
        for thread in self._threads:
            thread.join()
