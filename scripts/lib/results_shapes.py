"""The backbones of results.sh, and the shapes of the fixed-size models, which have the MACs of a budget."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import floor

from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet

BUDGETS = (0.5, 0.25, 0.125)  # shares of the full model's MACs

TASKS = ("rte", "mrpc", "cola", "sts-b", "sst-2")  # the shortest trainings first
BACKBONE_TASKS = {"minilm-l6": TASKS, "bge-small": ("rte", "mrpc")}


@dataclass(frozen=True)
class Backbone:
    """A model to start from, and its sizes.

    Args:
        name: as records name it.
        source: a built-in name or a folder.
        num_layers: layers.
        hidden_size: width of the hidden states.
        heads: attention heads of a layer.
        neurons: FFN neurons of a layer.
    """

    name: str
    source: str
    num_layers: int
    hidden_size: int = 384
    heads: int = 12
    neurons: int = 1536

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it is trained on."""
        return BACKBONE_TASKS.get(self.name, TASKS)

    @cached_property
    def space(self) -> SearchSpace:
        """Its sub-networks."""
        sizes = ((self.heads,) * self.num_layers, (self.neurons,) * self.num_layers)
        return SearchSpace(*sizes, self.hidden_size, self.hidden_size // self.heads)

    def macs_share(self, subnet: str) -> float:
        """The MACs of a sub-network, as a share of the full model's."""
        return self.space.num_macs(self.space.parse(subnet)) / self.space.num_macs(self.space.full)


def fixed_shapes(backbone: Backbone) -> dict[float, dict[str, str]]:
    """For each budget the sub-network that each method trains; all of a budget have equal MACs."""
    shapes: dict[float, dict[str, str]] = {}
    for share, same, pruned in (
        (0.5, "w1.00d0.50", "w0.50d1.00"),
        (0.25, "w0.50d0.50", "w0.25d1.00"),
        (0.125, "w0.25d0.50", "w0.25d0.50"),
    ):
        tiny: str | None = same
        if share < 0.5:  # two layers and one of six: a narrower model would lack heads
            shape = tinybert_shape(backbone.space, share, max(1, floor(share * backbone.num_layers * 4 / 3)))
            tiny = shape and str(shape)
        by_method = {"distilbert": same, "tinybert": tiny, "pruned": pruned, "finetuned": same}
        shapes[share] = {method: subnet for method, subnet in by_method.items() if subnet}
    return shapes


def tinybert_shape(space: SearchSpace, macs_share: float, num_layers: int) -> Subnet | None:
    """A shape with all heads in few layers, whose FFNs are as wide as the MACs allow.

    Args:
        space: the model's sub-networks.
        macs_share: the budget, as a share of the full model's MACs.
        num_layers: how many layers, evenly spread as the depths of a grid are.

    Returns:
        The shape; None if the heads alone need more.
    """
    layers = space.subnet(depth_mult=num_layers / space.num_layers).layers
    heads = tuple(space.heads[layer] for layer in layers)

    def shape(neurons: int) -> Subnet:
        return Subnet(layers, heads, (neurons,) * num_layers)

    one, two = (space.num_macs(shape(neurons)) for neurons in (1, 2))
    neurons = 1 + floor((macs_share * space.num_macs(space.full) - one) / (two - one))
    return shape(min(neurons, *(space.neurons[layer] for layer in layers))) if neurons > 0 else None
