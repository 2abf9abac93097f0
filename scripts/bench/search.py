#!/usr/bin/env python
"""NSGA-II against random search and the grid, with the same number of evaluations of the same scores.

Each method evaluates at most `--evaluations` sub-networks. The measure is the hypervolume: the area that its points
(score, MACs relative to the full model) dominate, with the reference point at score 0 and the full model's MACs, so
that 1 would be a perfect score at no cost. `grid` has the paper's grid cells. `uniform` has sub-networks with the same
number of heads and the same share of neurons in every layer, spread evenly if there are more of them than evaluations.

    python scripts/bench/search.py out/quickstart/depth
    python scripts/bench/search.py out/quickstart/depth --seeds 3 --evaluations 100 --num_examples 200
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Annotated

import typer

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.runtime.environment import import_paddle


def main(
    model_dir: Annotated[str, typer.Argument(metavar="[DIR]", help="Folder of a trained supernet.")] = (
        "out/quickstart/depth"
    ),
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Number of seeds.")] = 5,
    evaluations: Annotated[
        int, typer.Option("--evaluations", min=1, help="Sub-networks that each method may evaluate.")
    ] = 200,
    num_examples: Annotated[int | None, typer.Option("--num_examples", help="Held-out examples to score on.")] = None,
) -> None:
    """Print the mean and the standard deviation of each method's hypervolume over seeds."""
    import_paddle()
    import numpy as np
    import optuna

    from dynabert_paddle.config.command_settings import SearchConfig
    from dynabert_paddle.data.described_tasks import load_described_task
    from dynabert_paddle.genomes import GenomeSpace
    from dynabert_paddle.searching.evolution import Evolution, evolve, read_rows
    from dynabert_paddle.searching.examples import find_unseen
    from dynabert_paddle.searching.guide import initial_genomes
    from dynabert_paddle.searching.pareto import hypervolume
    from dynabert_paddle.searching.scoring import Score, Scorer
    from dynabert_paddle.subnet import Subnet
    from dynabert_paddle.supernet.supernet import load_model
    from dynabert_paddle.training.evaluate import trained_space
    from dynabert_paddle.training.inputs import tokenize_examples

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    supernet = load_model(model_dir)
    task = load_described_task(supernet.metadata.task)
    rows = np.random.default_rng(0).permutation(find_unseen(task, supernet.metadata))[:num_examples]
    features, metric = tokenize_examples(task.train.select(np.sort(rows)), supernet), task.metrics[0]
    space = trained_space(supernet)
    genomes = GenomeSpace.of(space)
    scorer = Scorer(supernet, features, metric, batch_size=64, seed=0)
    known: dict[Subnet, Score] = {}

    def score(subnets: Sequence[Subnet], to_beat: Sequence[float] = ()) -> list[Score]:
        """Score on all examples; each sub-network only once for all methods and seeds."""
        new = list(dict.fromkeys(subnet for subnet in subnets if subnet not in known))
        known.update(zip(new, scorer(new, [-np.inf] * len(new)), strict=True))
        return [known[subnet] for subnet in subnets]

    def macs(subnet: Subnet) -> float:
        return space.num_macs(subnet) / space.num_macs(space.full)

    def area(subnets: Sequence[Subnet]) -> float:
        points = [(scored.value, macs(subnet)) for scored, subnet in zip(score(subnets), subnets, strict=True)]
        return hypervolume(points, reference=(0.0, 1.0))

    def nsga2(seed: int) -> list[Subnet]:
        study = optuna.create_study(directions=["maximize", "minimize"])
        evolution = Evolution(
            genomes,
            ("macs",),
            lambda subnet: {"macs": macs(subnet)},
            initial_genomes(genomes, supernet.metadata.importance),
            SearchConfig.population_size,
            seed,
        )
        evolve(study, evolution, score, num_evaluations=evaluations)
        return [space.parse(row["subnet"]) for row in read_rows(study)]

    def random(seed: int) -> list[Subnet]:
        rng = np.random.default_rng(seed)
        return [genomes.decode(genomes.random(rng)) for _ in range(evaluations)]

    grid = list(space.grid().values())[:evaluations]
    uniform = [
        space.subnet(width_mult=heads / min(space.heads), depth_mult=layers / space.num_layers)
        for layers in range(1, space.num_layers + 1)
        for heads in range(1, min(space.heads) + 1)
    ]
    uniform = [uniform[i] for i in np.unique(np.linspace(0, len(uniform) - 1, evaluations).round().astype(int))]
    start = time.perf_counter()
    hypervolumes = {
        "nsga2": [area(nsga2(seed)) for seed in range(seeds)],
        "random": [area(random(seed)) for seed in range(seeds)],
        f"uniform ({len(uniform)})": [area(uniform)],
        f"grid ({len(grid)})": [area(grid)],
    }
    print(f"{model_dir}: {metric} of {len(features)} examples, {evaluations} evaluations, {seeds} seeds")
    print(f"{'method':<16}{'hypervolume':>12}{'spread':>10}")
    for name, areas in hypervolumes.items():
        print(f"{name:<16}{mean(areas):>12.4f}{stdev(areas) if len(areas) > 1 else 0.0:>10.4f}")
    print(f"{len(known)} different sub-networks scored in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    run_command(main)
