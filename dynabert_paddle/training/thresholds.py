"""The threshold of each label for each sub-network, where a text can have several labels.

A stage chooses them on the examples on which it selects its weights, for the sub-networks that it trains. Those of
other sub-networks are chosen when they are needed, on the examples that no stage has trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np

from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.label_set_metrics import are_label_sets, choose_thresholds
from dynabert_paddle.data.tasks import Task, TaskExamples
from dynabert_paddle.errors import DataError
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.supernet.thresholds import as_array, recorded_thresholds
from dynabert_paddle.text.decode import DEFAULT_THRESHOLD, sigmoid
from dynabert_paddle.training.held_out import has_selected_on_dev, unseen_rows
from dynabert_paddle.training.inputs import tokenize_examples
from dynabert_paddle.training.predict import predict_logits

logger = logging.getLogger(__name__)

Thresholds = dict[str, dict[str, float]]  # by sub-network and label


def measure_thresholds(
    supernet: Supernet, task: Task, features: FeatureSet, subnets: Mapping[str, Subnet], *, batch_size: int = 64
) -> Thresholds:
    """Choose the thresholds that are best for some examples; all processes call this.

    Args:
        supernet: the model.
        task: its task, with the labels in the model's order.
        features: examples that it has not trained on.
        subnets: sub-networks by name.
        batch_size: examples at a time.

    Returns:
        For each sub-network the threshold of each label; nothing for tasks of one label a text.
    """
    labels = features.labels
    if labels is None or not are_label_sets(labels):
        return {}
    logits = predict_logits(supernet, features, subnets.values(), batch_size=batch_size, shared=True)
    chosen = (choose_thresholds(sigmoid(np.asarray(rows, dtype=np.float64)), labels) for rows in logits)
    return {
        name: dict(zip(task.labels, values.tolist(), strict=True)) for name, values in zip(subnets, chosen, strict=True)
    }


def find_thresholds(
    supernet: Supernet,
    labels: tuple[str, ...],
    subnets: Mapping[str, Subnet],
    choose: Callable[[Mapping[str, Subnet]], Thresholds],
) -> dict[str, np.ndarray]:
    """Return the thresholds that a model records, and choose those of further sub-networks.

    Args:
        supernet: the model.
        labels: its labels in the order of its logits.
        subnets: sub-networks by name.
        choose: chooses the thresholds of those that have none, such as `choose_anew`; it may leave some out.

    Returns:
        `[c]` for each sub-network; 0.5 where none are recorded or chosen.
    """
    space = supernet.search_space()
    recorded = {name: recorded_thresholds(supernet.metadata, space, subnet) for name, subnet in subnets.items()}
    missing = {name: subnet for name, subnet in subnets.items() if recorded[name] is None}
    chosen = choose(missing) if missing else {}
    default = dict.fromkeys(labels, DEFAULT_THRESHOLD)
    return {name: as_array(recorded[name] or chosen.get(name, default), labels) for name in subnets}


def choose_anew(supernet: Supernet, task: Task, subnets: Mapping[str, Subnet], *, batch_size: int = 64) -> Thresholds:
    """Choose thresholds on the examples that no stage of a model has trained on; without such, the reason is logged.

    Args:
        supernet: the model.
        task: its task, with the labels in the model's order.
        subnets: sub-networks by name.
        batch_size: examples at a time.

    Returns:
        For each sub-network the threshold of each label; nothing if there are no examples, or one label a text.
    """
    if task.kind != "multi_label" or not supernet.metadata.stage:
        return {}
    examples = _unseen_examples(supernet, task)
    if examples is None:
        logger.warning(
            "%s: no row is known that no stage has trained on, to choose thresholds for %s: each label's is %g",
            *(task.train.source, ", ".join(subnets), DEFAULT_THRESHOLD),
        )
        return {}
    features = tokenize_examples(examples, supernet)
    logger.info("choosing thresholds for %s on %d held-out rows", ", ".join(subnets), features.num_scored)
    return measure_thresholds(supernet, task, features, subnets, batch_size=batch_size)


def _unseen_examples(supernet: Supernet, task: Task) -> TaskExamples | None:
    """Return the training rows that all stages held out, or the dev rows if the stages have selected on them."""
    if has_selected_on_dev(supernet.metadata):
        return task.dev
    if task.train.source == task.dev.source:  # the dev file stands in for a training file that is gone
        return None
    try:
        unseen = unseen_rows(task, supernet.metadata)
    except DataError:  # other rows than the stages had, too few to hold some out
        return None
    return task.train.select(unseen) if len(unseen) else None
