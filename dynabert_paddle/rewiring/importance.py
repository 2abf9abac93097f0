"""How much the loss would change without a head or a neuron (DynaBERT, section 2.1).

To first order, removing a part with output o changes the loss by |dL/do * o|.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.supernet.calls import NO_STATE
from dynabert_paddle.supernet.low_rank_linear import input_matrix, output_matrix
from dynabert_paddle.supernet.supernet import Supernet, to_tensors


@dataclass(frozen=True)
class Importance:
    """Importance of every head and neuron.

    Args:
        heads: one `[h]` array per layer.
        neurons: one `[f]` array per layer.
    """

    heads: list[np.ndarray]
    neurons: list[np.ndarray]

    def to_dict(self) -> dict[str, list[list[float]]]:
        """Return the values as JSON has them, for a model's metadata."""
        return {
            "heads": [values.tolist() for values in self.heads],
            "neurons": [values.tolist() for values in self.neurons],
        }


class RandomProjection:
    """A stand-in for the loss of a model without labels: the mean of z . v over a batch, with a new normal z each time.

    The distance of a model to itself has no gradient. The gradient of z . v is a random combination of the gradients of
    all of the output's dimensions, and its expected square is the sum of their squares.

    Args:
        seed: of z.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, output: Tensor, labels: Tensor | None = None) -> Tensor:
        """Project an output, `[b, ...]`."""
        z = paddle.to_tensor(self._random.standard_normal(output.shape).astype(np.float32))
        return (z * output).sum() / output.shape[0]


def compute_importance(
    supernet: Supernet,
    batches: Iterable[dict[str, np.ndarray]],
    loss: Callable[..., Tensor],
    *,
    clear_gradients: bool = True,
    of_hidden: bool = False,
) -> Importance:
    """Measure the importance of all heads and neurons of all layers, with one backward pass per batch.

    Args:
        supernet: the fine-tuned model; its gradients are cleared.
        batches: collated batches, with labels if the loss needs them, and `label_weights` where these do not count
            alike.
        loss: the hard-label loss of logits and labels, with their `weights` if they have any; without labels,
            `RandomProjection`.
        clear_gradients: add up |gradient| of each batch. If False, gradients are never cleared between batches, so
            that their signs cancel, as in the authors' code.
        of_hidden: the loss is one of the last hidden states in place of the logits, `[b, s, d]`, 0 for padding.

    Returns:
        For a head the sum over batches of |dL/dgate|, its gate being a 1 that multiplies the head's output; for a
        neuron that of |sum(w1 * dL/dw1) + b1 * dL/db1| + |sum(w2 * dL/dw2)|, w1 and w2 being its weights in and out.

    Raises:
        DynabertError: there is no batch, a gradient is not finite, or all are 0.
    """
    layers = list(supernet.encoder.layers)
    heads = dict(zip(map(id, layers), supernet.full.heads, strict=True))
    own_gates = {layer: paddle.ones([count], dtype="float32") for layer, count in heads.items()}
    gates = [own_gates[id(layer)] for layer in layers]  # layers that share their weights lose a head together
    for gate in own_gates.values():
        gate.stop_gradient = False
    head_sums = [paddle.zeros_like(gate) for gate in gates]
    neuron_sums = [paddle.zeros([output_matrix(layer.linear1).shape[1]], dtype="float32") for layer in layers]

    was_training = supernet.training
    supernet.eval()
    _clear(supernet, gates)
    for batch in batches:
        inputs = to_tensors(batch)
        labels, weights = inputs.pop("labels", None), inputs.pop("label_weights", None)
        if clear_gradients:
            _clear(supernet, gates)
        with paddle.no_grad():  # the embeddings have no importance, so their backward pass is not needed
            embedding = supernet.embed(state=NO_STATE, **inputs)
        output = supernet(embedding=embedding, head_gates=gates, logits_only=not of_hidden, **inputs)
        if of_hidden:
            loss(output.hidden_states[-1] * inputs["attention_mask"].unsqueeze(-1).astype("float32"), None).backward()
        else:
            loss(output.logits, labels, **({} if weights is None else {"weights": weights})).backward()
        for index, layer in enumerate(layers):
            head_sums[index] += _gradient(gates[index]).abs()
            neuron_sums[index] += _neuron_importance(layer)
    _clear(supernet, gates)
    if was_training:
        supernet.train()

    importance = Importance([total.numpy() for total in head_sums], [total.numpy() for total in neuron_sums])
    values = np.concatenate(importance.heads + importance.neurons)
    if not np.isfinite(values).all():
        raise DynabertError(
            "the importance of some heads or neurons is not finite: the model's weights have diverged: fine-tune it "
            "again with a lower learning rate"
        )
    if not values.any():
        raise DynabertError(
            "the importance of all heads and neurons is 0: there is no data, or the loss has no gradient: fine-tune "
            "the model again, or leave rewiring out, and they keep their order"
        )
    return importance


def _neuron_importance(layer: nn.TransformerEncoderLayer) -> Tensor:
    # [d, f], [f], [f, d]; of products of rank r [r, f] and [f, r], whose sums over a neuron are the same.
    w1, b1, w2 = output_matrix(layer.linear1), layer.linear1.bias, input_matrix(layer.linear2)
    inward = (w1 * _gradient(w1)).sum(axis=0)
    if b1 is not None:
        inward = inward + b1 * _gradient(b1)
    return (inward.abs() + (w2 * _gradient(w2)).sum(axis=1).abs()).detach()


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None  # after backward
    return parameter.grad


def _clear(supernet: Supernet, gates: list[Tensor]) -> None:
    supernet.clear_gradients()
    for gate in gates:
        gate.clear_gradient()
