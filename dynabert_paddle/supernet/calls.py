"""A call of a supernet: values for its layers beyond the arguments that PaddleNLP's models pass on.

Shapes: b batch, s sequence, d hidden size, e embedding size, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from paddle import Tensor, nn

from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.slices import SliceCache

if TYPE_CHECKING:
    from dynabert_paddle.supernet.activation_range import ActivationRange
    from dynabert_paddle.supernet.elastic import ElasticEncoder


@dataclass(frozen=True)
class PassState:
    """What the passes of one training step, or of one evaluation, share; each replica of a model has its own.

    Args:
        slices: slices of parameters that earlier passes have cut.
        dropout_bits: the source of dropout's random bits. If it is given, passes that record gradients use the fast
            functions of `cpu_operations`, whose gradients `Tensor.backward` computes; `paddle.grad` would need every
            tensor that has one.
        observe: called with each linear layer of the encoder that runs, and its input.
        observe_range: called with each range of a quantized model and what it would round, which then stays as it is.
    """

    slices: SliceCache | None = None
    dropout_bits: np.random.Generator | None = None
    observe: Callable[[nn.Layer, Tensor], None] | None = None
    observe_range: Callable[[ActivationRange, Tensor], None] | None = None


NO_STATE = PassState()
FLOAT_ACTIVATIONS = PassState(observe_range=lambda layer, x: None)  # a quantized model rounds its weights alone


@dataclass
class SharedEmbedding:
    """What the embeddings of one batch share, which are computed one after the other for several ranks.

    Args:
        rows: `[b, s, e]` rows of the table, which the first of them gathers.
        dropout_masks: by the id of a dropout layer, the mask that the first of them draws.
    """

    rows: Tensor | None = None
    dropout_masks: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class EncoderCall:
    """The arguments of one call of a supernet to its encoder, and the encoder's hidden states.

    Args:
        encoder: the encoder that the call is for.
        subnet: the sub-network to run, or None to stop at the encoder's input.
        embedding: `[b, s, d]`, replaces the embeddings' own output.
        head_gates: one `[h]` tensor per layer that multiplies the heads' outputs.
        first_token: of the last kept layer, compute the first token's output alone, `[b, 1, d]`.
        state: shared with other calls.
        rank: components of the word embedding to compute the embedding from; None for all.
        shared: the part of the embedding that all ranks have in common.
        hidden_states: filled by the encoder: the input of each kept layer and the final output, `[b, s, d]` each.
    """

    encoder: ElasticEncoder
    subnet: Subnet | None
    embedding: Tensor | None = None
    head_gates: Sequence[Tensor] | None = None
    first_token: bool = False
    state: PassState = NO_STATE
    rank: int | None = None
    shared: SharedEmbedding | None = None
    hidden_states: list[Tensor] = field(default_factory=list)


# PaddleNLP's models call their embeddings and their encoder with arguments of their own, so ours travel in a context
# variable: this thread alone sees it, and it is reset when the call returns.
_CALL: ContextVar[EncoderCall | None] = ContextVar("dynabert_encoder_call", default=None)


@contextmanager
def encoder_call(call: EncoderCall) -> Iterator[EncoderCall]:
    """Make `call` the current one within a `with` block.

    Args:
        call: the call.

    Yields:
        The same call.
    """
    token = _CALL.set(call)
    try:
        yield call
    finally:
        _CALL.reset(token)


def current_call() -> EncoderCall | None:
    """Return the call that is being made in this thread; None outside `encoder_call`."""
    return _CALL.get()
