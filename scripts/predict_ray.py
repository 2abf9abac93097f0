#!/usr/bin/env python
"""Predicts for a table on all workers of a Ray cluster: Parquet, CSV or JSON lines in, Parquet out.

The input is read in parts. A worker predicts a part and writes it as a file of OUT_DIR; these files, in the order of
their names, have the rows in the order of the input. A worker that dies is replaced, and its parts are predicted again:
each is one file, so that no row is lost or doubled. OUT_DIR appears when all parts are there.

    pip install 'dynabert-paddle[ray]'
    python scripts/predict_ray.py texts.parquet out/labels out/bundle             # on all cores of this machine
    python scripts/predict_ray.py texts/ out/labels out/bundle --address auto     # on a cluster with a shared disk
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

import dynabert_paddle as db
from dynabert_paddle.bundle.label_choice import parse_threshold
from dynabert_paddle.cli.script import run_command
from dynabert_paddle.data.data_file import ending_of
from dynabert_paddle.errors import DataError, DynabertError, UsageError
from dynabert_paddle.files.atomic import write_new_folder
from dynabert_paddle.runtime.cores import num_cores
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.serving.table_parts import AnyPart, divide_parquet, divide_texts, find_tables

PARTS_AHEAD = 2  # a worker: the next part is there when one is done
ATTEMPTS = 4  # at a part, whose worker dies each time: then the part is to blame


class Worker:
    """Predicts parts in a process of its own, and writes them.

    Args:
        predict: what predicts.
        row_column: name of the column with the rows' numbers.
    """

    def __init__(self, predict: db.BatchPredictor, row_column: str) -> None:
        self._predict, self._row_column = predict, row_column
        predict.load()

    def run(self, part: AnyPart, path: str) -> int:
        """Predict a part and write its file; returns the number of its rows."""
        found = part.predict(self._predict)
        if self._row_column in found.schema.names:
            raise UsageError(f"there is a column {self._row_column!r}: name that of the rows' numbers, --row_column")
        numbers = pa.array(range(part.first_row, part.first_row + len(found)), pa.int64())
        partial = Path(f"{path}.{os.getpid()}")  # a worker that counts as dead may still write
        pq.write_table(found.add_column(0, self._row_column, numbers), partial)
        partial.replace(path)
        return len(found)


def main(
    input_path: Annotated[
        str, typer.Argument(metavar="IN", help="A file that ends with .parquet, .csv, .tsv or .jsonl, or a folder.")
    ],
    output_dir: Annotated[str, typer.Argument(metavar="OUT_DIR", help="A new folder for the Parquet files.")],
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder that 'dynabert export' has made.")],
    *,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Of a running Ray cluster, or auto.", show_default="a new one on this machine"),
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option("--num_workers", min=1, help="Processes that predict.", show_default="all cores")
    ] = None,
    num_threads: Annotated[int, typer.Option("--num_threads", min=1, help="Cores of each of them.")] = 1,
    rows_per_part: Annotated[int, typer.Option("--rows_per_part", min=1, help="Rows of an output file.")] = 16_384,
    columns: Annotated[
        bool, typer.Option("--columns", help="Write the input's columns, too; of CSV and JSON lines as text.")
    ] = False,
    row_column: Annotated[str, typer.Option("--row_column", help="Name of the column of row numbers, from 0.")] = "row",
    keep_nulls: Annotated[
        bool, typer.Option("--keep_nulls", help="A row without a text has no prediction, instead of an error.")
    ] = False,
    text_column: Annotated[
        str | None,
        typer.Option("--text_column", help="Column of the text.", show_default="the task's, else sentence or text"),
    ] = None,
    text_pair_column: Annotated[
        str | None, typer.Option("--text_pair_column", help="Column of the second text.", show_default="the task's")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Texts at a time.")] = 32,
    subnet: Annotated[
        str | None, typer.Option("--subnet", help="Sub-network of a bundle of several.", show_default="the best")
    ] = None,
    decode: Annotated[
        str | None, typer.Option("--decode", help="Labels of words: constrained or free.", show_default="the bundle's")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            metavar="T",
            help="Several labels a text: as for 'dynabert predict'.",
            show_default="the bundle's",
        ),
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", help="Embeddings: document or query.", show_default="document")
    ] = None,
    output_dim: Annotated[
        int | None, typer.Option("--output_dim", min=1, help="Embeddings: size of the vectors.", show_default="whole")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top_k", min=1, help="Likewise.", show_default="as for 'dynabert predict'")
    ] = None,
) -> None:
    """Predict for every row of a table."""
    files, folder = find_tables(user_path(input_path)), user_path(output_dir)
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists: name another folder, or delete it")
    predict = db.BatchPredictor(
        bundle,
        subnet=subnet,
        num_threads=num_threads,
        decode=decode,
        threshold=parse_threshold(threshold or ()),
        top_k=top_k,
        role=role,
        output_dim=output_dim,
        text_column=text_column,
        text_pair_column=text_pair_column,
        keep_columns=None if columns else (),
        nulls="keep" if keep_nulls else "error",
        batch_size=batch_size,
    )
    if ending_of(files[0]) == ".parquet":
        parts: Iterator[AnyPart] = divide_parquet(files, predict, rows_per_part)
    else:
        parts = divide_texts(files, predict, rows_per_part, with_columns=columns)
    first = next(parts, None)  # bad input shows before Ray starts
    if first is None:
        raise DataError(f"{input_path}: no rows of data; add at least one")
    num_rows = 0
    with start_ray(address, num_workers, num_threads, num_local=num_cores()) as (ray, workers):
        remote = ray.remote(num_cpus=num_threads, max_restarts=-1, max_task_retries=ATTEMPTS - 1)(Worker)
        actors = [remote.remote(predict, row_column) for _ in range(workers)]

        def write(partial: Path) -> None:
            nonlocal num_rows
            num_rows = run_parts(ray, actors, chain([first], parts), partial.absolute())

        write_new_folder(folder, write)
    print(f"{num_rows:,} rows by {workers} workers in {folder}")


def run_parts(ray: Any, actors: list[Any], parts: Iterable[AnyPart], folder: Path) -> int:
    """Let the workers predict all parts.

    Args:
        ray: the module.
        actors: the workers.
        parts: what to predict.
        folder: gets a file for each part.

    Returns:
        The number of rows in all files; no row is in two.

    Raises:
        DynabertError: a part cannot be predicted, or rows are missing.
    """
    free = [actor for _ in range(PARTS_AHEAD) for actor in actors]
    running: dict[Any, tuple[AnyPart, str, Any]] = {}
    expected: dict[str, int] = {}
    parts = iter(parts)
    while True:
        for part in islice(parts, len(free)):
            actor, name = free.pop(0), f"part-{part.number:08}.parquet"
            running[actor.run.remote(part, str(folder / name))] = (part, name, actor)
        if not running:
            break
        (done, *_), _ = ray.wait(list(running))
        part, name, actor = running.pop(done)
        last = part.first_row + part.num_rows - 1
        try:
            num_rows = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, DynabertError) else DynabertError(one_line(error)) from None
        except ray.exceptions.RayError as error:
            raise DynabertError(
                f"rows {part.first_row} to {last}: {ATTEMPTS} workers died one after the other, often for lack of "
                f"memory: give fewer --num_workers or --rows_per_part ({one_line(error)})"
            ) from None
        if num_rows != part.num_rows:
            raise DataError(f"rows {part.first_row} to {last}: {num_rows} were there: the input changed meanwhile")
        expected[name] = num_rows
        free.append(actor)
    for path in folder.iterdir():
        if path.suffix != ".parquet":  # of a worker that died
            path.unlink()
    written = {path.name: pq.read_metadata(path).num_rows for path in folder.iterdir()}
    if written != expected:
        wrong = min(name for name in written | expected if written.get(name) != expected.get(name))
        raise DynabertError(f"{folder / wrong}: not the rows that were predicted: does another program write there?")
    return sum(written.values())


@contextmanager
def start_ray(address: str | None, num_workers: int | None, num_threads: int, *, num_local: int) -> Iterator[Any]:
    """Connect to a Ray cluster, or start one on this machine.

    Args:
        address: of the cluster.
        num_workers: the user's number of workers.
        num_threads: cores that each worker needs.
        num_local: cores of this machine that may be used.

    Yields:
        The module `ray`, and the number of workers.

    Raises:
        DynabertError: Ray is not installed, there is no cluster, or it has too few cores.
    """
    try:
        import ray
    except ImportError:
        raise DynabertError("Ray is not installed: run \"pip install 'dynabert-paddle[ray]'\"") from None
    own = {} if address or os.environ.get("RAY_ADDRESS") else {"num_cpus": num_local, "include_dashboard": False}
    try:
        ray.init(address, log_to_driver=False, logging_level="error", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise DynabertError(f"no Ray cluster at {address}: {one_line(error)}") from None
    try:
        cores = int(ray.cluster_resources().get("CPU", 0))
        workers = num_workers or max(1, cores // num_threads)
        if workers * num_threads > cores:
            raise UsageError(
                f"{workers} workers of {num_threads} cores need more than the {cores} there are: give fewer with "
                "--num_workers or --num_threads"
            )
        yield ray, workers
    finally:
        ray.shutdown()


def one_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1].split())[:300] if lines else type(error).__name__


if __name__ == "__main__":
    run_command(main)
