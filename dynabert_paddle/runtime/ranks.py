"""The processes that `paddle.distributed.launch` has started, as the environment names them."""

from __future__ import annotations

import os


def num_processes() -> int:
    """How many processes `paddle.distributed.launch` has started; 1 without it."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("PADDLE_TRAINER_ID") or 0)


def is_rank_zero() -> bool:
    """Whether this process is the first one, which alone writes and prints."""
    return rank() == 0
