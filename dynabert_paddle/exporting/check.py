"""Compare an exported graph with its model. Shapes: b batch, s sequence, c classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import paddle

from dynabert_paddle.bundle.engines import INPUTS
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.errors import ModelError
from dynabert_paddle.exporting.manifest import LogitCheck, MetricCheck
from dynabert_paddle.supernet.calls import FLOAT_ACTIVATIONS, NO_STATE, PassState
from dynabert_paddle.supernet.supernet import Supernet, to_tensors

Run = Callable[[Sequence[dict[str, np.ndarray]]], list[np.ndarray]]  # batches -> the logits of each


def random_batches(vocab_size: int, max_seq_length: int, *, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Make random inputs of several shapes, with padding and two segments.

    Args:
        vocab_size: upper bound of the token ids, exclusive.
        max_seq_length: length of the longest batch.
        seed: seed of the ids and lengths.

    Returns:
        Four batches, int64 `[b, s]`.
    """
    rng = np.random.default_rng(seed)
    batches = []
    for batch_size, seq_length in ((1, 2), (1, 9), (4, 17), (2, max_seq_length)):
        seq_length = min(seq_length, max_seq_length)
        lengths = rng.integers(1, seq_length + 1, batch_size)
        lengths[0] = seq_length
        mask = (np.arange(seq_length) < lengths[:, None]).astype(np.int64)
        input_ids = rng.integers(0, vocab_size, (batch_size, seq_length)) * mask
        token_type_ids = (np.arange(seq_length) >= seq_length // 2).astype(np.int64) * mask
        batches.append(dict(zip(INPUTS, (input_ids, token_type_ids, mask), strict=True)))
    return batches


def source_logits(
    supernet: Supernet, batches: Sequence[dict[str, np.ndarray]], *, state: PassState = NO_STATE
) -> list[np.ndarray]:
    """Run the model on batches of inputs.

    Args:
        supernet: the model; it is left in evaluation mode.
        batches: inputs by name.
        state: as for `Supernet.forward`.

    Returns:
        The logits of each batch.
    """
    supernet.eval()
    with paddle.no_grad():
        return [supernet(state=state, **to_tensors(batch)).logits.numpy() for batch in batches]


def compare_logits(supernet: Supernet, run: Run, *, max_seq_length: int, tolerance: float) -> LogitCheck:
    """Compare the graph's logits with the model's on random inputs; a quantized model's activations are not rounded.

    Args:
        supernet: the model.
        run: runs the graph.
        max_seq_length: length of the longest input.
        tolerance: the largest absolute difference allowed, multiplied by the largest logit if that exceeds 1, because
            float32's rounding error grows with the value.

    Returns:
        Input shapes, the largest difference and the tolerance after scaling.

    Raises:
        ModelError: the difference exceeds the tolerance, or the model's own logits are not finite.
    """
    batches = random_batches(supernet.model.config.vocab_size, max_seq_length)
    expected = source_logits(supernet, batches, state=FLOAT_ACTIVATIONS)
    largest_logit = float(np.max([np.abs(logits).max() for logits in expected]))
    if not np.isfinite(largest_logit):
        raise ModelError("the model computes logits that are not finite: train it again with a lower learning rate")
    difference = _largest_difference(expected, run(batches))
    tolerance *= max(1.0, largest_logit)
    if not difference <= tolerance:  # also fails for NaN
        raise ModelError(
            f"the exported graph's logits differ from the model's by {difference:.1e}, more than {tolerance:.1e}: "
            f"nothing was written; {setting('tolerance')} allows more"
        )
    shapes = [list(batch["input_ids"].shape) for batch in batches]
    return LogitCheck(shapes=shapes, max_abs_diff=difference, tolerance=tolerance)


def compare_metric(
    supernet: Supernet,
    run: Run,
    features: FeatureSet,
    *,
    metric: str,
    tolerance: float,
    thresholds: np.ndarray | None = None,
    batch_size: int = 32,
) -> MetricCheck:
    """Compare the graph's score on the dev set with the model's.

    Args:
        supernet: the model.
        run: runs the graph.
        features: the dev set, tokenized.
        metric: name of the metric.
        tolerance: how much of the score the graph may lose; the loss of one example is always allowed.
        thresholds: for several labels an example, those of the bundle.
        batch_size: examples in a batch.

    Returns:
        Both scores, the largest difference between logits, and the number of batch shapes.

    Raises:
        ModelError: the graph loses more than the tolerance.
    """
    indices = sequential_batches(features.lengths, batch_size)
    batches = [collate_inputs(features, rows, supernet.pad_token_id) for rows in indices]
    expected, actual = source_logits(supernet, batches), run(batches)
    source, exported = (
        features.score((metric,), features.restore(indices, logits), thresholds)[metric]
        for logits in (expected, actual)
    )
    tolerance = max(tolerance, 1 / features.num_scored)
    if not source - exported <= tolerance + 1e-9:
        raise ModelError(
            f"the exported graph's {metric} on dev is {exported:.4f}, the model's {source:.4f}: it loses more than "
            f"{tolerance:.4f}, and nothing was written; {setting('tolerance')} allows more"
        )
    return MetricCheck(
        metric=metric,
        source=source,
        exported=exported,
        examples=features.num_scored,
        tolerance=tolerance,
        max_abs_diff=_largest_difference(expected, actual),
        shapes=len({batch["input_ids"].shape for batch in batches}),
    )


def _largest_difference(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """Return the largest absolute difference; NaN if any difference is NaN."""
    return float(np.max([np.abs(a - b).max() for a, b in zip(expected, actual, strict=True)]))


def collate_inputs(features: FeatureSet, indices: np.ndarray, pad_token_id: int) -> dict[str, np.ndarray]:
    """Collate the examples at `indices` into one batch of the graph's inputs, padded as a bundle pads."""
    batch = features.collate(indices, pad_token_id)
    return {name: batch[name] for name in INPUTS}
