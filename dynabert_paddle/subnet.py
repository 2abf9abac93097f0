"""Which part of a supernet runs, what it is called, and what it costs. Pure Python: nothing here needs Paddle.

DynaBERT: Dynamic BERT with Adaptive Width and Depth (Hou et al., NeurIPS 2020), section 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import floor
from typing import TypeVar

from dynabert_paddle.errors import UsageError
from dynabert_paddle.multipliers import DEPTH_MULTS, WIDTH_MULTS, Mults, exact, grid_mults, share

MACS_LENGTH = 128  # tokens of the sequence that all MACs are of, as in the paper

_NEAR = 0.99  # of the full model's score
FULL_NAME = "w1.00d1.00"

T = TypeVar("T")

_LAYER_NAME = re.compile(r"l(\d{1,9})h(\d{1,9})f(\d{1,9})")
_RANK_NAME = re.compile(r"e(\d{1,9})")

_NOT_ELASTIC = (
    ", and this model's embedding is not elastic: leave the rank out, or make it elastic with 'dynabert rewire DIR "
    '--embedding_rank_mult_list "1.0 0.5 0.25"\' and train the stages after it again'
)


@dataclass(frozen=True)
class Subnet:
    """A part of a supernet: the kept layers, how many heads and FFN neurons run in each, and the embedding's rank.

    Heads and neurons are counted, not listed: after rewiring the most important ones come first, so that a subnet
    always uses the first ones (section 2.1 of the paper). So are the components of the word embedding.

    Args:
        layers: indices of the kept layers, ascending.
        heads: attention heads of each kept layer.
        neurons: FFN neurons of each kept layer.
        embedding_rank: components of the word embedding; None for all that the model has.

    Raises:
        UsageError: no layer, layers out of order, lengths that differ, a layer without a head or a neuron, or a rank
            below 1.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    embedding_rank: int | None = None

    def __post_init__(self) -> None:
        if not self.layers or not len(self.layers) == len(self.heads) == len(self.neurons):
            raise UsageError(
                f"a subnet needs one count of heads and of neurons for each of at least one layer, "
                f"not {len(self.layers)} layers, {len(self.heads)} heads and {len(self.neurons)} neurons"
            )
        if list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise UsageError(f"the kept layers of a subnet are ascending indices from 0, not {list(self.layers)}")
        if min(self.heads) < 1 or min(self.neurons) < 1:
            raise UsageError(f"every kept layer needs at least one head and one neuron: {self}")
        if self.embedding_rank is not None and self.embedding_rank < 1:
            raise UsageError(f"an embedding's rank is at least 1: {self}")

    def __str__(self) -> str:
        """The canonical name, one part a layer: `l0h6f768-l2h3f384` keeps 6 heads and 768 neurons of layer 0, ...

        A part of the embedding comes last: `l0h6f768-l2h3f384-e96` keeps 96 of its components.
        """
        rank = "" if self.embedding_rank is None else f"-e{self.embedding_rank}"
        return "-".join(f"l{layer}h{heads}f{neurons}" for layer, heads, neurons in self.parts) + rank

    @property
    def parts(self) -> tuple[tuple[int, int, int], ...]:
        """Index, heads and neurons of each kept layer."""
        return tuple(zip(self.layers, self.heads, self.neurons, strict=True))

    def check_part_of(self, full: Subnet, *, max_rank: int | None = None) -> None:
        """Refuse to be taken for a part of a model that has less.

        Args:
            full: the whole model, with all its layers.
            max_rank: components of its word embedding; None if it is not elastic.

        Raises:
            UsageError: a layer, head, neuron or component beyond the full model's.
        """
        for layer, heads, neurons in self.parts:
            if layer >= len(full.layers):
                raise UsageError(f"'{self}' keeps layer {layer}; this supernet has layers 0 to {len(full.layers) - 1}")
            if heads > full.heads[layer] or neurons > full.neurons[layer]:
                raise UsageError(
                    f"'{self}' wants {heads} heads and {neurons} neurons of layer {layer}, "
                    f"which has {full.heads[layer]} and {full.neurons[layer]}"
                )
        if self.embedding_rank is None:
            return
        if max_rank is None:
            raise UsageError(f"'{self}' wants rank {self.embedding_rank} of the embedding{_NOT_ELASTIC}")
        if self.embedding_rank > max_rank:
            raise UsageError(f"'{self}' wants rank {self.embedding_rank} of the embedding, which has {max_rank}")

    @classmethod
    def parse(cls, name: str) -> Subnet:
        """Read a canonical name back: `Subnet.parse(str(subnet)) == subnet`.

        Args:
            name: for example `l0h6f768-l2h3f384` or `l0h6f768-l2h3f384-e96`.

        Returns:
            The subnet of that name.

        Raises:
            UsageError: not a canonical name.
        """
        *parts, last = name.split("-")
        rank = _RANK_NAME.fullmatch(last)
        parts += [] if rank else [last]
        matches = [match for part in parts if (match := _LAYER_NAME.fullmatch(part))]
        if not matches or len(matches) < len(parts):
            raise UsageError(
                f"'{name}' is no subnet: write a grid cell such as 'w0.50d0.75', or one 'l<layer>h<heads>f<neurons>' "
                f"for each kept layer, joined by '-', such as 'l0h6f768-l2h3f384'; an embedding rank comes last, as in "
                f"'w0.50d0.75r0.25' or 'l0h6f768-e96'"
            )
        layers, heads, neurons = zip(*(map(int, match.groups()) for match in matches), strict=True)
        return cls(layers, heads, neurons, int(rank[1]) if rank else None)


@dataclass(frozen=True)
class SearchSpace:
    """What subnets exist for one backbone, and what each of them costs.

    Args:
        heads: attention heads of each layer of the full model.
        neurons: FFN neurons of each layer of the full model.
        hidden_size: width of the hidden states, which is not elastic.
        head_dim: width of one head.
        embedding_params: parameters of the embeddings, their norm included.
        other_params: parameters outside embeddings and layers: pooler, classifier, the norm after the last layer.
        bias: whether the projections have biases.
        width_mults: shares of heads and neurons that make the grid.
        depth_mults: shares of layers that make the grid.
        rank_mults: shares of the word embedding's components that make the grid.
        vocab_size: rows of the word embedding.
        embedding_size: width of its output.
        max_rank: components that its table has; None if it is not elastic. With fewer than `embedding_size`, the whole
            model itself computes its embedding as a product.
        layer_ranks: for each layer the ranks of its query, key, value and output projection and of the FFN's two linear
            layers, None for one that is no product; empty without any product.
        layer_groups: for each layer the number of the group that it shares its weights with; empty without any.

    Raises:
        UsageError: a multiplier that is not in (0, 1] or leaves no head, neuron or layer.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    hidden_size: int
    head_dim: int
    embedding_params: int = 0
    other_params: int = 0
    bias: bool = True
    width_mults: tuple[float, ...] = WIDTH_MULTS
    depth_mults: tuple[float, ...] = DEPTH_MULTS
    rank_mults: tuple[float, ...] = (1.0,)
    vocab_size: int = 0
    embedding_size: int = 0
    max_rank: int | None = None
    layer_ranks: tuple[tuple[int | None, ...], ...] = ()
    layer_groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.width_mults or not self.depth_mults or not self.rank_mults:
            raise UsageError("the grid needs at least one width, one depth and one rank multiplier, for example 1.0")
        self.grid()

    @property
    def num_layers(self) -> int:
        """Layers of the full model."""
        return len(self.heads)

    @property
    def has_ranks(self) -> bool:
        """Whether the grid has parts of the embedding."""
        return min(self.rank_mults) < 1

    @property
    def full(self) -> Subnet:
        """The subnet that is the whole model."""
        return Subnet(tuple(range(self.num_layers)), self.heads, self.neurons)

    def subnet(self, *, width_mult: float = 1.0, depth_mult: float = 1.0, rank_mult: float = 1.0) -> Subnet:
        """One uniform subnet of the paper's kind.

        Args:
            width_mult: share of heads and neurons kept in every kept layer, mw in the paper.
            depth_mult: share of layers kept, md in the paper.
            rank_mult: share of the word embedding's components.

        Returns:
            The subnet that keeps `round(mw * heads)` heads, the same share of neurons, the layers
            `floor(i / md)` for i below `round(md * layers)`, and the share of the embedding; halves round up.

        Raises:
            UsageError: a multiplier that is not in (0, 1] or leaves no head, neuron, layer or component; a share of an
                embedding that is not elastic.
        """
        for kind, mult in (("width", width_mult), ("depth", depth_mult), ("rank", rank_mult)):
            if not 0 < mult <= 1:
                raise UsageError(f"a {kind} multiplier lies in (0, 1], not {mult}")
        depth = share(depth_mult, self.num_layers, "layer", f"depth_mult {depth_mult}")
        layers = tuple(floor(i / exact(depth_mult)) for i in range(depth))
        rank = None
        if rank_mult < 1:
            if self.max_rank is None:
                raise UsageError(f"a share of {rank_mult} of the embedding is wanted{_NOT_ELASTIC}")
            rank = share(rank_mult, self.max_rank, "component", f"rank_mult {rank_mult}")
        subnet = Subnet(
            layers,
            tuple(share(width_mult, self.heads[layer], "head", f"width_mult {width_mult}") for layer in layers),
            tuple(share(width_mult, self.neurons[layer], "neuron", f"width_mult {width_mult}") for layer in layers),
            rank,
        )
        return self._normalize(subnet)

    def with_ranks(self, rank_mults: Iterable[float]) -> SearchSpace:
        """The space of the same model, once its embedding is elastic.

        Args:
            rank_mults: shares of the word embedding's components that make the grid.

        Returns:
            The space.

        Raises:
            UsageError: a multiplier that leaves no component, or a model without a single word embedding.
        """
        return replace(self, rank_mults=tuple(rank_mults), max_rank=self.max_rank or self.embedding_size or None)

    def grid(self) -> dict[str, Subnet]:
        """Every cell of the grid by its name: the deepest first, of these the widest, of these the highest rank."""
        return {
            str(Mults(width_mult, depth_mult, rank_mult)): self.subnet(
                width_mult=width_mult, depth_mult=depth_mult, rank_mult=rank_mult
            )
            for depth_mult in sorted(self.depth_mults, reverse=True)
            for width_mult in sorted(self.width_mults, reverse=True)
            for rank_mult in sorted(self.rank_mults, reverse=True)
        }

    def name(self, subnet: Subnet) -> str:
        """The name of a subnet that `parse` reads back: `w0.50d0.75` for a grid cell, else the canonical string."""
        subnet = self._normalize(subnet)
        return next((name for name, cell in self.grid().items() if cell == subnet), str(subnet))

    def parse(self, name: str) -> Subnet:
        """Find a subnet by its name.

        Args:
            name: a grid cell such as `w0.50d0.75` (any multipliers, also ones that the grid lacks) or a canonical name.

        Returns:
            The subnet, which exists in this space.

        Raises:
            UsageError: not a name, or a subnet that this backbone does not have.
        """
        mults = grid_mults(name)
        if mults:
            return self.subnet(width_mult=mults.width, depth_mult=mults.depth, rank_mult=mults.rank)
        subnet = Subnet.parse(name)
        subnet.check_part_of(self.full, max_rank=self.max_rank)
        return self._normalize(subnet)

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
        group_of = self.layer_groups or range(self.num_layers)
        stored = {(group_of[layer], heads, neurons): layer for layer, heads, neurons in subnet.parts}
        for (_, heads, neurons), layer in stored.items():
            h = heads * self.head_dim
            total += self._weights(layer, h, neurons) + layer_norms
            if self.bias:
                total += (3 * h + d) + (neurons + d)
        return total

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

    def _weights(self, layer: int, h: int, neurons: int) -> int:
        """The weights of a layer's linear layers; every token is multiplied by each of them."""
        d = self.hidden_size
        shapes = (*[(d, h)] * 3, (h, d), (d, neurons), (neurons, d))
        ranks = self.layer_ranks[layer] if self.layer_ranks else (None,) * len(shapes)
        return sum(
            inputs * outputs if rank is None else rank * (inputs + outputs)
            for (inputs, outputs), rank in zip(shapes, ranks, strict=True)
        )

    def _normalize(self, subnet: Subnet) -> Subnet:
        """All components are the whole embedding, which has no rank in its name."""
        if subnet.embedding_rank is not None and subnet.embedding_rank == self.max_rank:
            return replace(subnet, embedding_rank=None)
        return subnet

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


def cheapest_near(rows: Iterable[tuple[T, float, float]], full_score: float) -> T | None:
    """Recommend the cheapest sub-network whose score is within 1 % of the full model's.

    Args:
        rows: any object, and the score and cost of its sub-network.
        full_score: the full model's score.

    Returns:
        The object of the cheapest, of equal costs the best; None if the full model's score is not above 0.
    """
    near = [row for row in rows if row[1] >= _NEAR * full_score > 0]
    return min(near, key=lambda row: (row[2], -row[1]))[0] if near else None
