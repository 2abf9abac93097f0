"""Random seeds of a process and of a training step."""

from __future__ import annotations

import random


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and Paddle.

    Args:
        seed: from 0 to 2**31 - 1.
    """
    import numpy as np
    import paddle

    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """A seed of its own for every step, so that a resumed run draws what an uninterrupted one draws.

    Args:
        seed: the run's seed.
        step: the optimizer step.
        part: the process or the shard, if each must draw its own numbers.

    Returns:
        A seed from 0 to 2**31 - 1.
    """
    import numpy as np

    return int(np.random.SeedSequence((seed, step, part)).generate_state(1)[0] >> 1)
