"""Tells of a stage whose full model ends with a lower score than the model that the stage began with."""

from __future__ import annotations

import math

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.files.folder import SEARCH
from dynabert_paddle.training.checkpoint import TrainState
from dynabert_paddle.training.evaluate import evaluate_subnets
from dynabert_paddle.training.inputs import Split
from dynabert_paddle.training.stage import Stage

_CORRELATIONS = ("matthews", "pearson", "spearman")
_STANDARD_ERRORS = 2  # a smaller difference may be chance


def score_full_model(stage: Stage, split: Split) -> float | None:
    """Score a stage's full model with the weights that it has; all processes call this.

    Args:
        stage: the stage.
        split: has the examples to score on.

    Returns:
        The stage's metric; None if the full model is not trained, or computes logits that are not finite.
    """
    full = {name: subnet for name, subnet in stage.subnets.items() if subnet == stage.model.full}
    if not full:
        return None
    batch_size = stage.config.per_device_eval_batch_size
    try:
        scores = evaluate_subnets(stage.model, split.select, full, metrics=[stage.metric], batch_size=batch_size)
    except DynabertError:  # the first step reports the error
        return None
    return next(iter(scores.values()))[stage.metric]


def describe_decline(stage: Stage, split: Split, before: float | None, state: TrainState) -> str | None:
    """Compare the full model that a stage has made with the one that it began with.

    Args:
        stage: the stage.
        split: has the examples that both were scored on.
        before: from `score_full_model`, before the first step.
        state: after the last step.

    Returns:
        A message of one line; None if the score is not lower by more than chance.
    """
    name = next((name for name, subnet in stage.subnets.items() if subnet == stage.model.full), None)
    if before is None or name is None:
        return None
    after = state.best_metrics[name][stage.metric]
    num_scored = split.select.num_scored
    chance = _STANDARD_ERRORS * _standard_error(stage.metric, (before + after) / 2, num_scored) + 1 / num_scored
    if before - after <= chance:
        return None
    section = stage.config_section or stage.name
    names = ("finetune_steps",) if stage.config_section else ("num_train_epochs", "max_steps")
    longer = " or ".join(setting(f"{section}.{name}") for name in names)
    lower = f", or with a lower {setting(f'{section}.learning_rate')} than {stage.config.learning_rate:g}"
    return (
        f"{stage.name}: the full model has {stage.metric} {after:.4f} on {split.select_name}, and the model that the "
        f"stage began with {before:.4f}: train longer ({longer}){'' if section == SEARCH else lower}"
    )


def _standard_error(metric: str, score: float, num_examples: int) -> float:
    """The standard error of a correlation, or of a share of right answers."""
    if metric in _CORRELATIONS:
        return (1 - min(score**2, 1)) / math.sqrt(num_examples)
    return math.sqrt(max(score * (1 - score), 0) / num_examples)
