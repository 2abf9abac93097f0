"""What a PaddleNLP model must have to be made elastic: one stock encoder, and logits for a text's tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from dynabert_paddle.errors import ModelError
from dynabert_paddle.runtime.memory import raise_memory_error

SUPPORTED = (
    "BERT, RoBERTa, ERNIE, ERNIE-M, TinyBERT, PP-MiniLM, ELECTRA, DistilBERT and others on nn.TransformerEncoder"
)

_UNLIMITED = 1_000_000

# A size in a config, and how large it may be: no encoder comes near these, a damaged number goes beyond them.
_SIZE = re.compile(r"num_\w+|n_(layers|heads)|(\w+_)?(size|embeddings)|(hidden_)?dim")
_MAX_VALUE = 2**22
_MAX_VALUES = {"num_hidden_layers": 2**10, "n_layers": 2**10, "num_labels": 2**17, "embedding_size": 2**14}
_MAX_VALUES |= {"type_vocab_size": 2**10, "task_type_vocab_size": 2**10}
_MAX_NEW_ELEMENTS = 2**27  # that a model may have beyond its folder's weights, which can lack pruned heads and neurons


def check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse sizes that no model has, before anything is made of them.

    Args:
        values: a `config.json`'s content.

    Raises:
        ModelError: a size that is no whole number, or beyond all models'.
    """
    for key, value in values.items():
        most = _MAX_VALUES.get(key, _MAX_VALUE)
        if isinstance(value, (int, float)) and _SIZE.fullmatch(key) and not 0 <= value <= most:
            raise ModelError(f"{key} is {value:.3g}: allowed are whole numbers from 0 to {most:,}")


def check_activation(values: Mapping[str, Any]) -> None:
    """Refuse an activation that Paddle does not have, such as Hugging Face's `gelu_new`.

    Args:
        values: a `config.json`'s content.

    Raises:
        ModelError: there is no such function.
    """
    name = values.get("hidden_act")
    if isinstance(name, str) and not callable(getattr(F, name, None)):
        raise ModelError(f"hidden_act is '{name}', which Paddle does not have: allowed are gelu, relu, tanh, silu, ...")


def check_elements(config: Any, stored: int, *, num_shared: int = 0) -> None:
    """Refuse a model that is far larger than its weights, which would take all memory.

    Args:
        config: a PaddleNLP model's.
        stored: bytes of its weights.
        num_shared: the layers that its layers share; 0 if each has its own weights.

    Raises:
        ModelError: it is.
    """

    def size(name: str) -> int:
        return getattr(config, name, None) or 0

    layers, hidden, neurons = map(size, ("num_hidden_layers", "hidden_size", "intermediate_size"))
    tables = ("vocab_size", "max_position_embeddings", "type_vocab_size", "task_type_vocab_size")
    elements = sum(map(size, tables)) * max(hidden, size("embedding_size"))
    elements += (num_shared or layers) * (4 * hidden + 2 * neurons) * hidden
    if elements > stored + _MAX_NEW_ELEMENTS:
        raise ModelError(
            f"describes a model of {elements / 1e6:,.0f} M parameters, but the folder's weights have "
            f"{stored / 1e6:,.1f} MB: its sizes are damaged, or it is another model's"
        )


def find_encoder(model: nn.Layer) -> str:
    """Find the one `nn.TransformerEncoder` (or what stands in for it) in a model.

    Args:
        model: any PaddleNLP model.

    Returns:
        Its path, for example `bert.encoder`.

    Raises:
        ModelError: none or several, or a decoder beside it, so that the model is not one that can be made elastic.
    """
    stacks = {
        path: list(part) for path, part in model.named_sublayers() if isinstance(part, nn.LayerList) and len(part)
    }
    paths = [
        path.removesuffix(".layers")
        for path, layers in stacks.items()
        # Not subclasses: RoFormer's and ConvBERT's compute something else with the same parameters.
        if all(type(layer) is nn.TransformerEncoderLayer for layer in layers)
        and all(type(layer.self_attn) is nn.MultiHeadAttention for layer in layers)
    ]
    decoders = [part for part in model.sublayers() if isinstance(part, nn.TransformerDecoderLayer)]
    if len(paths) == 1 and not decoders:
        return paths[0]
    if paths:
        seen = "a decoder beside its encoder" if decoders else f"{len(paths)} encoders that can be made elastic"
    else:
        kinds = (type(layers[0]).__name__ for layers in stacks.values() if not isinstance(layers[0], nn.LayerList))
        kind = next((f", its layers are {name}" for name in kinds), "")
        seen = f"no encoder that can be made elastic{kind}"
    raise ModelError(f"{type(model).__name__} has {seen}; supported: {SUPPORTED}")


def check_vocabulary(config: Any, vocab_size: int) -> None:
    """Refuse a tokenizer with tokens for which a model has no embedding; it may have fewer tokens.

    Args:
        config: a PaddleNLP model's.
        vocab_size: the tokenizer's largest token id, and one.

    Raises:
        ModelError: it has more tokens than the model.
    """
    embeddings = getattr(config, "vocab_size", None)
    if embeddings is not None and vocab_size > embeddings:
        raise ModelError(
            f"the tokenizer has {vocab_size:,} tokens, and the model embeddings for {embeddings:,}: copy both from one "
            "model, or remove the tokens that were added"
        )


def num_positions(config: Any) -> int:
    """Return the longest input that a model has positions for.

    Args:
        config: a PaddleNLP model's.

    Returns:
        Tokens; a large number for a model without a limit.
    """
    limit = getattr(config, "max_position_embeddings", _UNLIMITED)
    # Both count from above 0: RoBERTa from behind the padding token's position, ERNIE-M from 2.
    return limit - {"roberta": (config.pad_token_id or 0) + 1, "ernie_m": 2}.get(config.model_type, 0)


def join_logits(output: Any) -> Tensor:
    """Return the logits of a PaddleNLP model's output as one tensor.

    Args:
        output: logits; logits and more; or for question answering the logits of starts and ends, `[b, s]` each.

    Returns:
        `[b, c]` for a sequence, `[b, s, c]` for its tokens, `[b, 2, s]` for starts and ends.
    """
    if not isinstance(output, (tuple, list)):
        return output
    if len(output) == 2 and all(getattr(part, "ndim", None) == 2 for part in output):
        return paddle.stack(output, axis=1)
    return output[0]


def check_logits(model: nn.Layer) -> None:
    """Refuse a model that needs other inputs than a text's tokens, or returns no logits.

    Args:
        model: a PaddleNLP model; it is run on three tokens, and left as it was.

    Raises:
        ModelError: it fails, or returns no floating-point tensor.
    """
    tokens = paddle.zeros([1, 3], dtype="int64")  # ERNIE-CTM's first two are special, and Paddle 2.6 needs one more
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        with paddle.no_grad():
            logits = join_logits(model(input_ids=tokens, attention_mask=paddle.ones_like(tokens)))
    except Exception as error:  # whatever the missing input causes inside
        raise_memory_error(error)
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{type(model).__name__} needs more inputs than a text's tokens: {reason}") from None
    finally:
        for layer, training in modes:
            layer.training = training
    if not paddle.is_floating_point(logits):
        raise ModelError(f"{type(model).__name__} returns {logits.dtype} and no logits; supported: {SUPPORTED}")


def find_word_embedding(model: nn.Layer) -> str:
    """Find the layer that embeds a model's tokens: under `embeddings`, with a table of a row for each token.

    Args:
        model: a PaddleNLP model.

    Returns:
        Its path, for example `bert.embeddings.word_embeddings`.

    Raises:
        ModelError: there is none, or no single one.
    """
    paths = [
        path
        for path, layer in model.named_sublayers()
        if "embeddings." in path
        and not isinstance(layer, nn.Linear)
        and getattr(layer, "weight", None) is not None
        and layer.weight.ndim == 2
        and layer.weight.shape[0] == model.config.vocab_size
    ]
    if len(paths) > 1:  # a table of positions can have as many rows
        paths = [path for path in paths if path.endswith(".word_embeddings")]
    if len(paths) != 1:
        raise ModelError(f"{type(model).__name__} has {len(paths)} word embeddings; only a single one can be elastic")
    return paths[0]


def owner_of(root: nn.Layer, path: str) -> tuple[nn.Layer, str]:
    """Return the layer that owns the parameter of a dotted path, and the parameter's name there."""
    *parents, name = path.split(".")
    for parent in parents:
        root = getattr(root, parent)
    return root, name
