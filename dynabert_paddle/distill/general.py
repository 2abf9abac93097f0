"""The loss of a sub-network against a pretrained encoder, without labels: hidden states and attention relations.

Shapes: b batch, s sequence, d hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from dynabert_paddle.distill.losses import pick_rows
from dynabert_paddle.distill.relations import relation_loss, relation_vectors
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import NO_STATE, PassState
from dynabert_paddle.supernet.supernet import Supernet, SupernetOutput


@dataclass(frozen=True)
class GeneralTarget:
    """What a teacher computes for a batch.

    Args:
        output: its hidden states.
        vectors: queries, keys and values of its last layer, `[b, s, w]` each; empty where they are not compared.
    """

    output: SupernetOutput
    vectors: tuple[Tensor, ...]


@dataclass(frozen=True)
class GeneralLoss:
    """lambda_hidden * hidden states + lambda_relation * attention relations of the last layer.

    Args:
        lambda_hidden: weight of the sum of mean squared errors over the input of each kept layer and the final output.
        lambda_relation: weight of `relation_loss`.
    """

    lambda_hidden: float
    lambda_relation: float

    def target(self, teacher: Supernet, inputs: dict[str, Tensor]) -> GeneralTarget:
        """Run the teacher on a batch.

        Args:
            teacher: the pretrained model, in evaluation mode.
            inputs: the batch.

        Returns:
            What sub-networks are compared with.
        """
        with paddle.no_grad():
            output = teacher(**inputs)
            return GeneralTarget(output, self._vectors(teacher, teacher.full, output, NO_STATE))

    def __call__(
        self,
        model: Supernet,
        subnet: Subnet,
        output: SupernetOutput,
        target: GeneralTarget,
        *,
        rows: Tensor | None,
        mask: Tensor,
        state: PassState = NO_STATE,
    ) -> dict[str, Tensor]:
        """Compare a sub-network with the teacher.

        Args:
            model: the model that has run the sub-network.
            subnet: the sub-network; its kept layers select the teacher's hidden states.
            output: what it has computed.
            target: from `target`.
            rows: the tokens that count, from `token_rows`.
            mask: `[b, s]`, 1 for a token and 0 for padding.
            state: shared with the sub-network's pass.

        Returns:
            The weighted parts, `hidden` and `relation`, each a mean over the tokens; those of weight 0 are left out.
        """
        states = target.output.hidden_states
        targets = [*(states[layer] for layer in subnet.layers), states[-1]]
        parts: dict[str, Tensor] = {}
        if self.lambda_hidden:
            pairs = zip(output.hidden_states, targets, strict=True)
            errors = [F.mse_loss(pick_rows(ours, rows), pick_rows(theirs, rows)) for ours, theirs in pairs]
            parts["hidden"] = self.lambda_hidden * cast(Tensor, sum(errors))
        if self.lambda_relation:
            own = self._vectors(model, subnet, output, state)
            parts["relation"] = self.lambda_relation * relation_loss(own, target.vectors, mask)
        return parts

    def _vectors(self, model: Supernet, subnet: Subnet, output: SupernetOutput, state: PassState) -> tuple[Tensor, ...]:
        if not self.lambda_relation:
            return ()
        layer = model.encoder.layers[subnet.layers[-1]]
        return relation_vectors(layer, output.hidden_states[-2], heads=subnet.heads[-1], state=state)


def hidden_cosine(student: Tensor, teacher: Tensor, rows: Tensor | None) -> Tensor:
    """The cosine of last hidden states, `[b, s, d]`, of each token that counts, `[n]`."""
    return F.cosine_similarity(pick_rows(student, rows), pick_rows(teacher, rows), axis=-1)
