"""The tables of results.sh in results.md, from the result file alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

from guides import markdown, update
from parts import Record, find_records, read_records
from results_plan import (
    ABLATION_SEEDS,
    ABLATION_TASKS,
    ABLATIONS,
    FIXED_SIZE,
    FULL,
    NUM_CONTINUED,
    PAPER_SEEDS,
    PAPER_TASKS,
    SEEDS,
)
from results_shapes import BACKBONE_TASKS, BUDGETS

BEGIN = "<!-- {block}: made by scripts/bench/results.sh -->"
BLOCKS = ("scores", "grid", "differences", "training", "missing")
NOTHING = "Nothing yet.\n"
FEW = "30 % of the encoder's parameters"
# How a comparison begins, its tasks, and the points that it is to reach.
TARGETS = (
    ("searched, at most 30 %", ("mean", "sst-2"), -1.0),
    ("searched, at most 30 %", ("rte", "mrpc", "cola", "sts-b"), -3.0),
    ("searched, half of the MACs", ("mean",), 0.0),
    *((f"searched, {100 * share:g} % of the MACs", ("mean",), 1.0) for share in BUDGETS),
    ("mean of the grid against the paper", ("mean",), 1.0),
    ("smallest cell against the paper", ("mean",), 2.0),
)


def write_tables(result_file: Path) -> Path:
    """Write all tables into the guide beside the result file.

    Args:
        result_file: the scores; differences are beside it in results/.

    Returns:
        The guide; without one, one of the tables alone is made.
    """
    records = read_records(result_file)
    differences = read_records(result_file.parent / "results" / "differences.json")
    guide = result_file.with_suffix(".md")
    if not guide.is_file():
        guide.write_text(
            "".join(f"{BEGIN.format(block=block)}\n<!-- end -->\n\n" for block in BLOCKS), encoding="utf-8"
        )
    contents = {
        "scores": scores(records),
        "grid": grid(records),
        "differences": show_differences(differences),
        "training": training(records),
        "missing": missing(records, differences),
    }
    for block, content in contents.items():
        update(guide, BEGIN.format(block=block), content or NOTHING)
    return guide


def scores(records: Sequence[Record]) -> str:
    """A table for each backbone: a line for each method and budget, a column for each task."""
    return "\n".join(_by_backbone(records, lambda own, tasks: _table(own, tasks, _lines(own))))


def grid(records: Sequence[Record]) -> str:
    """The twelve cells of the recipe, and of the paper's where they are."""
    return "\n".join(_by_backbone(records, lambda own, tasks: _table(own, tasks, _cells(own))))


def training(records: Sequence[Record]) -> str:
    """The seconds of each model's training, for each processor."""
    tables = []
    for processor in sorted({record["processor"] for record in records}):
        own = find_records(records, {"processor": processor})
        for text in _by_backbone(own, _seconds):
            tables.append(f"{processor}: {text}")
    return "\n".join(tables)


def show_differences(differences: Sequence[Record]) -> str:
    """A line for each comparison and task."""
    lines = [
        [
            record["backbone"],
            record["comparison"],
            "mean of " + ", ".join(record["tasks"]) if record["task"] == "mean" else record["task"],
            record["against"],
            str(record["seeds"]),
            f"{100 * record['difference']:+.2f}",
            f"{100 * record['low']:+.2f} to {100 * record['high']:+.2f}",
            f"{target:+.2f}" if (target := find_target(record["comparison"], record["task"])) is not None else "",
        ]
        for record in differences
    ]
    headings = ("backbone", "comparison", "task", "against", "seeds", "points", "95 % interval", "target, at least")
    return markdown(headings, lines) if lines else ""


def find_target(comparison: str, task: str) -> float | None:
    """The points that a difference is to reach; None where nothing is asked for."""
    return next((points for start, tasks, points in TARGETS if comparison.startswith(start) and task in tasks), None)


def missing(records: Sequence[Record], differences: Sequence[Record]) -> str:
    """What the plan has and the results lack, by backbone, task and seed."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}  # backbone and what is missing -> task -> seeds
    for backbone, tasks in BACKBONE_TASKS.items():
        for task in tasks:
            for seed in SEEDS:
                own = find_records(records, {"backbone": backbone, "task": task, "seed": seed})
                lacking = list(_lacking(own, task, seed, with_paper=set(PAPER_TASKS) <= set(tasks)))
                if lacking:
                    what = "everything" if not own else ", ".join(lacking)
                    found.setdefault((backbone, what), {}).setdefault(task, []).append(str(seed))
    (backbone, *_) = BACKBONE_TASKS
    for name in ABLATIONS:
        done = {d["task"]: d["seeds"] for d in differences if name in d["comparison"]}
        for task in ABLATION_TASKS:
            seeds = [str(seed) for seed in ABLATION_SEEDS[done.get(task, 0) :]]
            if seeds:
                found.setdefault((backbone, f"ablation {name}"), {})[task] = seeds
    lines = [
        [backbone, "; ".join(f"{task} {', '.join(seeds)}" for task, seeds in by_task.items()), what]
        for (backbone, what), by_task in found.items()
    ]
    return markdown(("backbone", "task and seeds", "missing"), lines) if lines else "Nothing is missing.\n"


def _lacking(own: Sequence[Record], task: str, seed: int, *, with_paper: bool) -> Iterator[str]:
    methods = {record["method"] for record in own}
    expected = ["teacher", "grid", "searched"]
    if with_paper and task in PAPER_TASKS and seed in PAPER_SEEDS:
        expected.append("paper")
    yield from (method for method in expected if method not in methods)
    for share in BUDGETS:
        found = {record["method"] for record in find_records(own, {"macs_share": share})}
        fixed = [method for method in FIXED_SIZE if method not in found]
        if seed == SEEDS[0]:
            yield from (f"{method} {share:g}" for method in fixed)
        elif len(FIXED_SIZE) - len(fixed) < NUM_CONTINUED:
            yield f"fixed size {share:g}"


def _by_backbone(records: Sequence[Record], make: Callable[[Sequence[Record], Sequence[str]], str]) -> Iterator[str]:
    """Make a text for each backbone from its records and its tasks."""
    for backbone in BACKBONE_TASKS | {record["backbone"]: () for record in records}:
        own = find_records(records, {"backbone": backbone})
        if own:
            yield f"{backbone}:\n\n{make(own, list(_tasks(own)))}"


def _tasks(records: Sequence[Record]) -> Iterator[str]:
    """The tasks that have results, in the plan's order, each followed by its test rows."""
    found = dict.fromkeys(record["task"] for record in records)
    for task in dict.fromkeys((*(task for tasks in BACKBONE_TASKS.values() for task in tasks), *found)):
        yield from (name for name in (task, f"{task}-test") if name in found and (name == task or task in found))
        for name in (task, f"{task}-test"):
            found.pop(name, None)


Line = tuple[tuple[str, ...], list[Record]]


def _lines(own: Sequence[Record]) -> Iterator[Line]:
    """The rows of the first table: their first cells, and their records."""
    yield ("teacher", "full"), find_records(own, {"method": "teacher"})
    of_search = find_records(own, {"method": "searched"})
    yield ("searched", FEW), [record for record in of_search if record["macs_share"] not in BUDGETS]
    for share in BUDGETS:
        yield ("searched", f"{100 * share:g} % of the MACs"), find_records(of_search, {"macs_share": share})
        for method in FIXED_SIZE:
            found = find_records(own, {"method": method, "macs_share": share})
            shape = found[0]["subnet"] if found else ""
            yield (method, f"{100 * share:g} %: `{shape}`"), found


def _cells(own: Sequence[Record]) -> Iterator[Line]:
    for method in ("grid", "paper"):
        cells = find_records(own, {"method": method})
        names = dict.fromkeys(record["subnet"] for record in cells)
        for name in names:
            yield (method, f"`{name}`"), find_records(cells, {"subnet": name})
        if names:
            yield (method, "mean of the grid"), _mean_cells(cells)


def _mean_cells(cells: Sequence[Record]) -> list[Record]:
    """One record for each task and seed: the mean over the cells."""
    keys = dict.fromkeys((record["task"], record["seed"]) for record in cells)
    means = []
    for task, seed in keys:
        own = find_records(cells, {"task": task, "seed": seed})
        means.append({**own[0], "score": mean(record["score"] for record in own), "params": None})
    return means


def _table(own: Sequence[Record], tasks: Sequence[str], lines: Iterable[Line]) -> str:
    metrics = {record["task"]: record["metric"] for record in own}
    on_dev = [task for task in tasks if not task.endswith("-test")]
    names = ("method", "size", *(f"{task}, {metrics[task]}" for task in tasks))
    headings = [*names, "mean of " + ", ".join(on_dev), "parameters"]
    rows = []
    for first_cells, found in lines:
        if not found:
            continue
        by_task = {task: [record["score"] for record in find_records(found, {"task": task})] for task in tasks}
        complete = all(by_task[task] for task in on_dev)
        overall = f"{mean(mean(by_task[task]) for task in on_dev):.4f}" if complete else ""
        params = [record["params"] for record in found if record["params"]]
        size = f"{mean(params) / 1e6:.2f} M" if params else ""
        rows.append([*first_cells, *(spread(values) for values in by_task.values()), overall, size])
    return markdown(headings, rows)


def _seconds(own: Sequence[Record], tasks: Sequence[str]) -> str:
    on_dev = [task for task in tasks if not task.endswith("-test")]
    lines = []
    for names, found in [*_lines(own), *((m, find_records(own, {"method": m[0], "subnet": FULL})) for m in _GRIDS)]:
        if found:
            by_task = [[record["seconds"] for record in find_records(found, {"task": task})] for task in on_dev]
            lines.append([*names, *(f"{mean(values):.0f}" if values else "" for values in by_task)])
    return markdown(["method", "size", *(f"{task}, CPU s" for task in on_dev)], lines)


_GRIDS = (("grid", "12 cells"), ("paper", "12 cells"))


def spread(values: Sequence[float]) -> str:
    """Format the mean and the standard deviation over seeds, and how many they are."""
    if not values:
        return ""
    return (
        f"{mean(values):.4f} ({len(values)})"
        if len(values) == 1
        else f"{mean(values):.4f} ± {stdev(values):.4f} ({len(values)})"
    )
