"""The verb `predict`: read a file's texts, and write one prediction a text."""

from __future__ import annotations

import json as json_
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from io import TextIOWrapper
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dynabert_paddle.cli.output import check_output_file, one_line, open_output, show_next
from dynabert_paddle.cli.run import Json
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DataError, UsageError

if TYPE_CHECKING:
    from dynabert_paddle.data.readers import Row
    from dynabert_paddle.data.submission import SubmissionForm
    from dynabert_paddle.serving.predictor import Predictor

logger = logging.getLogger(__name__)
T = TypeVar("T")

NumThreads = Annotated[int | None, typer.Option("--num_threads", min=1, help="CPU threads.", show_default="all cores")]
OverwriteOutputFile = Annotated[bool, typer.Option("--overwrite_output_file", help="Replace output_file.")]
BundleDevice = Annotated[str, typer.Option("--device", help="cpu or gpu:N.")]


def predict(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder that 'dynabert export' has made.")],
    *,
    input_file: Annotated[
        str,
        typer.Option(
            "-i",
            "--input_file",
            help=".tsv, .csv or .jsonl with the columns below; .txt, one text a line; for labels of words CoNLL's "
            ".conll, .bio or .txt, too; for questions SQuAD's .json.",
        ),
    ],
    output_file: Annotated[
        str | None,
        typer.Option(
            "-o", "--output_file", help=".jsonl for JSON lines, .csv, or another for TSV.", show_default="TSV on stdout"
        ),
    ] = None,
    overwrite_output_file: OverwriteOutputFile = False,
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
    device: BundleDevice = "cpu",
    num_threads: NumThreads = None,
    json: Json = False,
) -> None:
    """Predict for every text of a file, in its order: a label, a value, the entities, or the answer to a question."""
    from dynabert_paddle.data.catalog import find_submission
    from dynabert_paddle.serving.predictor import Predictor

    path = Path(input_file)
    if submission and (json or text_column or text_pair_column):
        raise UsageError("--submission fixes the columns and the format: leave out --json and the column flags")
    if input_file == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
        raise UsageError(f"{input_file}: a pipe cannot be read: write it to a file ('... > texts.txt'), and name that")
    if output_file:
        check_output_file(output_file, overwrite=overwrite_output_file, inputs=[path])
    predictor = Predictor(bundle, subnet=subnet, device=device, num_threads=num_threads)
    if submission:
        task = find_submission(predictor.task_name)
        form = task.submission
        assert form is not None and task.text_column is not None  # find_submission returns no others
        rows = form.read(path, task.text_column, task.text_pair_column)
        lines = _submission(predictor, form, _show_count(_read_first(rows)), batch_size=batch_size)
    else:
        text_column, text_pair_column = _columns(predictor, path, text_column, text_pair_column)
        texts = _read_rows(predictor, path, text_column, text_pair_column)
        ending = Path(output_file or "").suffix.lower()
        lines = _predictions(
            predictor,
            _show_count(_read_first(texts)),
            batch_size=batch_size,
            as_json=json or ending == ".jsonl",
            delimiter="," if ending == ".csv" else "\t",
        )
    with ExitStack() as stack:
        out = stack.enter_context(open_output(output_file)) if output_file else sys.stdout
        if isinstance(out, TextIOWrapper) and not output_file:
            out.reconfigure(encoding="utf-8")  # like the input, whatever the terminal's language
        for line in lines:
            print("\t".join(map(one_line, line.split("\t"))) if out.isatty() else line, file=out)
    show_next("bench", bundle, wrote=[output_file] if output_file else [])


def _read_rows(
    predictor: Predictor, path: Path, text_column: str | None, pair_column: str | None
) -> Iterator[tuple[Any, ...]]:
    """Read the inputs of a kind of task; its training files can be read, too."""
    if predictor.kind == "question_answering" and path.suffix.lower() == ".json":
        from dynabert_paddle.data.question_answering import iterate_questions

        return ((row.question, row.context) for row in iterate_questions(path, answered=False))
    if predictor.kind == "token_classification":
        from dynabert_paddle.data.token_classification import TEXT_COLUMN, has_sentences, iterate_sentences

        if has_sentences(path, text_column, predictor.labels):
            sentences = iterate_sentences(path, text_column=text_column or TEXT_COLUMN, label_column=None)
            return ((row.words,) for row in sentences)
    return _read_texts(path, text_column, pair_column)


def _read_texts(path: Path, text_column: str | None, pair_column: str | None) -> Iterator[tuple[str, ...]]:
    """Read a file's texts row by row."""
    from dynabert_paddle.data.readers import Columns, read_rows
    from dynabert_paddle.data.records import DATA_FILE_ENDINGS, read_lines
    from dynabert_paddle.data.task_files import default_text_column

    endings = (".txt", *DATA_FILE_ENDINGS)
    if path.suffix.lower() not in endings:
        raise DataError(f"{path}: unknown file ending '{path.suffix}'; the endings are {', '.join(endings)}")
    if path.suffix.lower() == ".txt":
        if pair_column:
            raise UsageError(f"{path}: a .txt file has single texts: give pairs as .tsv, .csv or .jsonl with a header")
        yield from ((text,) for _, text in read_lines(path))
        return
    for row in read_rows(path, Columns(text_column or default_text_column(path), pair_column)):
        yield row.texts


def _columns(
    predictor: Predictor, path: Path, text_column: str | None, pair_column: str | None
) -> tuple[str | None, str | None]:
    """Return the columns to read: those of the flags, else those that the task was trained on, if the file has them."""
    from dynabert_paddle.data.readers import read_column_names
    from dynabert_paddle.data.records import DATA_FILE_ENDINGS

    if pair_column and not predictor.takes_pairs:
        raise UsageError(f"this bundle's task has single texts: leave out {setting('task.text_pair_column')}")
    trained_text, trained_pair = predictor.columns
    pair_column = pair_column or trained_pair
    if predictor.takes_pairs and not pair_column:
        raise UsageError(
            "this bundle's task has pairs of texts: name the second text's column with "
            f"{setting('task.text_pair_column')}"
        )
    if predictor.kind == "question_answering":
        return text_column or trained_text, pair_column
    if text_column is None and trained_text and path.suffix.lower() in DATA_FILE_ENDINGS and path.is_file():
        text_column = trained_text if trained_text in read_column_names(path) else None
    return text_column, pair_column


def _read_first(rows: Iterator[T]) -> Iterator[T]:
    """Read the first row at once: an error of the whole file shows there, before anything is written."""
    first = list(islice(rows, 1))
    return chain(first, rows)


def _predictions(
    predictor: Predictor, texts: Iterator[tuple[str, ...]], *, batch_size: int, as_json: bool, delimiter: str
) -> Iterator[str]:
    """Yield the lines to print."""
    from dynabert_paddle.bundle.tables import format_row
    from dynabert_paddle.text.decode import column_names

    if not as_json:
        yield format_row(column_names(predictor.kind), delimiter)
    for prediction in predictor.stream(texts, batch_size=batch_size):
        as_row = json_.dumps(asdict(prediction), ensure_ascii=False) if as_json else None
        yield as_row or format_row(prediction.cells, delimiter)
    for message in predictor.input_warnings():
        logger.warning("%s", message)


def _submission(predictor: Predictor, form: SubmissionForm, rows: Iterator[Row], *, batch_size: int) -> Iterator[str]:
    """Yield the lines of a submission file."""
    from dynabert_paddle.text.decode import Prediction

    rows, again = tee(rows)
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
