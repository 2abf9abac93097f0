"""The elastic encoder: a PaddleNLP model's own layers, run as any sub-network.

Shapes: b batch, s sequence, d hidden size, h heads, e width of one head, f FFN neurons.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.backbone.structure import check_logits, find_encoder, owner_of
from dynabert_paddle.errors import ModelError
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet import cpu_operations, operations
from dynabert_paddle.supernet.activation_range import round_input
from dynabert_paddle.supernet.calls import NO_STATE, EncoderCall, PassState, current_call
from dynabert_paddle.supernet.low_rank_linear import LowRankLinear
from dynabert_paddle.supernet.slices import count_elastic, slice_parameter


class ElasticEncoder(nn.Layer):
    """Replaces a model's `nn.TransformerEncoder` and owns the same layers under the same parameter names.

    Outside `encoder_call` it is the full encoder, with the interface that PaddleNLP's models expect.

    Args:
        encoder: the encoder to take over.
    """

    def __init__(self, encoder: nn.TransformerEncoder) -> None:
        super().__init__()
        self.layers: Any = encoder.layers  # an nn.LayerList of nn.TransformerEncoderLayer
        self.norm = encoder.norm
        self.head_dim = encoder.layers[0].self_attn.head_dim

    @property
    def full(self) -> Subnet:
        """The sub-network that is the whole encoder."""
        counts = [count_elastic(layer, self.head_dim) for layer in self.layers]
        heads, neurons = zip(*counts, strict=True)
        return Subnet(tuple(range(len(counts))), heads, neurons)

    @paddle.jit.not_to_static  # nothing here depends on a tensor's values: an export traces it unchanged
    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        cache: object = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        return_dict: bool = False,
    ) -> Any:
        """Run the sub-network of the current call; outside a call, the full encoder.

        Args:
            src: `[b, s, d]` embeddings.
            src_mask: broadcasts to `[b, h, s, s]`; a float mask is added to the scores, an int or bool mask keeps the
                positions that are true.
            cache: not supported.
            output_attentions: not supported.
            output_hidden_states: as in PaddleNLP.
            return_dict: as in PaddleNLP.

        Returns:
            `[b, s, d]`, or with one of the last two arguments set the structure that PaddleNLP's encoder returns.

        Raises:
            ModelError: a cache or attentions were requested.
        """
        if cache is not None or output_attentions:
            raise ModelError("the elastic encoder returns no attentions and takes no cache: call it without them")
        call = current_call()
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
            call.shared = None  # what follows is not an embedding
            return hidden
        mask = additive_mask(src_mask, hidden.dtype)
        for index, heads, neurons in call.subnet.parts:
            gate = None if call.head_gates is None else call.head_gates[index][:heads]
            first = call.first_token and index == call.subnet.layers[-1]
            hidden = run_layer(
                self.layers[index],
                hidden,
                mask,
                heads=heads,
                neurons=neurons,
                head_gate=gate,
                first_token=first,
                state=call.state,
            )
            call.hidden_states.append(hidden)
        if self.norm is not None:
            hidden = call.hidden_states[-1] = self.norm(hidden)
        return hidden


def make_encoder_elastic(model: nn.Layer) -> ElasticEncoder:
    """Replace a model's encoder by an elastic one, unless it has one.

    Args:
        model: a PaddleNLP model.

    Returns:
        The elastic encoder.

    Raises:
        ModelError: a model without an encoder that can be made elastic, or without logits for a text.
    """
    owner, name = owner_of(model, find_encoder(model))
    if not isinstance(getattr(owner, name), ElasticEncoder):
        check_logits(model)
        setattr(owner, name, ElasticEncoder(getattr(owner, name)))
    return getattr(owner, name)


class Dropout(nn.Dropout):
    """Replaces a dropout layer outside the encoder, so that it uses the random bits of the current call.

    Args:
        layer: the layer to replace.
    """

    def __init__(self, layer: nn.Dropout) -> None:
        super().__init__(layer.p)
        self.training = layer.training

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements in training; the shape stays."""
        call = current_call()
        bits = None if call is None else call.state.dropout_bits
        operations, probability = _operations_for(x, bits), self.p if self.training else 0.0
        if call is None or call.shared is None or not probability:
            return operations.dropout(x, probability, bits)
        masks = call.shared.dropout_masks
        if id(self) not in masks:
            masks[id(self)] = operations.dropout(paddle.ones_like(x), probability, bits).detach()
        return x * masks[id(self)]


def replace_dropouts(model: nn.Layer) -> None:
    """Replace a model's dropout layers in place, except those of encoder layers: `run_layer` reads their rates."""
    for owner in model.sublayers(include_self=True):
        if not isinstance(owner, nn.TransformerEncoderLayer):
            for name, layer in owner.named_children():
                if type(layer) is nn.Dropout and layer.axis is None and layer.mode == "upscale_in_train":
                    setattr(owner, name, Dropout(layer))


def run_layer(
    layer: nn.TransformerEncoderLayer,
    hidden: Tensor,
    mask: Tensor | None,
    *,
    heads: int,
    neurons: int,
    head_gate: Tensor | None = None,
    first_token: bool = False,
    state: PassState = NO_STATE,
) -> Tensor:
    """Run a part of one encoder layer, pre-norm or post-norm as the layer is.

    Args:
        layer: the layer, which need not be one that PaddleNLP has patched.
        hidden: `[b, s, d]`.
        mask: added to the scores, broadcasts to `[b, h, s, s]`.
        heads: heads to run.
        neurons: FFN neurons to run.
        head_gate: `[h]`, multiplies each head's output.
        first_token: compute the first token's output alone; the other tokens are its keys and values.
        state: shared with other passes.

    Returns:
        `[b, s, d]`, or `[b, 1, d]`. With all heads, neurons and tokens the result equals the stock layer's bit for bit.
    """
    bits = state.dropout_bits
    ops = _operations_for(hidden, bits)
    attention = layer.self_attn

    def linear(x: Tensor, owner: nn.Layer, name: str) -> Tensor:
        def part(kind: str) -> Tensor | None:
            parameter = getattr(owner, kind)
            if parameter is None:
                return None
            sizes = {"heads": heads, "neurons": neurons, "head_dim": attention.head_dim}
            return slice_parameter(parameter, f"{name}.{kind}", **sizes, cache=state.slices)

        if state.observe is not None:
            state.observe(owner, x)
        x = round_input(owner, x)
        if isinstance(owner, LowRankLinear):
            middle = round_input(owner, ops.linear(x, part("down"), None), "middle_range")
            return ops.linear(middle, part("up"), part("bias"))
        return ops.linear(x, part("weight"), part("bias"))

    def add(x: Tensor, dropout: nn.Dropout, norm: nn.LayerNorm) -> Tensor:
        """Add the block's output to its input and, in a post-norm layer, normalize the sum."""
        probability = dropout.p if dropout.training else 0.0
        if layer.normalize_before:
            return residual + ops.dropout(x, probability, bits)
        return ops.add_norm(residual, x, norm, dropout_prob=probability, bits=bits)

    queries = residual = hidden  # the tokens that the layer computes; keys and values come from all
    if layer.normalize_before:
        queries = hidden = layer.norm1(hidden)
    queries = hidden = round_input(attention, hidden)  # once for queries, keys and values
    if first_token:
        queries, residual = queries[:, :1], residual[:, :1]
        if mask is not None and mask.ndim > 1 and mask.shape[-2] != 1:
            mask = mask[..., :1, :]
    context = ops.attend(
        linear(queries, attention.q_proj, "self_attn.q_proj"),
        linear(hidden, attention.k_proj, "self_attn.k_proj"),
        linear(hidden, attention.v_proj, "self_attn.v_proj"),
        mask,
        heads=heads,
        dropout_prob=attention.dropout if attention.training else 0.0,
        gate=head_gate,
        bits=bits,
    )  # [b, s, h*e]
    residual = hidden = add(linear(context, attention.out_proj, "self_attn.out_proj"), layer.dropout1, layer.norm1)

    if layer.normalize_before:
        hidden = layer.norm2(hidden)
    hidden = ops.activate(linear(hidden, layer.linear1, "linear1"), layer.activation)  # [b, s, f]
    hidden = ops.dropout(hidden, layer.dropout.p if layer.dropout.training else 0.0, bits)
    return add(linear(hidden, layer.linear2, "linear2"), layer.dropout2, layer.norm2)


def _operations_for(x: Tensor, bits: np.random.Generator | None) -> ModuleType:
    """The fast functions where they support a tensor, else Paddle's own."""
    return cpu_operations if cpu_operations.is_supported(x, bits) else operations


def additive_mask(mask: Tensor | None, dtype: paddle.dtype) -> Tensor | None:
    """Turn an attention mask into an additive one, by Paddle's own rule.

    Args:
        mask: float (already additive), or int or bool, where false positions are masked.
        dtype: dtype of the scores.

    Returns:
        A float mask of the same shape, or None.
    """
    if mask is None or paddle.is_floating_point(mask):
        return mask
    return (mask.astype(dtype) - 1.0) * 1e9
