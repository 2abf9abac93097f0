"""The elastic word embedding: its first components, the most important ones, make the embedding of any rank.

Shapes: b batch, s sequence, v vocabulary, e embedding size, c components of the table, r rank.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import Tensor, nn

from dynabert_paddle.backbone.structure import find_word_embedding, owner_of
from dynabert_paddle.errors import ModelError
from dynabert_paddle.supernet.activation_range import round_input
from dynabert_paddle.supernet.calls import current_call
from dynabert_paddle.supernet.slices import SliceCache, cut


class ElasticEmbedding(nn.Layer):
    """Replaces a model's word embedding and owns the same table under the same name.

    In a supernet the table E `[v, e]` is the model's own, and a part of rank r embeds a token as
    `E[id] @ down[:, :r] @ up[:r]`; the whole embedding is `E[id]` itself. A small model has the first c components of
    `U = E @ down` alone: a part of rank r is `U[id, :r] @ up[:r]`, and the whole embedding that of rank c.

    Args:
        stock: the layer to take over; its table has c columns.
        up: `[c, e]`, the directions of the components, the most important first.
        down: `[e, e]`, turns a token's embedding into its components; None in a small model.
    """

    def __init__(self, stock: nn.Layer, *, up: np.ndarray, down: np.ndarray | None = None) -> None:
        super().__init__()
        self.__dict__["stock"] = stock  # no sublayer: the table's name stays
        self.weight = stock.weight
        self.up = new_parameter(self, up)
        self.down = None if down is None else new_parameter(self, down)

    @property
    def max_rank(self) -> int:
        """The number of components."""
        return self.up.shape[0]

    @property
    def matrices(self) -> list[Tensor]:
        """The parameters beside the table."""
        return [self.up] if self.down is None else [self.up, self.down]

    @paddle.jit.not_to_static  # nothing here depends on a tensor's values: an export traces it unchanged
    def forward(self, ids: Tensor) -> Tensor:
        """Embed tokens with the rank of the current call; outside a call with all components.

        Args:
            ids: `[b, s]` token ids.

        Returns:
            `[b, s, e]`.
        """
        call = current_call()
        if call is None:
            return self._project(self.stock(ids), self.max_rank)
        shared = call.shared
        rows = None if shared is None else shared.rows
        if rows is None:
            rows = self.stock(ids)
            if shared is not None:
                shared.rows = rows
        return self._project(rows, call.rank or self.max_rank, call.state.slices)

    def _project(self, rows: Tensor, rank: int, cache: SliceCache | None = None) -> Tensor:
        """Keep the first components of the table's rows, `[b, s, e]` in a supernet and `[b, s, c]` in a small model."""
        if self.down is None:
            components = round_input(self, cut(rows, 2, rank), "middle_range")  # [b, s, r]
        elif rank < self.max_rank:
            components = paddle.matmul(rows, cut(self.down, 1, rank, cache))
        else:
            return rows
        return paddle.matmul(components, cut(self.up, 0, rank, cache))


def elastic_embedding(model: nn.Layer) -> ElasticEmbedding | None:
    """Return a model's elastic word embedding; None if it has a stock one."""
    return next((layer for layer in model.sublayers() if isinstance(layer, ElasticEmbedding)), None)


def word_table(model: nn.Layer) -> np.ndarray:
    """Return a model's table of words, `[v, e]`.

    Args:
        model: a PaddleNLP model.

    Returns:
        The table's values.

    Raises:
        ModelError: the model has no single word embedding.
    """
    owner, name = owner_of(model, find_word_embedding(model))
    return getattr(owner, name).weight.numpy()


def table_shape(model: nn.Layer) -> tuple[int, int]:
    """Return the vocabulary of a model's word embedding and the width of its output; zeros if it has no single one."""
    embedding = elastic_embedding(model)
    if embedding is not None:
        return embedding.weight.shape[0], embedding.up.shape[1]
    try:
        owner, name = owner_of(model, find_word_embedding(model))
    except ModelError:
        return 0, 0
    vocab_size, size = getattr(owner, name).weight.shape
    return vocab_size, size


def make_embedding_elastic(model: nn.Layer, components: np.ndarray) -> None:
    """Replace a model's word embedding by an elastic one; the whole embedding stays the same.

    Args:
        model: a PaddleNLP model with a stock embedding, or with an elastic one, whose components are replaced.
        components: `[e, e]`, orthogonal; its rows are the directions of the components, the most important first.
    """
    owner, name = owner_of(model, find_word_embedding(model))
    layer = getattr(owner, name)
    stock = layer.stock if isinstance(layer, ElasticEmbedding) else layer
    up = components.astype(np.float32)
    setattr(owner, name, ElasticEmbedding(stock, up=up, down=up.T.copy()))


def resize_embedding(model: nn.Layer, rank: int | None) -> None:
    """Reduce a model's word embedding in place to its first components.

    Args:
        model: the model; without a rank its embedding can be a stock one.
        rank: components to keep; None for the whole embedding, which in a supernet is the stock one.
    """
    layer = elastic_embedding(model)
    if layer is None:
        return
    is_whole = rank in (None, layer.max_rank)
    if layer.down is None and is_whole:
        return
    owner, name = owner_of(model, find_word_embedding(model))
    if is_whole:
        setattr(owner, name, layer.stock)
        return
    if layer.down is None:
        layer.stock.weight = layer.weight = new_parameter(layer, layer.weight.numpy()[:, :rank])
        layer.up = new_parameter(layer, layer.up.numpy()[:rank])
        return
    with paddle.no_grad():
        # All components at once: the tables of two ranks then have equal numbers, which a bundle stores once.
        table = paddle.matmul(layer.weight, layer.down)
    layer.stock.weight = new_parameter(layer, table.numpy()[:, :rank])
    setattr(owner, name, ElasticEmbedding(layer.stock, up=layer.up.numpy()[:rank]))


def shape_embedding(model: nn.Layer, rank: int) -> None:
    """Give a model's stock word embedding the parameters of an elastic one, to be filled with stored weights.

    Args:
        model: a PaddleNLP model.
        rank: components; as many as the embedding is wide in a supernet, fewer in a small model.
    """
    owner, name = owner_of(model, find_word_embedding(model))
    stock = getattr(owner, name)
    vocab_size, size = stock.weight.shape
    if rank < size:
        stock.weight = new_parameter(stock, np.zeros((vocab_size, rank), np.float32))
    down = np.zeros((size, size), np.float32) if rank == size else None
    setattr(owner, name, ElasticEmbedding(stock, up=np.zeros((rank, size), np.float32), down=down))


def new_parameter(layer: nn.Layer, value: np.ndarray) -> Tensor:
    """Make a parameter of a layer without drawing random numbers, which would change those drawn later."""
    return layer.create_parameter(list(value.shape), default_initializer=nn.initializer.Assign(value))
