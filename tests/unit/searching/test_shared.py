"""Measurements that several processes share: each is made once, and none is lost with the process that makes it."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.searching.estimate import Estimate
from dynabert_paddle.searching.scoring import Score
from dynabert_paddle.searching.shared import SharedResults, SharedScorer, shown_address

SETTINGS = {"weights": "a", "seed": 1}
KEYS = [f"score {number}" for number in range(12)]
fork = multiprocessing.get_context("fork")


def address(kind, folder):
    return f"sqlite:///{folder / 'shared.db'}" if kind == "sqlite" else str(folder / "shared.journal")


def square(folder, indices, both):
    """The results of some keys; leaves a line for each in a file of this process; its first call meets the other's."""
    if not (folder / f"{os.getpid()}.txt").exists():
        both.wait(100)
    with open(folder / f"{os.getpid()}.txt", "a") as file:
        file.writelines(f"{index}\n" for index in indices)
    return [[index**2 / 3, False] for index in indices]


def search(shared, folder, answers, both):
    results = SharedResults(shared, SETTINGS)
    answers.put(results.compute(KEYS, lambda indices: square(folder, indices, both)))


def search_twice(shared, folder):
    """Search in two processes; returns what each has found, and the indices that each has computed."""
    SharedResults(shared, SETTINGS)  # makes the tables, which takes longest
    answers, both = fork.Queue(), fork.Barrier(2)
    processes = [fork.Process(target=search, args=(shared, folder, answers, both)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=100) for _ in processes]
    for process in processes:
        process.join()
    return found, [list(map(int, file.read_text().split())) for file in folder.glob("*.txt")]


@pytest.mark.parametrize("kind", ["journal", pytest.param("sqlite", marks=pytest.mark.full)])
def test_two_processes_make_each_measurement_once(tmp_path, kind):
    found, computed = search_twice(address(kind, tmp_path), tmp_path)
    assert found == [[[index**2 / 3, False] for index in range(12)]] * 2
    assert len(computed) == 2 and sorted(chain(*computed)) == list(range(12))
    # A later search measures nothing; one of other settings has nothing of it.
    assert SharedResults(address(kind, tmp_path), SETTINGS).compute(KEYS, None) == found[0]
    others = SharedResults(address(kind, tmp_path), {**SETTINGS, "seed": 2})
    assert others.compute(KEYS[:1], lambda indices: [7.5]) == [7.5]


def claim_and_hang(shared):
    results = SharedResults(shared, SETTINGS)
    results.compute(KEYS[:2], lambda indices: time.sleep(100))


def test_what_a_killed_process_has_begun_is_made_by_the_others(tmp_path):
    shared = address("journal", tmp_path)
    process = fork.Process(target=claim_and_hang, args=(shared,))
    process.start()
    results = SharedResults(shared, SETTINGS, silent_seconds=1)
    deadline = time.monotonic() + 100
    while len(results._read(dict.fromkeys(KEYS))[1]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert results.compute(KEYS[:3], lambda indices: [[index, True] for index in indices]) == [
        *([0, True], [1, True], [2, True])
    ]


def test_what_fails_is_free_again(tmp_path):
    results = SharedResults(address("journal", tmp_path), SETTINGS)
    with pytest.raises(ZeroDivisionError):
        results.compute(KEYS[:2], lambda indices: 1 // 0)
    assert results.compute(KEYS[:2], lambda indices: [1.5 for _ in indices]) == [1.5, 1.5]


class Counting:
    """Stands for the measurements of this process, and counts them."""

    def __init__(self):
        self.calls = []

    def score(self, subnets, to_beat):
        self.calls += subnets
        return [Score(0.1 * len(subnet), beat > 0) for subnet, beat in zip(subnets, to_beat, strict=True)]

    def measure(self, subnets, sample):
        self.calls += subnets
        return [{"divergence": Estimate(1 / 3, np.arange(3) / 7), "f1": Estimate(0.5, np.ones(2))} for _ in subnets]


def test_scores_and_estimates_come_back_to_the_bit(tmp_path):
    scorers = [
        SharedScorer(Counting(), SharedResults(address("journal", tmp_path), SETTINGS), lambda subnet: subnet)
        for _ in range(2)
    ]
    first, second = [
        (scorer.score(["a", "bb"], [float("-inf"), 0.5]), scorer.measure(["a", "bb"], 0)) for scorer in scorers
    ]
    assert first[0] == second[0] == [Score(0.1, False), Score(0.2, True)]
    for found, again in zip(first[1], second[1], strict=True):
        assert found.keys() == again.keys() == {"divergence", "f1"}
        assert all(found[name].value == again[name].value for name in found)
        assert all(np.array_equal(found[name].parts, again[name].parts) for name in found)
    assert [scorer.scorer.calls for scorer in scorers] == [["a", "bb", "a", "bb"], []]
    scorers[1].score(["a"], [0.25])  # another score to beat: it may be stopped where it was not
    assert scorers[1].scorer.calls == ["a"]


@pytest.mark.parametrize(
    ("shared", "error", "message"),
    [
        ("", UsageError, "give the URL of a database"),
        (".", UsageError, "give the URL of a database"),
        ("nosuch://host/name", DynabertError, "nosuch"),
        ("none/shared.journal", DynabertError, "none/shared.journal: cannot be used"),
        ("sqlite:////none/shared.db", DynabertError, "sqlite:////none/shared.db: cannot be used"),
    ],
)
def test_an_address_that_is_none(shared, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        SharedResults(shared, SETTINGS)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_password_is_shown():
    assert shown_address("postgresql://me:secret@host/name") == "postgresql://me:***@host/name"


@pytest.mark.full
def test_postgresql(tmp_path):
    pytest.importorskip("psycopg2")
    user = {"user": "postgres"} if os.getuid() == 0 else {}  # the server refuses to run as root
    if not shutil.which("initdb") or (user and "postgres:" not in Path("/etc/passwd").read_text()):
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o777)
        data, options = f"{scratch}/data", f"-k {scratch} -c listen_addresses=''"

        def run(*words):
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, **user)

        run("initdb", "-D", data, "-A", "trust", "-U", "me")
        run("pg_ctl", "-D", data, "-w", "-o", options, "start")
        try:
            found, computed = search_twice(f"postgresql://me@/postgres?host={scratch}", tmp_path)
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    assert found == [[[index**2 / 3, False] for index in range(12)]] * 2
    assert len(computed) == 2 and sorted(chain(*computed)) == list(range(12))
