"""Early stopping: a stage ends after some evaluations in a row without a better score.

Whether it has ended follows from the step and the best step alone, so that a resumed run ends where an uninterrupted
one does.
"""

from __future__ import annotations

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError
from dynabert_paddle.training.batches import count_steps, steps_between_evaluations
from dynabert_paddle.training.checkpoint import TrainState
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.stage import Stage


def has_stopped_early(stage: Stage, state: TrainState, eval_steps: int) -> bool:
    """Tell whether a stage has ended before its last step.

    Args:
        stage: has the patience, and the step from which evaluations count.
        state: how far the stage is.
        eval_steps: steps between two evaluations.

    Returns:
        Whether as many evaluations as the patience have followed the one with the best score.
    """
    patience = stage.config.early_stopping_patience
    if patience is None or not state.best_arrays:
        return False
    since = max(state.best_step, stage.scored_from_step)
    return state.step // eval_steps - since // eval_steps >= patience


def check_early_stopping(stage: Stage, num_examples: int) -> None:
    """Refuse early stopping where no evaluation comes before the last step; warn where there are too few.

    Args:
        stage: the stage.
        num_examples: how many it trains on.

    Raises:
        UsageError: the user's steps between evaluations are as many as the stage has.
    """
    patience = stage.config.early_stopping_patience
    if patience is None:
        return
    total_steps = count_steps(num_examples, stage.config)
    eval_steps = steps_between_evaluations(num_examples, stage.config)
    name, steps = (setting(f"{stage.name}.{key}") for key in ("early_stopping_patience", "eval_steps"))
    if stage.config.eval_steps and eval_steps >= total_steps:
        raise UsageError(
            f"{name} is {patience}, but {steps} is {eval_steps} and {stage.name} has {total_steps} steps, so that no "
            f"evaluation comes before the last one: set {steps} below {total_steps}, or leave out {name}"
        )
    # The first evaluation after `scored_from_step` can be the best; the last step is no early one.
    num_evaluations = (total_steps - 1) // eval_steps - stage.scored_from_step // eval_steps
    if num_evaluations <= patience - (stage.scored_from_step > 0):
        logger.warning(
            "%s: %s %d changes nothing: too few evaluations (%d) come before the last of %d steps; lower it, or %s",
            *(stage.name, name, patience, num_evaluations, total_steps, steps),
        )


def describe_stop(stage: Stage, state: TrainState, total_steps: int) -> str:
    """Tell why a stage has ended early, in one line."""
    patience = stage.config.early_stopping_patience
    return (
        f"{stage.name}: stopped early after step {state.step} of {total_steps}: the last {patience} "
        f"evaluation{'' if patience == 1 else 's'} had no better {stage.metric} than {state.best_score:.4f} at step "
        f"{state.best_step}, whose weights are kept"
    )
