"""Selects the examples of a search: texts that candidates are compared on, and labelled examples that give the scores.

The scores that a search reports are of examples that have chosen nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np

from dynabert_paddle.config.command_settings import SearchConfig
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.embedding_examples import TextsToEmbed
from dynabert_paddle.data.tasks import Task, TaskExamples
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.training.held_out import has_selected_on_dev, unseen_rows

MAX_TEXTS = 1024  # by default
# The first candidates are many, so an eighth of the texts is for them; each round of fewer ones gets new texts, and the
# later the round the more.
_ROUNDS = (0, 1 / 8, 1 / 4, 1 / 2, 1)


@dataclass(frozen=True)
class SearchExamples:
    """The examples of a search; no example is in two parts.

    Args:
        texts: training texts, a part for each round of comparisons, the first one for all candidates.
        choosing: half of the examples with labels, which take part in the choice.
        fresh: the other half, which the reported scores are of.
    """

    texts: tuple[TaskExamples, ...]
    choosing: TaskExamples
    fresh: TaskExamples


def choose_examples(task: Task, metadata: Metadata, config: SearchConfig) -> SearchExamples:
    """Choose the examples that a supernet's sub-networks are measured on.

    Args:
        task: the supernet's task.
        metadata: the supernet's; its stages' settings determine what they held out.
        config: which examples, and how many; its seed decides the random choice.

    Returns:
        The examples.

    Raises:
        UsageError: no example was held out by all stages, or there are fewer than are asked for, or than two.
    """
    random = np.random.default_rng(config.seed)
    labelled, available = task.dev, np.arange(_num_scored(task.dev))
    if config.score_on == "holdout":
        labelled, available = task.train, find_unseen(task, metadata)
    size = len(available) if config.holdout_size is None else config.holdout_size
    if size > len(available):
        raise UsageError(
            f"{setting('search.holdout_size')} {size} is more than the {len(available)} examples of {config.score_on} "
            f"that training has not seen: omit it to score on all of them"
        )
    if size < 2:
        remedy = "set it to at least 2" if len(available) > 1 else f"set {setting('search.score_on')} to dev"
        if config.score_on == "dev" and len(available) < 2:
            remedy = "add rows to the dev file"
        raise UsageError(
            f"{setting('search.holdout_size')} is {size}, and half of the examples of {config.score_on} take part in "
            f"the choice, the other half give the scores: {remedy}"
        )
    chosen = random.permutation(available)[:size]
    parts = [np.sort(part) for part in (chosen[: size // 2], chosen[size // 2 :])]
    others = np.arange(len(task.train))
    if config.score_on == "holdout":
        others = np.setdiff1d(others, chosen)
    texts = _choose_texts(others, config, random)
    choosing, fresh = (_select_scored(labelled, part) for part in parts)
    return SearchExamples(tuple(task.train.select(part) for part in texts), choosing, fresh)


def _num_scored(examples: TaskExamples) -> int:
    return examples.num_scored if isinstance(examples, TextsToEmbed) else len(examples)


def _select_scored(examples: TaskExamples, indices: np.ndarray) -> TaskExamples:
    return examples.select_scored(indices) if isinstance(examples, TextsToEmbed) else examples.select(indices)


def _choose_texts(available: np.ndarray, config: SearchConfig, random: np.random.Generator) -> list[np.ndarray]:
    """The indices of the texts of each round."""
    if config.score != "divergence":
        return []
    count = min(MAX_TEXTS, len(available)) if config.num_texts is None else config.num_texts
    if count > len(available):
        raise UsageError(
            f"{setting('search.num_texts')} {count} is more than the {len(available)} training texts besides those "
            f"that give the scores: omit it to take up to {MAX_TEXTS}"
        )
    chosen = random.permutation(available)[:count]
    bounds = [ceil(count * share) for share in _ROUNDS]
    parts = [np.sort(chosen[start:end]) for start, end in pairwise(bounds)]
    return [part for part in parts if len(part)]


def find_unseen(task: Task, metadata: Metadata) -> np.ndarray:
    """Find the training examples that all training stages of a supernet held out.

    Args:
        task: the supernet's task.
        metadata: the supernet's.

    Returns:
        Their indices.

    Raises:
        UsageError: there are none.
    """
    on_dev = f"set {setting('search.score_on')} to dev"
    if has_selected_on_dev(metadata):
        raise UsageError(f"training held out no examples (select_on dev): {on_dev}")
    unseen = unseen_rows(task, metadata, on_dev=on_dev)
    if not len(unseen):
        raise UsageError(f"no training example was held out by all stages: {on_dev}")
    return unseen
