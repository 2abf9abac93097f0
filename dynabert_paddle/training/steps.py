"""The step of each stage: a generator that yields the losses of one micro-batch, one sub-network after the other.

The loop calls `backward` on each loss as it comes. A batch's path from here: `Supernet.embed_ranks` once, then for each
sub-network `Supernet.forward` and the loss; after the last loss, one backward pass through the shared embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, cast

import paddle
from paddle import Tensor

from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import FinalConfig, GeneralConfig, LabelLossConfig, WidthConfig
from dynabert_paddle.distill.general import GeneralLoss
from dynabert_paddle.distill.losses import DistillationLoss, token_rows
from dynabert_paddle.distill.masked_lm import MaskedLMLoss
from dynabert_paddle.distill.relations import relation_loss, relation_vectors
from dynabert_paddle.distill.vectors import contrastive_loss
from dynabert_paddle.errors import UsageError
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import NO_STATE, PassState
from dynabert_paddle.supernet.supernet import Supernet, SupernetOutput
from dynabert_paddle.training.batches import Shard, ShardWeight
from dynabert_paddle.training.label_loss import PLAIN, shard_label_loss
from dynabert_paddle.training.subnet_choice import choose_subnets

# `loss`, whose gradient trains the model, and its parts for the log.
Losses = dict[str, Tensor]
# Computes one sub-network's losses from its output.
SubnetLoss = Callable[[Subnet, SupernetOutput], Losses]


class Step(Protocol):
    """Yields the losses of one shard; the caller calls `backward` on each before it takes the next."""

    def __call__(self, model: Supernet, shard: Shard, *, index: int, state: PassState = NO_STATE) -> Iterator[Losses]:
        """Compute the losses.

        Args:
            model: the model that trains, or a replica of it.
            shard: its part of a micro-batch.
            index: the number of the optimizer step, from 0.
            state: shared by the passes of this replica within the step.

        Yields:
            The loss of one sub-network and its parts, each weighted by the shard's share of the micro-batch.
        """
        ...


def full_model_step(
    model: Supernet, shard: Shard, *, index: int, state: PassState = NO_STATE, config: LabelLossConfig = PLAIN
) -> Iterator[Losses]:
    """Train the full model on the labels; `config` has the settings of the hard-label loss."""
    logits = model(logits_only=True, state=state, **shard.inputs).logits
    yield {"loss": shard_label_loss(logits, shard, config)}


def label_step(subnets: Mapping[str, Subnet], config: FinalConfig, *, space: SearchSpace | None = None) -> Step:
    """Make a step that trains sub-networks on the labels.

    Args:
        subnets: the model's sub-networks by name, the largest first and the smallest last.
        config: which of them a step trains, and the settings of the hard-label loss.
        space: of the model; a sandwich of per-layer sub-networks draws them from it.

    Returns:
        The step.
    """

    def make_loss(model: Supernet, shard: Shard, state: PassState) -> SubnetLoss:
        return lambda subnet, output: {"loss": shard_label_loss(output.logits, shard, config)}

    return _over_subnets(subnets, config, make_loss, logits_only=True, space=space)


def distillation_step(
    teacher: Supernet,
    subnets: Mapping[str, Subnet],
    config: WidthConfig,
    *,
    kind: str,
    space: SearchSpace | None = None,
) -> Step:
    """Make a step that distils the teacher, which runs once per micro-batch, into sub-networks.

    Args:
        teacher: the model to learn from.
        subnets: the model's sub-networks by name, the largest first and the smallest last.
        config: the loss, and which of the sub-networks a step trains.
        kind: the kind of the task.
        space: as for `label_step`.

    Returns:
        The step.
    """
    distillation_loss = DistillationLoss(
        lambda_logit=config.lambda_logit,
        lambda_hidden=config.lambda_hidden,
        temperature=config.temperature,
        kind=kind,
        output_dims=teacher.output_dims,
    )
    teacher.eval()
    relations = _make_relations(teacher, config) if config.lambda_relation else None

    def make_loss(model: Supernet, shard: Shard, state: PassState) -> SubnetLoss:
        with paddle.no_grad():
            target = teacher(**shard.inputs)
            relation = relations(target, shard) if relations else None
        tokens = token_rows(shard.inputs["attention_mask"])
        weight = shard.weight

        def loss(subnet: Subnet, output: SupernetOutput) -> Losses:
            losses = distillation_loss(
                output,
                target,
                subnet,
                rows=None if config.include_padding else tokens,
                logit_rows=logit_rows(tokens, kind),
                weights=(logit_weight(weight, kind), weight.rows if config.include_padding else weight.tokens),
                row_weights=shard.row_weights,
            )
            if config.lambda_label:
                label = config.lambda_label * shard_label_loss(output.logits, shard)
                losses = {**losses, "loss": losses["loss"] + label, "label": label}
            if config.lambda_contrastive and shard.labels is not None:
                contrastive = config.lambda_contrastive * contrastive_loss(output.logits, shard.labels) * weight.rows
                losses = {**losses, "loss": losses["loss"] + contrastive, "contrastive": contrastive}
            if relation:
                value = config.lambda_relation * weight.tokens * relation(model, subnet, output, state)
                losses = {**losses, "loss": losses["loss"] + value, "relation": value}
            return losses

        return loss

    return _over_subnets(subnets, config, make_loss, logits_only=False, space=space)


def _make_relations(
    teacher: Supernet, config: WidthConfig
) -> Callable[[SupernetOutput, Shard], Callable[[Supernet, Subnet, SupernetOutput, PassState], Tensor]]:
    """Make what compares the relations of a sub-network's last layer with those of one of the teacher's layers."""
    layers = teacher.encoder.layers
    index = len(layers) - 1 if config.relation_layer is None else config.relation_layer
    if index >= len(layers):
        raise UsageError(f"{setting('train.relation_layer')} is {index}, the teacher has layers 0 to {len(layers) - 1}")
    heads = teacher.full.heads[index]

    def of_teacher(
        target: SupernetOutput, shard: Shard
    ) -> Callable[[Supernet, Subnet, SupernetOutput, PassState], Tensor]:
        theirs = relation_vectors(layers[index], target.hidden_states[index], heads=heads)

        def compare(model: Supernet, subnet: Subnet, output: SupernetOutput, state: PassState) -> Tensor:
            layer = model.encoder.layers[subnet.layers[-1]]
            ours = relation_vectors(layer, output.hidden_states[-2], heads=subnet.heads[-1], state=state)
            return relation_loss(ours, theirs, shard.inputs["attention_mask"])

        return compare

    return of_teacher


def general_step(
    teacher: Supernet, subnets: Mapping[str, Subnet], config: GeneralConfig, *, space: SearchSpace | None = None
) -> Step:
    """Make a step that distils a pretrained encoder into sub-networks, without labels and without a classifier.

    Where words of the batch are masked, and are its labels, the sub-networks learn to predict them, too.

    Args:
        teacher: the model to learn from.
        subnets: the model's sub-networks by name, the largest first and the smallest last.
        config: the loss, and which of the sub-networks a step trains.
        space: as for `label_step`.

    Returns:
        The step.
    """
    general_loss = GeneralLoss(config.lambda_hidden, config.lambda_relation)
    masked_lm_loss = MaskedLMLoss(config.lambda_logit, config.lambda_mlm, config.lambda_cosine, config.temperature)
    teacher.eval()

    def make_loss(model: Supernet, shard: Shard, state: PassState) -> SubnetLoss:
        mask = shard.inputs["attention_mask"]
        target, rows, weight = general_loss.target(teacher, shard.inputs), token_rows(mask), shard.weight

        def loss(subnet: Subnet, output: SupernetOutput) -> Losses:
            parts = general_loss(model, subnet, output, target, rows=rows, mask=mask, state=state)
            if shard.labels is not None:
                parts |= masked_lm_loss(output, target.output, shard.labels, rows)
            parts = {name: value * (weight.labels if name == "mlm" else weight.tokens) for name, value in parts.items()}
            return {"loss": cast(Tensor, sum(parts.values())), **parts}

        return loss

    return _over_subnets(subnets, config, make_loss, logits_only=False, space=space)


def _over_subnets(
    subnets: Mapping[str, Subnet],
    config: WidthConfig | FinalConfig | GeneralConfig,
    make_loss: Callable[[Supernet, Shard, PassState], SubnetLoss],
    *,
    logits_only: bool,
    space: SearchSpace | None,
) -> Step:
    """Make a step with one pass per sub-network, the largest first, and one for the embeddings that they share."""

    def step(model: Supernet, shard: Shard, *, index: int, state: PassState = NO_STATE) -> Iterator[Losses]:
        loss = make_loss(model, shard, state)
        chosen = choose_subnets(subnets, config, index, space=space)
        embeddings = model.embed_ranks(chosen, state=state, **shard.inputs)
        shared = {rank: embedding.detach() for rank, embedding in embeddings.items()}
        for leaf in shared.values():
            leaf.stop_gradient = False
        for subnet in chosen:
            embedding = shared[subnet.embedding_rank]
            yield loss(subnet, model(subnet, embedding=embedding, logits_only=logits_only, state=state, **shard.inputs))
        # The vocabulary's gradient is dense: one backward pass for all sub-networks instead of one for each.
        paddle.autograd.backward(list(embeddings.values()), [leaf.grad for leaf in shared.values()])

    return step


def logit_rows(tokens: Tensor | None, kind: str) -> Tensor | None:
    """Return the rows of the logits that a loss compares: for labels of words those of real tokens, else all."""
    return tokens if kind == "token_classification" else None


def logit_weight(weight: ShardWeight, kind: str) -> float:
    """Return a shard's share of these rows."""
    return weight.tokens if kind == "token_classification" else weight.rows
