"""Hugging Face's names, layout and config keys, as PaddleNLP has them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from paddle import nn

_LAYER = re.compile(r"(.*\b)(?:encoder|transformer)\.layer\.(\d+)\.(.+)\.(weight|bias)")
# A part of a layer in BERT, RoBERTa, ELECTRA and ERNIE, then in DistilBERT -> PaddleNLP's name of it.
_LAYER_PARTS = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "linear1",
    "output.dense": "linear2",
    "output.LayerNorm": "norm2",
    "attention.q_lin": "self_attn.q_proj",
    "attention.k_lin": "self_attn.k_proj",
    "attention.v_lin": "self_attn.v_proj",
    "attention.out_lin": "self_attn.out_proj",
    "sa_layer_norm": "norm1",
    "ffn.lin1": "linear1",
    "ffn.lin2": "linear2",
    "output_layer_norm": "norm2",
}
_PARTS = {
    # Checkpoints of 2019, the DynaBERT authors' among them, name LayerNorm's parameters as TensorFlow does.
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    "embeddings.LayerNorm.": "embeddings.layer_norm.",
    "qa_outputs.": "classifier.",
}

# DistilBERT's keys that PaddleNLP does not know, or takes for something else.
_DISTILBERT_KEYS = {
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "seq_classif_dropout": "classifier_dropout",
}


def to_paddle_names(weights: dict[str, np.ndarray], model: nn.Layer) -> dict[str, np.ndarray]:
    """Give weights the names and the layout that a PaddleNLP model has.

    Args:
        weights: arrays by name, Hugging Face's or PaddleNLP's, of the model or of the base model in it.
        model: the model that they are for; Hugging Face keeps the weights of linear layers as [outputs, inputs].

    Returns:
        The arrays by the model's own names; those that it has no place for under others.
    """
    state, prefix = model.state_dict(), f"{model.base_model_prefix}."
    linear = set()
    if any(_LAYER.fullmatch(name) for name in weights):
        linear = {f"{path}.weight" for path, layer in model.named_sublayers() if isinstance(layer, nn.Linear)}
    arrays = {}
    for name, value in weights.items():
        if name not in state:
            name = _rename(name)
        if name not in state and prefix + name in state:  # a checkpoint of the base model
            name = prefix + name
        arrays[name] = value.T if name in linear else value
    return arrays


def _rename(name: str) -> str:
    for old, new in _PARTS.items():
        name = name.replace(old, new)
    match = _LAYER.fullmatch(name)
    if not match or match[3] not in _LAYER_PARTS:
        return name
    return f"{match[1]}encoder.layers.{match[2]}.{_LAYER_PARTS[match[3]]}.{match[4]}"


def to_paddle_config(values: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Translate a Hugging Face config to PaddleNLP's keys and values.

    Args:
        values: a `config.json`'s content.
        model_type: the architecture, for example `distilbert`.

    Returns:
        The content with PaddleNLP's keys, and with Hugging Face's default where PaddleNLP has another.
    """
    if model_type == "distilbert" and "dim" in values:  # PaddleNLP itself calls it hidden_size
        values = {_DISTILBERT_KEYS.get(key, key): value for key, value in values.items()}
    if model_type == "roberta":  # positions are counted from it; configs of 2019 leave it out, PaddleNLP's never do
        values = {"pad_token_id": 1, **values}
    return values
