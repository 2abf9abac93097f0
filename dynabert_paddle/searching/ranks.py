"""Distributed scoring under `paddle.distributed.launch`: rank zero searches, and all ranks score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dynabert_paddle.runtime.ranks import num_processes, rank
from dynabert_paddle.searching.scoring import Score, Scorer
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.training import processes


@dataclass(frozen=True)
class DistributedScorer:
    """Distributes sub-networks over all ranks for scoring.

    Rank zero calls `score` any number of times, then `finish`; the other ranks call `serve`.

    Args:
        scorer: this rank's; all ranks have the same model and examples.
    """

    scorer: Scorer

    def score(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        """Score sub-networks, each on one rank.

        Args:
            subnets: the candidates.
            to_beat: for each of them the score that it must exceed to be of interest.

        Returns:
            Their scores.
        """
        processes.broadcast((subnets, to_beat))
        return self._score_share(subnets, to_beat)

    def serve(self) -> Any:
        """Score for rank zero until it calls `finish`; returns that call's `result`."""
        while True:
            subnets, to_beat = processes.broadcast(None)
            if subnets is None:  # from `finish`
                return to_beat
            self._score_share(subnets, to_beat)

    def finish(self, result: Any) -> None:
        """End `serve` on the other ranks, which return `result`."""
        processes.broadcast((None, result))

    def _score_share(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        own = slice(rank(), None, num_processes())
        return processes.collect(self.scorer(subnets[own], to_beat[own]))
