"""All measurements of a search, the same in every process: first scores, rounds, the check, and the reported scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dynabert_paddle.config.command_settings import SearchConfig
from dynabert_paddle.data.embedding_metrics import needs_teacher
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.searching.examples import SearchExamples
from dynabert_paddle.searching.measuring import DIVERGENCE, Sample
from dynabert_paddle.searching.scoring import Score, Scorer, label_with_predictions
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.inputs import tokenize_examples
from dynabert_paddle.training.teacher_vectors import add_targets, load_teacher

CHECK, FRESH = "check", "fresh"


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures sub-networks.

    Args:
        first: scores all candidates of the evolution; the numbers are the scores that each of them must exceed.
        rounds: the examples of each round of halving, and on them the measure that chooses.
        measure: the name of that measure.
        check: held-out examples on which what is chosen must not be worse; None where they are those of the rounds.
        fresh: the examples that the reported scores are of.
        metric: the name of the reported score.
        content: the arrays that identify all these examples.
    """

    first: Callable[[Sequence[Subnet], Sequence[float]], list[Score]]
    rounds: tuple[Sample, ...]
    measure: str
    check: Sample | None
    fresh: Sample
    metric: str
    content: tuple[np.ndarray, ...]

    def sample(self, key: int | str) -> Sample:
        """Return the examples of a round, by its number, or those of `CHECK` or `FRESH`."""
        if isinstance(key, int):
            return self.rounds[key]
        sample = self.fresh if key == FRESH else self.check
        assert sample is not None
        return sample

    @property
    def num_chosen_on(self) -> int:
        """The number of examples of all rounds."""
        return sum(sample.features.num_scored for sample in self.rounds)


def make_judge(supernet: Supernet, task: Task, examples: SearchExamples, config: SearchConfig) -> Judge:
    """Prepare the measurements of a search.

    Args:
        supernet: the model.
        task: its task.
        examples: the examples.
        config: by what to choose.

    Returns:
        The measurements.

    Raises:
        UsageError: the task does not support agreement.
    """
    batch_size = config.per_device_eval_batch_size
    texts = [tokenize_examples(part, supernet) for part in examples.texts]
    choosing, fresh = (tokenize_examples(part, supernet) for part in (examples.choosing, examples.fresh))
    content = tuple(array for features in (*texts, choosing, fresh) for array in features.content)
    metric = task.metrics[0]
    if needs_teacher([metric]):
        teacher = load_teacher(supernet)
        choosing = add_targets(choosing, examples.choosing, teacher, batch_size=batch_size)
        fresh = add_targets(fresh, examples.fresh, teacher, batch_size=batch_size)

    def sample(features: FeatureSet, *measures: str) -> Sample:
        return Sample(supernet, features, task.kind, measures, batch_size)

    if config.score == DIVERGENCE:
        first, *others = (sample(part, DIVERGENCE) for part in texts)

        def score(subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
            return [Score(-found[DIVERGENCE].value, stopped=False) for found in first(subnets)]

        rounds = tuple(others) or (first,)
        check = sample(choosing, metric, DIVERGENCE)
        return Judge(score, rounds, DIVERGENCE, check, sample(fresh, metric), metric, content)
    if config.score == "agreement":
        choosing, metric = label_with_predictions(supernet, choosing, batch_size=batch_size)
        fresh, metric = label_with_predictions(supernet, fresh, batch_size=batch_size)
    scorer = Scorer(supernet, choosing, metric, batch_size, config.seed)
    return Judge(scorer, (sample(choosing, metric),), metric, None, sample(fresh, metric), metric, content)
