"""How important heads and neurons are, and which of them each sub-network keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.reporting.chart import BLUE, GREEN, MARKERS, ORANGE, Chart, Table
from dynabert_paddle.reporting.collect import subnet_of
from dynabert_paddle.reporting.heat_map import shade_of
from dynabert_paddle.reporting.labels import Text, say
from dynabert_paddle.subnet import Subnet

_SHARES = (0.25, 0.5, 0.75)


def draw_heads(metadata: Metadata) -> Chart:
    """Draw the importance of every head.

    Args:
        metadata: of a rewired model.

    Returns:
        The chart.
    """
    layers = [np.asarray(values, dtype=float) for values in metadata.importance["heads"]]
    high = max(values.max() for values in layers)
    chart = Chart("heads", say("Importance of heads"), height=1.0 + 0.22 * len(layers))
    (axes,) = chart.axes
    for layer, values in enumerate(layers):
        for head, value in enumerate(values):
            color, _ = shade_of(value / high if high > 0 else 0.0)
            cell = axes.add_patch(Rectangle((head, layer), 1, 1, facecolor=color, edgecolor="white", linewidth=1))
            tip = say("layer {layer}, head {head}: {value}", layer=layer, head=head + 1, value=f"{value:.4g}")
            chart.tip(cell, tip)
    widest = max(map(len, layers))
    axes.set(xlim=(0, widest), ylim=(len(layers), 0))
    axes.set_xticks([head + 0.5 for head in range(widest)], [str(head + 1) for head in range(widest)])
    _layer_ticks(axes, len(layers), offset=0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    chart.write(axes.xaxis.label, say("head, the most important first"))
    chart.write(axes.yaxis.label, say("layer"))
    scale = chart.figure.colorbar(
        matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, high or 1.0), "cividis"), ax=axes, pad=0.02
    )
    scale.outline.set_visible(False)  # type: ignore[operator] # an Artist, whatever its annotation says
    chart.finding = _held(layers, say("heads"))
    chart.table = _share_table(layers)
    return chart


def draw_neurons(metadata: Metadata) -> Chart:
    """Draw how much of a layer's importance its first neurons hold.

    Args:
        metadata: of a rewired model.

    Returns:
        The chart.
    """
    layers = [np.asarray(values, dtype=float) for values in metadata.importance["neurons"]]
    chart = Chart("neurons", say("Importance of neurons"), height=3.2)
    (axes,) = chart.axes
    handles = []
    for layer, values in enumerate(layers):
        kept = np.linspace(0, 1, 41)
        held = [_share(values, share) for share in kept]
        color = matplotlib.colormaps["viridis"](0.85 * layer / max(1, len(layers) - 1))
        marker = MARKERS[layer % len(MARKERS)]
        style = {"color": color, "marker": marker, "markevery": (5, 10), "markersize": 5}
        (line,) = axes.plot(100 * kept, 100 * np.array(held), **style)
        first = ", ".join(f"{share:.0%}: {_share(values, share):.0%}" for share in _SHARES)
        chart.tip(line, say("layer {layer}, neurons kept and importance held: {first}", layer=layer, first=first))
        handles.append(line)
    axes.plot([0, 100], [0, 100], color="#999999", linestyle=":", linewidth=1)
    axes.set(xlim=(0, 100), ylim=(0, 102))
    axes.grid(color="#dddddd", linewidth=0.6)
    chart.label_axes(axes, x=say("neurons kept (%)"), y=say("importance held (%)"))
    chart.legend(handles, [say("layer {layer}", layer=layer) for layer in range(len(layers))], columns=4)
    chart.finding = _held(layers, say("neurons"))
    chart.table = _share_table(layers)
    return chart


def draw_kept(metadata: Metadata, subnets: Mapping[str, str]) -> Chart:
    """Draw which heads and neurons sub-networks keep: bars as long as the share that is kept, layer by layer.

    Args:
        metadata: of the supernet.
        subnets: sub-networks by their name in the chart.

    Returns:
        The chart.
    """
    rows = {short: subnet_of(metadata, name) for short, name in subnets.items()}
    chart = Chart("kept", say("What each sub-network keeps"), height=0.8 + 0.2 * len(rows))
    (axes,) = chart.axes
    for y, (short, subnet) in enumerate(rows.items()):
        for layer in range(len(metadata.heads)):
            axes.add_patch(Rectangle((layer + 0.05, y + 0.12), 0.9, 0.76, facecolor="#eeeeee"))
        for layer, heads, neurons in subnet.parts:
            tip = say(
                "{name}, layer {layer}: {heads} of {all_heads} heads, {neurons} of {all_neurons} neurons",
                name=short,
                layer=layer,
                heads=heads,
                all_heads=metadata.heads[layer],
                neurons=neurons,
                all_neurons=metadata.neurons[layer],
            )
            bars = ((0.12, heads / metadata.heads[layer], BLUE), (0.52, neurons / metadata.neurons[layer], ORANGE))
            for top, share, color in bars:
                bar = Rectangle((layer + 0.05, y + top), 0.9 * share, 0.36, facecolor=color)
                chart.tip(axes.add_patch(bar), tip)
    ticks = list(map(str, range(len(metadata.heads))))
    if max_rank := metadata.embedding_rank:
        for y, (short, subnet) in enumerate(rows.items()):
            rank = subnet.embedding_rank or max_rank
            tip = say("{name}, embedding: rank {rank} of {all}", name=short, rank=rank, all=max_rank)
            axes.add_patch(Rectangle((len(ticks) + 0.05, y + 0.12), 0.9, 0.76, facecolor="#eeeeee"))
            bar = Rectangle((len(ticks) + 0.05, y + 0.12), 0.9 * rank / max_rank, 0.76, facecolor=GREEN)
            chart.tip(axes.add_patch(bar), tip)
        ticks.append("E")
    axes.set(xlim=(0, len(ticks)), ylim=(len(rows), 0))
    axes.set_xticks([column + 0.5 for column in range(len(ticks))], ticks)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], list(rows))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    chart.write(axes.xaxis.label, say("layer"))
    legend = {say("heads"): BLUE, say("neurons"): ORANGE}
    if max_rank:
        legend[say("E: rank of the embedding")] = GREEN
    chart.legend([Patch(color=color) for color in legend.values()], list(legend), columns=len(legend))
    smallest = min(rows.values(), key=lambda s: sum(s.neurons))
    chart.finding = say(
        "Bars show the share of each layer's heads and neurons; the smallest keeps {layers} of {all_layers} layers, "
        "{heads} of {all_heads} heads and {neurons} of {all_neurons} neurons.",
        layers=len(smallest.layers),
        all_layers=len(metadata.heads),
        heads=sum(smallest.heads),
        all_heads=sum(metadata.heads),
        neurons=sum(smallest.neurons),
        all_neurons=sum(metadata.neurons),
    )
    if any(short != name for short, name in subnets.items()):
        chart.note = say("S1 and so on are searched sub-networks, the cheapest first; the table has their names.")
    chart.table = _kept_table(rows, subnets, len(metadata.heads), max_rank)
    return chart


def _kept_table(rows: Mapping[str, Subnet], names: Mapping[str, str], num_layers: int, max_rank: int | None) -> Table:
    cells = []
    for short, subnet in rows.items():
        kept = {layer: f"{heads} / {neurons}" for layer, heads, neurons in subnet.parts}
        rank = [str(subnet.embedding_rank or max_rank)] if max_rank else []
        cells.append((short, *(kept.get(layer, "-") for layer in range(num_layers)), *rank, names[short]))
    layers = (say("layer {layer}", layer=layer) for layer in range(num_layers))
    rank_title = [say("embedding rank")] if max_rank else []
    return Table((say("heads / neurons"), *layers, *rank_title, say("sub-network")), tuple(cells))


def _share(values: np.ndarray, kept: float) -> float:
    """The share of a layer's importance that its first neurons hold."""
    total = values.sum()
    return float(values[: round(kept * len(values))].sum() / total) if total > 0 else kept


def _held(layers: Sequence[np.ndarray], what: Text) -> Text:
    halves = [_share(values, 0.5) for values in layers]
    return say(
        "The more important half of a layer's {what} holds {low} (layer {worst}) to {high} (layer {best}) of its "
        "importance.",
        what=what,
        low=f"{min(halves):.0%}",
        worst=int(np.argmin(halves)),
        high=f"{max(halves):.0%}",
        best=int(np.argmax(halves)),
    )


def _share_table(layers: Sequence[np.ndarray]) -> Table:
    return Table(
        (say("layer"), say("count"), say("sum"), *(say("first {share}", share=f"{s:.0%}") for s in _SHARES)),
        tuple(
            (str(layer), str(len(values)), f"{values.sum():.4g}", *(f"{_share(values, s):.0%}" for s in _SHARES))
            for layer, values in enumerate(layers)
        ),
    )


def _layer_ticks(axes: Axes, count: int, *, offset: float) -> None:
    axes.set_yticks([layer + offset for layer in range(count)], [str(layer) for layer in range(count)])
