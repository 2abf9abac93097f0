"""The gate: a fork and Python's exit wait for running calls."""

import os
import subprocess
import sys
import threading

from dynabert_paddle.bundle.gate import Gate

AT_EXIT = """
import atexit
from dynabert_paddle.bundle.gate import BundleError, Gate

def enter():
    try:
        with gate:
            print("entered")
    except BundleError as error:
        print(error)

atexit.register(enter)
gate = Gate()
enter()
"""


def test_a_fork_waits_for_running_calls_and_blocks_new_ones():
    gate, entered, leave, order = Gate(), threading.Event(), threading.Event(), []

    def stay():
        with gate:
            entered.set()
            leave.wait(60)
            order.append("left")

    def enter_later():
        with gate:
            order.append("entered")

    def fork():
        if os.fork() == 0:
            with gate:  # the gate is open in the child process too
                os._exit(7)
        order.append("forked")

    threads = [threading.Thread(target=work) for work in (stay, fork, enter_later)]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    while not gate._is_closed:
        pass
    threads[2].start()
    threads[2].join(0.2)
    assert order == []
    leave.set()
    for thread in threads:
        thread.join(60)
    assert order[0] == "left"
    assert sorted(order[1:]) == ["entered", "forked"]
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7


def test_an_atexit_handler_does_not_block():
    command = [sys.executable, "-c", AT_EXIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = "Python is about to exit: predict before that, not in an atexit handler"
    assert done.stdout.splitlines() == ["entered", said]
