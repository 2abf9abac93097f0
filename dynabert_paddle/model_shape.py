"""The sizes of a full model, and the parameters and MACs of any part of it. Pure Python: nothing here needs Paddle."""

from __future__ import annotations

from dataclasses import dataclass

from dynabert_paddle.subnet import Subnet

MACS_LENGTH = 128  # tokens of the sequence that all MACs are of, as in the paper


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a full model, from which parameters and multiply-accumulates (MACs) of any sub-network are counted.

    Args:
        heads: attention heads of each layer.
        neurons: FFN neurons of each layer.
        hidden_size: width of the hidden states, which is not elastic.
        head_dim: width of one head.
        embedding_params: parameters of the embeddings, their norm included.
        other_params: parameters outside embeddings and layers: pooler, classifier, the norm after the last layer.
        bias: whether the projections have biases.
        vocab_size: rows of the word embedding.
        embedding_size: width of its output.
        max_rank: components that its table has; None if it is not elastic. With fewer than `embedding_size`, the whole
            model itself computes its embedding as a product.
        layer_ranks: for each layer the ranks of its query, key, value and output projection and of the FFN's two linear
            layers, None for one that is no product; empty without any product.
        layer_groups: for each layer the number of the group that it shares its weights with; empty without any.
        weight_bits: of the weights of a quantized model, whose scales are no parameters; None for one that is not.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    hidden_size: int
    head_dim: int
    embedding_params: int = 0
    other_params: int = 0
    bias: bool = True
    vocab_size: int = 0
    embedding_size: int = 0
    max_rank: int | None = None
    layer_ranks: tuple[tuple[int | None, ...], ...] = ()
    layer_groups: tuple[int, ...] = ()
    weight_bits: int | None = None

    @property
    def num_layers(self) -> int:
        """Layers of the full model."""
        return len(self.heads)

    @property
    def full(self) -> Subnet:
        """The subnet that is the whole model."""
        return Subnet(tuple(range(self.num_layers)), self.heads, self.neurons)

    def num_params(self, subnet: Subnet, *, embeddings: bool = True) -> int:
        """Count the parameters of a subnet once it is extracted.

        Layers of a group count once, unless the subnet keeps different heads or neurons of them.

        Args:
            subnet: the subnet.
            embeddings: whether to count those of the embeddings too.

        Returns:
            The exact number of parameters.
        """
        d = self.hidden_size
        layer_norms = 4 * d
        total = self.other_params
        if embeddings:
            total += self.embedding_params - self._table_params(None) + self._table_params(subnet.embedding_rank)
        for layer, heads, neurons in self._stored_layers(subnet):
            h = heads * self.head_dim
            total += self._weights(layer, h, neurons) + layer_norms
            if self.bias:
                total += (3 * h + d) + (neurons + d)
        return total

    def num_bytes(self, subnet: Subnet) -> int:
        """Count the bytes of a subnet's weights in a file: of few bits those of the layers and the table of words.

        Args:
            subnet: the subnet.

        Returns:
            4 for each parameter that is not packed. Of the scales of a quantized model only those of the table's rows
            count, which are most of them.
        """
        size = 4 * self.num_params(subnet)
        if self.weight_bits is None:
            return size
        packed = self._table_params(subnet.embedding_rank)
        for layer, heads, neurons in self._stored_layers(subnet):
            packed += self._weights(layer, heads * self.head_dim, neurons)
        bits = {4: 4, 2: 2}.get(self.weight_bits, 32)
        return size + 4 * self.vocab_size - packed * (32 - bits) // 8

    def num_macs(self, subnet: Subnet, *, seq_length: int = MACS_LENGTH) -> int:
        """Count the multiply-accumulates of the matrix products for one sequence, as the paper does.

        All tokens count in every layer, though the export of a sequence classifier computes one of them in its last.

        Args:
            subnet: the subnet.
            seq_length: tokens in the sequence.

        Returns:
            Multiply-accumulates of the projections, the FFN, the products QK^T and AV, and for a part of the embedding
            of the product that makes it as wide as the whole.
        """
        s = seq_length
        rank = self._product_rank(subnet.embedding_rank)
        total = 0 if rank is None else s * rank * self.embedding_size
        for layer, heads, neurons in subnet.parts:
            h = heads * self.head_dim
            total += s * self._weights(layer, h, neurons) + 2 * s * s * h
        return total

    def _stored_layers(self, subnet: Subnet) -> list[tuple[int, int, int]]:
        """A subnet's layers with their heads and neurons; of a group one, unless it keeps different ones."""
        group_of = self.layer_groups or range(self.num_layers)
        stored = {(group_of[layer], heads, neurons): (layer, heads, neurons) for layer, heads, neurons in subnet.parts}
        return list(stored.values())

    def _weights(self, layer: int, h: int, neurons: int) -> int:
        """The weights of a layer's linear layers; every token is multiplied by each of them."""
        d = self.hidden_size
        shapes = (*[(d, h)] * 3, (h, d), (d, neurons), (neurons, d))
        ranks = self.layer_ranks[layer] if self.layer_ranks else (None,) * len(shapes)
        return sum(
            inputs * outputs if rank is None else rank * (inputs + outputs)
            for (inputs, outputs), rank in zip(shapes, ranks, strict=True)
        )

    def _product_rank(self, rank: int | None) -> int | None:
        """The rank of the product that is the embedding; None where a table alone is."""
        rank = rank or self.max_rank
        return None if rank is None or rank >= self.embedding_size else rank

    def _table_params(self, rank: int | None) -> int:
        """Parameters of the word embedding: its table, and the matrix that makes a part as wide as the whole."""
        product_rank = self._product_rank(rank)
        if product_rank is None:
            return self.vocab_size * self.embedding_size
        return product_rank * (self.vocab_size + self.embedding_size)
