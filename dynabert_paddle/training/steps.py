"""The work of one step of each stage.

A batch goes from here to the loss like this: `Supernet.embed` once, then for each sub-network `Supernet.forward`, the
loss, and the backward pass; then once more backward through the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from dynabert_paddle.config.settings import BaselineConfig, FinalConfig, WidthConfig
from dynabert_paddle.data.token_classification import IGNORED
from dynabert_paddle.distill.attention import attention_loss, attention_scores, block_ends
from dynabert_paddle.distill.losses import DistillationLoss, cosine_loss, token_rows
from dynabert_paddle.runtime.seeds import step_seed
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet, SupernetOutput
from dynabert_paddle.training.loop import Step
from dynabert_paddle.training.share import WHOLE, Share

# Computes one sub-network's loss and its parts from its output.
SubnetLoss = Callable[[Subnet, SupernetOutput], dict[str, Tensor]]


def full_model_step(
    supernet: Supernet,
    index: int,
    batch: dict[str, Tensor],
    backward: Callable[[Tensor], None],
    share: Share = WHOLE,
) -> dict[str, Tensor]:
    """The step that trains the full model on the labels.

    Args:
        supernet: the model.
        index: of the optimizer step.
        batch: the inputs, `[b, s]`, and the labels.
        backward: called in place of `loss.backward()`.
        share: what part of the whole batch this is.

    Returns:
        The loss.
    """
    labels = batch.pop("labels")
    loss = label_loss(supernet(logits_only=True, **batch).logits, labels) * share.labels
    backward(loss)
    return {"loss": loss}


def label_step(subnets: Mapping[str, Subnet], config: FinalConfig) -> Step:
    """A step that trains sub-networks on the labels.

    Args:
        subnets: the model's sub-networks by name, the largest first and the smallest last.
        config: which of them a step trains.

    Returns:
        The step.
    """

    def prepare(batch: dict[str, Tensor], labels: Tensor, share: Share) -> SubnetLoss:
        return lambda subnet, output: {"loss": label_loss(output.logits, labels) * share.labels}

    return _over_subnets(subnets, config, prepare, logits_only=True)


def distillation_step(teacher: Supernet, subnets: Mapping[str, Subnet], config: WidthConfig, *, kind: str) -> Step:
    """A step that distils the teacher, run once per batch, into sub-networks.

    Args:
        teacher: what the model learns from.
        subnets: the model's sub-networks by name, the largest first and the smallest last.
        config: the loss, and which of the sub-networks a step trains.
        kind: of the task.

    Returns:
        The step.
    """
    loss = DistillationLoss(
        lambda_logit=config.lambda_logit,
        lambda_hidden=config.lambda_hidden,
        temperature=config.temperature,
        regression=kind == "regression",
    )
    teacher.eval()

    def prepare(batch: dict[str, Tensor], labels: Tensor | None, share: Share) -> SubnetLoss:
        with paddle.no_grad():
            target = teacher(**batch)
        tokens = token_rows(batch["attention_mask"])
        rows = None if config.include_padding else tokens
        logit_rows = _logit_rows(tokens, kind)
        shares = _logit_share(share, kind), share.rows if config.include_padding else share.tokens

        def compare(subnet: Subnet, output: SupernetOutput) -> dict[str, Tensor]:
            return loss(output, target, subnet, rows=rows, logit_rows=logit_rows, shares=shares)

        return compare

    return _over_subnets(subnets, config, prepare, logits_only=False)


def distilbert_step(teacher: Supernet, subnet: Subnet, config: BaselineConfig, *, kind: str) -> Step:
    """A step of DistilBERT's loss (Sanh et al., 2019, section 3), with the task's labels in place of the masked words.

    lambda_logit * T^2 * SCE(z_s / T, z_t / T) + lambda_label * CE(z_s, y) + lambda_cosine * mean(1 - cos(h_s, h_t)),
    z being logits and h the last hidden states of the tokens that are not padding; for regression, mean squared errors
    of the values stand for SCE and CE.

    Args:
        teacher: what the model, which is trained whole, learns from.
        subnet: the model's shape.
        config: temperature and weights; by default those of its authors' commands, 5, 2, 1 and T = 2.
        kind: of the task.

    Returns:
        The step.
    """
    logit_loss = DistillationLoss(
        lambda_logit=config.lambda_logit,
        lambda_hidden=0.0,
        temperature=config.temperature,
        regression=kind == "regression",
    )
    teacher.eval()

    def step(
        student: Supernet,
        index: int,
        batch: dict[str, Tensor],
        backward: Callable[[Tensor], None],
        share: Share = WHOLE,
    ) -> dict[str, Tensor]:
        labels = batch.pop("labels")
        with paddle.no_grad():
            target = teacher(**batch)
        output = student(**batch)
        rows = token_rows(batch["attention_mask"])
        logit_rows = _logit_rows(rows, kind)
        cosine = cosine_loss(output.hidden_states[-1], target.hidden_states[-1], rows=rows)
        parts = {
            "logit": logit_loss(output, target, subnet, logit_rows=logit_rows)["loss"] * _logit_share(share, kind),
            "label": config.lambda_label * label_loss(output.logits, labels) * share.labels,
            "cosine": config.lambda_cosine * cosine * share.tokens,
        }
        loss = sum(parts.values())
        backward(loss)
        return {"loss": loss, **parts}

    return step


def tinybert_step(teacher: Supernet, subnet: Subnet, *, layer_steps: int, kind: str) -> Step:
    """A step of TinyBERT's task distillation (Jiao et al., 2020, section 3): the layers first, then the prediction.

    First the sum of the mean squared errors of the embedding, of each layer's output and of its attention scores
    against the teacher's layer at the end of its block; then the soft cross-entropy of the logits at temperature 1, for
    regression the mean squared error of the values. The hidden sizes are equal, so that the paper's W_h is not needed.
    The paper has a run for each of the two, of 10 or 20 epochs at 5e-5 and of 3 at up to 3e-5; here one learning rate
    decays over both.

    Args:
        teacher: what the model, which is trained whole, learns from.
        subnet: the model's shape; it has as many heads as the teacher.
        layer_steps: how many steps train the layers.
        kind: of the task.

    Returns:
        The step.
    """
    hidden_loss = DistillationLoss(lambda_logit=0.0, lambda_hidden=1.0)
    logit_loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=0.0, regression=kind == "regression")
    ends = block_ends(subnet, len(teacher.encoder.layers))
    # The embedding learns from the embedding, whichever layer is the first that the student keeps.
    blocks = Subnet((0, *subnet.layers[1:]), subnet.heads, subnet.neurons)
    teacher.eval()

    def step(
        student: Supernet,
        index: int,
        batch: dict[str, Tensor],
        backward: Callable[[Tensor], None],
        share: Share = WHOLE,
    ) -> dict[str, Tensor]:
        batch.pop("labels", None)
        rows = token_rows(batch["attention_mask"])
        with paddle.no_grad():
            target = teacher(**batch)
        output = student(**batch)
        if index < layer_steps:
            with paddle.no_grad():
                wanted = [attention_scores(teacher.encoder.layers[end], target.hidden_states[end]) for end in ends]
            inputs = output.hidden_states[:-1]
            scores = [attention_scores(*pair) for pair in zip(student.encoder.layers, inputs, strict=True)]
            parts = {
                "hidden": hidden_loss(output, target, blocks, rows=rows)["hidden"] * share.tokens,
                "attention": attention_loss(scores, wanted, batch["attention_mask"]) * share.pairs,
            }
        else:
            logit_rows = _logit_rows(rows, kind)
            logit = logit_loss(output, target, subnet, logit_rows=logit_rows)["loss"]
            parts = {"logit": logit * _logit_share(share, kind)}
        loss = sum(parts.values())
        backward(loss)
        return {"loss": loss, **parts}

    return step


def _logit_rows(tokens: Tensor, kind: str) -> Tensor | None:
    """The rows of the logits that count: of labels of words those of real tokens, else all."""
    return tokens if kind == "token_classification" else None


def _logit_share(share: Share, kind: str) -> float:
    """The part of these rows that this process has."""
    return share.tokens if kind == "token_classification" else share.rows


def _over_subnets(
    subnets: Mapping[str, Subnet],
    config: WidthConfig | FinalConfig,
    prepare: Callable[[dict[str, Tensor], Tensor | None, Share], SubnetLoss],
    *,
    logits_only: bool,
) -> Step:
    """A step with one forward and backward pass per sub-network, the largest first, and one for the embedding."""

    def step(
        supernet: Supernet,
        index: int,
        batch: dict[str, Tensor],
        backward: Callable[[Tensor], None],
        share: Share = WHOLE,
    ) -> dict[str, Tensor]:
        loss = prepare(batch, batch.pop("labels", None), share)
        chosen = choose_subnets(subnets, config, index)
        embedding = supernet.embed(**batch)
        shared = embedding.detach()
        shared.stop_gradient = False
        totals: dict[str, Tensor] = {}
        for subnet in chosen:
            parts = loss(subnet, supernet(subnet, embedding=shared, logits_only=logits_only, **batch))
            backward(parts["loss"])
            for name, value in parts.items():
                totals[name] = totals.get(name, 0) + value.detach() / len(chosen)
        # The vocabulary's gradient is dense: one pass for all sub-networks in place of one each.
        paddle.autograd.backward([embedding], [shared.grad])
        return totals

    return step


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The hard-label loss: cross-entropy for classes, mean squared error for values.

    Args:
        logits: `[b, c]`; `[b, s, c]` for the labels of tokens; `[b, 2, s]` for an answer's first and last token.
        labels: `[b]`, `[b, s]` or `[b, 2]`, int64 classes, of which `IGNORED` does not count; or float32 values, `[b]`.

    Returns:
        The mean over all labels that count.
    """
    if paddle.is_floating_point(labels):
        return F.mse_loss(logits.squeeze(-1), labels)
    # Paddle's own mean counts the ignored ones, too.
    counted = (labels != IGNORED).astype(logits.dtype).sum()
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / counted.clip(min=1)


def choose_subnets(subnets: Mapping[str, Subnet], config: WidthConfig | FinalConfig, step: int) -> list[Subnet]:
    """Choose the sub-networks of one step.

    Args:
        subnets: those that the stage trains, the largest first and the smallest last.
        config: all of them, or a sandwich of the largest, the smallest and random others (Yu and Huang, 2019).
        step: the optimizer step, from which the random choice follows.

    Returns:
        The sub-networks, in the order of `subnets`.
    """
    every = list(subnets.values())
    if config.subnets_per_step == "all" or len(every) <= 2 + config.num_random_subnets:
        return every
    random = np.random.default_rng(step_seed(config.seed, step))
    chosen = random.choice(np.arange(1, len(every) - 1), size=config.num_random_subnets, replace=False)
    return [every[index] for index in [0, *sorted(chosen), len(every) - 1]]
