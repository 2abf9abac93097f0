"""The loss scale of float16: a step whose gradients overflow under it is left out, and the scale is halved."""

from __future__ import annotations

import contextlib
import io

import paddle

# Below it the scale would shrink gradients: what overflows then is not the scale's doing.
LEAST_SCALE = 1.0


def apply_gradients(optimizer: paddle.optimizer.Optimizer, scaler: paddle.amp.GradScaler) -> float | None:
    """Take an optimizer's step, unless a gradient overflows.

    Args:
        optimizer: its parameters have the gradients of the loss times the scale; they are cleared.
        scaler: knows the scale; switched off where there is none.

    Returns:
        None; or, where the step was left out, the scale of the next one.
    """
    before = _scale(scaler)
    # Paddle numbers an optimizer's tensors by how many optimizers their parameter has had; a resumed run has had one.
    with paddle.utils.unique_name.guard():
        scaler.step(optimizer)
    with contextlib.redirect_stdout(io.StringIO()):  # Paddle prints there, where a command's result goes
        scaler.update()
    optimizer.clear_grad()
    after = _scale(scaler)
    return after if after < before else None


def _scale(scaler: paddle.amp.GradScaler) -> float:
    return float(scaler.state_dict()["scale"][0]) if scaler.is_enable() else LEAST_SCALE
