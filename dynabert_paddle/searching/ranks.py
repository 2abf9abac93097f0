"""Several processes under `paddle.distributed.launch`: the first one searches, all of them score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dynabert_paddle.runtime.ranks import num_processes, rank
from dynabert_paddle.searching.scoring import Score, Scorer
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.training import processes


@dataclass(frozen=True)
class Ranks:
    """The processes that score together.

    Args:
        scorer: this process's; all have the same model and examples.
    """

    scorer: Scorer

    def score(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        """Score sub-networks, each in one of the processes; for the first process.

        Args:
            subnets: the candidates.
            to_beat: for each of them the score that it must exceed to be of interest.

        Returns:
            Their scores.
        """
        processes.broadcast((subnets, to_beat))
        return self._score_share(subnets, to_beat)

    def serve(self) -> Any:
        """Score for the first process until it is done; for the others.

        Returns:
            What the first process has given to `finish`.
        """
        while True:
            subnets, to_beat = processes.broadcast(None)
            if subnets is None:
                return to_beat
            self._score_share(subnets, to_beat)

    def finish(self, result: Any) -> None:
        """Let the other processes go; for the first process.

        Args:
            result: what they shall return.
        """
        processes.broadcast((None, result))

    def _score_share(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        own = slice(rank(), None, num_processes())
        return processes.collect(self.scorer(subnets[own], to_beat[own]))
