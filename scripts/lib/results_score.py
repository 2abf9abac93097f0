"""Scores the finished parts of results.sh: the only place that reads the labels of development rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any

import numpy as np
from parts import Record, find_records
from results_plan import ABLATIONS, FIXED_SIZE, Part
from results_rows import read_labels, splits_of
from results_run import Bench, read_logits
from results_shapes import BUDGETS
from results_statistics import Pair, compare

from dynabert_paddle.data.catalog import find_declaration
from dynabert_paddle.data.metrics import compute_metrics

MEAN = "mean"  # in place of a task

# A method and its budget; None for all cells of a grid, the teacher, and the searched one with few parameters.
Group = tuple[str, float | None]


@dataclass(frozen=True)
class Scored:
    """A task's rows, and what the models of one backbone compute for them.

    Args:
        metric: the task's first metric.
        labels: `[n]`.
        outputs: by method, budget (None for all cells of a grid) and seed `[k, n]`.
        names: by method and budget the name of the sub-network.
    """

    metric: str
    labels: np.ndarray
    outputs: dict[Group, dict[int, np.ndarray]]
    names: dict[Group, str]

    def seeds(self, *groups: Group) -> list[int]:
        """The seeds that all of some groups have."""
        return sorted(set.intersection(*(set(self.outputs.get(group, ())) for group in groups)))

    def pair(self, left: Group, right: Group) -> Pair:
        """Two groups on the seeds that both have."""
        seeds = self.seeds(left, right)
        both = ([self.outputs[group][seed] for seed in seeds] for group in (left, right))
        return Pair(self.metric, self.labels, *both)


def score_parts(bench: Bench, parts: Sequence[Part], records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Score what there is.

    Args:
        bench: where logits and labels are.
        parts: those that count.
        records: of finished parts.

    Returns:
        A record for each task, backbone, seed, method and budget; and the differences between methods.
    """
    found = [(part, own[0]) for part in parts if (own := find_records(records, part.key))]
    seconds = {tuple(part.key.values()): record["seconds"] for part, record in found}
    scores, groups = list[Record](), dict[tuple[str, str], Scored]()
    for part, record in found:
        if part.method is None:
            continue
        logits = read_logits(bench, record)
        spent = sum(seconds[tuple(need.key.values())] for need in part.chain)
        for split in splits_of(part.task):
            name = part.task if split == "dev" else f"{part.task}-{split}"
            scored = groups.get((name, part.backbone.name)) or _read(bench, part.task, split)
            groups[name, part.backbone.name] = scored
            _group(scored, part, record, logits[split])
            if part.method in ABLATIONS:
                continue  # of these the differences alone are told
            for row, outputs in zip(record["rows"], logits[split], strict=True):
                scores.append(
                    {
                        "task": name,
                        "backbone": part.backbone.name,
                        "seed": part.seed,
                        "method": row["method"],
                        "subnet": row["subnet"],
                        "macs_share": row["macs_share"],
                        "params": row["params"],
                        "metric": scored.metric,
                        "score": score(scored.metric, outputs, scored.labels),
                        "examples": record["examples"],
                        "seconds": round(spent, 1),
                        "processor": record["processor"],
                        "commit": record["commit"],
                    }
                )
    return scores, compare_methods(groups)


def score(metric: str, outputs: np.ndarray, labels: np.ndarray) -> float:
    """Score one model by the numbers that `margins` keeps of its logits, `[n]`."""
    is_scores = metric == "pearson"
    logits = outputs[:, None] if is_scores else np.stack([np.zeros_like(outputs), outputs], axis=1)
    return compute_metrics([metric], logits, labels)[metric]


def _read(bench: Bench, task: str, split: str) -> Scored:
    labels = read_labels(task, bench.glue_dir, split).labels
    assert labels is not None
    metrics = find_declaration(task).metrics
    assert metrics is not None
    return Scored(metrics[0], labels, {}, {})


def _group(scored: Scored, part: Part, record: Record, outputs: np.ndarray) -> None:
    """Add a part's outputs: each budget for itself, and of a grid all cells, and the smallest one."""
    method, rows = record["rows"][0]["method"], record["rows"]
    budgets = [row["macs_share"] if row["macs_share"] in BUDGETS else None for row in rows]
    if method in ("grid", "paper", "teacher", *ABLATIONS):
        smallest = min(range(len(rows)), key=lambda index: rows[index]["macs_share"])
        own = {None: (outputs, "mean of the grid")}
        if method != "teacher":
            own[BUDGETS[-1]] = (outputs[[smallest]], rows[smallest]["subnet"])
    else:  # a search has one row without a budget of MACs
        own = {budget: (outputs[[index]], rows[index]["subnet"]) for index, budget in enumerate(budgets)}
    for budget, (values, name) in own.items():
        scored.outputs.setdefault((method, budget), {})[part.seed] = values
        scored.names[method, budget] = name


def compare_methods(groups: Mapping[tuple[str, str], Scored]) -> list[Record]:
    """Compare searched sub-networks with the best fixed-size models and the teacher, and the recipe with the paper's.

    Args:
        groups: by task and backbone.

    Returns:
        For each comparison and task, and for the mean over the tasks of development rows, the difference with its
        interval; likewise the difference between two seeds of the same recipe.
    """
    found = []
    for backbone in dict.fromkeys(backbone for _, backbone in groups):
        own = {task: scored for (task, name), scored in groups.items() if name == backbone}
        for title, left, right in list_comparisons():
            pairs: dict[str, tuple[Pair, str]] = {}
            for task, scored in own.items():
                reference = right or best_fixed(scored, left)
                if reference and scored.seeds(left, reference):
                    name = reference[0] if right else f"{reference[0]} {scored.names[reference]}"
                    pairs[task] = scored.pair(left, reference), name
            found += _differences(title, backbone, pairs)
        for one, other in pairwise(
            sorted({s for scored in own.values() for s in scored.outputs.get(("grid", None), ())})
        ):
            pairs = {}
            for task, scored in own.items():
                seeds = scored.outputs.get(("grid", None), {})
                if one in seeds and other in seeds:
                    pair = Pair(scored.metric, scored.labels, [seeds[other]], [seeds[one]])
                    pairs[task] = pair, f"seed {one}"
            found += _differences(f"noise: mean of the grid, seed {other} against seed {one}", backbone, pairs)
    return found


def list_comparisons() -> list[tuple[str, Group, Group | None]]:
    """Title, left and right; None for the best fixed-size model of the same MACs."""
    return [
        *(
            (f"searched, {100 * share:g} % of the MACs, against the best fixed size", ("searched", share), None)
            for share in BUDGETS
        ),
        (
            "searched, at most 30 % of the encoder's parameters, against the teacher",
            ("searched", None),
            ("teacher", None),
        ),
        ("searched, half of the MACs, against the teacher", ("searched", 0.5), ("teacher", None)),
        ("mean of the grid against the paper's recipe", ("grid", None), ("paper", None)),
        ("smallest cell against the paper's recipe", ("grid", BUDGETS[-1]), ("paper", BUDGETS[-1])),
        *(
            (f"ablation: mean of the grid {name}, against the recipe", (name, None), ("grid", None))
            for name in ABLATIONS
        ),
    ]


def best_fixed(scored: Scored, left: Group) -> Group | None:
    """The fixed-size model of the same MACs with the highest mean score, of those with the most seeds; None without."""
    groups = [(method, left[1]) for method in FIXED_SIZE if scored.seeds(left, (method, left[1]))]

    def worth(group: Group) -> tuple[int, float]:
        outputs = scored.outputs[group]
        return len(outputs), mean(score(scored.metric, values[0], scored.labels) for values in outputs.values())

    return max(groups, key=worth) if groups else None


def _differences(title: str, backbone: str, pairs: Mapping[str, tuple[Pair, str]]) -> list[Record]:
    def record(task: str, tasks: Sequence[str], right: str) -> dict[str, Any]:
        own = [pairs[name][0] for name in tasks]
        found = compare(own)
        figures = {"difference": found.value, "low": found.low, "high": found.high}
        seeds = [len(pair.left) for pair in own]
        return {
            "comparison": title,
            "backbone": backbone,
            "task": task,
            "tasks": list(tasks),
            "against": right,
            "seeds": min(seeds),
            **{key: round(value, 6) for key, value in figures.items()},
        }

    records = [record(task, [task], name) for task, (_, name) in pairs.items()]
    on_dev = [task for task in pairs if "-test" not in task]
    if len(on_dev) > 1:
        names = dict.fromkeys(pairs[task][1] for task in on_dev)
        records.append(record(MEAN, on_dev, next(iter(names)) if len(names) == 1 else "the best of each task"))
    return records
