"""AdamW as training uses it: its learning rate, and steps that are skipped if gradients overflow float16."""

from __future__ import annotations

import contextlib
import io
import math

import paddle

from dynabert_paddle.config.settings import TrainConfig
from dynabert_paddle.supernet.supernet import Supernet

# Below 1 the scale would shrink gradients: then the overflow is not the scale's fault.
MIN_LOSS_SCALE = 1.0


def make_optimizer(supernet: Supernet, config: TrainConfig) -> paddle.optimizer.Optimizer:
    """Make AdamW, which decays all parameters but biases, norms and scales; its learning rate is set before each step.

    Args:
        supernet: has the parameters.
        config: epsilon, weight decay, and the norm that gradients are clipped to.

    Returns:
        The optimizer.
    """
    decayed = {
        parameter.name
        for name, parameter in supernet.model.named_parameters()
        if not name.endswith(("bias", "scale")) and "norm" not in name
    }
    return paddle.optimizer.AdamW(
        learning_rate=config.learning_rate,
        epsilon=config.adam_epsilon,
        weight_decay=config.weight_decay,
        apply_decay_param_fun=decayed.__contains__,
        parameters=supernet.model.parameters(),
        # Clips once a step, after the gradients of all sub-networks are summed.
        grad_clip=paddle.nn.ClipGradByGlobalNorm(config.max_grad_norm) if config.max_grad_norm else None,
    )


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then linear decay to 0 at `total_steps`."""
    warmup = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * (total_steps - step) / max(1, total_steps - warmup)


def apply_gradients(optimizer: paddle.optimizer.Optimizer, scaler: paddle.amp.GradScaler) -> float | None:
    """Take an optimizer step, unless a gradient overflows; then halve the loss scale. Clears the gradients.

    Args:
        optimizer: its parameters have the gradients of the scaled loss.
        scaler: the loss scale of float16; disabled for other types.

    Returns:
        None, or the loss scale of the next step if this one was skipped.
    """
    before = _loss_scale(scaler)
    # Paddle numbers an optimizer's tensors by how many optimizers their parameter has had; a resumed run has had one.
    with paddle.utils.unique_name.guard():
        scaler.step(optimizer)
    with contextlib.redirect_stdout(io.StringIO()):  # Paddle prints there, where a command's result goes
        scaler.update()
    optimizer.clear_grad()
    after = _loss_scale(scaler)
    return after if after < before else None


def _loss_scale(scaler: paddle.amp.GradScaler) -> float:
    return float(scaler.state_dict()["scale"][0]) if scaler.is_enable() else MIN_LOSS_SCALE
