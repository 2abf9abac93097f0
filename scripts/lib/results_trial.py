"""Tries other settings of the recipe, on the rows that choose: labels of development rows are not read."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import yaml
from parts import Record, find_records, read_records
from results_plan import Part, plan_trial
from results_rows import Split
from results_run import Bench, run_part

from dynabert_paddle.cli.table import show_table
from dynabert_paddle.errors import UsageError

MIN_GAIN = 0.3  # points that a setting must bring to the grid's mean on every task


def try_settings(bench: Bench, planned: Sequence[tuple[Part, Split]], words: Sequence[str]) -> None:
    """Train the recipe and the trial, where they are missing, for each task and seed; print what the settings gain.

    Args:
        bench: where everything is.
        planned: the plan of the tasks, backbones and seeds.
        words: the settings, `KEY=VALUE`.

    Raises:
        UsageError: no setting, or one that a trial cannot change.
    """
    overrides = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--set {word}: pass KEY=VALUE, such as depth.temperature=2")
        overrides[key] = yaml.safe_load(value)
    if not overrides:
        raise UsageError("a trial needs --set KEY=VALUE, such as depth.temperature=2")
    pairs = [(best, plan_trial(best, overrides), split) for best, split in planned if best.label == "best"]
    for best, trial, split in pairs:
        for part in (best, trial):
            run_part(bench, part, split)
    gains = find_gains(read_records(bench.parts_file), [(best, trial) for best, trial, _ in pairs])
    lines = [
        [backbone, task, " ".join(f"{value:+.2f}" for value in values), f"{mean(values):+.2f}"]
        for (backbone, task), values in gains.items()
    ]
    show_table(("backbone", "task", "seeds", "mean"), lines, title="points gained on the rows that choose", num_names=2)
    print(f"a setting stays if it brings {MIN_GAIN:g} points to each task: {'yes' if stays(gains) else 'no'}")


def find_gains(records: Sequence[Record], pairs: Sequence[tuple[Part, Part]]) -> dict[tuple[str, str], list[float]]:
    """The gain of each seed in the grid's mean, in points, by backbone and task.

    Args:
        records: of finished parts.
        pairs: the recipe's own part and the trial's, for each seed.

    Returns:
        The gains.
    """
    gains: dict[tuple[str, str], list[float]] = {}
    for both in pairs:
        means = []
        for part in both:
            (record,) = find_records(records, part.key)
            means.append(mean(row["tuning"] for row in record["rows"]))
        gains.setdefault((both[0].backbone.name, both[0].task), []).append(100 * (means[1] - means[0]))
    return gains


def stays(gains: dict[tuple[str, str], list[float]]) -> bool:
    """Whether a setting brings enough on every task, in the mean over its seeds."""
    return all(mean(values) >= MIN_GAIN for values in gains.values())
