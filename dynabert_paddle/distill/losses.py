"""Knowledge distillation through PaddleSlim's losses (DynaBERT, section 2.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from dynabert_paddle.config.names import setting
from dynabert_paddle.distill.vectors import vector_loss
from dynabert_paddle.errors import ModelError
from dynabert_paddle.runtime.environment import quiet_import
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import SupernetOutput


class DistillationLoss:
    """The loss of a sub-network against a teacher: lambda_1 * logits + lambda_2 * (embedding + hidden states).

    Args:
        lambda_logit: weight of the logit loss: soft cross-entropy; for regression the mean squared error; for several
            labels a text soft binary cross-entropy; for embeddings `vector_loss`.
        lambda_hidden: weight of the sum of mean squared errors over the input of each kept layer and the final output.
        temperature: divides both sides' logits; the logit loss is multiplied by its square, so that the size of the
            gradients does not depend on it (Hinton et al., 2015).
        kind: the kind of the task, which the logit loss follows from.
        output_dims: sizes to which vectors can be cut; the loss of embeddings is the mean over them and the whole
            vector (Kusupati et al., 2022).
    """

    def __init__(
        self,
        *,
        lambda_logit: float,
        lambda_hidden: float,
        temperature: float = 1.0,
        kind: str = "classification",
        output_dims: Sequence[int] = (),
    ) -> None:
        self.lambda_logit = lambda_logit
        self.lambda_hidden = lambda_hidden
        self.temperature = temperature
        self.kind = kind
        self.output_dims = tuple(output_dims)

    def __call__(
        self,
        student: SupernetOutput,
        teacher: SupernetOutput,
        subnet: Subnet,
        *,
        rows: Tensor | None = None,
        logit_rows: Tensor | None = None,
        weights: tuple[float, float] = (1.0, 1.0),
        row_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compare one sub-network's output with the teacher's.

        Args:
            student: the output of `subnet`.
            teacher: the output of the teacher, which has all layers, for the same batch.
            subnet: its kept layers select the teacher's hidden states.
            rows: the tokens whose hidden states count, from `token_rows`; None for all of them.
            logit_rows: likewise for logits of tokens, `[b, s, c]`; None for other logits.
            weights: factors of the logit loss and of the loss of the hidden states: the shard's share of the batch.
            row_weights: `[b]`, what each row counts in the logit loss of whole texts; None for 1.

        Returns:
            `loss`, and its parts `logit` and `hidden`, each weighted.

        Raises:
            ModelError: the teacher differs in outputs, or where hidden states are compared in their width, or it lacks
                a layer that the sub-network keeps.
        """
        targets = _hidden_targets(teacher, subnet) if self.lambda_hidden else []
        if targets and targets[0].shape != student.hidden_states[0].shape:
            raise ModelError(
                f"the teacher's hidden states are {targets[0].shape[-1]} wide, the student's "
                f"{student.hidden_states[0].shape[-1]}: distil from the model that the student comes from, or set "
                f"{setting('train.lambda_hidden')} to 0"
            )
        if teacher.logits.shape != student.logits.shape:
            raise ModelError(
                f"the teacher has {teacher.logits.shape[-1]} outputs, the student {student.logits.shape[-1]}: "
                f"distil from a model that was fine-tuned for the same labels"
            )
        # PaddleSlim divides everything that it compares by the temperature; only logits are to be softened.
        outputs = {
            "student": {"logits": pick_rows(student.logits, logit_rows)},
            "teacher": {"logits": pick_rows(teacher.logits, logit_rows)},
        }
        pairs = list(zip(student.hidden_states, targets, strict=True)) if self.lambda_hidden else []
        for index, (hidden, target) in enumerate(pairs):
            outputs["student"][f"hidden_{index}"] = pick_rows(hidden, rows)
            outputs["teacher"][f"hidden_{index}"] = pick_rows(target, rows)
        combined = _combined_loss(len(pairs), self.lambda_logit, self.lambda_hidden, self.temperature, self.kind)
        parts = combined(outputs, None)
        if self.kind in _OWN_LOSSES:
            logit = self.lambda_logit * self._own_loss(student.logits, teacher.logits, row_weights)
            hidden = parts["loss"] * weights[1]
        else:
            logit = next(value for name, value in parts.items() if "_logits_" in name)
            hidden = (parts["loss"] - logit) * weights[1]
            if row_weights is not None:
                compared = weighted_logit_loss(student.logits, teacher.logits, row_weights, self.temperature, self.kind)
                logit = self.lambda_logit * compared
        logit = logit * weights[0]
        return {"loss": logit + hidden, "logit": logit, "hidden": hidden}

    def _own_loss(self, student: Tensor, teacher: Tensor, row_weights: Tensor | None) -> Tensor:
        compare = _OWN_LOSSES[self.kind]
        whole = compare(student, teacher, self.temperature, row_weights)
        cut = [size for size in self.output_dims if size < student.shape[-1]]
        if not cut:
            return whole
        parts = [compare(student[:, :size], teacher[:, :size], self.temperature, row_weights) for size in cut]
        return sum(parts, whole) / (1 + len(parts))


def weighted_logit_loss(student: Tensor, teacher: Tensor, row_weights: Tensor, temperature: float, kind: str) -> Tensor:
    """The loss of logits of rows that do not count alike, which PaddleSlim's losses lack.

    Args:
        student: logits `[b, c]`.
        teacher: logits `[b, c]`.
        row_weights: `[b]`.
        temperature: T; not of values.
        kind: `classification` or `regression`.

    Returns:
        The mean over rows of weight * T^2 * SCE(z_s / T, z_t / T), for values of weight * (z_s - z_t)^2.
    """
    if kind == "regression":
        return (row_weights * ((student - teacher) ** 2).mean(axis=-1)).mean()
    target = F.softmax(teacher / temperature, axis=-1)
    losses = -(target * F.log_softmax(student / temperature, axis=-1)).sum(axis=-1)
    return (row_weights * losses).mean() * temperature**2


def soft_binary_cross_entropy(
    student: Tensor, teacher: Tensor, temperature: float, row_weights: Tensor | None = None
) -> Tensor:
    """The soft cross-entropy of each label on its own: T^2 * BCE(sigmoid(z_s / T), sigmoid(z_t / T)).

    Args:
        student: logits `[b, c]`.
        teacher: logits `[b, c]`.
        temperature: T.
        row_weights: `[b]`; None for 1.

    Returns:
        The mean over rows and labels, as the binary cross-entropy of hard labels has it; PaddleSlim has no such loss.
    """
    target = F.sigmoid(teacher / temperature)
    weight = None if row_weights is None else row_weights.unsqueeze(-1).expand_as(student)
    return F.binary_cross_entropy_with_logits(student / temperature, target, weight=weight) * temperature**2


def cosine_loss(student: Tensor, teacher: Tensor, *, rows: Tensor | None) -> Tensor:
    """DistilBERT's loss between the last hidden states of student and teacher (Sanh et al., 2019, section 3).

    Args:
        student: `[b, s, d]`.
        teacher: `[b, s, d]`.
        rows: the tokens that count, from `token_rows`; None for all of them.

    Returns:
        The mean of 1 - cos over these tokens.
    """
    return (1 - F.cosine_similarity(pick_rows(student, rows), pick_rows(teacher, rows), axis=-1)).mean()


def token_rows(attention_mask: Tensor) -> Tensor | None:
    """Find the tokens of a batch that are not padding.

    Args:
        attention_mask: `[b, s]`, 1 for a token and 0 for padding.

    Returns:
        `[n]` indices into the `[b*s]` tokens of the batch; None where all of them count.
    """
    rows = paddle.nonzero(attention_mask.reshape([-1])).reshape([-1])
    return None if rows.shape[0] == attention_mask.size else rows


def pick_rows(hidden: Tensor, rows: Tensor | None) -> Tensor:
    """Take the hidden states, or the logits, of some tokens.

    Args:
        hidden: `[b, s, d]`.
        rows: `[n]` indices into its `[b*s]` tokens, or None for all.

    Returns:
        `[n, d]`, or `hidden` itself.
    """
    return hidden if rows is None else paddle.gather(hidden.reshape([-1, hidden.shape[-1]]), rows)


def _hidden_targets(teacher: SupernetOutput, subnet: Subnet) -> list[Tensor]:
    """The teacher's input to each kept layer, and its final output."""
    num_layers = len(teacher.hidden_states) - 1
    if subnet.layers[-1] >= num_layers:
        raise ModelError(f"the teacher has {num_layers} layers and the sub-network keeps layer {subnet.layers[-1]}")
    return [teacher.hidden_states[layer] for layer in subnet.layers] + [teacher.hidden_states[-1]]


# Losses of logits that PaddleSlim does not have, by the kind of the task.
_OWN_LOSSES: dict[str, Callable[[Tensor, Tensor, float, Tensor | None], Tensor]] = {
    "multi_label": soft_binary_cross_entropy,
    "embedding": lambda student, teacher, temperature, row_weights: vector_loss(student, teacher),
}


@lru_cache
def _combined_loss(
    count: int, lambda_logit: float, lambda_hidden: float, temperature: float, kind: str
) -> Callable[[dict[str, dict[str, Tensor]], None], dict[str, Tensor]]:
    with quiet_import():  # late, because it imports OpenCV
        from paddleslim.dygraph.dist.losses import CombinedLoss

    def compare(name: str, **options: Any) -> dict[str, Any]:
        return {"model_name_pairs": [["student", "teacher"]], "layers_name": [name, name], **options}

    hidden = [compare(f"hidden_{i}", loss_function="MSELoss", weight=lambda_hidden) for i in range(count)]
    if kind in _OWN_LOSSES:
        return CombinedLoss(hidden)
    if kind == "regression":
        logits = compare("logits", loss_function="MSELoss", weight=lambda_logit)
    else:
        logits = compare(
            "logits", loss_function="CELoss", weight=lambda_logit * temperature**2, temperature=temperature
        )
    return CombinedLoss([logits, *hidden])
