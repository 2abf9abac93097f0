"""A stage's training: parts of the loss, learning rate, and every evaluated sub-network's metric."""

from __future__ import annotations

import math

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dynabert_paddle.reporting.chart import COLORS, MARKERS, Chart, Table
from dynabert_paddle.reporting.content import Stage
from dynabert_paddle.reporting.labels import Text, join, say, verbatim

# Points of a curve that can be pointed at; the line has them all.
_MAX_POINTS = 40

_Curve = list[tuple[int, float]]


def draw_training(stage: Stage) -> Chart | None:
    """Draw the curves of one stage.

    Args:
        stage: the stage.

    Returns:
        The chart; None where the stage has logged nothing.
    """
    curves = _read(stage)
    losses = {
        tag.removeprefix("train/"): curve
        for tag, curve in curves.items()
        if tag.startswith("train/") and tag != "train/learning_rate"
    }
    rates = {"": curves["train/learning_rate"]} if "train/learning_rate" in curves else {}
    metric, scores = _scores(curves)
    plots = [(say("loss"), losses), (say("learning rate"), rates), (verbatim(metric), scores)]
    plots = [(label, group) for label, group in plots if group]
    if not plots:
        return None
    # One evaluation is no curve: the finding and the table have it.
    plots = [(label, group) for label, group in plots if any(len(curve) > 1 for curve in group.values())] or plots
    title = say("Training: {stage}", stage=stage.name)
    chart = Chart(
        f"training-{stage.name}", title, height=0.7 + 1.5 * len(plots) + 0.16 * (len(scores) + 2) // 3, rows=len(plots)
    )
    for axes, (label, group) in zip(chart.axes, plots, strict=True):
        handles = [_draw_curve(chart, axes, *item, label, index) for index, item in enumerate(group.items())]
        axes.grid(color="#dddddd", linewidth=0.6)
        chart.label_axes(axes, y=label)
        if len(group) > 1:
            chart.legend(handles, [verbatim(name) for name in group], columns=3, axes=axes)
    chart.label_axes(chart.axes[-1], x=say("step"))
    chart.axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    chart.finding = _finding(losses, metric, scores)
    chart.table = _table(curves)
    return chart


def _read(stage: Stage) -> dict[str, _Curve]:
    curves: dict[str, _Curve] = {}
    for record in stage.log:
        for tag, value in record.items():
            if tag != "step" and math.isfinite(value):
                curves.setdefault(tag, []).append((record["step"], value))
    return curves


def _scores(curves: dict[str, _Curve]) -> tuple[str, dict[str, _Curve]]:
    """The metric that selects, which comes first, of every sub-network."""
    tags = [tag.split("/", 2) for tag in curves if tag.startswith("eval/")]
    metric = tags[0][1] if tags else ""
    return metric, {tag[2]: curves["/".join(tag)] for tag in tags if tag[1] == metric}


def _draw_curve(chart: Chart, axes: Axes, name: str, curve: _Curve, label: Text, index: int) -> Artist:
    color = COLORS[index % len(COLORS)]
    marker = MARKERS[(index + index // len(COLORS)) % len(MARKERS)]
    axes.plot(*zip(*curve, strict=True), color=color, linewidth=1.2)
    for step, value in curve[:: math.ceil(len(curve) / _MAX_POINTS)]:
        (mark,) = axes.plot(step, value, marker, color=color, markersize=4)
        tip = say("step {step}: {label} {name} {value}", step=step, label=label, name=name, value=f"{value:.4g}")
        chart.tip(mark, tip)
    return Line2D([], [], color=color, marker=marker, markersize=4, linewidth=1.2)


def _finding(losses: dict[str, _Curve], metric: str, scores: dict[str, _Curve]) -> Text:
    sentences = []
    if "loss" in losses:
        (first, start), (last, end) = losses["loss"][0], losses["loss"][-1]
        sentences.append(
            say(
                "The loss goes from {start} at step {first} to {end} at step {last}.",
                start=f"{start:.4g}",
                first=first,
                end=f"{end:.4g}",
                last=last,
            )
            if first < last
            else say("The loss is {end} at step {last}.", end=f"{end:.4g}", last=last)
        )
    if scores:
        ends = {name: curve[-1][1] for name, curve in scores.items()}
        worst, best = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
        low, high = f"{ends[worst]:.4f}", f"{ends[best]:.4f}"
        sentences.append(
            say(
                "At the last evaluation {metric} lies between {low} ({worst}) and {high} ({best}).",
                metric=metric,
                low=low,
                worst=worst,
                high=high,
                best=best,
            )
            if len(ends) > 1
            else say("At the last evaluation {metric} is {value}.", metric=metric, value=high)
        )
    return join(*sentences)


def _table(curves: dict[str, _Curve]) -> Table:
    """The points that the chart marks, one line a step."""
    cells: dict[int, dict[str, float]] = {}
    for tag, curve in curves.items():
        for step, value in curve[:: math.ceil(len(curve) / _MAX_POINTS)]:
            cells.setdefault(step, {})[tag] = value
    return Table(
        (say("step"), *(verbatim(tag.partition("/")[2]) for tag in curves)),
        tuple(
            (str(step), *(f"{row[tag]:.4g}" if tag in row else "" for tag in curves))
            for step, row in sorted(cells.items())
        ),
    )
