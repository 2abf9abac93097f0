#!/usr/bin/env python
"""How the time of a training step grows with sub-networks, layers, hidden size, length and batch size.

One variable at a time departs from a base point. A step is one of the width stage, without the optimizer: the teacher's
forward pass, then for every sub-network a forward pass, the distillation loss and the backward pass, with dropout. All
points alternate with a plain matrix product, so that drift in the machine's speed affects all alike; the figures are
medians. The weights are random, which does not affect the time. A model of data-parallel training, "on paper",
estimates the efficiency on several GPUs.

    python scripts/bench/scaling.py
    python scripts/bench/scaling.py --shape 6x384 --rounds 3 --output_dir out/scaling
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from timing import time_alternately

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.files.atomic import write_json
from dynabert_paddle.runtime.environment import describe_environment, import_paddle, keep_freed_memory
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet

if TYPE_CHECKING:
    import dynabert_paddle as db
    from dynabert_paddle.training.replicas import Replicas

SUBNETS = (1, 2, 4, 7)
# The values of each variable, relative to the base point.
MULTIPLES = {"layers": (0.5, 1, 2, 3), "hidden": (0.5, 1, 1.5, 2), "length": (0.5, 1, 2, 4), "batch": (0.5, 1, 2, 4)}
HEAD_DIM = 32
SGEMM_SIZE = 2048
BERT_BASE = SearchSpace(
    heads=(12,) * 12,
    neurons=(3072,) * 12,
    hidden_size=768,
    head_dim=64,
    embedding_params=(30522 + 512 + 2 + 2) * 768,  # words, positions, types, layer norm
    other_params=768 * 768 + 768 + 768 * 2 + 2,  # pooler, classifier with two classes
)


@dataclass(frozen=True)
class Point:
    """The conditions of a measured step: number of sub-networks, shape of the model, length and size of the batch."""

    subnets: int
    layers: int
    hidden: int
    length: int
    batch: int

    @property
    def space(self) -> SearchSpace:
        """The sub-networks of the model."""
        heads, neurons = (self.hidden // HEAD_DIM,) * self.layers, (4 * self.hidden,) * self.layers
        return SearchSpace(heads, neurons, self.hidden, HEAD_DIM)

    @property
    def widths(self) -> list[Subnet]:
        """The sub-networks of a step: evenly from the full width down to a quarter of it."""
        return [self.space.subnet(width_mult=float(mult)) for mult in np.linspace(1, 0.25, self.subnets)]


def main(
    shape: Annotated[
        str, typer.Option("--shape", help="Base point: layers x hidden size; heads are 32 wide.")
    ] = "4x256",
    seq_length: Annotated[int, typer.Option("--seq_length", help="Base point: tokens of each text.")] = 32,
    batch_size: Annotated[int, typer.Option("--batch_size", help="Base point: texts in a batch.")] = 16,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds to take the median of.")] = 5,
    gpus: Annotated[int, typer.Option("--gpus", min=2, help="Number of GPUs of the estimate.")] = 8,
    gpu_tflops: Annotated[float, typer.Option("--gpu_tflops", help="Assumed speed of each GPU, in TFLOP/s.")] = 60.0,
    gpu_gbs: Annotated[
        float, typer.Option("--gpu_gbs", help="Assumed bandwidth of each GPU, in GB/s each way.")
    ] = 50.0,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder for scaling.json and scaling.svg.")] = Path(
        "docs"
    ),
) -> None:
    """Measure, fit and print; write scaling.json and scaling.svg."""
    import_paddle()
    keep_freed_memory()
    layers, hidden = map(int, shape.split("x"))
    series = vary(Point(subnets=4, layers=layers, hidden=hidden, length=seq_length, batch=batch_size))
    points = list(dict.fromkeys(point for line in series.values() for point in line))
    times = time_alternately({**{str(point): make_step(point) for point in points}, "sgemm": make_sgemm()}, rounds)
    sgemm = 2 * SGEMM_SIZE**3 / 1e9 / median(times["sgemm"])
    measured = {point: 1000 * median(times[str(point)]) for point in points}
    costs = fit(measured, sgemm)
    rows = [
        {
            "variable": name,
            **asdict(point),
            "gflop": cost_terms(point)[1],
            "ms": measured[point],
            "fitted_ms": float(cost_terms(point) @ costs),
            "share": 1000 * cost_terms(point)[1] / measured[point] / sgemm,
        }
        for name, line in series.items()
        for point in line
    ]
    machine = describe_environment()
    result = {
        "processor": machine["processor"],
        "threads": os.environ["OMP_NUM_THREADS"],
        "versions": machine["versions"],
        "sgemm_gflops": sgemm,
        "fit": dict(zip(("ms_per_layer", "ms_per_gflop", "ms_per_million_values"), costs.tolist(), strict=True)),
        "rows": rows,
        "paper": on_paper(gpus, 1000 * gpu_tflops, gpu_gbs),
    }
    show(result)
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / "scaling.json", result)
    draw(series, measured, costs, sgemm, output_dir / "scaling.svg")
    print(f"wrote {output_dir / 'scaling.json'} and {output_dir / 'scaling.svg'}")


def vary(base: Point) -> dict[str, list[Point]]:
    """Return the points of each variable, in ascending order; the other variables keep the values of `base`."""
    values = {"subnets": list(SUBNETS)}
    values |= {name: [int(mult * getattr(base, name)) for mult in mults] for name, mults in MULTIPLES.items()}
    return {name: [replace(base, **{name: value}) for value in series] for name, series in values.items()}


def make_step(point: Point) -> Callable[[], Any]:
    """Make a step. Gradients are never cleared: also within a step all passes but the first add to existing ones."""
    from random_models import random_batch, training_passes

    from dynabert_paddle.config.settings import WidthConfig
    from dynabert_paddle.training.steps import distillation_step

    replicas, teacher = make_models(f"{point.layers}x{point.hidden}")
    subnets = {str(index): subnet for index, subnet in enumerate(point.widths)}
    step = distillation_step(teacher, subnets, WidthConfig(), kind="classification")
    return training_passes(replicas, step, random_batch(point.batch, point.length))


@cache
def make_models(shape: str) -> tuple[Replicas, db.Supernet]:
    """Make a supernet in training mode, and its teacher."""
    from random_models import random_supernet

    import dynabert_paddle as db
    from dynabert_paddle.training.replicas import Replicas, count_replicas

    supernet = random_supernet(shape)
    teacher = db.extract(supernet, supernet.full)
    supernet.train()
    return Replicas(supernet, count_replicas()), teacher


def make_sgemm() -> Callable[[], Any]:
    """Make the matrix product whose speed is the reference."""
    import paddle

    matrix = paddle.randn([SGEMM_SIZE, SGEMM_SIZE])
    return lambda: paddle.matmul(matrix, matrix)


def step_gflop(space: SearchSpace, subnets: Sequence[Subnet], *, length: int, batch: int) -> float:
    """Count the GFLOP of the encoder's matrix products in a step; pooler and classifier add less than a thousandth.

    A backward pass has twice as many MACs as its forward pass, because each product has gradients for both factors.
    """
    macs = space.num_macs(space.full, seq_length=length)
    macs += 3 * sum(space.num_macs(subnet, seq_length=length) for subnet in subnets)
    return 2 * batch * macs / 1e9


def cost_terms(point: Point) -> np.ndarray:
    """Return the terms of the cost model: passes through a layer, GFLOP of matrix products, millions of written values.

    The values are those that the layers write in a forward pass: queries, keys, values, scores, context, neurons, and
    both outputs. Passes and values of a sub-network count three times, to include its backward pass.
    """
    layers = values = 0
    for subnet, passes in [(point.space.full, 1), *((subnet, 3) for subnet in point.widths)]:
        for _, heads, neurons in subnet.parts:
            layers += passes
            values += passes * (heads * (4 * HEAD_DIM + point.length) + neurons + 2 * point.hidden)
    gflop = step_gflop(point.space, point.widths, length=point.length, batch=point.batch)
    return np.array([layers, gflop, values * point.batch * point.length / 1e6])


def fit(measured: Mapping[Point, float], sgemm: float) -> np.ndarray:
    """Fit the cost of each term in ms, by least squares of the relative errors.

    No cost is negative, and the matrix products are not faster than the reference product.
    """
    from scipy.optimize import lsq_linear

    relative = np.array([cost_terms(point) / ms for point, ms in measured.items()])
    return lsq_linear(relative, np.ones(len(relative)), bounds=([0, 1000 / sgemm, 0], np.inf)).x


def on_paper(gpus: int, gflops: float, gbs: float) -> dict[str, Any]:
    """Estimate the step of BERT-base on several GPUs: its matrix products, and a ring all-reduce of fp32 gradients.

    Each of n GPUs has 32 x 128 tokens and sends 2 (n - 1) / n times the bytes of the gradient; sending does not overlap
    with computation.
    """
    gradient = 4 * BERT_BASE.num_params(BERT_BASE.full) / 1e9
    sent = 2 * (gpus - 1) / gpus * gradient
    grid = list(BERT_BASE.grid().values())
    rows = []
    for stage, subnets in (("width", grid[: len(BERT_BASE.width_mults)]), ("depth", grid)):
        gflop = step_gflop(BERT_BASE, subnets, length=128, batch=32)
        for reduced, times in (("once", 1), ("for each", len(subnets))):
            compute, sending = gflop / gflops, times * sent / gbs
            row = {"stage": stage, "subnets": len(subnets), "reduced": reduced, "tflop": gflop / 1000}
            row |= {"compute_ms": 1000 * compute, "sent_gb": times * sent, "sending_ms": 1000 * sending}
            rows.append({**row, "efficiency": compute / (compute + sending)})
    assumed = {"gpus": gpus, "tflops": gflops / 1000, "gbs": gbs, "batch_per_gpu": 32, "length": 128}
    return {"model": "BERT-base", "gradient_gb": gradient, "assumed": assumed, "rows": rows}


def show(result: dict[str, Any]) -> None:
    """Print the measured and fitted times, then the estimate for several GPUs."""
    rows, costs, paper = result["rows"], result["fit"], result["paper"]
    lines = [
        [
            f"{row['variable']} {row[row['variable']]}",
            f"{row['gflop']:.1f}",
            f"{row['ms']:.0f}",
            f"{row['fitted_ms']:.0f}",
            f"{row['share']:.0%}",
        ]
        for row in rows
    ]
    print(
        f"{result['processor']}, {result['threads']} threads, paddle {result['versions'].get('paddlepaddle')}, "
        f"sgemm {result['sgemm_gflops']:.0f} GFLOP/s"
    )
    show_table(["", "GFLOP", "ms", "fitted", "of sgemm"], lines, title="a step of the width stage")
    errors = [abs(row["fitted_ms"] / row["ms"] - 1) for row in rows]
    print(
        f"fit: {costs['ms_per_layer']:.2f} ms a pass through a layer + {costs['ms_per_gflop']:.2f} ms a GFLOP "
        f"+ {costs['ms_per_million_values']:.2f} ms a million values; error mean {mean(errors):.1%}, "
        f"largest {max(errors):.1%}\n"
    )
    assumed = paper["assumed"]
    lines = [
        [
            f"{row['stage']}, {row['subnets']} sub-networks, reduced {row['reduced']}",
            f"{row['tflop']:.1f}",
            f"{row['compute_ms']:.0f}",
            f"{row['sent_gb']:.2f}",
            f"{row['sending_ms']:.0f}",
            f"{row['efficiency']:.0%}",
        ]
        for row in paper["rows"]
    ]
    title = (
        f"on paper: {paper['model']}, {assumed['batch_per_gpu']} x {assumed['length']} tokens on each of "
        f"{assumed['gpus']} GPUs; assumed: {assumed['tflops']:g} TFLOP/s, {assumed['gbs']:g} GB/s"
    )
    show_table(["", "TFLOP a GPU", "compute ms", "GB sent", "sending ms", "efficiency"], lines, title=title)


def draw(
    series: Mapping[str, list[Point]], measured: Mapping[Point, float], costs: np.ndarray, sgemm: float, path: Path
) -> None:
    """Plot for each variable the measured and fitted times, and the matrix products alone at the reference speed."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    from dynabert_paddle.reporting.chart import BLUE, GREEN, RED, STYLE

    titles = {"subnets": "sub-networks", "hidden": "hidden size", "length": "length, tokens", "batch": "batch size"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 5.6), layout="constrained", facecolor="white")
        *plots, key = figure.subplots(2, 3, sharey=True).flat
        for axes, (name, line) in zip(plots, series.items(), strict=True):
            step = HEAD_DIM if name == "hidden" else 1
            values = [getattr(point, name) for point in line]
            between = [replace(line[0], **{name: value}) for value in range(values[0], values[-1] + 1, step)]
            xs = [getattr(point, name) for point in between]
            terms = np.array([cost_terms(point) for point in between])
            axes.loglog(xs, terms @ costs, color=BLUE, label="fitted")
            axes.loglog(
                xs, 1000 * terms[:, 1] / sgemm, "--", color=GREEN, label="the products alone, at the sgemm rate"
            )
            axes.loglog(values, [measured[point] for point in line], "o", color=RED, label="measured, share of sgemm")
            for point, value in zip(line, values, strict=True):
                share = 1000 * cost_terms(point)[1] / measured[point] / sgemm
                axes.annotate(f"{share:.0%}", (value, measured[point]), (4, -12), textcoords="offset points", color=RED)
            axes.set(xlabel=titles.get(name, name), xlim=(0.85 * values[0], 1.3 * values[-1]))
            for axis, ticks in ((axes.xaxis, FixedLocator(values)), (axes.yaxis, LogLocator(subs=(1, 2, 5)))):
                numbers = StrMethodFormatter("{x:,.0f}")
                axis.set(major_locator=ticks, major_formatter=numbers, minor_locator=NullLocator())
            axes.grid(color="#dddddd", linewidth=0.6)
        figure.supylabel("ms a step", fontsize=STYLE["axes.labelsize"])
        key.axis("off")
        key.legend(*plots[0].get_legend_handles_labels(), loc="center")
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    run_command(main)
