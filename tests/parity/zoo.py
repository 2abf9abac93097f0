"""All of PaddleNLP's models with a head, found by walking it, each built small and random everywhere."""

import inspect
import json
from pathlib import Path

import numpy as np
import paddle
import paddlenlp.transformers as transformers

from dynabert_paddle.backbone.loading import HEADS, build_model
from dynabert_paddle.subnet import Subnet

NAMES = sorted(name for name in dir(transformers) if name.endswith(HEADS) and not name.startswith("AutoModel"))
VOCAB = 60
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "embedding_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
    "num_labels": 3,
}
SMALL_BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
# What makes a model more than BERT under another name, or can be built small only so.
OWN_SIZES = {
    "Electra": {"embedding_size": 16},
    "Ernie": {"use_task_id": True, "task_type_vocab_size": 3},
    "Roberta": {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5},
    "Bart": SMALL_BART,
    "MBart": SMALL_BART,
    "Blip": {"vision_config": {"num_hidden_layers": 1}, "text_config": {"num_hidden_layers": 1, "vocab_size": VOCAB}},
    "Deberta": {"pooler_hidden_size": 32, "pooler_dropout": 0.0, "pooler_hidden_act": "gelu"},
    "Funnel": {"num_hidden_layers": None},
    "Luke": {"entity_vocab_size": 9},
    "NeZha": {"use_relative_position": True},
    "Qwen2": {"num_key_value_heads": 4},
    "Reformer": {"axial_pos_embds_dim": [16, 16]},
    "XLNet": {"max_position_embeddings": None},
}


def build(name, folder):
    """The model of a folder with nothing but a config; LayerNorms and biases are random, too."""
    own = OWN_SIZES.get(next((name.removesuffix(head) for head in HEADS if name.endswith(head)), ""), {})
    values = {key: value for key, value in {**SIZES, **own}.items() if value is not None}
    (Path(folder) / "config.json").write_text(json.dumps({**values, "architectures": [name]}))
    paddle.seed(0)
    model = build_model(Path(folder))
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            noise = rng.normal(0, 0.1, parameter.shape).astype("float32")
            parameter.set_value(parameter + paddle.to_tensor(noise))
    model.eval()
    return model


def make_inputs(model):
    """What a model takes of a batch: two segments, and positions that are not those it would count itself."""
    rng = np.random.default_rng(0)
    mask = (np.arange(9) < np.array([[9], [4], [6]])).astype("int64")
    inputs = {
        "input_ids": np.where(mask, rng.integers(2, VOCAB, mask.shape), model.config.pad_token_id),
        "token_type_ids": (np.arange(9) >= 3) * mask,
        "attention_mask": mask,
        "position_ids": np.tile(np.arange(9)[::-1] + 2, (3, 1)),
    }
    if getattr(model.config, "type_vocab_size", 2) == 1:
        inputs["token_type_ids"] = mask * 0
    names = inspect.signature(model.forward).parameters
    return {name: paddle.to_tensor(value) for name, value in inputs.items() if name in names}


def heterogeneous(full):
    """A sub-network whose two layers differ in heads and neurons."""
    return Subnet((0, 2), (3, 1), (full.neurons[0] - 7, 11))
