"""What measuring latencies does in its process: it exports sub-networks as users get them, and times them in turns."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from dynabert_paddle.runtime.interpreter import report_progress
from dynabert_paddle.subnet import Subnet

# Engines that are open hold their weights. Those of a small BERT are all open at once, so that all see the same times.
_BYTES_AT_ONCE = 4e9

_SECONDS = 60.0  # of timing, for all groups together
_SECONDS_A_TURN = 0.015
_ROUNDS = (3, 60)


def measure_job(job: dict[str, Any]) -> dict[str, float]:
    """Export and time sub-networks.

    Groups of them take turns. The first sub-network is in every group: how it fares tells a busy time of the machine
    from a quiet one.

    Args:
        job: `model_dir`, `subnets` by name, `format`, and the fields of a `LatencySetting`.

    Returns:
        Milliseconds a batch by name.
    """
    from dynabert_paddle.bundle.errors import as_dynabert_error
    from dynabert_paddle.bundle.timing import make_batch
    from dynabert_paddle.supernet.supernet import Supernet

    supernet = Supernet.from_pretrained(job["model_dir"])
    subnets = {name: Subnet.parse(subnet) for name, subnet in job["subnets"].items()}
    batch = make_batch(job["batch_size"], job["seq_length"], supernet.model.config.vocab_size)
    space = supernet.search_space()
    first, *others = subnets
    groups = _group({name: 4 * space.num_params(subnets[name]) for name in others})
    reference, shares = [], {}
    with as_dynabert_error():
        first_engine = _open(supernet, subnets[first], job)
        for group in groups:
            # No name holds the engines: they shall be closed before the next ones are opened.
            opened = ((name, _open(supernet, subnets[name], job)) for name in group)
            found = _time({first: first_engine, **dict(opened)}, batch, _SECONDS / len(groups))
            reference.append(found.pop(first))
            shares |= {name: ms / reference[-1] for name, ms in found.items()}
            report_progress(f"measured {1 + len(shares)} of {len(subnets)} sub-networks")
    shares[first] = 1.0
    return {name: shares[name] * float(np.median(reference)) for name in subnets}


def _group(sizes: dict[str, int]) -> list[list[str]]:
    """Names in groups whose bytes are within bounds; at least one group, and one name in each but an only one."""
    groups: list[list[str]] = [[]]
    for name, size in sizes.items():
        if groups[-1] and size + sum(sizes[other] for other in groups[-1]) > _BYTES_AT_ONCE:
            groups.append([])
        groups[-1].append(name)
    return groups


def _open(supernet, subnet: Subnet, job: dict[str, Any]):
    from dynabert_paddle.bundle.engines import open_engine
    from dynabert_paddle.exporting.inference import save_graph
    from dynabert_paddle.supernet.extract import extract

    with TemporaryDirectory() as scratch:
        save_graph(extract(supernet, subnet), Path(scratch))
        return open_engine(Path(scratch), job, device=job["device"], num_threads=job["num_threads"])


def _time(engines: dict[str, Any], batch: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    """Latency in ms of each engine; a round that does not count tells how many there is time for."""
    from dynabert_paddle.bundle.timing import time_alternately

    pace = {"seconds": _SECONDS_A_TURN, "settle_seconds": 0.0}
    for run in engines.values():  # kernels are made for a shape when it is first met
        run(batch)
    began = perf_counter()
    time_alternately(engines, batch, 1, **pace)
    rounds = int(np.clip(seconds / (perf_counter() - began), *_ROUNDS))
    turns = time_alternately(engines, batch, rounds, **pace)
    # Other processes only ever add: the lower quartile of the calls tells what a machine takes that they share.
    return {name: float(np.quantile(np.concatenate(of), 0.25)) for name, of in turns.items()}
