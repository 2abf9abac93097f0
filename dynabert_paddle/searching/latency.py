"""Latency of sub-networks on this machine: estimated from a table that is measured once, or measured for real."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from dynabert_paddle.data.features import default_cache_dir
from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.exporting.formats import paddle_format
from dynabert_paddle.files.atomic import read_json, write_json
from dynabert_paddle.runtime.environment import describe_environment
from dynabert_paddle.runtime.interpreter import run_apart
from dynabert_paddle.runtime.paddle_versions import paddle_version
from dynabert_paddle.searching.fit import check_subnets, fit_layers, table_subnets
from dynabert_paddle.searching.latency_setting import LatencySetting, check_length
from dynabert_paddle.subnet import Subnet

if TYPE_CHECKING:
    from dynabert_paddle.supernet.supernet import Supernet

logger = logging.getLogger(__name__)

_FORMAT_VERSION = 3


@dataclass(frozen=True)
class LatencyTable:
    """What the base, the last layer, and attention and FFN of the others take: any sub-network is estimated from it.

    Args:
        setting: how it was measured.
        machine: processor and cores of where it was measured, and the GPU where it ran on one.
        model: what of the model decides its latency.
        paddle: version of Paddle.
        base_ms: embeddings, classifier, and what the last layer takes whatever its size.
        last_head_ms: each head of the last layer.
        last_neuron_ms: each FFN neuron of the last layer.
        attention_ms: pairs of heads and the ms that another layer's attention takes with them; linear between two.
        ffn_ms: the same for FFN neurons.
        checks_ms: sub-networks of which the table was not made, and what they were measured to take, in turns with
            those that it was made of.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    setting: LatencySetting
    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    paddle: str
    base_ms: float
    last_head_ms: float
    last_neuron_ms: float
    attention_ms: tuple[tuple[float, float], ...]
    ffn_ms: tuple[tuple[float, float], ...]
    checks_ms: Mapping[str, float]

    @property
    def errors(self) -> dict[str, float]:
        """How far off the estimates for the checks are, as shares of what was measured."""
        return {name: self.estimate(Subnet.parse(name)) / measured - 1 for name, measured in self.checks_ms.items()}

    @property
    def mean_error(self) -> float:
        """The size of `errors` on average."""
        return float(np.abs(list(self.errors.values())).mean())

    def estimate(self, subnet: Subnet) -> float:
        """Estimate a sub-network's latency.

        Args:
            subnet: any sub-network of the model.

        Returns:
            Milliseconds a batch.
        """
        layers = _interpolate(subnet.heads[:-1], self.attention_ms) + _interpolate(subnet.neurons[:-1], self.ffn_ms)
        last = subnet.heads[-1] * self.last_head_ms + subnet.neurons[-1] * self.last_neuron_ms
        return float(self.base_ms + layers.sum() + last)


def _interpolate(counts: Sequence[int], knots: Sequence[tuple[float, float]]) -> np.ndarray:
    at, ms = zip(*knots, strict=True)
    return np.interp(counts, at, ms)


def latency_table(
    supernet: Supernet,
    setting: LatencySetting,
    *,
    cache_dir: str | os.PathLike | None = None,
    rebuild: bool = False,
) -> LatencyTable:
    """Take a model's table from the cache, or measure it, which takes a minute or two for a small BERT.

    Some 25 whole sub-networks, uniform and mixed ones, are exported and timed; the table is the best fit to them.
    Another 20, drawn by chance, take turns with them and check it.

    Args:
        supernet: the model; only its shape counts.
        setting: how it shall run.
        cache_dir: folder of the cache, made if absent; by default `default_cache_dir()`. Where it cannot be written,
            the table is not kept.
        rebuild: measure it even if it is there.

    Returns:
        The table.

    Raises:
        UsageError: the setting is not one for this model or machine.
        DynabertError: the model cannot be exported or run.
    """
    key = {
        "model": _shape_of(supernet),
        "setting": setting,
        "machine": _this_machine(setting.device),
        "paddle": paddle_version(),
    }
    folder = default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()
    named = json.dumps([_FORMAT_VERSION, key], default=dataclasses.asdict, sort_keys=True)
    digest = hashlib.sha256(named.encode()).hexdigest()
    path = folder / f"latency-{digest[:16]}.json"
    table = None if rebuild else _load(path, key, supernet.full)
    if table is None:
        table = _build(supernet, key)
        _save(path, table)
    return table


def measure_latency(supernet: Supernet, subnets: Mapping[str, Subnet], setting: LatencySetting) -> dict[str, float]:
    """Export whole sub-networks and time them in Paddle Inference, taking turns.

    Args:
        supernet: the model.
        subnets: sub-networks by name.
        setting: how they run.

    Returns:
        Milliseconds a batch by name: the lower quartile of many calls, which other processes disturb little.

    Raises:
        UsageError: a sub-network that the model does not have, or the setting is not one for this model.
        DynabertError: the model cannot be exported or run.
    """
    check_length(supernet, setting)
    for subnet in subnets.values():
        subnet.check_part_of(supernet.full)
    if not subnets:
        return {}
    format = paddle_format()
    with TemporaryDirectory(prefix="dynabert-latency-") as scratch:
        job = MeasuringJob(
            model_dir=supernet.save_pretrained(Path(scratch) / "model"),
            subnets={name: str(subnet) for name, subnet in subnets.items()},
            format=format,
            setting=setting,
        )
        # Paddle reads the number of threads when it is imported; a bundle's own script sets it the same way.
        threads = {"OMP_NUM_THREADS": str(setting.num_threads)}
        return run_apart(measure_job, job, legacy=format == "paddle", name="measuring latency", environment=threads)


@dataclass(frozen=True)
class MeasuringJob:
    """Sub-networks to time in a fresh process.

    Args:
        model_dir: folder of the model.
        subnets: sub-networks by name, as `Subnet.parse` reads them.
        format: Paddle Inference's format to export them to.
        setting: how they run.
    """

    model_dir: Path
    subnets: Mapping[str, str]
    format: str
    setting: LatencySetting


def measure_job(job: MeasuringJob) -> dict[str, float]:
    """Export and time sub-networks, in the fresh process that `measure_latency` starts; returns ms a batch by name."""
    # This module imports Paddle. The late import keeps Paddle out of processes that only read a cached table.
    from dynabert_paddle.searching.measure import measure_subnets

    subnets = {name: Subnet.parse(subnet) for name, subnet in job.subnets.items()}
    return measure_subnets(job.model_dir, subnets, format=job.format, setting=job.setting)


def _shape_of(supernet: Supernet) -> dict[str, Any]:
    """What of a model decides how long it takes."""
    space = dataclasses.asdict(supernet.search_space())
    del space["width_mults"], space["depth_mults"]
    space |= {"heads": list(space["heads"]), "neurons": list(space["neurons"])}  # as JSON gives them back
    activation = getattr(supernet.model.config, "hidden_act", "")
    return {"class": type(supernet.model).__name__, "hidden_act": activation, **space}


def _this_machine(device: str) -> dict[str, Any]:
    described = describe_environment()
    machine = {name: described[name] for name in ("processor", "cores")}
    if device != "cpu":
        import paddle

        if not paddle.is_compiled_with_cuda():
            raise UsageError(f"device '{device}': the installed Paddle is a CPU build; use --device cpu")
        machine["gpu"] = paddle.device.cuda.get_device_name(int(device.partition(":")[2] or 0))
    return machine


def _build(supernet: Supernet, key: Mapping[str, Any]) -> LatencyTable:
    space = supernet.search_space()
    fitted_to, checks = table_subnets(space), check_subnets(space)
    logger.info("measuring a table of latencies: %d sub-networks, %s", len(fitted_to) + len(checks), key["setting"])
    began = time.perf_counter()
    measured = measure_latency(supernet, {str(subnet): subnet for subnet in (*fitted_to, *checks)}, key["setting"])
    fitted = fit_layers(fitted_to, [measured[str(subnet)] for subnet in fitted_to])
    table = LatencyTable(**key, **fitted, checks_ms={str(subnet): measured[str(subnet)] for subnet in checks})
    seconds, error = time.perf_counter() - began, 100 * table.mean_error
    logger.info("measured in %.0f s: estimates for %d others are %.1f %% off on average", seconds, len(checks), error)
    return table


def _load(path: Path, key: Mapping[str, Any], full: Subnet) -> LatencyTable | None:
    """Read a cached table; None if it is absent, damaged, or was measured elsewhere."""
    if not path.is_file():
        return None
    from pydantic import TypeAdapter, ValidationError

    try:
        values = read_json(path)
        if values.pop("format_version", None) != _FORMAT_VERSION:
            raise ModelError(f"{path}: not format version {_FORMAT_VERSION}")
        table = TypeAdapter(LatencyTable).validate_json(json.dumps(values), strict=True)
        if any(getattr(table, name) != key[name] for name in ("model", "setting", "paddle")):
            raise ModelError(f"{path}: of another model or setting than its name says")
        if not math.isfinite(table.estimate(full)) or not math.isfinite(table.mean_error):
            raise ModelError(f"{path}: has a latency that is no number")
    except (DynabertError, ValidationError, TypeError, ValueError, ArithmeticError) as error:
        logger.warning("%s is damaged, and is measured anew", path)
        logger.debug("%s", error)
        return None
    if table.machine != key["machine"]:
        elsewhere = ", ".join(f"{name} {value}" for name, value in table.machine.items())
        logger.warning("%s comes from another machine (%s), and is measured anew", path, elsewhere)
        return None
    return table


def _save(path: Path, table: LatencyTable) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format_version": _FORMAT_VERSION, **dataclasses.asdict(table)})
    except OSError as error:
        logger.warning("the table of latencies is not cached: %s", error)
