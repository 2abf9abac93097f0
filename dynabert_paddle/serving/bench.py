"""Compares the latency of bundles: they alternate in one process, so that a busy machine slows all of them down."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dynabert_paddle.bundle.engines import open_engine
from dynabert_paddle.bundle.errors import as_dynabert_error
from dynabert_paddle.bundle.manifest import depends_on_batch, read_bundle
from dynabert_paddle.bundle.members import members_of, unpack
from dynabert_paddle.bundle.processor import processor_warnings
from dynabert_paddle.bundle.timing import make_batch, time_alternately
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.exporting.formats import PADDLE_FORMATS
from dynabert_paddle.files.folder import folder_bytes
from dynabert_paddle.files.unchanged import folder_version
from dynabert_paddle.runtime.environment import describe_environment, set_cpu_environment
from dynabert_paddle.runtime.interpreter import python_command
from dynabert_paddle.runtime.streams import quiet

logger = logging.getLogger(__name__)


def bench(
    bundles: Sequence[str | Path],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    seq_lengths: Sequence[int] = (32, 128),
    vs: str | None = None,
    rounds: int = 5,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Measure latency, throughput, memory and size of bundles.

    Args:
        bundles: their folders.
        batch_sizes: texts in a batch.
        seq_lengths: tokens in a text.
        vs: `onnxruntime` to also run each floating-point Paddle graph there.
        rounds: turns of each bundle for each shape; a turn is a warm-up call and several timed calls.
        num_threads: CPU threads; by default all cores.

    Returns:
        The environment, and one row per shape and bundle: latencies in ms, sentences per second, the speedup (median
        over rounds of the first bundle's latency over this one's), peak memory, size of the graph with its weights and
        size of the whole bundle in MB, and whether a text's answer depends on the other texts of its batch.

    Raises:
        DynabertError: a bundle that cannot be run, or a length above its maximum.
    """
    set_cpu_environment()
    if vs not in (None, "onnxruntime"):
        raise UsageError(f"{setting('vs')} must be 'onnxruntime', not '{vs}'")
    environment = describe_environment()
    threads = num_threads or environment["cores"]
    with ExitStack() as stack:
        versions: dict[Path, Any] = {}
        graphs: list[tuple[str, Path, dict[str, Any]]] = []  # name, folder, description
        totals: dict[str, float] = {}
        for bundle in map(Path, bundles):
            versions[bundle] = folder_version(bundle)
            with as_dynabert_error():
                description = read_bundle(bundle)
            for warning in processor_warnings(description):
                logger.warning("%s: %s", bundle, warning)
            for name, folder in _find_graphs(bundle, description, stack):
                graphs.append((name, folder, description))
                totals[name] = folder_bytes(bundle) / 1e6
                if vs and description["format"] in PADDLE_FORMATS and description["precision"] != "int8":
                    scratch = Path(stack.enter_context(TemporaryDirectory()))
                    graphs.append((f"{name} (onnxruntime)", *_convert(folder, description, scratch)))
                    totals[graphs[-1][0]] = totals[name]
        _check_lengths(graphs, seq_lengths)
        vocab_size = min(description["vocab_size"] for _, _, description in graphs)
        largest = (max(batch_sizes), max(seq_lengths), threads)
        memory = {name: _peak_memory(folder, description, *largest) for name, folder, description in graphs}
        with as_dynabert_error():
            engines = {
                name: open_engine(folder, description, num_threads=threads) for name, folder, description in graphs
            }
        for bundle, version in versions.items():
            if folder_version(bundle) != version:
                raise DynabertError(f"{bundle} was replaced while it was loaded: run the command again")
        sizes = {name: _model_bytes(folder) / 1e6 for name, folder, _ in graphs}
        dependent = {name: depends_on_batch(description) for name, _, description in graphs}
        rows = []
        for batch_size, seq_length in product(batch_sizes, seq_lengths):
            turns = time_alternately(engines, make_batch(batch_size, seq_length, vocab_size), rounds)
            first = turns[graphs[0][0]]
            for name, measured in turns.items():
                shape = {"name": name, "batch_size": batch_size, "seq_length": seq_length}
                size = {"peak_memory_mb": memory[name], "size_mb": sizes[name], "bundle_mb": totals[name]}
                speed = _summarize(measured, first, batch_size)
                rows.append({**shape, **speed, **size, "depends_on_batch": dependent[name]})
    return {"environment": environment, "threads": threads, "rounds": rounds, "rows": rows}


def _find_graphs(bundle: Path, description: dict[str, Any], stack: ExitStack) -> Iterator[tuple[str, Path]]:
    """Yield a bundle's name and folder; for a bundle of several sub-networks one pair for each of them."""
    if "members" not in description:
        yield str(bundle), bundle
        return
    for subnet in members_of(description):
        folder = Path(stack.enter_context(TemporaryDirectory()))
        with as_dynabert_error():
            unpack(bundle, description, subnet, folder)
        yield f"{bundle} ({subnet})", folder


def _summarize(turns: list[list[float]], first: list[list[float]], batch_size: int) -> dict[str, float]:
    calls = np.concatenate(turns)
    ratios = [np.median(one) / np.median(other) for one, other in zip(first, turns, strict=True)]
    return {
        "p50_ms": float(np.median(calls)),
        "p95_ms": float(np.quantile(calls, 0.95)),
        "sentences_per_second": batch_size / float(np.median(calls)) * 1000,
        "speedup": float(np.median(ratios)),
    }


def _check_lengths(graphs: Sequence[tuple[str, Path, dict[str, Any]]], seq_lengths: Sequence[int]) -> None:
    for name, _, description in graphs:
        longest = description["max_positions"]
        if max(seq_lengths) > longest:
            raise UsageError(
                f"{setting('seq_length')} is {max(seq_lengths)}, and {name} takes at most {longest} tokens: "
                "pass smaller ones"
            )


def _convert(bundle: Path, description: dict[str, Any], scratch: Path) -> tuple[Path, dict[str, Any]]:
    """Convert a Paddle graph for ONNX Runtime; returns its folder and description."""
    from dynabert_paddle.exporting.onnx import to_onnx

    # The converter also prints from Python, and in a notebook Python's stdout is not the process's.
    with quiet(), redirect_stdout(StringIO()):
        to_onnx(bundle, scratch / "model.onnx")
    return scratch, {**description, "format": "onnx", "precision": "fp32", "depends_on_batch": False}


def _model_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("model.*"))


def _peak_memory(folder: Path, description: dict[str, Any], *sizes: int) -> float:
    """Peak memory in MB of a process that only loads a graph and runs its largest batch."""
    kind = json.dumps({key: description[key] for key in ("format", "precision", "vocab_size", "max_positions")})
    command = python_command(f"{__name__}:print_peak_memory", folder, kind, *sizes)
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or ["no error message"]
        raise DynabertError(f"{folder}: cannot be run: {lines[-1][:300]}")
    return float(result.stdout.split()[-1])


def print_peak_memory() -> None:
    """Load a graph, run one batch, and print this process's peak memory in MB; arguments as in `_peak_memory`."""
    folder, description, batch_size, seq_length, threads = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
    open_engine(folder, description, num_threads=threads)(make_batch(batch_size, seq_length, 1))
    # getrusage's maximum would include the parent's memory at the fork.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None  # every Linux kernel writes it
    print(int(peak[1]) * 1024 / 1e6)
