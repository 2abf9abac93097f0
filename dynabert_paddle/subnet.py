"""Which part of a supernet runs, what it is called, and what it costs. Pure Python: nothing here needs Paddle.

DynaBERT: Dynamic BERT with Adaptive Width and Depth (Hou et al., NeurIPS 2020), section 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any, TypeVar

from dynabert_paddle.errors import UsageError

WIDTH_MULTS = (1.0, 0.75, 0.5, 0.25)
DEPTH_MULTS = (1.0, 0.75, 0.5)
MACS_LENGTH = 128  # tokens of the sequence that all MACs are of, as in the paper

_NEAR = 0.99  # of the full model's score
FULL_NAME = "w1.00d1.00"

T = TypeVar("T")

_LAYER_NAME = re.compile(r"l(\d{1,9})h(\d{1,9})f(\d{1,9})")
_GRID_NAME = re.compile(r"w(\d*\.?\d+)d(\d*\.?\d+)")


@dataclass(frozen=True)
class Subnet:
    """A part of a supernet: the kept layers and, for each of them, how many heads and FFN neurons run.

    Heads and neurons are counted, not listed: after rewiring the most important ones come first, so that a subnet
    always uses the first ones (section 2.1 of the paper).

    Args:
        layers: indices of the kept layers, ascending.
        heads: attention heads of each kept layer.
        neurons: FFN neurons of each kept layer.

    Raises:
        UsageError: no layer, layers out of order, lengths that differ, or a layer without a head or a neuron.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

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

    def __str__(self) -> str:
        """The canonical name, one part a layer: `l0h6f768-l2h3f384` keeps 6 heads and 768 neurons of layer 0, ..."""
        return "-".join(f"l{layer}h{heads}f{neurons}" for layer, heads, neurons in self.parts)

    @property
    def parts(self) -> tuple[tuple[int, int, int], ...]:
        """Index, heads and neurons of each kept layer."""
        return tuple(zip(self.layers, self.heads, self.neurons, strict=True))

    def check_part_of(self, full: Subnet) -> None:
        """Refuse to be taken for a part of a model that has less.

        Args:
            full: the whole model, with all its layers.

        Raises:
            UsageError: a layer, head or neuron beyond the full model's.
        """
        for layer, heads, neurons in self.parts:
            if layer >= len(full.layers):
                raise UsageError(f"'{self}' keeps layer {layer}; this supernet has layers 0 to {len(full.layers) - 1}")
            if heads > full.heads[layer] or neurons > full.neurons[layer]:
                raise UsageError(
                    f"'{self}' wants {heads} heads and {neurons} neurons of layer {layer}, "
                    f"which has {full.heads[layer]} and {full.neurons[layer]}"
                )

    @classmethod
    def parse(cls, name: str) -> Subnet:
        """Read a canonical name back: `Subnet.parse(str(subnet)) == subnet`.

        Args:
            name: for example `l0h6f768-l2h3f384`.

        Returns:
            The subnet of that name.

        Raises:
            UsageError: not a canonical name.
        """
        parts = name.split("-")
        matches = [match for part in parts if (match := _LAYER_NAME.fullmatch(part))]
        if len(matches) < len(parts):
            raise UsageError(
                f"'{name}' is no subnet: write a grid cell such as 'w0.50d0.75', or one 'l<layer>h<heads>f<neurons>' "
                f"for each kept layer, joined by '-', such as 'l0h6f768-l2h3f384'"
            )
        layers, heads, neurons = zip(*(map(int, match.groups()) for match in matches), strict=True)
        return cls(layers, heads, neurons)


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

    def __post_init__(self) -> None:
        if not self.width_mults or not self.depth_mults:
            raise UsageError("the grid needs at least one width and one depth multiplier, for example 1.0")
        self.grid()

    @property
    def num_layers(self) -> int:
        """Layers of the full model."""
        return len(self.heads)

    @property
    def full(self) -> Subnet:
        """The subnet that is the whole model."""
        return Subnet(tuple(range(self.num_layers)), self.heads, self.neurons)

    def subnet(self, *, width_mult: float = 1.0, depth_mult: float = 1.0) -> Subnet:
        """One uniform subnet of the paper's kind.

        Args:
            width_mult: share of heads and neurons kept in every kept layer, mw in the paper.
            depth_mult: share of layers kept, md in the paper.

        Returns:
            The subnet that keeps `round(mw * heads)` heads, the same share of neurons, and the layers
            `floor(i / md)` for i below `round(md * layers)`; halves round up.

        Raises:
            UsageError: a multiplier that is not in (0, 1] or leaves no head, neuron or layer.
        """
        for kind, mult in (("width", width_mult), ("depth", depth_mult)):
            if not 0 < mult <= 1:
                raise UsageError(f"a {kind} multiplier lies in (0, 1], not {mult}")
        depth = _share(depth_mult, self.num_layers, "layer", f"depth_mult {depth_mult}")
        layers = tuple(floor(i / _exact(depth_mult)) for i in range(depth))
        return Subnet(
            layers,
            tuple(_share(width_mult, self.heads[layer], "head", f"width_mult {width_mult}") for layer in layers),
            tuple(_share(width_mult, self.neurons[layer], "neuron", f"width_mult {width_mult}") for layer in layers),
        )

    def grid(self) -> dict[str, Subnet]:
        """Every cell of the width x depth grid by its name, the deepest first and the widest first at each depth."""
        return {
            _grid_name(width_mult, depth_mult): self.subnet(width_mult=width_mult, depth_mult=depth_mult)
            for depth_mult in sorted(self.depth_mults, reverse=True)
            for width_mult in sorted(self.width_mults, reverse=True)
        }

    def name(self, subnet: Subnet) -> str:
        """The name of a subnet that `parse` reads back: `w0.50d0.75` for a grid cell, else the canonical string."""
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
            width_mult, depth_mult = mults
            return self.subnet(width_mult=width_mult, depth_mult=depth_mult)
        subnet = Subnet.parse(name)
        subnet.check_part_of(self.full)
        return subnet

    def num_params(self, subnet: Subnet, *, embeddings: bool = True) -> int:
        """Count the parameters of a subnet once it is extracted.

        Args:
            subnet: the subnet.
            embeddings: whether to count those of the embeddings too.

        Returns:
            The exact number of parameters.
        """
        d = self.hidden_size
        layer_norms = 4 * d
        total = self.other_params + (self.embedding_params if embeddings else 0)
        for _, heads, neurons in subnet.parts:
            h = heads * self.head_dim
            total += 4 * d * h + 2 * d * neurons + layer_norms
            if self.bias:
                total += (3 * h + d) + (neurons + d)
        return total

    def num_macs(self, subnet: Subnet, *, seq_length: int = MACS_LENGTH) -> int:
        """Count the multiply-accumulates of the encoder's matrix products for one sequence, as the paper does.

        All tokens count in every layer, though the export of a sequence classifier computes one of them in its last.

        Args:
            subnet: the subnet.
            seq_length: tokens in the sequence.

        Returns:
            Multiply-accumulates of the projections, the FFN, and the products QK^T and AV.
        """
        d, s = self.hidden_size, seq_length
        total = 0
        for _, heads, neurons in subnet.parts:
            h = heads * self.head_dim
            total += s * (4 * d * h + 2 * d * neurons) + 2 * s * s * h
        return total


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


def grid_mults(name: str) -> tuple[float, float] | None:
    """Read the multipliers out of a grid cell's name.

    Args:
        name: for example `w0.50d0.75`.

    Returns:
        The width and depth multiplier; None where the name is no grid cell's.
    """
    match = _GRID_NAME.fullmatch(name)
    return (float(match[1]), float(match[2])) if match else None


def parse_mults(values: str | float | Iterable[float]) -> tuple[float, ...]:
    """Read multipliers as Paddle users write them on a command line or in YAML.

    Args:
        values: a number, numbers, or a string of numbers with commas or spaces between them.

    Returns:
        The multipliers, each once, in descending order.

    Raises:
        UsageError: no number, or one that is not in (0, 1].
    """
    try:
        words: Iterable[Any]
        if isinstance(values, Iterable) and not isinstance(values, str):
            words = values
        else:
            words = str(values).replace(",", " ").split()
        mults = tuple(sorted({float(word) for word in words}, reverse=True))
    except (TypeError, ValueError):
        raise UsageError(f"multipliers are numbers such as '1.0 0.75 0.5', not {values!r}") from None
    if not mults or not all(0 < mult <= 1 for mult in mults):
        raise UsageError(f"at least one multiplier is needed, and all lie in (0, 1], not {values!r}")
    return mults


def _exact(mult: float) -> Fraction:
    """The decimal that the user wrote, so that 3 / 0.6 is 5 and halves are halves."""
    return Fraction(str(mult))


def _share(mult: float, count: int, what: str, why: str) -> int:
    """`round(mult * count)`, halves rounded up, at least one."""
    kept = floor(_exact(mult) * count + Fraction(1, 2))
    if kept < 1:
        raise UsageError(f"{why} leaves no {what} of {count}: use at least {1 / (2 * count):.3g}")
    return kept


def _grid_name(width_mult: float, depth_mult: float) -> str:
    return f"w{_decimals(width_mult)}d{_decimals(depth_mult)}"


def _decimals(mult: float) -> str:
    """Two decimals as in the paper, more only where two would not read back as the same number."""
    return f"{mult:.2f}" if float(f"{mult:.2f}") == mult else repr(mult)
