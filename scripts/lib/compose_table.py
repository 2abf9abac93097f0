"""The tables and the chart of compose.sh, from the records in its result file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from string import ascii_uppercase

import matplotlib
from guides import markdown, update
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from parts import Record, find_records

from dynabert_paddle.reporting.chart import COLORS, MARKERS, STYLE

# A row's method and strength -> the names of its models, from the fine-tuned one to the last.
Rows = Mapping[tuple[str, str], Sequence[str]]


@dataclass(frozen=True)
class Words:
    """A language's words: the headings of a table, those of times, which each processor has, and the empty table's."""

    columns: tuple[str, ...]
    times: tuple[str, ...]
    missing: str


GUIDES = {
    "compression.md": Words(
        ("method", "strength", "seeds", "accuracy", "int8 accuracy", "parameters", "weights, MB", "int8 graph, MB"),
        ("ms, {letter}", "speed-up, {letter}", "training, CPU min, {letter}"),
        "not run yet",
    ),
    "compression_cn.md": Words(
        ("方法", "强度", "种子", "准确率", "int8 准确率", "参数量", "权重 (MB)", "int8 图 (MB)"),
        ("毫秒 {letter}", "加速比 {letter}", "训练 CPU 分钟 {letter}"),
        "尚未运行",
    ),
}
BEGIN = "<!-- {task}: made by scripts/bench/compose.sh -->"


def write_documents(records: Sequence[Record], rows: Mapping[str, Rows], result_file: Path) -> Iterator[Path]:
    """Write the chart beside the result file, and the tables into the guides there, between their marks.

    Args:
        records: of all parts.
        rows: those of each task.
        result_file: the file that the records are in.

    Yields:
        What was written.
    """
    for name, words in GUIDES.items():
        guide = result_file.with_name(name)
        if guide.is_file():
            for task, own in rows.items():
                update(guide, BEGIN.format(task=task), table(records, task, own, words))
            yield guide
    chart = result_file.with_suffix(".svg")
    draw(records, rows, chart)
    yield chart


def table(records: Sequence[Record], task: str, rows: Rows, words: Words) -> str:
    """Make a task's table in Markdown: a line for each row that was scored; then a line for each processor.

    Times of different processors have columns of their own.

    Args:
        records: of all parts.
        task: the task.
        rows: its rows.
        words: those of the guide's language.

    Returns:
        Its lines.
    """
    own = find_records(records, {"task": task})
    models = {model for chain in rows.values() for model in chain}
    processors = sorted({processor(r) for r in own if r["part"] in ("latency", "train") and r["model"] in models})
    letters = dict(zip(ascii_uppercase, processors, strict=False))
    headings = [*words.columns, *(name.format(letter=letter) for letter in letters for name in words.times)]
    lines = []
    for (method, strength), chain in rows.items():
        scored = find_records(own, {"part": "dev", "model": chain[-1]})
        if scored:
            lines.append(
                [
                    method,
                    strength,
                    ", ".join(str(record["seed"]) for record in scored),
                    *(spread([record[name] for record in scored]) for name in ("accuracy", "int8_accuracy")),
                    f"{mean(record['params'] for record in scored) / 1e6:.2f} M",
                    *(f"{mean(record[name] for record in scored) / 1e6:.2f}" for name in ("bytes", "int8_bytes")),
                    *(cell for name in letters.values() for cell in times(own, chain, name)),
                ]
            )
    if not lines:
        return f"{task}: {words.missing}\n"
    return f"{task}:\n\n{markdown(headings, lines)}" + "".join(
        f"\n{letter}: {name}\n" for letter, name in letters.items()
    )


def times(records: Sequence[Record], chain: Sequence[str], name: str) -> tuple[str, str, str]:
    """The latency of the fastest format, its speed-up, and the minutes of all trainings after the fine-tuning."""
    own = [record for record in records if processor(record) == name]
    latencies = find_records(own, {"part": "latency", "model": chain[-1]})
    ms = speedup = minutes = ""
    if latencies:
        by_format = {
            format: [mean(record["latency"][format][key] for record in latencies) for key in ("ms", "speedup")]
            for format in latencies[0]["latency"]
        }
        fastest = min(by_format, key=lambda format: by_format[format][0])
        ms, speedup = f"{by_format[fastest][0]:.2f} ({fastest})", f"{by_format[fastest][1]:.2f}"
    trained = [find_records(own, {"part": "train", "model": model}) for model in chain[1:]]
    if all(trained):
        minutes = f"{sum(mean(record['cpu_seconds'] for record in step) for step in trained) / 60:.1f}"
    return ms, speedup, minutes


def processor(record: Record) -> str:
    """Name the processor that a record was made with, and all else that times depend on."""
    machine = record["machine"]
    threads = f"{machine['threads']} thread{'' if machine['threads'] == '1' else 's'}"
    return f"{machine['processor']}; {threads}; paddle {machine['paddle']}"


def spread(values: Sequence[float]) -> str:
    """Format the mean and the standard deviation over seeds."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def draw(records: Sequence[Record], rows: Mapping[str, Rows], path: Path) -> None:
    """Draw the int8 accuracy against the bytes of the int8 graph, a plot for each task that has rows."""
    tasks = [task for task in rows if find_records(records, {"task": task, "part": "dev"})]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * max(len(tasks), 1), 4.2), layout="constrained", facecolor="white")
        for axes, task in zip(figure.subplots(1, max(len(tasks), 1), squeeze=False).flat, tasks, strict=False):
            draw_task(find_records(records, {"task": task, "part": "dev"}), rows[task], axes)
            axes.set_title(task)
        handles = {label: mark for axes in figure.axes for mark, label in zip(*axes.get_legend_handles_labels())}  # noqa: B905
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
        figure.savefig(path, metadata={"Date": None})


def draw_task(scored: Sequence[Record], rows: Rows, axes: Axes) -> None:
    """Draw the rows of one task: a colour for each method, the strength beside its mark."""
    methods = list(dict.fromkeys(method for method, _ in rows))
    sizes = []
    for (method, strength), chain in rows.items():
        found = find_records(scored, {"model": chain[-1]})
        if not found:
            continue
        values = [record["int8_accuracy"] for record in found]
        size = mean(record["int8_bytes"] for record in found) / 1e6
        style = methods.index(method)
        color, marker = COLORS[style % len(COLORS)], MARKERS[style % len(MARKERS)]
        error = stdev(values) if len(values) > 1 else None
        label = method if method not in axes.get_legend_handles_labels()[1] else None
        axes.errorbar(size, mean(values), yerr=error, fmt=marker, color=color, capsize=3, label=label)
        name = strength if method != "all" else ""
        axes.annotate(name, (size, mean(values)), (4, 4), textcoords="offset points", fontsize=7, color=color)
        sizes.append(size)
    axes.set(xscale="log", xlabel="int8 graph for ONNX Runtime, MB", ylabel="accuracy of the int8 graph on dev")
    ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 30) if min(sizes) / 1.5 < tick < max(sizes) * 1.5]
    axes.xaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.margins(0.12)
    axes.grid(color="#dddddd", linewidth=0.6)
