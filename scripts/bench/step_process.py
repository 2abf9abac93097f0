"""Two processes that are timed in turns: libraries that bring thread pools of their own cannot share one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable


def answer(step: Callable[[], None]) -> None:
    """Do a step for each line that comes, and answer with its time.

    Args:
        step: what is timed.
    """
    for _ in sys.stdin:
        begin = time.perf_counter()
        step()
        print(time.perf_counter() - begin, flush=True)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script that calls `answer`.

    Args:
        script: its path.
        arguments: of its command line.

    Returns:
        The process, which waits for its turns.
    """
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def turn(process: subprocess.Popen[str]) -> float:
    """Let a process do one step.

    Args:
        process: from `start`.

    Returns:
        Seconds.

    Raises:
        SystemExit: the process has ended.
    """
    time.sleep(0.3)  # until the other one's threads no longer spin
    try:
        process.stdin.write("\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it says why below
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"error: {process.args[1]} has ended: {process.stderr.read().strip().splitlines()[-1]}")
    return float(line)
