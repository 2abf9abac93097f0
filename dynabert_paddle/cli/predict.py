"""The verb `predict`: texts, files or a pipe in, one prediction a text out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import TextIOWrapper
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import click
import typer

from dynabert_paddle.bundle.manifest import ROLES
from dynabert_paddle.cli.output import check_output_file, is_pipe, one_line, open_output, show_next
from dynabert_paddle.cli.run import Json
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DataError, UsageError, did_you_mean
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.text.word_labels import DECODINGS

if TYPE_CHECKING:
    from dynabert_paddle.cli.prediction_rows import RowForm
    from dynabert_paddle.data.prediction_inputs import Input
    from dynabert_paddle.serving.predictor import Predictor

logger = logging.getLogger(__name__)
T = TypeVar("T")

INPUT_FORMATS = ("tsv", "csv", "jsonl", "json", "txt", "conll")
OUTPUT_FORMATS = ("tsv", "csv", "jsonl", "npy", "parquet")
QUOTINGS = ("minimal", "all")

NumThreads = Annotated[int | None, typer.Option("--num_threads", min=1, help="CPU threads.", show_default="all cores")]
OverwriteOutputFile = Annotated[bool, typer.Option("--overwrite_output_file", help="Replace output_file.")]
BundleDevice = Annotated[str, typer.Option("--device", help="cpu or gpu:N.")]


def predict(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder that 'dynabert export' has made.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT...]", help="Texts; for pairs, the first and the second of each in turn."),
    ] = None,
    *,
    input_file: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--input_file",
            help="In place of TEXT: .tsv, .csv or .jsonl with the columns below; .txt, one text a line; for labels of "
            "words CoNLL's .conll, .bio or .txt, too; for questions SQuAD's .json; all of them also as .gz. "
            "- for stdin. Repeat it for more files.",
        ),
    ] = None,
    input_format: Annotated[
        str | None,
        typer.Option(
            "--input_format",
            click_type=click.Choice(INPUT_FORMATS),
            metavar="NAME",
            help="How -i is read: tsv, csv, jsonl, json, txt or conll.",
            show_default="the file's ending, txt for a pipe",
        ),
    ] = None,
    output_file: Annotated[
        str | None,
        typer.Option("-o", "--output_file", help="Also as .gz; - for stdout.", show_default="stdout"),
    ] = None,
    overwrite_output_file: OverwriteOutputFile = False,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--output_format",
            click_type=click.Choice(OUTPUT_FORMATS),
            metavar="NAME",
            help="tsv, csv or jsonl; vectors also npy or parquet.",
            show_default="output_file's ending, else tsv",
        ),
    ] = None,
    quoting: Annotated[
        str,
        typer.Option(
            "--quoting",
            click_type=click.Choice(QUOTINGS),
            metavar="NAME",
            help="TSV and CSV: quote the cells that need it (minimal), or all.",
        ),
    ] = "minimal",
    columns: Annotated[
        bool, typer.Option("--columns", help="Write the input's columns, too, before the prediction.")
    ] = False,
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text_column",
            help="Column of the text; 'tokens' for lists of words.",
            show_default="the task's, else sentence or text",
        ),
    ] = None,
    text_pair_column: Annotated[
        str | None,
        typer.Option("--text_pair_column", help="Column of the second text of a pair.", show_default="the task's"),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Texts at a time.")] = 32,
    submission: Annotated[
        bool, typer.Option("--submission", help="Write GLUE's submission file, from the task's own test file.")
    ] = False,
    subnet: Annotated[
        str | None, typer.Option("--subnet", help="Sub-network of a bundle of several.", show_default="the best")
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode",
            click_type=click.Choice(DECODINGS),
            metavar="NAME",
            help="Labels of words: only those that may follow one another, or each word's best (constrained, free).",
            show_default="the bundle's",
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold",
            metavar="T",
            help="Several labels a text: the probability from which a label is predicted, or LABEL=T, once for each.",
            show_default="the bundle's",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top_k",
            min=1,
            help="Several labels a text: predict at most K; without --threshold the K most probable ones.",
            show_default="all that reach their thresholds",
        ),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            click_type=click.Choice(ROLES),
            metavar="NAME",
            help="Embeddings: what the texts are (document, query); each has its prompt.",
            show_default="document",
        ),
    ] = None,
    output_dim: Annotated[
        int | None,
        typer.Option(
            "--output_dim",
            min=1,
            help="Embeddings: cut vectors to D values, one of the sizes that the model was trained for.",
            metavar="D",
            show_default="whole vectors",
        ),
    ] = None,
    device: BundleDevice = "cpu",
    num_threads: NumThreads = None,
    json: Json = False,
) -> None:
    """Predict for texts, or for every row of files or a pipe: labels, a value, the entities, an answer, or a vector."""
    from dynabert_paddle.bundle.label_choice import parse_threshold
    from dynabert_paddle.bundle.manifest import BundleError
    from dynabert_paddle.cli.prediction_rows import VECTOR_FORMATS, RowForm
    from dynabert_paddle.data.prediction_inputs import STANDARD_INPUT, InputForm
    from dynabert_paddle.serving.predictor import Predictor

    bundle, files = str(user_path(bundle)), [str(user_path(name)) for name in input_file or ()]
    output_file = str(user_path(output_file)) if output_file and output_file != STANDARD_INPUT else None
    _check_inputs(texts, files, input_format)
    if json and output_format not in (None, "jsonl"):
        raise UsageError(f"--json and --output_format {output_format} exclude each other: pass one of them")
    form = RowForm.of(output_file, "jsonl" if json else output_format, quoting, with_columns=columns)
    if submission and any((json, columns, text_column, text_pair_column, input_format, output_format)):
        raise UsageError("--submission fixes the columns and the format: leave out --json and the column flags")
    if submission and len(files) != 1:
        raise UsageError("--submission reads one file: give the task's test file with -i")
    if output_file:
        check_output_file(output_file, overwrite=overwrite_output_file, inputs=files)
    try:
        thresholds = parse_threshold(threshold or ())
    except BundleError as error:
        raise UsageError(str(error)) from None
    options: dict[str, Any] = {"decode": decode, "threshold": thresholds, "top_k": top_k}
    options |= {"role": role, "output_dim": output_dim}
    predictor = Predictor(bundle, subnet=subnet, device=device, num_threads=num_threads, **options)
    if submission:
        lines = _submission(predictor, Path(files[0]), batch_size=batch_size)
    else:
        reading = InputForm(
            predictor.kind,
            predictor.labels,
            predictor.takes_pairs,
            predictor.columns,
            text_column,
            text_pair_column,
            input_format,
            with_columns=columns,
        )
        inputs = map(reading.open, files) if files else iter([reading.of_texts(texts or ())])
        if form.format in VECTOR_FORMATS:
            _write_vectors(predictor, inputs, output_file, form, batch_size=batch_size)
            show_next("bench", bundle, wrote=[output_file] if output_file else [])
            return
        lines = _predictions(predictor, inputs, form, batch_size=batch_size)
    with ExitStack() as stack:
        out = stack.enter_context(open_output(output_file)) if output_file else sys.stdout
        if isinstance(out, TextIOWrapper) and not output_file:
            out.reconfigure(encoding="utf-8")  # like the input, whatever the terminal's language
        is_watched = is_pipe(out)  # by a program that may wait for each line
        for line in lines:
            print("\t".join(map(one_line, line.split("\t"))) if out.isatty() else line, file=out, flush=is_watched)
    show_next("bench", bundle, wrote=[output_file] if output_file else [])


def _check_inputs(texts: Sequence[str] | None, files: Sequence[str], input_format: str | None) -> None:
    """Refuse what cannot be meant, before the bundle is loaded; warn of a text that looks like a file."""
    from dynabert_paddle.cli.prediction_rows import looks_like_file

    if bool(texts) == bool(files):
        raise UsageError("give a text, or a file with -i ('-i -' reads a pipe), and not both")
    if texts and input_format:
        raise UsageError(f"{setting('input_format')} is that of a file or a pipe: leave it out, or name one with -i")
    for name in files:
        if name != "-" and not Path(name).exists():
            hint = did_you_mean(Path(name).name, (path.name for path in Path(name).parent.glob("*")))
            raise DataError(f"{name}: no such file.{hint} Give the path of an existing file.")
    for text in texts or ():
        if os.path.isfile(text):
            raise UsageError(f"{text} is a file: give it with -i; a text that has a file's name comes in a pipe: -i -")
        if looks_like_file(text):
            logger.warning("%s: no such file, so it is a text to predict for; a file comes with -i", text)


def _predictions(predictor: Predictor, inputs: Iterator[Input], form: RowForm, *, batch_size: int) -> Iterator[str]:
    """Yield the lines to print."""
    names, header = predictor.column_names, None
    for source in inputs:
        rows = source.rows if source.is_ready else _show_count(source.rows)
        for group in source._replace(rows=rows).groups():
            read, again = tee(group)
            # Nothing is written before the first row, where an error of the whole file shows.
            for first in islice(again, 1):
                if header is None:
                    header = list(first.columns)
                    yield from form.heading(names, header)
                again = chain([first], again)
            predictions = predictor.stream((row.texts for row in read), batch_size=batch_size)
            for row, prediction in zip(again, predictions, strict=True):
                yield form.line(prediction, row.columns, header or ())
    if header is None:
        yield from form.heading(names, ())
    for message in predictor.input_warnings():
        logger.warning("%s", message)


def _write_vectors(
    predictor: Predictor, inputs: Iterator[Input], output_file: str | None, form: RowForm, *, batch_size: int
) -> None:
    """Write the texts' vectors as one array, or as a column of a Parquet file."""
    from dynabert_paddle.cli.vector_file import write_vectors

    format = form.format
    if predictor.kind != "embedding":
        raise UsageError(f"{format} is for vectors, and this bundle is for {predictor.kind}: write tsv, csv or jsonl")
    if output_file is None:
        raise UsageError(f"{format} is not written to a terminal or a pipe: name a file, such as -o vectors.{format}")
    if output_file.lower().endswith(".gz"):
        raise UsageError(f"{output_file}: {format} is not compressed by gzip here: leave .gz out")
    if format == "npy" and form.with_columns:
        raise UsageError("an array of vectors has no columns: leave out --columns, or write parquet")
    read, again = tee(chain.from_iterable(_show_count(source.rows) for source in inputs))
    predictions = predictor.stream((row.texts for row in read), batch_size=batch_size)
    columns = (row.columns if form.with_columns else {} for row in again)
    write_vectors(output_file, format, zip(columns, predictions, strict=True))
    for message in predictor.input_warnings():
        logger.warning("%s", message)


def _submission(predictor: Predictor, path: Path, *, batch_size: int) -> Iterator[str]:
    """Yield the lines of a submission file."""
    from dynabert_paddle.data.catalog import find_submission
    from dynabert_paddle.text.decode import Prediction

    task = find_submission(predictor.task_name)
    form = task.submission
    assert form is not None and task.text_column is not None  # find_submission returns no others
    read = form.read(path, task.text_column, task.text_pair_column)
    rows, again = tee(_show_count(chain(list(islice(read, 1)), read)))
    texts = (row.texts for row in rows)
    yield form.heading
    for row, prediction in zip(again, predictor.stream(texts, batch_size=batch_size), strict=True):
        assert isinstance(prediction, Prediction) and row.label is not None  # GLUE's tasks have classes and values
        yield form.line(row.label, prediction.label, prediction.score)


def _show_count(rows: Iterator[T]) -> Iterator[T]:
    """Pass rows on, and show their count on a terminal."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from dynabert_paddle.training.logging import console

    progress = Progress(
        SpinnerColumn(), TextColumn("{task.completed:,} rows"), TimeElapsedColumn(), console=console, transient=True
    )
    task = progress.add_task("predict", total=None)
    with progress if console.is_terminal else ExitStack():
        for row in rows:
            yield row
            progress.advance(task)


COMMANDS = (predict,)
