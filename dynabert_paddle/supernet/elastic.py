"""The elastic encoder: a PaddleNLP model's own layers, run as the sub-network that a call asks for.

Shapes: b batch, s sequence, d hidden size, h heads, e width of one head, f FFN neurons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import paddle
from paddle import Tensor, nn

from dynabert_paddle.errors import ModelError
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet import cpu_operations, operations
from dynabert_paddle.supernet.slices import cut

# Parameter -> (what its elastic axis counts, that axis). Paddle keeps a Linear's weight as [inputs, outputs].
# Parameters that are not named here belong to the hidden states, whose size is not elastic.
ELASTIC_AXES = {
    "self_attn.q_proj.weight": ("heads", 1),
    "self_attn.q_proj.bias": ("heads", 0),
    "self_attn.k_proj.weight": ("heads", 1),
    "self_attn.k_proj.bias": ("heads", 0),
    "self_attn.v_proj.weight": ("heads", 1),
    "self_attn.v_proj.bias": ("heads", 0),
    "self_attn.out_proj.weight": ("heads", 0),
    "linear1.weight": ("neurons", 1),
    "linear1.bias": ("neurons", 0),
    "linear2.weight": ("neurons", 0),
}


@dataclass
class EncoderCall:
    """What one call of a supernet asks of its encoder, and what the encoder reports back.

    Args:
        encoder: the encoder that is meant.
        subnet: the sub-network to run, or None to stop at the encoder's input.
        embedding: `[b, s, d]` to run on in place of the embeddings' own output.
        head_gates: one `[h]` tensor per layer that multiplies the heads' outputs.
        first_token: compute of the last kept layer's output the first token alone, `[b, 1, d]`.
        hidden_states: filled by the encoder: the input of each kept layer and the final output, `[b, s, d]` each.
    """

    encoder: ElasticEncoder
    subnet: Subnet | None
    embedding: Tensor | None = None
    head_gates: Sequence[Tensor] | None = None
    first_token: bool = False
    hidden_states: list[Tensor] = field(default_factory=list)


# PaddleNLP's models call their encoder with arguments of their own, so the call travels beside them. It is bound to
# the running thread and is gone when the call returns.
_CALL: ContextVar[EncoderCall | None] = ContextVar("dynabert_encoder_call", default=None)


@contextmanager
def encoder_call(call: EncoderCall) -> Iterator[EncoderCall]:
    """Make `call` the one that its encoder answers, for the length of a `with` block.

    Args:
        call: what to run.

    Yields:
        The same call.
    """
    token = _CALL.set(call)
    try:
        yield call
    finally:
        _CALL.reset(token)


class ElasticEncoder(nn.Layer):
    """Stands in for a model's `nn.TransformerEncoder` and owns the same layers under the same parameter names.

    Called outside `encoder_call`, it is the full encoder, with the interface that PaddleNLP's models expect.

    Args:
        encoder: the encoder to take over.
    """

    def __init__(self, encoder: nn.TransformerEncoder) -> None:
        super().__init__()
        self.layers = encoder.layers
        self.norm = encoder.norm
        self.head_dim = encoder.layers[0].self_attn.head_dim

    @property
    def full(self) -> Subnet:
        """The sub-network that is the whole encoder."""
        counts = [count_elastic(layer, self.head_dim) for layer in self.layers]
        heads, neurons = zip(*counts, strict=True)
        return Subnet(tuple(range(len(counts))), heads, neurons)

    @paddle.jit.not_to_static  # nothing here depends on a tensor's values: an export runs it as it is
    def forward(
        self, src, src_mask=None, cache=None, output_attentions=False, output_hidden_states=False, return_dict=False
    ):
        """Run the sub-network that the current call asks for; the full encoder where there is no call.

        Args:
            src: `[b, s, d]` embeddings.
            src_mask: broadcasts to `[b, h, s, s]`; float masks are added to the scores, int and bool ones keep what is
                true.
            cache: not supported.
            output_attentions: not supported.
            output_hidden_states: as in PaddleNLP.
            return_dict: as in PaddleNLP.

        Returns:
            `[b, s, d]`, or what PaddleNLP's encoder returns for the last two arguments.

        Raises:
            ModelError: a cache or attentions were asked for.
        """
        if cache is not None or output_attentions:
            raise ModelError("the elastic encoder gives no attentions and takes no cache: call it without them")
        call = _CALL.get()
        if call is None or call.encoder is not self:
            call = EncoderCall(self, self.full)
        output = self._run(call, src, src_mask)
        if return_dict:
            from paddlenlp.transformers.model_outputs import BaseModelOutputWithPastAndCrossAttentions

            hidden_states = call.hidden_states if output_hidden_states else None
            return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=output, hidden_states=hidden_states)
        return (output, tuple(call.hidden_states)) if output_hidden_states else output

    def _run(self, call: EncoderCall, src: Tensor, src_mask: Tensor | None) -> Tensor:
        hidden = src if call.embedding is None else call.embedding
        call.hidden_states.append(hidden)
        if call.subnet is None:
            return hidden
        mask = additive_mask(src_mask, hidden.dtype)
        for index, heads, neurons in call.subnet.parts:
            gate = None if call.head_gates is None else call.head_gates[index][:heads]
            first = call.first_token and index == call.subnet.layers[-1]
            size = {"heads": heads, "neurons": neurons}
            hidden = run_layer(self.layers[index], hidden, mask, **size, head_gate=gate, first_token=first)
            call.hidden_states.append(hidden)
        if self.norm is not None:
            hidden = call.hidden_states[-1] = self.norm(hidden)
        return hidden


class Dropout(nn.Dropout):
    """Stands in for a model's dropout layer outside of its encoder.

    Args:
        layer: the layer to replace.
    """

    def __init__(self, layer: nn.Dropout) -> None:
        super().__init__(layer.p)
        self.training = layer.training

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training.

        Args:
            x: any shape.

        Returns:
            The same shape.
        """
        ops = cpu_operations if cpu_operations.suit(x) else operations
        return ops.dropout(x, self.p if self.training else 0.0)


def replace_dropouts(model: nn.Layer) -> None:
    """Put `Dropout` in the place of a model's dropout layers; of an encoder layer's `run_layer` takes the rates alone.

    Args:
        model: changed in place.
    """
    for owner in model.sublayers(include_self=True):
        if not isinstance(owner, nn.TransformerEncoderLayer):
            for name, layer in owner.named_children():
                if type(layer) is nn.Dropout and layer.axis is None and layer.mode == "upscale_in_train":
                    setattr(owner, name, Dropout(layer))


def count_elastic(layer: nn.TransformerEncoderLayer, head_dim: int) -> tuple[int, int]:
    """Count what a layer has of its elastic parts.

    Args:
        layer: an encoder layer.
        head_dim: width of one head.

    Returns:
        Heads and FFN neurons.
    """
    return layer.self_attn.q_proj.weight.shape[1] // head_dim, layer.linear1.weight.shape[1]


def slice_parameter(parameter: Tensor, name: str, *, heads: int, neurons: int, head_dim: int) -> Tensor:
    """The part of a layer's parameter that a sub-network uses. Every sub-network, run or extracted, is cut here.

    Args:
        parameter: the full parameter.
        name: its name within the layer, for example `self_attn.q_proj.weight`.
        heads: heads to keep.
        neurons: FFN neurons to keep.
        head_dim: width of one head.

    Returns:
        The first rows or columns; the parameter itself where all of it is used.
    """
    if name not in ELASTIC_AXES:
        return parameter
    what, axis = ELASTIC_AXES[name]
    size = heads * head_dim if what == "heads" else neurons
    return cut(parameter, axis, size)


def run_layer(
    layer: nn.TransformerEncoderLayer,
    hidden: Tensor,
    mask: Tensor | None,
    *,
    heads: int,
    neurons: int,
    head_gate: Tensor | None = None,
    first_token: bool = False,
) -> Tensor:
    """Run a part of one encoder layer, pre-norm or post-norm as the layer is.

    Args:
        layer: the layer, which need not be one that PaddleNLP has patched.
        hidden: `[b, s, d]`.
        mask: added to the scores, broadcasts to `[b, h, s, s]`.
        heads: heads to run.
        neurons: FFN neurons to run.
        head_gate: `[h]`, multiplies each head's output.
        first_token: compute the first token's output alone; the others are keys and values to it.

    Returns:
        `[b, s, d]`, or `[b, 1, d]`. All heads, neurons and tokens give bit for bit what the stock layer gives.
    """
    ops = cpu_operations if cpu_operations.suit(hidden) else operations
    attention = layer.self_attn
    kept = {"heads": heads, "neurons": neurons, "head_dim": attention.head_dim}

    def linear(x: Tensor, owner: nn.Linear, name: str) -> Tensor:
        bias = None if owner.bias is None else slice_parameter(owner.bias, f"{name}.bias", **kept)
        return ops.linear(x, slice_parameter(owner.weight, f"{name}.weight", **kept), bias)

    def add(x: Tensor, dropout: nn.Dropout, norm: nn.LayerNorm) -> Tensor:
        """The block's input and output, summed and, in a post-norm layer, normalized."""
        probability = dropout.p if dropout.training else 0.0
        if layer.normalize_before:
            return residual + ops.dropout(x, probability)
        return ops.add_norm(residual, x, norm, dropout_prob=probability)

    asking = residual = hidden
    if layer.normalize_before:
        asking = hidden = layer.norm1(hidden)
    if first_token:
        asking, residual = asking[:, :1], residual[:, :1]
        if mask is not None and mask.ndim > 1 and mask.shape[-2] != 1:
            mask = mask[..., :1, :]
    context = ops.attend(
        linear(asking, attention.q_proj, "self_attn.q_proj"),
        linear(hidden, attention.k_proj, "self_attn.k_proj"),
        linear(hidden, attention.v_proj, "self_attn.v_proj"),
        mask,
        heads=heads,
        dropout_prob=attention.dropout if attention.training else 0.0,
        gate=head_gate,
    )  # [b, s, h*e]
    residual = hidden = add(linear(context, attention.out_proj, "self_attn.out_proj"), layer.dropout1, layer.norm1)

    if layer.normalize_before:
        hidden = layer.norm2(hidden)
    hidden = ops.activate(linear(hidden, layer.linear1, "linear1"), layer.activation)  # [b, s, f]
    hidden = ops.dropout(hidden, layer.dropout.p if layer.dropout.training else 0.0)
    return add(linear(hidden, layer.linear2, "linear2"), layer.dropout2, layer.norm2)


def additive_mask(mask: Tensor | None, dtype) -> Tensor | None:
    """Turn an attention mask into what is added to the scores, by Paddle's own rule.

    Args:
        mask: float (already additive), or int or bool, where false positions are masked.
        dtype: dtype of the scores.

    Returns:
        A float mask of the same shape, or None.
    """
    if mask is None or paddle.is_floating_point(mask):
        return mask
    return (mask.astype(dtype) - 1.0) * 1e9
