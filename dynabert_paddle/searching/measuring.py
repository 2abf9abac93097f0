"""Measures sub-networks on a sample of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.searching.divergence import divergences
from dynabert_paddle.searching.estimate import Estimate
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.evaluate import predict_logits

DIVERGENCE = "divergence"

_MAX_GROUPS = 40  # of the jackknife: the standard error is known to a tenth then
_SUBNETS_PER_PASS = 16  # bounds the memory of logits


@dataclass(frozen=True, eq=False)
class Sample:
    """Examples on which sub-networks are measured.

    Args:
        supernet: the model.
        features: the examples.
        kind: the kind of the task.
        measures: names of metrics, and `DIVERGENCE` from the full model.
        batch_size: examples at a time.
    """

    supernet: Supernet
    features: FeatureSet
    kind: str
    measures: tuple[str, ...]
    batch_size: int

    def __call__(self, subnets: Sequence[Subnet]) -> list[Mapping[str, Estimate]]:
        """Measure sub-networks.

        Args:
            subnets: which.

        Returns:
            For each of them its measures by name; of divergences less is better.
        """
        found: dict[Subnet, Mapping[str, Estimate]] = {}
        if DIVERGENCE in self.measures and self.supernet.full in subnets:  # the reference, which has run already
            found[self.supernet.full] = self._estimate_all(self._reference)
        missing = [subnet for subnet in subnets if subnet not in found]
        for start in range(0, len(missing), _SUBNETS_PER_PASS):
            some = missing[start : start + _SUBNETS_PER_PASS]
            all_logits = predict_logits(self.supernet, self.features, some, batch_size=self.batch_size)
            found |= zip(some, map(self._estimate_all, all_logits), strict=True)
        return [found[subnet] for subnet in subnets]

    def _estimate_all(self, logits: Sequence[np.ndarray]) -> Mapping[str, Estimate]:
        return {measure: self._estimate(measure, logits) for measure in self.measures}

    def _estimate(self, measure: str, logits: Sequence[np.ndarray]) -> Estimate:
        if measure == DIVERGENCE:
            values = divergences(self.features, self._reference, logits, kind=self.kind)
            return Estimate(float(values.mean()), values)
        value = self.features.score((measure,), logits)[measure]
        groups = self._groups
        if len(groups) < 2:
            return Estimate(value, np.array([value]))
        # The pseudo-values of Quenouille and Tukey's jackknife: for a mean over examples the means of the groups.
        without = self.features.score_without(measure, logits, groups)
        return Estimate(value, len(groups) * value - (len(groups) - 1) * without)

    @cached_property
    def _reference(self) -> Sequence[np.ndarray]:
        (logits,) = predict_logits(self.supernet, self.features, [self.supernet.full], batch_size=self.batch_size)
        return logits

    @cached_property
    def _groups(self) -> list[np.ndarray]:
        count = self.features.num_scored
        return np.array_split(np.random.default_rng(0).permutation(count), min(count, _MAX_GROUPS))
