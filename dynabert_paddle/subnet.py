"""Which part of a supernet runs, and its canonical name. Pure Python: nothing here needs Paddle.

DynaBERT: Dynamic BERT with Adaptive Width and Depth (Hou et al., NeurIPS 2020), section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dynabert_paddle.errors import UsageError

_LAYER_NAME = re.compile(r"l(\d{1,9})h(\d{1,9})f(\d{1,9})")
_RANK_NAME = re.compile(r"e(\d{1,9})")

NOT_ELASTIC = (
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
            raise UsageError(f"'{self}' wants rank {self.embedding_rank} of the embedding{NOT_ELASTIC}")
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
