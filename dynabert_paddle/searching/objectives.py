"""The objectives of a search: costs to minimize, budget, and the setting that latencies hold for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dynabert_paddle.config.command_settings import SearchConfig
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError, did_you_mean
from dynabert_paddle.model_shape import MACS_LENGTH
from dynabert_paddle.searching.cost import COSTS, Budget
from dynabert_paddle.searching.latency_setting import LatencySetting


@dataclass(frozen=True)
class Objectives:
    """What a search optimizes, and within which limits.

    Args:
        setting: batch size, length, device, threads and precision for latencies.
        budget: limits of costs.
        goals: names of the costs to minimize, while the score is maximized.
    """

    setting: LatencySetting
    budget: Budget
    goals: tuple[str, ...]

    @classmethod
    def from_config(cls, config: SearchConfig) -> Objectives:
        """Read a search's settings.

        Args:
            config: the settings.

        Returns:
            The objectives; the default goals are the costs that the budget limits, or MACs without a budget.

        Raises:
            UsageError: an unknown goal, or an invalid limit or setting.
        """
        budget = Budget.from_flags(
            max_latency_ms=config.max_latency_ms,
            max_params=config.max_params,
            max_macs=config.max_macs,
            max_size_mb=config.max_size_mb,
        )
        setting = LatencySetting(
            batch_size=config.batch_size,
            seq_length=config.seq_length,
            device=config.device,
            num_threads=config.num_threads,
            precision=config.precision,
            format=config.format,
        )
        goals = tuple(budget.limits) if config.goals is None else config.goals
        _check_goals(goals)
        return cls(setting, budget, goals or ("macs",))

    @property
    def need_latency(self) -> bool:
        """Whether latencies are needed."""
        return "latency_ms" in self.goals or "latency_ms" in self.budget.limits

    def resume_settings(self) -> dict[str, Any]:
        """What must be unchanged to resume an interrupted search, in JSON's types."""
        setting = asdict(self.setting) if "latency_ms" in self.goals else {}
        length = {"macs_length": MACS_LENGTH} if "macs" in self.goals else {}
        return {"goals": list(self.goals), **setting, **length}


def _check_goals(goals: Iterable[str]) -> None:
    for goal in goals:
        if goal not in COSTS:
            raise UsageError(
                f"{setting('search.goals')} takes {', '.join(COSTS)}, not '{goal}'.{did_you_mean(goal, COSTS)}"
            )
    if len(set(goals)) < len(tuple(goals)):
        raise UsageError(f"{setting('search.goals')} must name each cost only once, not '{' '.join(goals)}'")
