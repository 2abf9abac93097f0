"""Exports sub-networks as `dynabert export` does, and times them alternately; runs in a fresh process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from dynabert_paddle.bundle.engines import Engine, open_engine
from dynabert_paddle.bundle.errors import as_dynabert_error
from dynabert_paddle.bundle.timing import make_batch, time_alternately
from dynabert_paddle.exporting.check import random_batches
from dynabert_paddle.exporting.graphs import write_graph
from dynabert_paddle.exporting.inference import save_graph
from dynabert_paddle.runtime.interpreter import report_progress
from dynabert_paddle.searching.latency_setting import LatencySetting
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet

# Open engines hold their weights. All engines of a small BERT fit, so that all are timed over the same period.
_MAX_OPEN_BYTES = 4e9

_SECONDS = 60.0  # of timing, for all groups together
_SECONDS_PER_TURN = 0.015
_MIN_ROUNDS, _MAX_ROUNDS = 3, 60
_MAX_REPORTS = 10  # of a group's timing


class _Progress:
    """Reports how many steps are done to the process that started this one."""

    def __init__(self) -> None:
        self._done = 0.0

    def advance(self, steps: float) -> None:
        self._done += steps
        report_progress(str(round(self._done)))


def measure_subnets(
    model_dir: Path, subnets: Mapping[str, Subnet], *, format: str, setting: LatencySetting
) -> dict[str, float]:
    """Export and time sub-networks.

    They are timed in groups that fit in memory, the first sub-network in every group: each latency is measured relative
    to the first one's, so that a group timed while the machine is busy compares with one timed while it is idle.
    Progress is reported in steps: each sub-network counts once when it is exported, and once when it is timed.

    Args:
        model_dir: folder of the model.
        subnets: sub-networks by name.
        format: one of `latency_setting.FORMATS`.
        setting: how they run.

    Returns:
        Milliseconds a batch by name.

    Raises:
        DynabertError: the model cannot be exported or run.
    """
    supernet = Supernet.from_pretrained(model_dir)
    batch = make_batch(setting.batch_size, setting.seq_length, supernet.model.config.vocab_size)
    space, config = supernet.search_space(), supernet.model.config
    # Scales do not change the time, so the texts that int8 is calibrated with may be any.
    texts = random_batches(config.vocab_size, setting.seq_length) if setting.precision == "int8" else ()
    description = {"format": format, "precision": setting.precision, "vocab_size": config.vocab_size}
    progress = _Progress()

    def open_subnet(name: str) -> Engine:
        with TemporaryDirectory() as scratch:
            graph, folder = Path(scratch) / "static", Path(scratch) / "graph"
            graph.mkdir()
            folder.mkdir()
            model = extract(supernet, subnets[name])
            save_graph(model, graph)
            write_graph(model, folder, graph, format=format, precision=setting.precision, calibration=texts)
            engine = open_engine(folder, description, device=setting.device, num_threads=setting.num_threads)
        progress.advance(1)
        return engine

    first, *others = subnets
    groups = _group({name: 4 * space.num_params(subnets[name]) for name in others})
    reference_ms: list[float] = []
    ratios: dict[str, float] = {}
    with as_dynabert_error():
        first_engine = open_subnet(first)
        for group in groups:
            # No variable holds these engines: they must be closed before the next group's are opened.
            opened = ((name, open_subnet(name)) for name in group)
            measured = _time(
                {first: first_engine, **dict(opened)},
                batch,
                _SECONDS / len(groups),
                progress,
                num_steps=len(group) + (not reference_ms),
            )
            reference_ms.append(measured.pop(first))
            ratios |= {name: ms / reference_ms[-1] for name, ms in measured.items()}
    ratios[first] = 1.0
    return {name: ratios[name] * float(np.median(reference_ms)) for name in subnets}


def _group(sizes: Mapping[str, int]) -> list[list[str]]:
    """Split names into groups of at most `_MAX_OPEN_BYTES`, or of one name; at least one group, which may be empty."""
    groups: list[list[str]] = [[]]
    for name, size in sizes.items():
        if groups[-1] and size + sum(sizes[other] for other in groups[-1]) > _MAX_OPEN_BYTES:
            groups.append([])
        groups[-1].append(name)
    return groups


def _time(
    engines: Mapping[str, Engine],
    batch: dict[str, np.ndarray],
    seconds: float,
    progress: _Progress,
    *,
    num_steps: int,
) -> dict[str, float]:
    """Latency in ms of each engine; a trial round sets how many fit into `seconds`. Counts as `num_steps` steps."""
    pace = {"seconds": _SECONDS_PER_TURN, "settle_seconds": 0.0}
    for run in engines.values():  # the first batch of a shape compiles kernels
        run(batch)
    began = perf_counter()
    time_alternately(engines, batch, 1, **pace)
    rounds = int(np.clip(seconds / (perf_counter() - began), _MIN_ROUNDS, _MAX_ROUNDS))
    turns: dict[str, list[list[float]]] = {name: [] for name in engines}
    for part in np.array_split(np.arange(rounds), min(rounds, _MAX_REPORTS)):
        for name, times in time_alternately(engines, batch, len(part), **pace).items():
            turns[name] += times
        progress.advance(num_steps * len(part) / rounds)
    # Other processes only slow calls down, so the lower quartile is close to an idle machine's latency.
    return {name: float(np.quantile(np.concatenate(times), 0.25)) for name, times in turns.items()}
