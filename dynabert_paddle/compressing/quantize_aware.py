"""The method `quantize_aware`: weights of few bits and activations of 8, rounded while the model learns."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.supernet.activation_range import HIGHEST, LOWEST, ActivationRange
from dynabert_paddle.supernet.calls import PassState
from dynabert_paddle.supernet.elastic_embedding import elastic_embedding
from dynabert_paddle.supernet.quantized import find_quantized, quantize_model
from dynabert_paddle.supernet.rounding import round_weight, starting_scale
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training.inputs import tokenize_examples

_BITS = (8, 4, 2)
_BATCH_SIZE = 32
_SAMPLES_A_BATCH = 4096  # of each activation tensor
_CANDIDATES = np.linspace(0.05, 1.0, 96)  # shares of the largest activation that 127 can stand for


def compress_quantize_aware(supernet: Supernet, task: Task, config: CompressConfig) -> tuple[Supernet, dict[str, Any]]:
    """Give a model scales for its weights and ranges for its activations; without training round its weights at once.

    Args:
        supernet: the model; it is not changed.
        task: its training texts give the ranges of the activations.
        config: `weight_bits`, `num_calibration_examples` and `finetune_steps`.

    Returns:
        The model, whose training rounds its weights, and what was done.

    Raises:
        UsageError: another number of bits, or a model whose embedding has several ranks.
    """
    bits = _check_settings(supernet, config)
    small = Supernet(deepcopy(supernet.model), supernet.tokenizer, supernet.metadata)
    quantize_model(small.model, bits, starting_scale)
    rng = np.random.default_rng(config.seed)
    sample = task.train.select(np.sort(rng.permutation(len(task.train))[: config.num_calibration_examples]))
    set_ranges(small, tokenize_examples(sample, small), rng)
    quantized = find_quantized(small.model)
    if not config.finetune_steps:
        with paddle.no_grad():
            for weight in quantized:
                paddle.assign(round_weight(weight.weight, weight.scale, weight.bits, weight.axis), weight.weight)
    return small, {"weight_bits": bits, "quantized_weights": sum(int(weight.weight.size) for weight in quantized)}


def set_ranges(supernet: Supernet, features: FeatureSet, rng: np.random.Generator) -> None:
    """Choose the scale of each activation tensor that loses least when the tensor is rounded.

    Args:
        supernet: the model, whose ranges are changed in place.
        features: texts to measure on, which the full model reads with its activations as they are.
        rng: draws the values that count.
    """
    samples: dict[ActivationRange, list[np.ndarray]] = {}

    def observe(layer: ActivationRange, x: Tensor) -> None:
        values = x.numpy().reshape(-1)
        samples.setdefault(layer, []).append(values[rng.integers(len(values), size=_SAMPLES_A_BATCH)])

    was_training = supernet.training
    supernet.eval()
    with paddle.no_grad():
        for rows in sequential_batches(features.lengths, _BATCH_SIZE):
            inputs = to_tensors(features.collate(rows, supernet.pad_token_id))
            inputs.pop("labels", None)
            supernet(state=PassState(observe_range=observe), **inputs)
    if was_training:
        supernet.train()
    for layer, values in samples.items():
        layer.scale.set_value(np.array([best_activation_scale(np.concatenate(values))], np.float32))


def best_activation_scale(values: np.ndarray) -> float:
    """Return the scale with the smallest squared error when values are rounded to int8 times it.

    Args:
        values: one dimension.

    Returns:
        The scale, above 0.
    """
    most = max(float(np.abs(values).max()), 1e-6) / HIGHEST
    scales = most * _CANDIDATES
    errors = [np.square(np.clip(np.rint(values / s), LOWEST, HIGHEST) * s - values).sum() for s in scales]
    return float(scales[int(np.argmin(errors))])


def _check_settings(supernet: Supernet, config: CompressConfig) -> int:
    bits = config.weight_bits
    if bits not in _BITS:
        raise UsageError(f"{setting('compress.weight_bits')} is {bits}: allowed are 8, 4 and 2")
    embedding = elastic_embedding(supernet.model)
    if embedding is not None and embedding.down is not None:
        raise UsageError(
            "the embedding of a model for several ranks is not quantized: extract a sub-network with the rank that you "
            "want first, such as w1.00d1.00r0.25, or w1.00d1.00 for the whole embedding"
        )
    return bits
