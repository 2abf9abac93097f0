"""Work in a process of its own."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.interpreter import run_apart
from dynabert_paddle.searching.latency import MeasuringJob
from dynabert_paddle.searching.latency_setting import LatencySetting

pytestmark = [pytest.mark.reference, pytest.mark.usefixtures("fresh_interpreter")]


def test_a_process_that_dies_says_its_last_line():
    with pytest.raises(DynabertError, match=r"counting sheep failed with exit code 1: {'sheep': 3}"):
        run_apart(sys.exit, {"sheep": 3}, legacy=False, name="counting sheep")


def test_nothing_is_imported_from_the_working_folder(tmp_path, monkeypatch):
    for name in ("json", "numpy", "safetensors"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(7)")
    monkeypatch.chdir(tmp_path)
    assert run_apart(len, {"sheep": 3}, legacy=False, name="counting sheep") == 1


def test_jobs_and_results_are_dataclasses_on_both_sides(tmp_path):
    job = MeasuringJob(tmp_path, {"full": "l0h4f48"}, "paddle", LatencySetting(seq_length=8, num_threads=2))
    assert run_apart(dataclasses.replace, job, legacy=False, name="copying a job") == job


def test_it_ends_with_the_process_that_started_it(tmp_path):
    script = """
import subprocess
from dynabert_paddle.runtime.interpreter import run_apart

run_apart(subprocess.check_call, ["bash", "-c", "echo $PPID > {PATH} && sleep 100"], legacy=False, name="waiting")
"""
    path = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", script.replace("{PATH}", str(path))])
    until = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert parent.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    worker = int(path.read_text())
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    while time.monotonic() < until:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("it has outlived it")
