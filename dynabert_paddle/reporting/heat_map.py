"""The grid as a heat map: widths across, depths and embedding ranks down."""

from __future__ import annotations

import matplotlib
from matplotlib.patches import Rectangle

from dynabert_paddle.multipliers import grid_mults
from dynabert_paddle.reporting.chart import Chart, Table
from dynabert_paddle.reporting.content import Grid, GridRow
from dynabert_paddle.reporting.labels import quantity, say, split_name, verbatim
from dynabert_paddle.reporting.points import macs_cost


def draw_grid(grid: Grid) -> Chart:
    """Draw the metric of every cell of the grid.

    Args:
        grid: the scored grid.

    Returns:
        The chart.
    """
    metric = grid.metrics[0]
    cells = {mults: row for row in grid.rows if (mults := grid_mults(row.subnet))}
    widths = sorted({mults.width for mults in cells}, reverse=True)
    lines = sorted({(mults.depth, mults.rank) for mults in cells}, reverse=True)
    has_ranks = any(rank < 1 for _, rank in lines)
    scores = [row.metrics[metric] for row in grid.rows]
    low, high = min(scores), max(scores)
    measure = say("{metric} on {split}", metric=metric, split=split_name(grid.split))
    chart = Chart("grid", measure, height=0.9 + 0.42 * len(lines))
    (axes,) = chart.axes
    for mults, row in cells.items():
        x, y = widths.index(mults.width), lines.index((mults.depth, mults.rank))
        score = row.metrics[metric]
        shade = (score - low) / (high - low) if high > low else 1.0
        color, ink = shade_of(shade)
        cell = axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="white", linewidth=2))
        axes.text(x + 0.5, y + 0.5, f"{score:.4f}", ha="center", va="center", color=ink)
        chart.tip(cell, verbatim(f"{row.subnet}: {_describe(row)}"))
    axes.set(xlim=(0, len(widths)), ylim=(len(lines), 0))
    axes.set_xticks([x + 0.5 for x in range(len(widths))], [f"{width:g}" for width in widths])
    labels = [f"{depth:g} · {rank:g}" if has_ranks else f"{depth:g}" for depth, rank in lines]
    axes.set_yticks([y + 0.5 for y in range(len(lines))], labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    chart.write(axes.xaxis.label, say("width multiplier"))
    chart.write(axes.yaxis.label, say("depth multiplier · embedding rank") if has_ranks else say("depth multiplier"))
    best, worst = (pick(grid.rows, key=lambda row: row.metrics[metric]) for pick in (max, min))
    chart.finding = say(
        "The scores run from {low} ({worst}) to {high} ({best}).",
        low=f"{low:.4f}",
        worst=worst.subnet,
        high=f"{high:.4f}",
        best=best.subnet,
    )
    chart.table = Table(
        (say("sub-network"), *map(verbatim, grid.metrics), say("parameters"), macs_cost().label),
        tuple(
            (
                row.subnet,
                *(f"{v:.4f}" for v in row.metrics.values()),
                quantity(row.params, "M"),
                quantity(row.macs, "G"),
            )
            for row in grid.rows
        ),
    )
    return chart


def shade_of(share: float) -> tuple[tuple[float, ...], str]:
    """Choose a cell's colour.

    Args:
        share: 0 for the lowest value, 1 for the highest.

    Returns:
        Its colour, and that of words on it.
    """
    # Cividis looks the same to the colour-blind, and its lightness orders values in a grey print.
    color = matplotlib.colormaps["cividis"](share)
    return color, "white" if share < 0.5 else "black"


def _describe(row: GridRow) -> str:
    parts = [f"{name} {value:.4f}" for name, value in row.metrics.items()]
    costs = [quantity(row.params, "M"), quantity(row.macs, "G")] if row.params else []
    return ", ".join([*parts, *costs])
