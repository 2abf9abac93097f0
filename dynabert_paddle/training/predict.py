"""Run sub-networks over examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import paddle

from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.runtime.ranks import num_processes, rank
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import PassState
from dynabert_paddle.supernet.slices import SliceCache
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training import processes

MAX_CACHED_ELEMENTS = 2**28  # of sliced weights: a gigabyte


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
