"""Costs of sub-networks, and budgets that limit them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.searching.latency import LatencyTable
from dynabert_paddle.subnet import Subnet

COSTS = ("latency_ms", "params", "macs", "size_mb")

# Other units that users may have in mind, each as a power of ten of the cost's unit.
_COUNTS = {"thousands": 3, "millions": 6, "billions": 9}
_UNITS = {
    "latency_ms": {"seconds": 3, "microseconds": -3},
    "params": _COUNTS,
    "macs": _COUNTS,
    "size_mb": {"GB": 3, "KB": -3, "bytes": -6},
}
# A limit in another unit is recognized up to this multiple of the full model's cost.
_MAX_MULTIPLE = 3


@dataclass(frozen=True)
class CostModel:
    """Computes the costs of a model's sub-networks.

    Args:
        space: the model's sub-networks.
        table: estimates latencies; optional.
    """

    space: SearchSpace
    table: LatencyTable | None

    def costs(self, subnet: Subnet) -> dict[str, Any]:
        """Compute a sub-network's costs.

        Args:
            subnet: any sub-network of the model.

        Returns:
            Each of `COSTS`: estimated milliseconds a batch (None without a table), parameters, MACs of
            `MACS_LENGTH` tokens, and size of the weights' file in MB.
        """
        params = self.space.num_params(subnet)
        return {
            "latency_ms": None if self.table is None else self.table.estimate(subnet),
            "params": params,
            "macs": self.space.num_macs(subnet),
            "size_mb": self.space.num_bytes(subnet) / 1e6,
        }


@dataclass(frozen=True)
class Budget:
    """Limits of a sub-network's costs.

    Args:
        limits: maximum of each limited cost, by its name in `COSTS`.

    Raises:
        UsageError: an unknown cost, or a limit that is not a positive number.
    """

    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if name not in COSTS:
                raise UsageError(f"a budget can limit {', '.join(COSTS)}, not '{name}'.{did_you_mean(name, COSTS)}")
            if not (isinstance(limit, (int, float)) and math.isfinite(limit) and limit > 0):
                raise UsageError(f"max_{name} must be a positive number, not {limit!r}")

    @classmethod
    def from_flags(
        cls,
        *,
        max_latency_ms: float | None = None,
        max_params: float | None = None,
        max_macs: float | None = None,
        max_size_mb: float | None = None,
    ) -> Budget:
        """Create a budget from optional limits.

        Args:
            max_latency_ms: milliseconds a batch.
            max_params: parameters.
            max_macs: multiply-accumulates of one sequence of `MACS_LENGTH` tokens.
            max_size_mb: MB of the weights' file.

        Returns:
            The budget.

        Raises:
            UsageError: a limit that is not a positive number.
        """
        flags = zip(COSTS, (max_latency_ms, max_params, max_macs, max_size_mb), strict=True)
        return cls({name: limit for name, limit in flags if limit is not None})

    def fits(self, costs: Mapping[str, float]) -> bool:
        """Whether a sub-network with these costs is within all limits."""
        return not self.excess(costs)

    def excess(self, costs: Mapping[str, float]) -> dict[str, float]:
        """Compute by how much a sub-network exceeds the limits.

        Args:
            costs: the sub-network's costs by name.

        Returns:
            The excess over each exceeded limit, as a share of the limit: 0.25 if the cost is 15 ms and the limit 12 ms.
        """
        return {name: costs[name] / limit - 1 for name, limit in self.limits.items() if costs[name] > limit}

    def check_units(self, smallest: Mapping[str, float], largest: Mapping[str, float]) -> None:
        """Refuse limits that were probably written in another unit.

        A limit that no sub-network meets, or that all meet, is an error only if it makes sense in another unit.

        Args:
            smallest: costs of the smallest sub-network by name.
            largest: costs of the full model.

        Raises:
            UsageError: a limit in another unit; the message has the number that was probably meant.
        """
        for name, limit in self.limits.items():
            low, high = smallest[name], largest[name]
            for unit, power in _UNITS[name].items():
                meant = limit * 10.0**power
                if (limit < low <= meant <= _MAX_MULTIPLE * high) or (power < 0 and limit > high >= meant >= low):
                    beyond = f"below the smallest sub-network's {format_cost(low)}"
                    if power < 0:
                        beyond = f"above the full model's {format_cost(high)}"
                    number = f"{limit:g}e{power}" if power > 3 else f"{meant:.12g}"
                    raise UsageError(f"max_{name} {limit:g} is {beyond}: if it is in {unit}, write {number}")


def format_cost(cost: float) -> str:
    """Format a cost or limit: all digits from 1000 on (`12,145,287`), else four (`48.58`)."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:.4g}"
