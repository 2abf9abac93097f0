"""The thresholds that a model records for its sub-networks, if its task has several labels a text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dynabert_paddle.errors import ModelError
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet


def recorded_thresholds(metadata: Metadata, space: SearchSpace, subnet: Subnet) -> Mapping[str, float] | None:
    """Look up the thresholds of a sub-network.

    Args:
        metadata: the model's.
        space: the model's sub-networks.
        subnet: one of them.

    Returns:
        The threshold of each label by its name; None if none are recorded.
    """
    wanted = space.parse(space.name(subnet))
    found = (values for name, values in metadata.thresholds.items() if space.parse(name) == wanted)
    return next(found, None)


def as_array(thresholds: Mapping[str, float], labels: tuple[str, ...]) -> np.ndarray:
    """Return thresholds in the order of a model's labels.

    Args:
        thresholds: by label.
        labels: the model's labels in the order of its logits.

    Returns:
        `[c]`.

    Raises:
        ModelError: they are of other labels, or one is not above 0 and below 1.
    """
    if set(thresholds) != set(labels) or not all(0 < value < 1 for value in thresholds.values()):
        raise ModelError(
            f"the thresholds in {METADATA_FILE} are not one for each label, above 0 and below 1: correct them, or "
            "train the model again"
        )
    return np.array([thresholds[label] for label in labels])
