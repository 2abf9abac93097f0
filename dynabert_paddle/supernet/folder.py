"""A model's folder: its config, weights, tokenizer and `dynabert.json`, read and written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from paddle import nn

from dynabert_paddle.backbone.loading import MASKED_LM, build_model, load_weights, to_arrays
from dynabert_paddle.backbone.structure import check_vocabulary
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.atomic import check_complete, read_json
from dynabert_paddle.files.integrity import check_files
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, read_metadata, write_metadata
from dynabert_paddle.files.model_config import read_config
from dynabert_paddle.files.model_folder import check_model_folder
from dynabert_paddle.files.packing import PACKED_BITS, pack_weights
from dynabert_paddle.files.weights import OWN_WEIGHTS_FILE, STOCK_WEIGHTS_FILE, own_weight_names, write_safetensors
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.elastic import ElasticEncoder, make_encoder_elastic
from dynabert_paddle.supernet.elastic_embedding import elastic_embedding, shape_embedding, table_shape
from dynabert_paddle.supernet.low_rank_linear import LowRankLinear, shape_products
from dynabert_paddle.supernet.quantized import (
    SCALE,
    find_quantized,
    find_ranges,
    quantize_model,
    remove_quantization,
)
from dynabert_paddle.supernet.resize import resize_layers
from dynabert_paddle.supernet.shared_layers import find_groups, share_layers
from dynabert_paddle.text.tokenizer import AnyTokenizer, Tokenizer

logger = logging.getLogger(__name__)


class ModelParts(NamedTuple):
    """What a model's folder holds.

    Args:
        model: with an elastic encoder, in the folder's shape.
        tokenizer: the model's.
        metadata: its description.
    """

    model: nn.Layer
    tokenizer: AnyTokenizer
    metadata: Metadata


def read_model(
    folder: Path,
    *,
    labels: tuple[str, ...] | None = None,
    num_labels: int | None = None,
    head: str | None = None,
    trust_order: bool = False,
) -> ModelParts:
    """Read all files of a model's folder.

    Args:
        folder: any model folder of this project's, PaddleNLP's or Hugging Face's.
        labels: as for `Supernet.from_pretrained`.
        num_labels: likewise.
        head: likewise.
        trust_order: likewise.

    Returns:
        The model and what belongs to it.

    Raises:
        ModelError: the folder cannot be loaded, or the model cannot be made elastic.
        UsageError: there is no such head.
    """
    check_complete(folder, METADATA_FILE)
    check_model_folder(folder)
    metadata = read_metadata(folder)
    path = folder / METADATA_FILE
    if path.is_file():  # one from before hashes were kept has none, and is believed
        check_files(path, read_json(path).get("files", {}))
    if metadata.is_general and not labels and num_labels is None and head is None:
        head = _masked_lm_head(folder)
    model = build_model(folder, labels=labels, num_labels=num_labels, head=head)
    tokenizer = Tokenizer.from_pretrained(folder)
    try:
        check_vocabulary(model.config, tokenizer.vocab_size)
        encoder = make_encoder_elastic(model)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None
    _take_shape(model, encoder, metadata, folder)
    new_head = bool(labels or head) or num_labels is not None
    fresh = load_weights(model, folder, labels=labels, trust_order=trust_order, new_head=new_head)
    remove_quantization(model, {name.rpartition(".")[0] for name in fresh if name.endswith(SCALE)})
    if fresh and metadata.stage and num_labels is None and head is None and not metadata.is_general:
        raise ModelError(f"{folder}: '{fresh[0]}' is missing or of another shape: the folder is damaged, copy it again")
    logger.debug("%s: new weights for %s", folder, fresh)
    return ModelParts(model, tokenizer, metadata)


def _masked_lm_head(folder: Path) -> str | None:
    """The head of a model that has learned to predict masked words, and has no other yet."""
    architectures = read_config(folder).get("architectures") or [""]
    return MASKED_LM if str(architectures[0]).endswith(MASKED_LM) else None


def _take_shape(model: nn.Layer, encoder: ElasticEncoder, metadata: Metadata, folder: Path) -> None:
    """Give a model the heads, neurons and components that its folder has weights for."""
    if metadata.heads:
        shape = Subnet(tuple(range(len(metadata.heads))), metadata.heads, metadata.neurons)
        try:
            shape.check_part_of(encoder.full)
        except UsageError:
            raise ModelError(f"{folder}: config.json describes a smaller model than {METADATA_FILE}") from None
        resize_layers(encoder, shape)
    if metadata.layer_ranks:
        try:
            shape_products(encoder.layers, metadata.layer_ranks)
        except (AttributeError, ValueError):
            raise ModelError(
                f"{folder / METADATA_FILE}: layer_ranks are not of this model: copy the folder again from its source"
            ) from None
    if metadata.layer_groups:
        try:
            share_layers(encoder, metadata.layer_groups)
        except ValueError:
            raise ModelError(
                f"{folder / METADATA_FILE}: layer_groups are not of this model: copy the folder again from its source"
            ) from None
    if metadata.embedding_rank is not None:
        _, size = table_shape(model)
        if not 1 <= metadata.embedding_rank <= size:
            raise ModelError(
                f"{folder / METADATA_FILE}: embedding_rank is {metadata.embedding_rank}, and config.json describes an "
                f"embedding of {size}: copy the folder again from its source"
            )
        shape_embedding(model, metadata.embedding_rank)
    if metadata.weight_bits is not None:
        quantize_model(model, metadata.weight_bits, _any_scale, stored=own_weight_names(folder))


def _any_scale(weight: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """The shape of a scale, to be filled with stored values."""
    return np.ones_like(weight, shape=[1 if i == axis else size for i, size in enumerate(weight.shape)])


def write_model(folder: Path, model: nn.Layer, tokenizer: AnyTokenizer | None, metadata: Metadata) -> None:
    """Write all files of a model's folder.

    Args:
        folder: an existing folder.
        model: the model.
        tokenizer: its tokenizer, if it has one.
        metadata: its description.
    """
    model.config.to_json_file(str(folder / "config.json"))
    for name, arrays in weight_files(model).items():
        # "np" tells PaddleNLP that the weights need no transposing.
        write_safetensors(folder / name, arrays, metadata={"format": "np"})
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    write_metadata(folder, metadata)


def weight_files(model: nn.Layer) -> dict[str, dict[str, np.ndarray]]:
    """Divide a model's weights into files: stock PaddleNLP must find all of a model it can load, and nothing of others.

    Args:
        model: the model.

    Returns:
        What each file stores, by its name.
    """
    arrays, embedding, quantized = to_arrays(model), elastic_embedding(model), find_quantized(model)
    packed = {weight.name: weight.bits for weight in quantized if weight.bits in PACKED_BITS}
    has_products = any(isinstance(layer, LowRankLinear) for layer in model.sublayers())
    own_layers = has_products or bool(find_groups(make_encoder_elastic(model).layers))
    if own_layers or packed or (embedding is not None and embedding.down is None):
        return {OWN_WEIGHTS_FILE: pack_weights(arrays, packed)}
    own = set() if embedding is None else {id(parameter) for parameter in embedding.matrices}
    own |= {id(weight.scale) for weight in quantized} | {id(part.scale) for part in find_ranges(model)}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in own}
    files = {
        STOCK_WEIGHTS_FILE: {name: array for name, array in arrays.items() if name not in names},
        OWN_WEIGHTS_FILE: {name: array for name, array in arrays.items() if name in names},
    }
    return {name: arrays for name, arrays in files.items() if arrays}
