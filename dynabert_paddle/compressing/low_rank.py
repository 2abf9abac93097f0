"""The method `low_rank`: matrices become products of two smaller ones, fitted to their inputs on training texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.backbone.structure import owner_of
from dynabert_paddle.compressing.products import Moments, best_product, output_error, saving_rank
from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.distill.losses import pick_rows, token_rows
from dynabert_paddle.errors import UsageError
from dynabert_paddle.rewiring.components import count_tokens, principal_components
from dynabert_paddle.supernet.calls import PassState
from dynabert_paddle.supernet.elastic_embedding import (
    elastic_embedding,
    make_embedding_elastic,
    resize_embedding,
    word_table,
)
from dynabert_paddle.supernet.low_rank_linear import PARTS, find_ranks
from dynabert_paddle.supernet.shared_layers import unique
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training.inputs import tokenize_examples

_BATCH_SIZE = 32


def compress_low_rank(supernet: Supernet, task: Task, config: CompressConfig) -> tuple[Supernet, dict[str, Any]]:
    """Replace linear layers by products of two matrices, where that saves multiply-accumulates, and the embedding.

    Args:
        supernet: the model; it is not changed.
        task: its training texts are the layers' inputs, its dev texts measure the error.
        config: `rank_share`, `part` and `num_calibration_examples`.

    Returns:
        The smaller model, and the record of the compression.

    Raises:
        UsageError: no rank is given, it saves nothing, or the model has products already.
    """
    share, parts = _check_settings(supernet, config)
    small = Supernet(deepcopy(supernet.model), supernet.tokenizer, supernet.metadata)
    errors = _factorize_layers(supernet, small, task, config, share, [part for part in parts if part in PARTS])
    if "embedding" in parts:
        errors["embedding"] = _factorize_embedding(small, task, share)
    errors = {part: values for part, values in errors.items() if values[2]}
    if not errors:
        raise UsageError(
            f"{setting('compress.rank_share')} is {share}: no matrix of {' and '.join(parts)} becomes smaller as a "
            f"product of that rank: pass a smaller one, below 0.5 for attention"
        )
    done: dict[str, Any] = {"rank_share": share}
    for part, (of_svd, of_product, whole) in errors.items():
        done[f"{part}_output_error_of_svd"] = round((of_svd / whole) ** 0.5, 4)
        done[f"{part}_output_error"] = round((of_product / whole) ** 0.5, 4)
    return small, done


def _factorize_layers(
    supernet: Supernet, small: Supernet, task: Task, config: CompressConfig, share: float, parts: Sequence[str]
) -> dict[str, np.ndarray]:
    """Replace linear layers; returns by part the squared errors of the truncated SVD, of the product, and of zeros."""
    errors = {part: np.zeros(3) for part in parts}
    if not parts:
        return errors
    rng = np.random.default_rng(config.seed)
    samples = (
        examples.select(np.sort(rng.permutation(len(examples))[: config.num_calibration_examples]))
        for examples in (task.train, task.dev)
    )
    moments, held_out = (collect_moments(supernet, tokenize_examples(sample, supernet)) for sample in samples)
    for layer, source in zip(*(unique(model.encoder.layers) for model in (small, supernet)), strict=True):
        for part in parts:
            for name in PARTS[part]:
                linear = getattr(*owner_of(source, name))
                rank = saving_rank(linear.weight.shape, share)
                if rank is None:
                    continue
                product = best_product(linear, rank, moments[linear])
                plain = best_product(linear, rank, Moments.isotropic(linear.weight.shape[0]))
                owner, attribute = owner_of(layer, name)
                setattr(owner, attribute, product)
                errors[part] += [output_error(linear, each, held_out[linear]) for each in (plain, product, None)]
    return errors


def _factorize_embedding(small: Supernet, task: Task, share: float) -> np.ndarray:
    """Replace the word embedding by a product of its principal components; returns the same three squares."""
    table = word_table(small.model).astype(np.float64)
    rank = saving_rank(list(table.shape), share)
    if rank is None:
        return np.zeros(3)
    train, dev = (_token_counts(tokenize_examples(part, small), small, len(table)) for part in (task.train, task.dev))
    components, plain = (principal_components(table, weights)[:rank] for weights in (train + 1, np.ones(len(table))))
    make_embedding_elastic(small.model, principal_components(table, train + 1))
    resize_embedding(small.model, rank)
    lost = (table - table @ basis.T @ basis for basis in (plain, components, np.zeros_like(plain)))
    return np.array([dev @ (rows**2).sum(axis=1) for rows in lost])


def _token_counts(features: FeatureSet, supernet: Supernet, vocab_size: int) -> np.ndarray:
    batches = sequential_batches(features.lengths, _BATCH_SIZE)
    return count_tokens((features.collate(rows, supernet.pad_token_id) for rows in batches), vocab_size)


def collect_moments(
    supernet: Supernet, features: FeatureSet, *, batch_size: int = _BATCH_SIZE
) -> dict[nn.Layer, Moments]:
    """Run the full model over texts, and collect the moments of its linear layers' inputs.

    Args:
        supernet: the model.
        features: the tokenized texts.
        batch_size: texts at a time.

    Returns:
        For each linear layer of the encoder its inputs' moments; padding does not count.
    """
    moments: dict[nn.Layer, Moments] = {}

    def observer(rows: Tensor | None) -> Callable[[nn.Layer, Tensor], None]:
        def observe(layer: nn.Layer, x: Tensor) -> None:
            inputs = pick_rows(x, rows).reshape([-1, x.shape[-1]]).numpy().astype(np.float64)
            width = inputs.shape[1]
            known = moments.setdefault(layer, Moments(0, np.zeros(width), np.zeros((width, width))))
            known.count += len(inputs)
            known.total += inputs.sum(axis=0)
            known.products += inputs.T @ inputs

        return observe

    was_training = supernet.training
    supernet.eval()
    with paddle.no_grad():
        for rows in sequential_batches(features.lengths, batch_size):
            inputs = to_tensors(features.collate(rows, supernet.pad_token_id))
            inputs.pop("labels", None)
            supernet(state=PassState(observe=observer(token_rows(inputs["attention_mask"]))), **inputs)
    if was_training:
        supernet.train()
    return moments


def _check_settings(supernet: Supernet, config: CompressConfig) -> tuple[float, tuple[str, ...]]:
    share = config.rank_share
    if share is None:
        raise UsageError(f"low_rank needs {setting('compress.rank_share')}: a share of the full rank, for example 0.3")
    if find_ranks(supernet.encoder.layers) and not PARTS.keys().isdisjoint(config.part):
        raise UsageError("the model's linear layers are products of a low rank already: start from the model before")
    lost = [part for part in config.part if part in supernet.metadata.sparse_parts]
    if lost:
        raise UsageError(
            f"products would lose the zeros of the sparse {' and '.join(lost)}: start from the model before, first "
            f"low_rank, then sparse"
        )
    if elastic_embedding(supernet.model) is not None and "embedding" in config.part:
        raise UsageError(
            "the model's embedding is elastic, or has a low rank already: extract a sub-network with the rank that you "
            "want, such as w1.00d1.00r0.25"
        )
    return share, config.part
