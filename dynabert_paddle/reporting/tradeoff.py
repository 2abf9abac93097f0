"""Score against cost: one chart for each data split and cost, with the models that were scored on that split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes

from dynabert_paddle.reporting.chart import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY, Chart, Table
from dynabert_paddle.reporting.content import Run, Search
from dynabert_paddle.reporting.labels import SCALES, Text, join, quantity, say, verbatim
from dynabert_paddle.reporting.points import Cost, Point, collect_points, search_costs
from dynabert_paddle.searching.recommendation import cheapest_near

_OWN_STYLES = {"full": (BLACK, "*"), "grid": (BLUE, "o"), "searched": (RED, "D"), "compressed": (BLACK, "X")}
_BASELINE_STYLES = ((GREEN, "s"), (PINK, "^"), (ORANGE, "v"), (SKY, "P"))


def draw_tradeoffs(run: Run) -> list[Chart]:
    """Draw the metric against latency, parameters and MACs.

    Args:
        run: the run.

    Returns:
        A chart for each measure and cost that some model has.
    """
    points = collect_points(run)
    charts: list[Chart] = []
    for measure in dict.fromkeys(point.measure for point in points):
        group = [point for point in points if point.measure == measure]
        for cost in dict.fromkeys(cost for point in group for cost in point.costs):
            name = f"tradeoff{len(charts)}"
            charts.append(_draw(name, [p for p in group if cost in p.costs], measure, cost, run.search))
    return charts


def _draw(name: str, points: list[Point], measure: Text, cost: Cost, search: Search | None) -> Chart:
    chart = Chart(name, say("{measure} against {cost}", measure=measure, cost=cost.label), height=3.3)
    (axes,) = chart.axes
    chosen = search.best.subnet if search and search.best else None
    shown = _worth_showing(points, chosen)
    kinds = {kind: [p for p in shown if p.kind == kind] for kind in dict.fromkeys(p.kind for p in shown)}
    handles = {}
    methods = [kind for kind in kinds if kind not in _OWN_STYLES]
    for kind, group in kinds.items():
        color, marker = _style(kind, methods)
        for point in group:
            x = point.costs[cost] / SCALES[cost.unit]
            size = 11 if kind == "full" else 7
            if point.seeds > 1:
                axes.errorbar(x, point.score, yerr=point.spread, color=color, capsize=3, zorder=2)
            if point.error:
                axes.errorbar(x, point.score, yerr=point.error, color=color, linewidth=0.8, alpha=0.4, zorder=2)
            edge: dict[str, Any] = {"markeredgecolor": BLACK, "markeredgewidth": 0.6}
            (mark,) = axes.plot(x, point.score, marker, color=color, markersize=size, zorder=3, **edge)
            chart.tip(mark, _describe(point, measure))
            handles[kind] = mark
    for kind, line in (("grid", ":"), ("searched", "-")):
        front = _front([p for p in shown if p.kind in ("full", kind)], cost) if kind in kinds else []
        xs, ys = [p.costs[cost] / SCALES[cost.unit] for p in front], [p.score for p in front]
        axes.plot(xs, ys, line, color=_style(kind, methods)[0], linewidth=1, zorder=1)
    if search and "searched" in kinds:
        handles |= _mark_chosen(axes, search, cost)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.margins(0.07)
    if below := [point.score for point in points if point not in shown]:
        chart.note = say(
            "{count} searched sub-networks of low scores, from {low} to {high}, lie below this chart; the table has "
            "them.",
            count=len(below),
            low=f"{min(below):.4f}",
            high=f"{max(below):.4f}",
        )
    chart.label_axes(axes, x=cost.label, y=points[0].metric)
    chart.legend(list(handles.values()), [_kind_name(kind) for kind in handles], columns=3)
    chart.finding = _finding(points, measure, cost)
    chart.table = _table(points, measure)
    return chart


def _worth_showing(points: list[Point], chosen: str | None) -> list[Point]:
    """Return all points but searched ones with scores so low that they would compress the scale of the rest."""
    others = [p.score for p in points if p.kind != "searched" or p.subnet == chosen]
    low, high = min(others), max(p.score for p in points)
    bottom = low - max(high - low, 0.05 * abs(high))
    return [p for p in points if not p.score < bottom]


def _mark_chosen(axes: Axes, search: Search, cost: Cost) -> dict[str, Artist]:
    """Ring the best within the budget, if there is one, and show the budget."""
    handles: dict[str, Artist] = {}
    best = search.best
    costs = search_costs(search, best) if best else {}
    if best and cost in costs:
        style: dict[str, Any] = {"markersize": 13, "markerfacecolor": "none", "markeredgecolor": BLACK, "zorder": 4}
        (handles["chosen"],) = axes.plot(costs[cost] / SCALES[cost.unit], best.score, "o", **style)
    if cost.key in search.budget:
        limit = search.budget[cost.key] / SCALES[cost.unit]
        handles["budget"] = axes.axvline(limit, color="#555555", linestyle="--", linewidth=1, zorder=0)
    return handles


def _front(points: Iterable[Point], cost: Cost) -> list[Point]:
    """Return the Pareto front, the cheapest point first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.costs[cost], -p.score)):
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def _style(kind: str, methods: list[str]) -> tuple[str, str]:
    return _OWN_STYLES[kind] if kind in _OWN_STYLES else _BASELINE_STYLES[methods.index(kind) % len(_BASELINE_STYLES)]


def _kind_name(kind: str) -> Text:
    names = {
        "full": say("full model"),
        "grid": say("grid"),
        "searched": say("searched"),
        "compressed": say("compressed"),
        "chosen": say("chosen"),
        "budget": say("budget"),
    }
    return names[kind] if kind in names else verbatim(kind)


def _describe(point: Point, measure: Text) -> Text:
    costs = ", ".join(quantity(value, cost.unit) for cost, value in point.costs.items())
    name = f"{point.name} {point.subnet}" if point.kind == "searched" else point.name
    if point.seeds > 1:
        return say(
            "{name}: {measure} {score} ± {spread} over {seeds} seeds; {costs}",
            name=name,
            measure=measure,
            score=f"{point.score:.4f}",
            spread=f"{point.spread:.4f}",
            seeds=point.seeds,
            costs=costs,
        )
    return say("{name}: {measure} {score}; {costs}", name=name, measure=measure, score=_score(point), costs=costs)


def _score(point: Point) -> str:
    """A score with the standard deviation over seeds, or with its standard error."""
    spread = point.spread if point.seeds > 1 else point.error
    return f"{point.score:.4f}" + (f" ± {spread:.4f}" if spread or point.seeds > 1 else "")


def _finding(points: list[Point], measure: Text, cost: Cost) -> Text:
    """The cheapest sub-network that is nearly as good as the full model, and how each other model compares."""
    own = [point for point in points if point.kind in ("full", "grid", "searched")]
    full = next((point for point in own if point.kind == "full"), None)
    sentences = []
    near = cheapest_near(((p, p.score, p.costs[cost]) for p in own), full.score) if full else None
    if full and near:
        sentences.append(
            say(
                "{name} is the cheapest within 1 % of the full model: {score} against {full} at {share} of the cost.",
                name=near.name,
                score=f"{near.score:.4f}",
                full=f"{full.score:.4f}",
                share=f"{near.costs[cost] / full.costs[cost]:.0%}",
            )
        )
    for point in points:
        rivals = [p for p in own if p.costs[cost] <= point.costs[cost]]
        if point not in own and rivals:
            best = max(rivals, key=lambda p: p.score)
            sentences.append(
                say(
                    "{name}: {score}; best sub-network at no more cost: {best}.",
                    name=point.name,
                    score=f"{point.score:.4f}",
                    best=f"{best.score:.4f}",
                )
            )
    if not sentences:
        best = max(points, key=lambda p: p.score)
        sentences.append(say("{name} is the best with {score}.", name=best.name, score=f"{best.score:.4f}"))
    return join(*sentences)


def _table(points: list[Point], measure: Text) -> Table:
    costs = list(dict.fromkeys(cost for point in points for cost in point.costs))
    rows: list[tuple[Text | str, ...]] = [
        (
            _kind_name(point.kind),
            point.name,
            _score(point),
            *(quantity(point.costs[cost], cost.unit) if cost in point.costs else "" for cost in costs),
            point.subnet,
        )
        for point in points
    ]
    columns = (say("kind"), say("name"), measure, *(cost.label for cost in costs), say("sub-network"))
    return Table(columns, tuple(rows))
