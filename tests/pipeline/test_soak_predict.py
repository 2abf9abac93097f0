"""Predictors called by threads and processes at once, forked, and left while they are called."""

import subprocess
import sys

import pytest
from bundles import make_model
from conftest import ROOT

import dynabert_paddle as db

pytestmark = pytest.mark.full

FORK = """
import os, signal, sys, threading, time
import dynabert_paddle as db

texts = ["play some jazz", "", "rain"]
predictor = db.Predictor(sys.argv[1])
expected, answers = predictor(texts), []

def call():
    while True:
        answers.append(predictor(texts))

for _ in range(4):
    threading.Thread(target=call, daemon=True).start()
for _ in range(3):
    before = len(answers)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if predictor(texts) == expected else 3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    while len(answers) < before + 4:
        time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def bundle(make_once, tmp_path_factory):
    model = make_model(make_once, "snips")
    folder = tmp_path_factory.mktemp("soak") / "bundle"
    return db.export(model, folder, subnets="w1.00d1.00 w0.50d0.50", tolerance=1e-4)


def soak(bundle, *words):
    command = [sys.executable, ROOT / "scripts" / "soak" / "predict.py", bundle, *words]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_every_promise_is_kept_for_seconds(bundle):
    """A few seconds tell nothing of memory, which the runtime still fills."""
    done = soak(bundle, "--minutes", 0.05, "--threads", 8, "--processes", 2, "--max_growth", 1000)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if "Predictor," in line]
    callers = (["8", "threads"], ["2", "processes"])
    names = ("Predictor,", "AdaptivePredictor,")
    assert [line[:3] for line in lines] == [[name, *caller] for name in names for caller in callers]
    assert all(int(line[3].replace(",", "")) > 0 for line in lines)
    assert all((line[4], line[-1]) == ("0", "clean") for line in lines), done.stdout


def test_a_difference_is_a_wrong_answer(bundle):
    done = soak(bundle, "--minutes", 0.02, "--processes", 1, "--plain", "--max_growth", 1000, "--tolerance", -1)
    assert done.returncode == 1, done.stderr
    for line in done.stdout.splitlines():
        if "Predictor," in line:
            answers, wrong = line.split()[3:5]
            assert answers == f"{int(wrong):,}"


def test_a_predictor_survives_forks_while_threads_call_it(bundle):
    done = subprocess.run(
        [sys.executable, "-c", FORK, bundle], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"] * 3
