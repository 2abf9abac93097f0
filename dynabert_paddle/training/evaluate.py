"""Score sub-networks on a data split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.ranks import num_processes, rank
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import PassState
from dynabert_paddle.supernet.slices import SliceCache
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training import processes
from dynabert_paddle.training.data_warnings import warn_about_tokens
from dynabert_paddle.training.inputs import match_labels, tokenize_examples
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.progress import show_progress

MAX_CACHED_ELEMENTS = 2**28  # of sliced weights: a gigabyte
_SECONDS_BETWEEN_LINES = 10.0


def predict_logits(
    supernet: Supernet,
    features: FeatureSet,
    subnets: Iterable[Subnet],
    *,
    batch_size: int = 64,
    shared: bool = False,
    report: Callable[[int], None] | None = None,
) -> list[Sequence[np.ndarray]]:
    """Run sub-networks over all examples, in evaluation mode.

    Args:
        supernet: the model.
        features: tokenized examples.
        subnets: which sub-networks; those with the same embedding rank share each batch's embedding.
        batch_size: examples at a time.
        shared: all processes of `paddle.distributed.launch` call this together; each runs its share of the batches.
        report: called with the number of examples done after each batch.

    Returns:
        For each sub-network its logits, in the examples' order: `[n, c]`, or for the labels of tokens and for answers
        one array an example.

    Raises:
        DynabertError: a sub-network computes logits that are not finite.
    """
    subnets = list(subnets)
    batches = sequential_batches(features.lengths, batch_size)
    first, size = (rank(), num_processes()) if shared else (0, 1)
    was_training = supernet.training
    supernet.eval()
    state = PassState(SliceCache(MAX_CACHED_ELEMENTS))
    logits, done = [], 0
    with paddle.no_grad():
        for number, batch in enumerate(batches):
            if number % size == first:
                logits.append(_run_batch(supernet, features, batch, subnets, state))
            done += len(batch)
            if report:
                report(done)
    if was_training:
        supernet.train()
    if shared:
        logits = processes.collect(logits)
    return [features.restore(batches, rows) for rows in zip(*logits, strict=True)]


def _run_batch(
    supernet: Supernet, features: FeatureSet, rows: np.ndarray, subnets: Sequence[Subnet], state: PassState
) -> list[np.ndarray]:
    """Return each sub-network's logits of some examples."""
    inputs = to_tensors(features.collate(rows, supernet.pad_token_id))
    inputs.pop("labels", None)
    for subnet in subnets:
        supernet.check_subnet(subnet)
    embeddings = supernet.embed_ranks(subnets, state=state, **inputs)
    logits = []
    for subnet in subnets:
        embedding = embeddings[subnet.embedding_rank]
        output = supernet(subnet, embedding=embedding, logits_only=True, state=state, **inputs)
        values = output.logits.astype("float32").numpy()
        if not np.isfinite(values).all():  # a metric would count them as an answer
            raise DynabertError(f"'{subnet}' computes logits that are not finite: train it with a lower learning rate")
        logits.append(values)
    return logits


def evaluate_subnets(
    supernet: Supernet,
    features: FeatureSet,
    subnets: Mapping[str, Subnet],
    *,
    metrics: Iterable[str],
    batch_size: int = 64,
) -> dict[str, dict[str, float]]:
    """Score sub-networks; the processes of `paddle.distributed.launch` share the work, and all get the scores.

    Args:
        supernet: the model.
        features: tokenized examples with labels.
        subnets: sub-networks by name.
        metrics: names of metrics.
        batch_size: examples at a time.

    Returns:
        Each sub-network's metrics, by its name.
    """
    names = tuple(metrics)
    logits = predict_logits(supernet, features, subnets.values(), batch_size=batch_size, shared=True)
    return {name: features.score(names, rows) for name, rows in zip(subnets, logits, strict=True)}


def evaluate_grid(
    supernet: Supernet,
    task: Task,
    space: SearchSpace | None = None,
    *,
    max_seq_length: int | None = None,
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """Score a grid of sub-networks on the task's dev set, with their costs.

    Args:
        supernet: the model of a stage.
        task: its task.
        space: the grid; by default the part that the supernet's stages have trained.
        max_seq_length: longer inputs are cut to this number of tokens; by default the model's own setting.
        batch_size: examples at a time.

    Returns:
        One row a sub-network: its name, metrics, parameters with and without embeddings, and MACs of 128 tokens.
    """
    names = list((space or trained_space(supernet)).grid())
    return evaluate_named(supernet, task, names, max_seq_length=max_seq_length, batch_size=batch_size)


def evaluate_named(
    supernet: Supernet,
    task: Task,
    names: Iterable[str],
    *,
    max_seq_length: int | None = None,
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """Score sub-networks, by their names, on the task's dev set.

    Args:
        supernet: the model of a stage.
        task: its task.
        names: names of sub-networks.
        max_seq_length: longer inputs are cut to this number of tokens; by default the model's own setting.
        batch_size: examples at a time.

    Returns:
        Rows as from `evaluate_grid`.

    Raises:
        UsageError: a name that is no sub-network of this model, or a task with other classes than the model has.
    """
    return score_outputs(supernet, run_on_dev(supernet, task, names, max_seq_length, batch_size=batch_size))


@dataclass(frozen=True)
class DevOutputs:
    """What sub-networks compute for a task's dev set.

    Args:
        task: the task, with its classes in the order of the logits.
        features: its dev examples.
        logits: by the sub-network's name; from `predict_logits`.
    """

    task: Task
    features: FeatureSet
    logits: Mapping[str, Sequence[np.ndarray]]


def run_on_dev(
    supernet: Supernet, task: Task, names: Iterable[str], max_seq_length: int | None = None, *, batch_size: int = 64
) -> DevOutputs:
    """Run sub-networks over a task's dev set; the processes of `paddle.distributed.launch` share the work.

    Args:
        supernet: the model of a stage.
        task: its task.
        names: names of sub-networks.
        max_seq_length: longer inputs are cut to this number of tokens; by default the model's own setting.
        batch_size: examples at a time.

    Returns:
        What they compute, in every process.

    Raises:
        UsageError: as for `evaluate_named`.
    """
    task = match_labels(supernet, task, "the model")
    space = trained_space(supernet)
    subnets = {name: space.parse(name) for name in names}
    features = tokenize_examples(task.dev, supernet, max_seq_length=max_seq_length)
    warn_about_tokens(task, [features], supernet, source=task.dev.source, max_seq_length=max_seq_length)
    logger.info("evaluating %d sub-network%s on dev", len(subnets), "" if len(subnets) == 1 else "s")
    with show_progress("evaluate", len(features), seconds=_SECONDS_BETWEEN_LINES) as report:
        logits = predict_logits(supernet, features, subnets.values(), batch_size=batch_size, shared=True, report=report)
    return DevOutputs(task, features, dict(zip(subnets, logits, strict=True)))


def score_outputs(supernet: Supernet, outputs: DevOutputs) -> list[dict[str, Any]]:
    """Score what sub-networks compute for a dev set.

    Args:
        supernet: the model that they are of.
        outputs: from `run_on_dev`.

    Returns:
        Rows as from `evaluate_grid`.
    """
    space = trained_space(supernet)
    return [
        {"subnet": name, **outputs.features.score(outputs.task.metrics, rows), **_costs(space, space.parse(name))}
        for name, rows in outputs.logits.items()
    ]


def trained_space(supernet: Supernet) -> SearchSpace:
    """The part of the paper's grid that a supernet was trained for.

    Args:
        supernet: the model of a stage.

    Returns:
        Its search space; the grid of a model that is not elastic yet is the full model alone.
    """
    return supernet.search_space(
        width_mults=supernet.metadata.space.get("width_mults", (1.0,)),
        depth_mults=supernet.metadata.space.get("depth_mults", (1.0,)),
        rank_mults=supernet.metadata.space.get("rank_mults", (1.0,)),
    )


def _costs(space: SearchSpace, subnet: Subnet) -> dict[str, int]:
    return {
        "params": space.num_params(subnet),
        "params_without_embeddings": space.num_params(subnet, embeddings=False),
        "macs": space.num_macs(subnet),
    }
