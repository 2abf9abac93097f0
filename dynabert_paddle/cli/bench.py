"""The verb `bench`: latency, throughput, memory and size of bundles."""

from __future__ import annotations

import json as json_
from contextlib import ExitStack
from itertools import groupby
from typing import Annotated, Any

import typer

from dynabert_paddle.cli.output import check_output_file, one_line, open_output, show_json, show_next
from dynabert_paddle.cli.predict import NumThreads, OverwriteOutputFile
from dynabert_paddle.cli.run import Json
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.errors import UsageError


def bench(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Folders that 'dynabert export' has made.")],
    *,
    batch_size: Annotated[str, typer.Option("--batch_size", metavar="'A B'", help="Batch sizes.")] = "1 32",
    seq_length: Annotated[str, typer.Option("--seq_length", metavar="'A B'", help="Lengths in tokens.")] = "32 128",
    vs: Annotated[
        str | None, typer.Option("--vs", help="'onnxruntime': also measure each floating-point graph there.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Measurements of every bundle at every shape.")] = 5,
    num_threads: NumThreads = None,
    output_file: Annotated[str | None, typer.Option("--output_file", help="JSON file for the figures.")] = None,
    overwrite_output_file: OverwriteOutputFile = False,
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory and size of bundles, alternating between them in one process."""
    from dynabert_paddle.serving.bench import bench

    if output_file:
        check_output_file(output_file, overwrite=overwrite_output_file)
    with ExitStack() as stack:
        out = stack.enter_context(open_output(output_file)) if output_file else None
        report = bench(
            bundles,
            batch_sizes=_integers(batch_size, "--batch_size"),
            seq_lengths=_integers(seq_length, "--seq_length"),
            vs=vs,
            rounds=rounds,
            num_threads=num_threads,
        )
        if out:
            out.write(json_.dumps(report, ensure_ascii=False, indent=2) + "\n")
    if json:
        show_json(report)
    else:
        _show(report)
        for shape, rows in groupby(report["rows"], key=lambda row: (row["batch_size"], row["seq_length"])):
            _show_fastest(shape, list(rows))
    show_next("predict", bundles[0], "-i", "texts.tsv", wrote=[output_file] if output_file else [])


def _show(report: dict[str, Any]) -> None:
    columns = ["bundle", "shape", "p50 ms", "p95 ms", "sentences/s", "speed-up", "peak MB", "graph MB", "bundle MB"]
    lines = [
        [
            row["name"],
            f"{row['batch_size']}x{row['seq_length']}",
            f"{row['p50_ms']:.2f}",
            f"{row['p95_ms']:.2f}",
            f"{row['sentences_per_second']:.0f}",
            f"{row['speedup']:.2f}",
            f"{row['peak_memory_mb']:.0f}",
            f"{row['size_mb']:.1f}",
            f"{row['bundle_mb']:.1f}",
        ]
        for row in report["rows"]
    ]
    show_table(columns, lines, title=f"{report['threads']} threads; speed-up against the first line of each shape")
    for name in dict.fromkeys(row["name"] for row in report["rows"] if row["depends_on_batch"]):
        print(one_line(f"{name}: a text's answer depends on the other texts of its batch (one scale for all)"))


def _show_fastest(shape: tuple[int, int], rows: list[dict[str, Any]]) -> None:
    """Name the fastest bundle at a shape."""
    first, *others = sorted(rows, key=lambda row: -row["speedup"])
    if others:
        lead = first["speedup"] / others[0]["speedup"]
        print(one_line(f"fastest at {shape[0]}x{shape[1]}: {first['name']}, {lead:.2f} times as fast as the next"))


def _integers(words: str, flag: str) -> list[int]:
    values = words.replace(",", " ").split()
    if not values or not all(value.isdecimal() and int(value) for value in values):
        raise UsageError(f"{flag} takes whole numbers from 1, such as '1 32', not '{words}'")
    return [int(value) for value in values]


COMMANDS = (bench,)
