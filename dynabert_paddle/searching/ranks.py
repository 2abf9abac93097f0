"""Distributed scoring under `paddle.distributed.launch`: rank zero searches, and all ranks score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynabert_paddle.runtime.ranks import num_processes, rank
from dynabert_paddle.searching.estimate import Estimate
from dynabert_paddle.searching.judge import Judge
from dynabert_paddle.searching.scoring import Score
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.training import processes


@dataclass(frozen=True)
class DistributedScorer:
    """Distributes sub-networks over all ranks for scoring.

    Rank zero calls `score` and `measure` any number of times, then `finish`; the other ranks call `serve`.

    Args:
        judge: this rank's; all ranks have the same model and examples.
    """

    judge: Judge

    def score(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        """Score sub-networks, each on one rank.

        Args:
            subnets: the candidates.
            to_beat: for each of them the score that it must exceed to be of interest.

        Returns:
            Their scores.
        """
        return self._call("score", subnets, to_beat)

    def measure(self, subnets: Sequence[Subnet], sample: int | str) -> list[Mapping[str, Estimate]]:
        """Measure sub-networks, each on one rank.

        Args:
            subnets: which.
            sample: on which examples, see `Judge.sample`.

        Returns:
            For each of them its measures by name.
        """
        return self._call("measure", subnets, sample)

    def serve(self) -> Any:
        """Work for rank zero until it calls `finish`; returns that call's `result`."""
        while True:
            what, subnets, argument = processes.broadcast(None)
            if what == "finish":
                return argument
            self._run_share(what, subnets, argument)

    def finish(self, result: Any) -> None:
        """End `serve` on the other ranks, which return `result`."""
        processes.broadcast(("finish", (), result))

    def _call(self, what: str, subnets: Sequence[Subnet], argument: Any) -> list[Any]:
        processes.broadcast((what, subnets, argument))
        return self._run_share(what, subnets, argument)

    def _run_share(self, what: str, subnets: Sequence[Subnet], argument: Any) -> list[Any]:
        own = slice(rank(), None, num_processes())
        if what == "score":
            return processes.collect(self.judge.first(subnets[own], argument[own]))
        return processes.collect(self.judge.sample(argument)(subnets[own]))
