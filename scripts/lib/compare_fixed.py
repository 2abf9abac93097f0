#!/usr/bin/env python
"""Used by compare_fixed.sh: compare_fixed.py examples RUN; compare_fixed.py table OUTPUT_DIR SUBNET RUN..."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import typer

from dynabert_paddle.cli.table import show_table
from dynabert_paddle.files.atomic import read_json, write_json
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.model_shape import MACS_LENGTH
from dynabert_paddle.runtime.environment import import_paddle

NOTE = (
    "DynaBERT's examples and seconds are those of one run, which trains all sub-networks; every other row's are those "
    "of one model, including the fine-tuning that it starts from. An example counts each time it is read, by any "
    "number of sub-networks."
)
MACS_TOLERANCE = 0.02  # maximum relative difference between a sub-network and the fixed-size models

app = typer.Typer()


@app.command()
def examples(run: Path) -> None:
    """Print the number of examples that all stages of a run have read."""
    print(spent(run).examples)


@app.command()
def table(output_dir: Path, subnet: str, runs: list[Path]) -> None:
    """Print the table of all runs, and write it as JSON and CSV."""
    scores = [score for run in runs for score in [*baselines(run, subnet), *grid_cells(run, subnet)]]
    (metric,) = {score["metric"] for score in scores}
    keys = dict.fromkeys((score["method"], score["subnet"]) for score in scores)
    rows = [summarize([s for s in scores if (s["method"], s["subnet"]) == key]) for key in keys]
    rows.sort(key=lambda row: row["method"] != "dynabert")
    result = {"split": "dev", "metric": metric, "subnet": subnet, "runs": [str(run) for run in runs], "note": NOTE}
    write_json(output_dir / "comparison.json", {**result, "rows": rows})
    with (output_dir / "comparison.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [key for key in rows[0] if key != "values"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    columns = ["method", "shape", "MACs", "params", metric, "spread", "examples", "seconds"]
    title = f"{metric} on dev, mean and standard deviation over {len(runs)} seed{'s' if len(runs) > 1 else ''}"
    title += f"; MACs of one sequence of {MACS_LENGTH} tokens"
    show_table(columns, [format_row(row) for row in rows], title=title, num_names=2)
    print(NOTE)
    print(f"wrote {output_dir / 'comparison.json'} and {output_dir / 'comparison.csv'}")


def baselines(run: Path, subnet: str) -> Iterable[dict[str, Any]]:
    """Yield the results of the fixed-size models of a run."""
    for path in sorted(run.glob(f"baselines/*-{subnet}/baseline.json")):
        found = read_json(path)
        metric, value = next(iter(found["metrics"].items()))
        yield {**found, "metric": metric, "value": value}


def grid_cells(run: Path, subnet: str) -> Iterable[dict[str, Any]]:
    """Yield the results of the sub-networks in a run's grid with the same MACs as the fixed-size models."""
    examples, seconds = spent(run)
    macs = next(iter(baselines(run, subnet)))["macs"]
    for row in read_json(run / "grid.json")["rows"]:
        if abs(row["macs"] - macs) <= MACS_TOLERANCE * macs:
            metric = next(key for key in row if key != "subnet")
            common = {"method": "dynabert", "metric": metric, "value": row[metric]}
            yield {**row, **common, "examples_seen": examples, "seconds": seconds}


def spent(run: Path):
    """Return the examples and seconds of all stages of a run together."""
    import_paddle()  # first, so that importing Paddle prints nothing
    from dynabert_paddle.training.baseline import total_spent

    last = run / Path(read_json(run / "grid.json")["model"]).name
    return total_spent(read_metadata(last), last)


def summarize(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Combine the results of one method over all seeds."""
    values = [score["value"] for score in scores]
    return {
        **{key: scores[0][key] for key in ("method", "subnet", "macs", "params")},
        "values": values,
        "mean": mean(values),
        "std": stdev(values) if len(values) > 1 else None,
        "examples_seen": round(mean(score["examples_seen"] for score in scores)),
        "seconds": round(mean(score["seconds"] for score in scores), 1),
    }


def format_row(row: dict[str, Any]) -> list[str]:
    """Format a row for the printed table."""
    return [
        row["method"],
        row["subnet"],
        f"{row['macs'] / 1e9:.3f} G",
        f"{row['params'] / 1e6:.2f} M",
        f"{row['mean']:.4f}",
        "-" if row["std"] is None else f"{row['std']:.4f}",
        str(row["examples_seen"]),
        f"{row['seconds']:.0f}",
    ]


if __name__ == "__main__":
    app()
