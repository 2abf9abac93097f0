"""Latency of sub-networks on this machine: estimated from a cached table, or measured."""

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
from dynabert_paddle.exporting.formats import check_request, needs_legacy
from dynabert_paddle.files.atomic import read_json, write_json
from dynabert_paddle.runtime.environment import describe_environment
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.interpreter import run_apart
from dynabert_paddle.runtime.machine import slow_precision
from dynabert_paddle.runtime.paddle_versions import paddle_version
from dynabert_paddle.searching.fit import calibration_subnets, fit_layers, validation_subnets
from dynabert_paddle.searching.latency_setting import LatencySetting, check_length
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.training.progress import show_progress

if TYPE_CHECKING:
    from dynabert_paddle.supernet.supernet import Supernet

logger = logging.getLogger(__name__)

_FORMAT_VERSION = 3
_SECONDS_BETWEEN_LINES = 10.0  # of progress, where there is no bar


@dataclass(frozen=True)
class LatencyTable:
    """Estimates the latency of any sub-network as a sum over its layers.

    Args:
        setting: how it was measured.
        machine: processor and cores of the machine where it was measured, and the GPU if there was one.
        model: the properties of the model that determine its latency.
        paddle: version of Paddle.
        base_ms: embeddings, classifier, and the constant part of the last layer.
        last_head_ms: each head of the last layer.
        last_neuron_ms: each FFN neuron of the last layer.
        attention_ms: pairs of a number of heads and the latency of another layer's attention with them; linear between
            the pairs.
        ffn_ms: the same for FFN neurons.
        checks_ms: measured latencies of the validation sub-networks, by name; the table was not fitted to them.
        rank_ms: each component of a part of the word embedding, for the product that makes it as wide as the whole.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's protocol for plain dataclasses

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
    rank_ms: float = 0.0

    @property
    def errors(self) -> dict[str, float]:
        """Relative error of the estimate for each validation sub-network."""
        return {name: self.estimate(Subnet.parse(name)) / measured - 1 for name, measured in self.checks_ms.items()}

    @property
    def mean_error(self) -> float:
        """Mean absolute relative error on the validation sub-networks."""
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
        embedding = (subnet.embedding_rank or 0) * self.rank_ms
        return float(self.base_ms + embedding + layers.sum() + last)


def _interpolate(counts: Sequence[int], knots: Sequence[tuple[float, float]]) -> np.ndarray:
    knot_counts, knot_ms = zip(*knots, strict=True)
    return np.interp(counts, knot_counts, knot_ms)


def latency_table(
    supernet: Supernet,
    setting: LatencySetting,
    *,
    cache_dir: str | os.PathLike | None = None,
    rebuild: bool = False,
) -> LatencyTable:
    """Load a model's table from the cache, or measure it, which takes a minute or two for a small BERT.

    Some 25 uniform and random sub-networks are exported and timed, and the table is fitted to them. Another 20 random
    ones are timed alternately with them and validate the table. A measurement that is interrupted begins anew: its
    latencies are compared with each other, so they must be of one period, in which the machine is equally busy for all.

    Args:
        supernet: the model; only its shape matters.
        setting: how it runs.
        cache_dir: folder of the cache, created if absent; by default `default_cache_dir()`. The table is not cached if
            it cannot be written.
        rebuild: measure even if the cache has a table.

    Returns:
        The table.

    Raises:
        UsageError: the model or this machine does not support the setting.
        DynabertError: the model cannot be exported or run.
    """
    if warning := slow_precision(setting.precision, setting.format):
        logger.warning("%s", warning)
    key = {
        "model": _shape_of(supernet),
        "setting": setting,
        "machine": _this_machine(setting.device),
        "paddle": paddle_version(),
    }
    folder = default_cache_dir() if cache_dir is None else user_path(cache_dir)
    key_json = json.dumps([_FORMAT_VERSION, key], default=LatencySetting.to_dict, sort_keys=True)
    digest = hashlib.sha256(key_json.encode()).hexdigest()
    path = folder / f"latency-{digest[:16]}.json"
    table = None if rebuild else _load(path, key, supernet.full)
    if table is None:
        table = _build(supernet, key)
        _save(path, table)
    return table


def measure_latency(supernet: Supernet, subnets: Mapping[str, Subnet], setting: LatencySetting) -> dict[str, float]:
    """Export sub-networks and time them alternately.

    Args:
        supernet: the model.
        subnets: sub-networks by name.
        setting: how they run.

    Returns:
        Milliseconds a batch by name: the lower quartile of many calls, which is robust to load by other processes.

    Raises:
        UsageError: the model lacks a sub-network or does not support the setting.
        DynabertError: the model cannot be exported or run.
    """
    check_length(supernet, setting)
    for subnet in subnets.values():
        supernet.check_subnet(subnet)
    if not subnets:
        return {}
    format = setting.resolved_format
    check_request(format, setting.precision)
    with TemporaryDirectory(prefix="dynabert-latency-") as scratch:
        job = MeasuringJob(
            model_dir=supernet.save_pretrained(Path(scratch) / "model"),
            subnets={name: str(subnet) for name, subnet in subnets.items()},
            format=format,
            setting=setting,
        )
        # Paddle reads the number of threads when it is imported; a bundle's own script sets it the same way.
        threads = {"OMP_NUM_THREADS": str(setting.num_threads)}
        with show_progress("latency", 2 * len(subnets), seconds=_SECONDS_BETWEEN_LINES) as report:
            return run_apart(
                measure_job,
                job,
                legacy=needs_legacy(format),
                name="measuring latency",
                environment=threads,
                report=lambda done: report(int(done)),
            )


@dataclass(frozen=True)
class MeasuringJob:
    """Sub-networks to time in a fresh process.

    Args:
        model_dir: folder of the model.
        subnets: sub-networks by name, as `Subnet.parse` reads them.
        format: one of `latency_setting.FORMATS`.
        setting: how they run.
    """

    model_dir: Path
    subnets: Mapping[str, str]
    format: str
    setting: LatencySetting


def measure_job(job: MeasuringJob) -> dict[str, float]:
    """Export and time sub-networks, in the fresh process that `measure_latency` starts; returns ms a batch by name."""
    # Imported late, because `measure` imports Paddle, which a cached table does not need.
    from dynabert_paddle.searching.measure import measure_subnets

    subnets = {name: Subnet.parse(subnet) for name, subnet in job.subnets.items()}
    return measure_subnets(job.model_dir, subnets, format=job.format, setting=job.setting)


def _shape_of(supernet: Supernet) -> dict[str, Any]:
    """The properties of a model that determine its latency."""
    space = dataclasses.asdict(supernet.search_space())
    unused = ["width_mults", "depth_mults", "rank_mults", "vocab_size", "weight_bits"]
    unused += [] if space["max_rank"] else ["embedding_size", "max_rank"]
    unused += [name for name in ("layer_ranks", "layer_groups") if not space[name]]
    space = {name: value for name, value in space.items() if name not in unused}
    space = json.loads(json.dumps(space))  # which has no tuples
    activation = getattr(supernet.model.config, "hidden_act", "")
    return {"class": type(supernet.model).__name__, "hidden_act": activation, **space}


def _this_machine(device: str) -> dict[str, Any]:
    described = describe_environment()
    machine = {name: described[name] for name in ("processor", "cores")}
    if device != "cpu":
        import paddle

        if not paddle.is_compiled_with_cuda():
            raise UsageError(f"device '{device}': the installed Paddle is a CPU build; use cpu")
        machine["gpu"] = paddle.device.cuda.get_device_name(int(device.partition(":")[2] or 0))
    return machine


def _build(supernet: Supernet, key: Mapping[str, Any]) -> LatencyTable:
    space = supernet.search_space()
    calibration, validation = calibration_subnets(space), validation_subnets(space)
    count = len(calibration) + len(validation)
    logger.info("measuring a table of latencies: %d sub-networks, %s", count, key["setting"])
    began = time.perf_counter()
    subnets = {str(subnet): subnet for subnet in (*calibration, *validation)}
    measured = measure_latency(supernet, subnets, key["setting"])
    fitted = fit_layers(calibration, [measured[str(subnet)] for subnet in calibration])
    table = LatencyTable(**key, **fitted, checks_ms={str(subnet): measured[str(subnet)] for subnet in validation})
    seconds, error = time.perf_counter() - began, 100 * table.mean_error
    logger.info(
        "measured in %.0f s: estimates for %d others are %.1f %% off on average", seconds, len(validation), error
    )
    return table


def _load(path: Path, key: Mapping[str, Any], full: Subnet) -> LatencyTable | None:
    """Read a cached table; None if it is absent, damaged, or from another machine."""
    if not os.path.isfile(path):
        return None
    from pydantic import TypeAdapter, ValidationError

    try:
        values = read_json(path)
        if values.pop("format_version", None) != _FORMAT_VERSION:
            raise ModelError(f"{path}: not format version {_FORMAT_VERSION}")
        table = TypeAdapter(LatencyTable).validate_json(json.dumps(values), strict=True)
        if any(getattr(table, name) != key[name] for name in ("model", "setting", "paddle")):
            raise ModelError(f"{path}: its model or setting does not match its name")
        if not math.isfinite(table.estimate(full)) or not math.isfinite(table.mean_error):
            raise ModelError(f"{path}: has a latency that is not finite")
    except (DynabertError, ValidationError, TypeError, ValueError, ArithmeticError) as error:
        logger.warning("%s is damaged, and is measured anew", path)
        logger.debug("%s", error)
        return None
    if table.machine != key["machine"]:
        machine = ", ".join(f"{name} {value}" for name, value in table.machine.items())
        logger.warning("%s comes from another machine (%s), and is measured anew", path, machine)
        return None
    return table


def _save(path: Path, table: LatencyTable) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**dataclasses.asdict(table), "setting": table.setting.to_dict()}
        write_json(path, {"format_version": _FORMAT_VERSION, **content})
    except OSError as error:
        logger.warning("the table of latencies is not cached: %s", error)
