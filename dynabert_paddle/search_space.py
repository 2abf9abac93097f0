"""Which sub-networks a model has, and their names. Pure Python: nothing here needs Paddle.

DynaBERT: Dynamic BERT with Adaptive Width and Depth (Hou et al., NeurIPS 2020), section 2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import floor

from dynabert_paddle.errors import UsageError
from dynabert_paddle.model_shape import ModelShape
from dynabert_paddle.multipliers import DEPTH_MULTS, WIDTH_MULTS, Mults, exact, grid_mults, share
from dynabert_paddle.subnet import NOT_ELASTIC, Subnet


@dataclass(frozen=True)
class SearchSpace(ModelShape):
    """The sub-networks of one model: any part of its shape, and the grid of the paper.

    The model's sizes are the arguments of `ModelShape`.

    Args:
        width_mults: shares of heads and neurons that make the grid.
        depth_mults: shares of layers that make the grid.
        rank_mults: shares of the word embedding's components that make the grid.

    Raises:
        UsageError: a multiplier that is not in (0, 1] or leaves no head, neuron or layer.
    """

    width_mults: tuple[float, ...] = WIDTH_MULTS
    depth_mults: tuple[float, ...] = DEPTH_MULTS
    rank_mults: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.width_mults or not self.depth_mults or not self.rank_mults:
            raise UsageError("the grid needs at least one width, one depth and one rank multiplier, for example 1.0")
        cells = len({*self.width_mults}) * len({*self.depth_mults}) * len({*self.rank_mults})
        if len(self.grid()) < cells:
            raise UsageError("two multipliers of the grid have the same four decimals, and so one name: leave one out")

    @property
    def has_ranks(self) -> bool:
        """Whether the grid has parts of the embedding."""
        return min(self.rank_mults) < 1

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
                raise UsageError(f"a share of {rank_mult} of the embedding is wanted{NOT_ELASTIC}")
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
            cell = self.grid().get(name)  # the own grid's, where two numbers have the same four decimals
            return cell or self.subnet(width_mult=mults.width, depth_mult=mults.depth, rank_mult=mults.rank)
        subnet = Subnet.parse(name)
        subnet.check_part_of(self.full, max_rank=self.max_rank)
        return self._normalize(subnet)

    def _normalize(self, subnet: Subnet) -> Subnet:
        """All components are the whole embedding, which has no rank in its name."""
        if subnet.embedding_rank is not None and subnet.embedding_rank == self.max_rank:
            return replace(subnet, embedding_rank=None)
        return subnet
