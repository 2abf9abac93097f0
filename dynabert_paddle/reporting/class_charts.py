"""The scores of each class: F1, which labels are taken for which, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from dynabert_paddle.data.class_scores import ClassScore, ClassScores
from dynabert_paddle.reporting.chart import COLORS, MARKERS, Chart, Table
from dynabert_paddle.reporting.heat_map import shade_of
from dynabert_paddle.reporting.labels import Text, join, say, verbatim

# Classes, and labels of a confusion matrix, that a chart has room for; a table has all of them.
_MAX_CLASSES, _MAX_LABELS = 30, 12
_MAX_CONFUSIONS = 50
_LONGEST_LABEL = 22  # characters


def draw_classes(scores: Mapping[str, ClassScores]) -> list[Chart]:
    """Draw the scores of each class.

    Args:
        scores: by the sub-network's name, the one that matters most last.

    Returns:
        The charts.
    """
    return [_draw_f1(scores), _draw_confusion(*list(scores.items())[-1]), _draw_calibration(scores)]


def describe_positive(metrics: Sequence[str], positive_label: str | None) -> list[Text]:
    """Tell which label is the positive one where a metric depends on it.

    Args:
        metrics: the task's metrics.
        positive_label: the class whose F1 the metric `f1` is.

    Returns:
        Sentences.
    """
    notes = []
    if positive_label is not None:
        notes.append(say("The metric f1 is that of the label {label}.", label=positive_label))
    if "matthews" in metrics:
        notes.append(say("The metric matthews is the same whichever label is the positive one."))
    return notes


def _draw_f1(scores: Mapping[str, ClassScores]) -> Chart:
    by_class = {name: {score.name: score for score in one.classes} for name, one in scores.items()}
    classes = list(dict.fromkeys(kind for found in by_class.values() for kind in found))
    last = by_class[list(scores)[-1]]
    lowest = sorted(classes, key=lambda kind: last[kind].f1 if kind in last else 0.0)[:_MAX_CLASSES]
    shown = [kind for kind in classes if kind in lowest]
    chart = Chart("class-f1", say("F1 of each class on the dev set"), height=1.1 + 0.2 * len(shown))
    (axes,) = chart.axes
    handles = []
    for index, (name, found) in enumerate(by_class.items()):
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        for y, kind in enumerate(shown):
            if kind not in found:
                continue
            (mark,) = axes.plot(found[kind].f1, y, marker, color=color, markersize=5, alpha=0.85)
            score = found[kind]
            tip = say(
                "{label}, {name}: precision {precision}, recall {recall}, F1 {f1} ({support} in the dev set)",
                label=kind,
                name=name,
                precision=f"{score.precision:.4f}",
                recall=f"{score.recall:.4f}",
                f1=f"{score.f1:.4f}",
                support=score.support,
            )
            chart.tip(mark, tip)
        handles.append(Line2D([], [], color=color, marker=marker, linestyle="none", markersize=5))
    axes.set(xlim=(-0.02, 1.02), ylim=(len(shown) - 0.5, -0.5))
    chart.name_axis(axes.yaxis, range(len(shown)), [_shorten(kind) for kind in shown])
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    chart.label_axes(axes, x=verbatim("F1"))
    chart.legend(handles, [verbatim(name) for name in scores], columns=2)
    worst = lowest[0]
    chart.finding = say(
        "{name} is worst at {label}: F1 {f1}, of {support} in the dev set.",
        name=list(scores)[-1],
        label=worst,
        f1=f"{last[worst].f1 if worst in last else 0.0:.4f}",
        support=last[worst].support if worst in last else 0,
    )
    if len(shown) < len(classes):
        chart.note = say("Shown are the {count} classes with the lowest F1; the table has all.", count=len(shown))
    chart.table = Table(
        (
            say("label"),
            say("rows"),
            *(
                Text(f"{name} {measure.en}", f"{name} {measure.zh}")
                for name in scores
                for measure in (say("precision"), say("recall"), verbatim("F1"))
            ),
        ),
        tuple(_class_cells(kind, list(by_class.values())) for kind in classes),
    )
    return chart


def _class_cells(kind: str, found: Sequence[Mapping[str, ClassScore]]) -> tuple[str, ...]:
    """A class's support, and its scores by each sub-network; empty where neither a label nor a prediction is of it."""
    scores = [one.get(kind) for one in found]
    cells = [
        [f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}"] if score else [""] * 3 for score in scores
    ]
    return (kind, next(str(score.support) for score in scores if score), *chain.from_iterable(cells))


def _draw_confusion(name: str, scores: ClassScores) -> Chart:
    """Draw the labels that are confused most, as shares of each label's rows."""
    counts = scores.confusion
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    most = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:_MAX_LABELS]
    kept = sorted(most.tolist())
    labels = [_shorten(scores.labels[index]) for index in kept]
    chart = Chart("confusion", say("Labels and predictions of {name}", name=name), height=1.6 + 0.26 * len(kept))
    (axes,) = chart.axes
    totals = scores.totals
    for y, row in enumerate(kept):
        for x, column in enumerate(kept):
            share = counts[row, column] / totals[row] if totals[row] else 0.0
            color, ink = shade_of(share)
            cell = axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor="white", linewidth=1))
            axes.text(x + 0.5, y + 0.5, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=8)
            values = {
                "count": int(counts[row, column]),
                "total": int(totals[row]),
                "label": scores.labels[row],
                "predicted": scores.labels[column],
            }
            tip = say("{count} of {total} with the label {label} were taken for {predicted}", **values)
            if scores.is_several:
                tip = say("{count} of {total}: missed {label}, wrongly given {predicted}", **values)
                if row == column:
                    tip = say("{count} of {total} with {label} are right", **values)
            chart.tip(cell, tip)
    axes.set(xlim=(0, len(kept)), ylim=(len(kept), 0))
    middles = [number + 0.5 for number in range(len(kept))]
    chart.name_axis(axes.xaxis, middles, labels, rotation=90)
    chart.name_axis(axes.yaxis, middles, labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    chart.write(axes.xaxis.label, say("prediction"))
    chart.write(axes.yaxis.label, say("label"))
    confusions = scores.confusions()
    chart.finding = say("{right} of {total} are right.", right=scores.num_right, total=scores.num_scored)
    if confusions:
        label, predicted, count = confusions[0]
        values = {"label": label, "predicted": predicted, "count": count}
        commonest = say("The commonest confusion: {label} taken for {predicted}, {count} times.", **values)
        if scores.is_several:
            commonest = say("The commonest mistake: missed {label}, given {predicted}, {count} times.", **values)
        chart.finding = join(chart.finding, commonest)
    if scores.is_several:
        chart.note = say(
            "On the diagonal are the texts with a label that was found; elsewhere those that miss the label of the row "
            "and were given that of the column wrongly, with {none} no label.",
            none=scores.labels[-1],
        )
    if len(kept) < len(counts):
        few = say("Shown are the {count} labels that are confused most.", count=len(kept))
        chart.note = join(chart.note, few) if chart.note else few
    chart.table = Table(
        (say("label"), say("prediction"), say("count")),
        tuple((label, predicted, str(count)) for label, predicted, count in confusions[:_MAX_CONFUSIONS]),
    )
    return chart


def _draw_calibration(scores: Mapping[str, ClassScores]) -> Chart:
    is_several = next(iter(scores.values())).is_several
    title = say("Probabilities and shares of right predictions")
    if is_several:
        title = say("Probabilities of labels and shares of texts that have them")
    chart = Chart("calibration", title, height=3.4)
    (axes,) = chart.axes
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle="--")
    handles = []
    for index, (name, one) in enumerate(scores.items()):
        found = one.calibration
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        filled = [number for number, count in enumerate(found.counts) if count]
        axes.plot(
            [found.confidence[number] for number in filled],
            [found.accuracy[number] for number in filled],
            color=color,
            linewidth=1.2,
        )
        for number in filled:
            (mark,) = axes.plot(found.confidence[number], found.accuracy[number], marker, color=color, markersize=5)
            values: dict[str, Any] = {
                "name": name,
                "count": found.counts[number],
                "confidence": f"{found.confidence[number]:.3f}",
                "accuracy": f"{found.accuracy[number]:.1%}",
            }
            tip = say(
                "{name}: {count} predictions with a mean probability of {confidence}, {accuracy} of them right",
                **values,
            )
            if is_several:
                tip = say(
                    "{name}: {count} labels of texts with a mean probability of {confidence}, {accuracy} of them there",
                    **values,
                )
            chart.tip(mark, tip)
        handles.append(Line2D([], [], color=color, marker=marker, markersize=5, linewidth=1.2))
    axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.02))
    axes.grid(color="#dddddd", linewidth=0.6)
    if is_several:
        chart.label_axes(axes, x=say("mean probability"), y=say("share of texts with the label"))
    else:
        chart.label_axes(axes, x=say("mean highest probability"), y=say("share of right predictions"))
    chart.legend(handles, [verbatim(name) for name in scores], columns=2)
    errors = ", ".join(f"{name} {one.calibration.ece:.4f}" for name, one in scores.items())
    chart.finding = say("Expected calibration error (ECE): {errors}.", errors=errors)
    bins = len(next(iter(scores.values())).calibration.counts)
    chart.note = say(
        "The predictions are put into {bins} bins of equal width by their highest probability; ECE is the mean over "
        "the bins, weighted by their size, of the distance to the dashed line.",
        bins=bins,
    )
    if is_several:
        chart.note = say(
            "The labels of all texts are put into {bins} bins of equal width by their probability; ECE is the mean "
            "over the bins, weighted by their size, of the distance to the dashed line.",
            bins=bins,
        )
    chart.table = Table(
        (say("sub-network"), say("bin"), say("count"), say("mean probability"), say("accuracy")),
        tuple(
            (
                name,
                f"{number / bins:.3f}-{(number + 1) / bins:.3f}",
                str(count),
                f"{one.calibration.confidence[number]:.4f}",
                f"{one.calibration.accuracy[number]:.4f}",
            )
            for name, one in scores.items()
            for number, count in enumerate(one.calibration.counts)
            if count
        ),
    )
    return chart


def _shorten(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"
