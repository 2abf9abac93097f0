"""The steps of the distilled baselines: DistilBERT's and TinyBERT's losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import paddle
from paddle import Tensor

from dynabert_paddle.config.settings import BaselineConfig
from dynabert_paddle.distill.attention import attention_loss, attention_scores, block_ends
from dynabert_paddle.distill.losses import DistillationLoss, cosine_loss, token_rows
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import NO_STATE, PassState
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.batches import Shard
from dynabert_paddle.training.label_loss import shard_label_loss
from dynabert_paddle.training.steps import Losses, Step, logit_rows, logit_weight


def distilbert_step(teacher: Supernet, subnet: Subnet, config: BaselineConfig, *, kind: str) -> Step:
    """Make a step of DistilBERT's loss (Sanh et al., 2019, section 3), with task labels in place of masked words.

    lambda_logit * T^2 * SCE(z_s / T, z_t / T) + lambda_label * CE(z_s, y) + lambda_cosine * mean(1 - cos(h_s, h_t)),
    z being logits and h the last hidden states of the tokens that are not padding; for regression, mean squared errors
    of the values replace SCE and CE, and for several labels a text binary cross-entropies.

    Args:
        teacher: the model to learn from.
        subnet: the student's shape.
        config: temperature and weights, by default those of its authors' commands, 5, 2, 1 and T = 2; the settings of
            the hard-label loss CE.
        kind: the kind of the task.

    Returns:
        The step.
    """
    logit_loss = DistillationLoss(
        lambda_logit=config.lambda_logit,
        lambda_hidden=0.0,
        temperature=config.temperature,
        kind=kind,
    )
    teacher.eval()

    def step(model: Supernet, shard: Shard, *, index: int, state: PassState = NO_STATE) -> Iterator[Losses]:
        with paddle.no_grad():
            target = teacher(**shard.inputs)
        output = model(state=state, **shard.inputs)
        tokens = token_rows(shard.inputs["attention_mask"])
        which: dict[str, Any] = {"logit_rows": logit_rows(tokens, kind), "row_weights": shard.row_weights}
        logit = logit_loss(output, target, subnet, **which)["loss"]
        cosine = cosine_loss(output.hidden_states[-1], target.hidden_states[-1], rows=tokens)
        parts = {
            "logit": logit * logit_weight(shard.weight, kind),
            "label": config.lambda_label * shard_label_loss(output.logits, shard, config),
            "cosine": config.lambda_cosine * cosine * shard.weight.tokens,
        }
        yield {"loss": cast(Tensor, sum(parts.values())), **parts}

    return step


def tinybert_step(teacher: Supernet, subnet: Subnet, *, layer_steps: int, kind: str) -> Step:
    """Make a step of TinyBERT's task distillation (Jiao et al., 2020, section 3): first layers, then the prediction.

    First the sum of the mean squared errors of the embedding, of each layer's output and of its attention scores
    against the teacher's layer at the end of its block; then the soft cross-entropy of the logits at temperature 1, for
    regression the mean squared error of the values, for several labels a text the soft binary cross-entropy. The hidden
    sizes are equal, so that the paper's W_h is not needed. The paper trains the two in separate runs, of 10 or 20
    epochs at 5e-5 and of 3 epochs at up to 3e-5; here one learning rate decays over both.

    Args:
        teacher: the model to learn from.
        subnet: the student's shape; it has as many heads as the teacher.
        layer_steps: how many steps train the layers, before those that train the prediction.
        kind: the kind of the task.

    Returns:
        The step.
    """
    hidden_loss = DistillationLoss(lambda_logit=0.0, lambda_hidden=1.0)
    logit_loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=0.0, kind=kind)
    ends = block_ends(subnet, len(teacher.encoder.layers))
    # The embedding learns from the embedding, whichever layer is the first that the student keeps.
    blocks = Subnet((0, *subnet.layers[1:]), subnet.heads, subnet.neurons)
    teacher.eval()

    def step(model: Supernet, shard: Shard, *, index: int, state: PassState = NO_STATE) -> Iterator[Losses]:
        attention_mask, weight = shard.inputs["attention_mask"], shard.weight
        tokens = token_rows(attention_mask)
        with paddle.no_grad():
            target = teacher(**shard.inputs)
        output = model(state=state, **shard.inputs)
        if index < layer_steps:
            with paddle.no_grad():
                targets = [attention_scores(teacher.encoder.layers[end], target.hidden_states[end]) for end in ends]
            inputs = output.hidden_states[:-1]
            scores = [attention_scores(*pair) for pair in zip(model.encoder.layers, inputs, strict=True)]
            parts = {
                "hidden": hidden_loss(output, target, blocks, rows=tokens)["hidden"] * weight.tokens,
                "attention": attention_loss(scores, targets, attention_mask) * weight.pairs,
            }
        else:
            which: dict[str, Any] = {"logit_rows": logit_rows(tokens, kind), "row_weights": shard.row_weights}
            logit = logit_loss(output, target, subnet, **which)["loss"]
            parts = {"logit": logit * logit_weight(weight, kind)}
        yield {"loss": cast(Tensor, sum(parts.values())), **parts}

    return step
