#!/usr/bin/env python
"""What a search gains over the best cell of the grid within the same budget, on examples that no search has seen.

Each part is one search of one supernet by one rule, with a seed that also draws the examples. The rules: `divergence`,
`metric` and `agreement` as `dynabert search --score` has them, and `highest`: the highest metric of all candidates on
all held-out examples, as it was before scores had errors. A part serves all budgets, which are shares of the full
model's MACs. Gains are differences on the dev set, in points: to the cell that is best there, which nobody can know
before, and to the cell that the search itself holds for the best. Parts that the result file has are not run again.

    python scripts/bench/search_gain.py out/quickstart/depth --searches 20 --result_file docs/search_gain.json
    python scripts/bench/search_gain.py out/quickstart/depth --searches 2 --evaluations 40 --rule divergence
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from parts import Record, add_records, describe_commit, find_records, read_records

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime.environment import import_paddle
from dynabert_paddle.runtime.machine import describe_processor

KEY = ("supernet", "rule", "evaluations", "holdout_size", "seed", "macs_share")


def main(
    model_dirs: Annotated[list[str], typer.Argument(metavar="DIR...", help="Folders of trained supernets.")],
    searches: Annotated[int, typer.Option("--searches", min=1, help="Seeds for each supernet and rule.")] = 20,
    rule: Annotated[
        list[str], typer.Option("--rule", help="highest, metric, agreement or divergence; repeat for more.")
    ] = ["highest", "divergence"],  # noqa: B006 - typer copies it
    evaluations: Annotated[int, typer.Option("--evaluations", min=1, help="Sub-networks that a search scores.")] = 200,
    holdout_size: Annotated[int, typer.Option("--holdout_size", help="Held-out examples of a search.")] = 300,
    macs_share: Annotated[
        list[float], typer.Option("--macs_share", help="A budget, as a share of the full model's MACs; repeat.")
    ] = [0.5, 0.25, 0.125],  # noqa: B006
    result_file: Annotated[Path, typer.Option("--result_file", help="The records, added to those it has.")] = Path(
        "out/search_gain.json"
    ),
) -> None:
    """Search; print the mean and the worst gain of each supernet, rule and budget."""
    settings = {"evaluations": evaluations, "holdout_size": holdout_size}
    for model_dir in model_dirs:
        for seed in range(1, searches + 1):
            for name in rule:
                key = {"supernet": model_dir, "rule": name, "seed": seed, **settings}
                found = {record["macs_share"] for record in find_records(read_records(result_file), key)}
                if missing := [share for share in macs_share if share not in found]:
                    add_records(result_file, [{**key, **record} for record in run_part(key, missing)], KEY)
    show(read_records(result_file), settings, model_dirs)


def run_part(key: Record, shares: list[float]) -> list[Record]:
    """Search a supernet once for several budgets, and score the choices and all cells on the dev set."""
    import_paddle()
    from dynabert_paddle.data.described_tasks import load_described_task
    from dynabert_paddle.supernet.supernet import load_model
    from dynabert_paddle.training.evaluate import evaluate_named, trained_space

    began = time.process_time()
    supernet = load_model(key["supernet"])
    task, space = load_described_task(supernet.metadata.task), trained_space(supernet)
    limits = {share: share * space.num_macs(space.full) for share in shares}
    cells = {name: space.num_macs(cell) for name, cell in space.grid().items()}
    if min(limits.values()) < min(cells.values()):
        smallest = min(cells.values()) / space.num_macs(space.full)
        raise UsageError(f"--macs_share {min(shares):g}: the smallest cell of {key['supernet']} has {smallest:.4f}")
    cells = {name: macs for name, macs in cells.items() if macs <= max(limits.values())}
    choose = choose_highest if key["rule"] == "highest" else choose_by_search
    choices = choose(supernet, task, key, limits)
    seconds = round(time.process_time() - began, 1)
    names = dict.fromkeys([*cells, *(name for pair in choices.values() for name in pair)])
    dev = {row["subnet"]: row[task.metrics[0]] for row in evaluate_named(supernet, task, names)}
    records = []
    for share, (best, cell) in choices.items():
        within = [name for name, macs in cells.items() if macs <= limits[share]]
        records.append(
            {
                "macs_share": share,
                "subnet": best,
                "score": dev[best],
                "best_cell": max(dev[name] for name in within),
                "own_cell": dev[cell],
                "cpu_seconds": seconds,
                "processor": describe_processor(),
                "commit": describe_commit(),
            }
        )
    return records


def choose_by_search(supernet: Any, task: Any, key: Record, limits: dict[float, float]) -> dict[float, tuple[str, str]]:
    """For each budget the sub-network that `db.search` calls the best, and the best cell by what chose it."""
    import dynabert_paddle as db

    chosen = {}
    with TemporaryDirectory() as folder:
        for share, limit in limits.items():
            config = db.SearchConfig(
                max_macs=limit,
                score=key["rule"],
                seed=key["seed"],
                num_evaluations=key["evaluations"],
                holdout_size=key["holdout_size"],
            )
            result = db.search(supernet, task, output_dir=folder, config=config)
            cells = [row for row in result.grid if row["macs"] <= limit]
            worth = (lambda row: -row["divergence"]) if key["rule"] == "divergence" else (lambda row: row["score"])
            assert result.best is not None  # a cell is within the budget
            chosen[share] = (result.best["subnet"], max(cells, key=worth)["subnet"])
    return chosen


def choose_highest(supernet: Any, task: Any, key: Record, limits: dict[float, float]) -> dict[float, tuple[str, str]]:
    """For each budget the sub-network, and the cell, with the highest metric on the held-out examples."""
    import numpy as np
    import optuna

    from dynabert_paddle.config.command_settings import SearchConfig
    from dynabert_paddle.genomes import GenomeSpace
    from dynabert_paddle.searching.choose import by_score, choose_best
    from dynabert_paddle.searching.cost import Budget
    from dynabert_paddle.searching.evolution import Evolution, evolve, read_rows
    from dynabert_paddle.searching.examples import find_unseen
    from dynabert_paddle.searching.guide import initial_genomes
    from dynabert_paddle.searching.scoring import Scorer
    from dynabert_paddle.training.evaluate import trained_space
    from dynabert_paddle.training.inputs import match_task, tokenize_examples

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task, space = match_task(supernet, task, key["supernet"]), trained_space(supernet)
    unseen = find_unseen(task, supernet.metadata)
    chosen = np.random.default_rng(key["seed"]).permutation(unseen)[: key["holdout_size"]]
    features = tokenize_examples(task.train.select(np.sort(chosen)), supernet)
    scorer = Scorer(supernet, features, task.metrics[0], SearchConfig.per_device_eval_batch_size, key["seed"])
    genomes = GenomeSpace.of(space)
    evolution = Evolution(
        genomes,
        ("macs",),
        lambda subnet: {"macs": space.num_macs(subnet)},
        initial_genomes(genomes, supernet.metadata.importance),
        SearchConfig.population_size,
        key["seed"],
    )
    study = optuna.create_study(directions=["maximize", "minimize"])
    evolve(study, evolution, scorer, num_evaluations=key["evaluations"])
    rows = [row for row in read_rows(study) if not row["stopped"]]
    cells = space.grid()
    scores = scorer(list(cells.values()), [float("-inf")] * len(cells))
    grid = [
        {"subnet": name, "score": score.value, "macs": space.num_macs(cell)}
        for (name, cell), score in zip(cells.items(), scores, strict=True)
    ]

    def best_of(some: list[Record], limit: float) -> str:
        best, _ = choose_best(some, Budget({"macs": limit}), by_score(("macs",)), lambda names: {})
        assert best is not None
        return best["subnet"]

    return {share: (best_of([*grid, *rows], limit), best_of(grid, limit)) for share, limit in limits.items()}


def show(records: list[Record], settings: Record, model_dirs: list[str]) -> None:
    """Print a row for each supernet, rule and budget."""
    lines = []
    for model_dir in model_dirs:
        of_model = find_records(records, {"supernet": model_dir, **settings})
        for share in sorted({record["macs_share"] for record in of_model}, reverse=True):
            for name in dict.fromkeys(record["rule"] for record in of_model):
                group = find_records(of_model, {"rule": name, "macs_share": share})
                if group:
                    gains = [100 * (record["score"] - record["best_cell"]) for record in group]
                    own = [100 * (record["score"] - record["own_cell"]) for record in group]
                    figures = [mean(gains), min(gains), mean(own), min(own)]
                    lines.append([model_dir, name, f"{share:g}", str(len(group)), *(f"{f:+.2f}" for f in figures)])
    headings = ("over the best cell: mean", "worst", "over its own best cell: mean", "worst")
    show_table(
        ("supernet", "rule", "MACs", "searches", *headings),
        lines,
        title="points gained on dev; {evaluations} evaluations, {holdout_size} held-out examples".format(**settings),
        num_names=2,
    )


if __name__ == "__main__":
    run_command(main)
