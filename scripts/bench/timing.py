"""What the benchmarks share: the description of the machine, alternating timing, and timed processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from dynabert_paddle.runtime.environment import package_versions
from dynabert_paddle.runtime.machine import processor_name

SHAPE_HELP = "Layers x hidden size; heads are 32 wide."


def describe_machine() -> str:
    """Name the processor, the number of threads and the version of Paddle; call it after `import_paddle`."""
    versions = package_versions()
    paddle = versions.get("paddlepaddle") or versions.get("paddlepaddle-gpu")
    return f"{processor_name()}, {os.environ['OMP_NUM_THREADS']} threads, paddle {paddle}"


def time_alternately(parts: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each part once per round, after a warm-up round.

    Args:
        parts: the functions to time, by name.
        rounds: number of rounds, without the warm-up.

    Returns:
        Seconds of each round, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            times[name].append(time.perf_counter() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def serve_steps(step: Callable[[], None]) -> None:
    """Run `step` for each line on stdin, and print its seconds: the side of the process that `start_process` starts."""
    for _ in sys.stdin:
        begin = time.perf_counter()
        step()
        print(time.perf_counter() - begin, flush=True)


def start_process(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script that calls `serve_steps`."""
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_step(process: subprocess.Popen[str]) -> float:
    """Let a process from `start_process` run one step.

    Returns:
        The seconds that the step took.

    Raises:
        SystemExit: the process has ended.
    """
    time.sleep(0.3)  # until the threads of the other process no longer spin
    try:
        process.stdin.write("\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # reported below, with the process's own message
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"error: {process.args[1]} has ended: {process.stderr.read().strip().splitlines()[-1]}")
    return float(line)
