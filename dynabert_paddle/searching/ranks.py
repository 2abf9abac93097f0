"""Several processes under `paddle.distributed.launch`: the first one searches, all of them score."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dynabert_paddle.runtime import num_processes
from dynabert_paddle.searching.scoring import Score, Scorer
from dynabert_paddle.subnet import Subnet


@dataclass(frozen=True)
class Ranks:
    """The processes that score together.

    Args:
        scorer: this process's.
        rank: this process's number.
        size: how many there are.
    """

    scorer: Scorer
    rank: int
    size: int

    @classmethod
    def join(cls, scorer: Scorer) -> Ranks:
        """Meet the other processes, where there are any.

        Args:
            scorer: this process's; all have the same model and examples.

        Returns:
            The processes.
        """
        if num_processes() == 1:
            return cls(scorer, 0, 1)
        from paddle import distributed

        distributed.init_parallel_env()
        return cls(scorer, distributed.get_rank(), distributed.get_world_size())

    def score(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        """Score sub-networks, each in one of the processes; for the first process.

        Args:
            subnets: the candidates.
            to_beat: for each of them the score that it must exceed to be of interest.

        Returns:
            Their scores.
        """
        if self.size == 1:
            return self.scorer(subnets, to_beat)
        self._broadcast((subnets, to_beat))
        return self._score_share(subnets, to_beat)

    def serve(self) -> Any:
        """Score for the first process until it is done; for the others.

        Returns:
            What the first process has given to `finish`.
        """
        while True:
            subnets, to_beat = self._broadcast(None)
            if subnets is None:
                return to_beat
            self._score_share(subnets, to_beat)

    def finish(self, result: Any) -> None:
        """Let the other processes go; for the first process.

        Args:
            result: what they shall return.
        """
        if self.size > 1:
            self._broadcast((None, result))

    def _broadcast(self, message: tuple | None) -> tuple:
        from paddle import distributed

        box = [message]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def _score_share(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        from paddle import distributed

        own = slice(self.rank, None, self.size)
        shares: list[list[Score]] = []
        distributed.all_gather_object(shares, self.scorer(subnets[own], to_beat[own]))
        return [shares[index % self.size][index // self.size] for index in range(len(subnets))]


def leads() -> bool:
    """Whether this process is the first one, which writes and prints."""
    return int(os.environ.get("PADDLE_TRAINER_ID") or 0) == 0
