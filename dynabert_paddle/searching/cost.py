"""What a sub-network costs, and what a budget allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.searching.latency import LatencyTable
from dynabert_paddle.searching.latency_setting import LatencySetting
from dynabert_paddle.subnet import SearchSpace, Subnet

COSTS = ("latency_ms", "params", "macs", "size_mb")

_BYTES_PER_PARAM = 4  # files of fp32 and bf16 models hold float32

# What else people count in, and by what power of ten it exceeds the cost's own unit.
_COUNTS = {"thousands": 3, "millions": 6, "billions": 9}
_UNITS = {
    "latency_ms": {"seconds": 3, "microseconds": -3},
    "params": _COUNTS,
    "macs": _COUNTS,
    "size_mb": {"GB": 3, "KB": -3, "bytes": -6},
}
# Someone who writes another unit may ask for somewhat more than the whole model, but not for many times that.
_GENEROUS = 3


@dataclass(frozen=True)
class CostModel:
    """Counts what sub-networks of one model cost.

    Args:
        space: the model's sub-networks.
        setting: MACs are for its `seq_length`.
        table: estimates latencies; without it there are none.
    """

    space: SearchSpace
    setting: LatencySetting
    table: LatencyTable | None

    def costs(self, subnet: Subnet) -> dict[str, Any]:
        """Count what a sub-network costs.

        Args:
            subnet: any sub-network of the model.

        Returns:
            Each of `COSTS`: estimated milliseconds a batch or None, exact parameters, exact MACs of one text, and MB of
            the weights' file.
        """
        params = self.space.num_params(subnet)
        return {
            "latency_ms": None if self.table is None else self.table.estimate(subnet),
            "params": params,
            "macs": self.space.num_macs(subnet, seq_length=self.setting.seq_length),
            "size_mb": _BYTES_PER_PARAM * params / 1e6,
        }


@dataclass(frozen=True)
class Budget:
    """The most that a sub-network may cost; without limits it allows everything.

    Args:
        limits: the largest cost by its name, one of `COSTS`.

    Raises:
        UsageError: no such cost, or a limit that is no positive number.
    """

    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if name not in COSTS:
                raise UsageError(f"a budget limits {', '.join(COSTS)}, not '{name}'.{did_you_mean(name, COSTS)}")
            if not (isinstance(limit, (int, float)) and math.isfinite(limit) and limit > 0):
                raise UsageError(f"max_{name} is a positive number, not {limit!r}")

    @classmethod
    def from_flags(
        cls,
        *,
        max_latency_ms: float | None = None,
        max_params: float | None = None,
        max_macs: float | None = None,
        max_size_mb: float | None = None,
    ) -> Budget:
        """Make a budget of flags, any of them.

        Args:
            max_latency_ms: milliseconds a batch.
            max_params: parameters.
            max_macs: multiply-accumulates of one text.
            max_size_mb: MB of the weights' file.

        Returns:
            The budget.

        Raises:
            UsageError: a limit that is no positive number.
        """
        flags = zip(COSTS, (max_latency_ms, max_params, max_macs, max_size_mb), strict=True)
        return cls({name: limit for name, limit in flags if limit is not None})

    def fits(self, costs: Mapping[str, float]) -> bool:
        """Whether a sub-network is within all limits.

        Args:
            costs: what it costs, by name.

        Returns:
            True where nothing is exceeded.
        """
        return not self.misses(costs)

    def misses(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Tell by how much a sub-network exceeds the limits.

        Args:
            costs: what it costs, by name.

        Returns:
            For each limit that it exceeds the excess as a share of the limit: 0.25 for 15 ms where 12 are allowed.
        """
        return {name: costs[name] / limit - 1 for name, limit in self.limits.items() if costs[name] > limit}

    def check_units(self, smallest: Mapping[str, float], largest: Mapping[str, float]) -> None:
        """Refuse limits that make sense in another unit alone.

        A limit that no sub-network meets, or that all meet, is no error as long as no other unit explains it.

        Args:
            smallest: what the smallest sub-network costs, by name.
            largest: what the whole model costs.

        Raises:
            UsageError: a limit in another unit; the message has the number that is probably meant.
        """
        for name, limit in self.limits.items():
            low, high = smallest[name], largest[name]
            for unit, power in _UNITS[name].items():
                meant = limit * 10.0**power
                if (limit < low <= meant <= _GENEROUS * high) or (power < 0 and limit > high >= meant >= low):
                    beyond = f"below the smallest sub-network's {show_cost(low)}"
                    if power < 0:
                        beyond = f"above the whole model's {show_cost(high)}"
                    number = f"{limit:g}e{power}" if power > 3 else f"{meant:.12g}"
                    raise UsageError(f"max_{name} {limit:g} is {beyond}: {number} is meant, from a number in {unit}?")


def show_cost(cost: float) -> str:
    """Write a cost or its limit as people read it: `12,145,287`, or `48.58`.

    Args:
        cost: in the cost's own unit.

    Returns:
        All digits of a large number, four of a small one.
    """
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}"
