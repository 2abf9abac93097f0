"""Reads the sizes of a model with an elastic encoder."""

from __future__ import annotations

from paddle import nn

from dynabert_paddle.model_shape import ModelShape
from dynabert_paddle.supernet.elastic import ElasticEncoder
from dynabert_paddle.supernet.elastic_embedding import elastic_embedding, table_shape
from dynabert_paddle.supernet.low_rank_linear import PROJECTIONS, find_ranks, input_matrix
from dynabert_paddle.supernet.quantized import find_bits, find_quantized, find_ranges
from dynabert_paddle.supernet.shared_layers import find_groups


def shape_of(model: nn.Layer, encoder: ElasticEncoder) -> ModelShape:
    """Return the sizes of a model.

    Args:
        model: a PaddleNLP model.
        encoder: its elastic encoder.

    Returns:
        The sizes, which count parameters and MACs of any sub-network; scales of a quantized model do not count.
    """
    vocab_size, embedding_size = table_shape(model)
    embedding = elastic_embedding(model)
    # The whole model does not need the matrices of a supernet's elastic embedding.
    unused = {id(p) for p in embedding.matrices} if embedding and embedding.down is not None else set()
    in_layers = {id(parameter) for parameter in encoder.layers.parameters()}
    scales = {id(weight.scale) for weight in find_quantized(model)} | {id(r.scale) for r in find_ranges(model)}
    outside = [(name, p) for name, p in model.named_parameters() if id(p) not in in_layers | unused | scales]
    embedding_params = sum(p.size for name, p in outside if ".embeddings" in f".{name}")
    return ModelShape(
        heads=encoder.full.heads,
        neurons=encoder.full.neurons,
        hidden_size=input_matrix(encoder.layers[0].linear1).shape[0],
        head_dim=encoder.head_dim,
        embedding_params=int(embedding_params),
        other_params=int(sum(p.size for _, p in outside) - embedding_params),
        bias=encoder.layers[0].linear1.bias is not None,
        vocab_size=vocab_size,
        embedding_size=embedding_size,
        max_rank=None if embedding is None else embedding.max_rank,
        layer_ranks=tuple(tuple(map(ranks.get, PROJECTIONS)) for ranks in find_ranks(encoder.layers)),
        layer_groups=find_groups(encoder.layers),
        weight_bits=find_bits(model),
    )
