"""Verbs that make small models and run them: extract, export, predict, bench."""

from __future__ import annotations

import json as json_
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import chain, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import one_line, show_json, show_next, show_table
from dynabert_paddle.cli.run import Json, OverwriteOutputDir
from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.errors import DataError, DynabertError, UsageError

if TYPE_CHECKING:
    from dynabert_paddle.data.readers import Row
    from dynabert_paddle.data.submission import SubmissionForm
    from dynabert_paddle.serving.predictor import Predictor

NumThreads = Annotated[int | None, typer.Option("--num_threads", min=1, help="CPU threads.", show_default="all cores")]
DeployDevice = Annotated[str, typer.Option("--device", help="cpu or gpu:N.")]


def extract(
    model_dir: Annotated[str, typer.Argument(metavar="DIR", help="Supernet's folder.")],
    subnet: Annotated[str, typer.Argument(help="Sub-network, such as w0.50d0.75 or l0h6f768-l2h3f384.")],
    *,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Folder for the small model.")],
    overwrite_output_dir: OverwriteOutputDir = False,
) -> None:
    """Cut a sub-network out of a supernet as a small model of its own."""
    from dynabert_paddle.files.folder import check_absent, check_replaceable
    from dynabert_paddle.runtime.device import set_device
    from dynabert_paddle.runtime.environment import import_paddle

    check_replaceable(output_dir, overwrite=overwrite_output_dir)
    import_paddle()
    set_device("cpu")
    from dynabert_paddle.supernet.extract import extract
    from dynabert_paddle.supernet.supernet import load_model

    supernet = load_model(model_dir)
    small = extract(supernet, supernet.search_space().parse(subnet))
    check_absent(output_dir, overwrite=overwrite_output_dir)
    small.save_pretrained(output_dir)
    whole, part = (model.search_space().num_params(model.full) for model in (supernet, small))
    print(f"{part / 1e6:.2f} M of {whole / 1e6:.2f} M parameters")
    show_next("export", output_dir, "--output_dir", "NEW_DIR", wrote=[output_dir])


@with_sections(("task", TaskConfig))
def export(
    model_dir: Annotated[str, typer.Argument(metavar="DIR", help="Model folder.")],
    *,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Folder for the bundle.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format", help="paddle, pir, openvino, onnx or lite.", show_default="paddle; pir from Paddle 3.2 on"
        ),
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp32, bf16, int16 or int8, as the format can.")] = (
        "fp32"
    ),
    subnet: Annotated[str | None, typer.Option("--subnet", help="Export this sub-network of the model.")] = None,
    subnets: Annotated[
        str | None,
        typer.Option(
            "--subnets",
            metavar="'A B'",
            help="Export several into one bundle: names, or pareto:N of what 'dynabert search' has found.",
        ),
    ] = None,
    num_calibration_examples: Annotated[
        int, typer.Option("--num_calibration_examples", help="Training texts that int8 is calibrated on.")
    ] = 64,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="How far the bundle may be from the model: logits, as a share of the largest where that is more than "
            "1, or int8's loss on the dev set.",
        ),
    ] = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    flags: dict[str, Any],
) -> None:
    """Export a model to a bundle for Paddle Inference, ONNX Runtime or Paddle Lite, and check it against the model."""
    from dynabert_paddle.exporting.run import export

    task = {key.partition(".")[2]: value for key, value in flags.items() if value is not None}
    export(
        model_dir,
        output_dir,
        format=format,
        precision=precision,
        subnet=subnet,
        subnets=subnets,
        task=task,
        max_seq_length=task.pop("max_seq_length", None),
        num_calibration_examples=num_calibration_examples,
        tolerance=tolerance,
        overwrite=overwrite_output_dir,
    )
    if format == "lite":
        show_next("evaluate", model_dir, wrote=[output_dir])
    else:
        show_next("predict", output_dir, "-i", "texts.tsv", wrote=[output_dir])


def predict(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder that 'dynabert export' has made.")],
    *,
    input_file: Annotated[
        str,
        typer.Option("-i", "--input_file", help=".tsv, .csv or .jsonl with the columns below, or .txt, a text a line."),
    ],
    output_file: Annotated[
        str | None, typer.Option("-o", "--output_file", help="Where to write.", show_default="stdout")
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text_column", help="Column of the text; 'tokens' for lists of words.", show_default="sentence, else text"
        ),
    ] = None,
    text_pair_column: Annotated[
        str | None, typer.Option("--text_pair_column", help="Column of the second text of a pair.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch_size", min=1, help="Texts at a time.")] = 32,
    submission: Annotated[
        bool, typer.Option("--submission", help="Write the file that GLUE takes, from the task's own test file.")
    ] = False,
    subnet: Annotated[
        str | None, typer.Option("--subnet", help="Which one of a bundle of several.", show_default="its best")
    ] = None,
    device: DeployDevice = "cpu",
    num_threads: NumThreads = None,
    json: Json = False,
) -> None:
    """Predict for every text of a file, in its order: a label, a value, the entities, or the answer to a question."""
    from dynabert_paddle.data.catalog import find_submission
    from dynabert_paddle.serving.predictor import Predictor

    path = Path(input_file)
    if submission and (json or text_column or text_pair_column):
        raise UsageError("--submission knows its columns and its form: leave out --json and the columns")
    predictor = Predictor(bundle, subnet=subnet, device=device, num_threads=num_threads)
    if output_file and path.exists() and os.path.exists(output_file) and path.samefile(output_file):
        raise UsageError(f"{output_file} is the file to read: name another --output_file")
    if submission:
        task = find_submission(predictor.task_name)
        rows = task.submission.read(path, task.text_column, task.text_pair_column)
        lines = _submission(predictor, task.submission, _count(_begin(rows)), batch_size=batch_size)
    else:
        if predictor.kind == "question_answering":
            text_column, text_pair_column = text_column or "question", text_pair_column or "context"
        _check_pairs(predictor, text_pair_column)
        texts = _read_rows(predictor.kind, path, text_column, text_pair_column)
        lines = _predictions(predictor, _count(_begin(texts)), batch_size=batch_size, as_json=json)
    with ExitStack() as stack:
        out = stack.enter_context(_open_output(output_file)) if output_file else sys.stdout
        if not output_file:
            out.reconfigure(encoding="utf-8")  # as the input is, whatever the terminal's language
        for line in lines:
            print("\t".join(map(one_line, line.split("\t"))) if out.isatty() else line, file=out)
    show_next("bench", bundle, wrote=[output_file] if output_file else [])


def bench(
    bundles: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Folders that 'dynabert export' has made.")],
    *,
    batch_size: Annotated[str, typer.Option("--batch_size", metavar="'A B'", help="Batch sizes.")] = "1 32",
    seq_length: Annotated[str, typer.Option("--seq_length", metavar="'A B'", help="Lengths in tokens.")] = "32 128",
    vs: Annotated[
        str | None, typer.Option("--vs", help="'onnxruntime': measure each floating-point graph there, too.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns that every bundle gets at every shape.")] = 5,
    num_threads: NumThreads = None,
    output_file: Annotated[str | None, typer.Option("--output_file", help="JSON file for the figures.")] = None,
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory and size of bundles side by side, taking turns in one process."""
    from dynabert_paddle.serving.bench import bench

    with ExitStack() as stack:
        out = stack.enter_context(_open_output(output_file)) if output_file else None
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
        columns = ["bundle", "shape", "p50 ms", "p95 ms", "sentences/s", "speed-up", "peak MB", "size MB"]
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
            ]
            for row in report["rows"]
        ]
        show_table(columns, lines, title=f"{report['threads']} threads; speed-up against the first line of each shape")
    show_next("predict", bundles[0], "-i", "texts.tsv", wrote=[output_file] if output_file else [])


def _integers(words: str, flag: str) -> list[int]:
    values = words.replace(",", " ").split()
    if not values or not all(value.isdecimal() and int(value) for value in values):
        raise UsageError(f"{flag} takes whole numbers from 1, such as '1 32', not '{words}'")
    return [int(value) for value in values]


@contextmanager
def _open_output(name: str) -> Iterator[TextIO]:
    """Open a file to write that is whole or as it was before; a device or a pipe is written to as it is."""
    path = Path(name)
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}: make it, or name another file")
    # Not a link either: /dev/stdout is one.
    is_file = not path.is_symlink() and (path.is_file() or not path.exists())
    target = path.with_name(f".{path.name}.partial") if is_file else path
    try:
        with target.open("w", encoding="utf-8") as file:
            yield file
        if target != path:
            target.replace(path)
    except OSError as error:
        raise DynabertError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        if target != path:
            target.unlink(missing_ok=True)


def _read_rows(kind: str, path: Path, text_column: str | None, pair_column: str | None) -> Iterator[tuple]:
    """Read what a kind of task predicts for; its training files can be read, too."""
    ending = path.suffix.lower()
    if kind == "question_answering" and ending == ".json":
        from dynabert_paddle.data.question_answering import iterate_questions

        return ((row.question, row.context) for row in iterate_questions(path))
    if kind == "token_classification" and (ending in (".conll", ".bio") or text_column == "tokens"):
        from dynabert_paddle.data.token_classification import iterate_sentences

        return ((row.words,) for row in iterate_sentences(path, label_column=None))
    return _read_texts(path, text_column, pair_column)


def _read_texts(path: Path, text_column: str | None, pair_column: str | None) -> Iterator[tuple[str, ...]]:
    """Read a file's texts row by row."""
    from dynabert_paddle.data.readers import Columns, read_rows
    from dynabert_paddle.data.records import DATA_FILE_ENDINGS, read_lines
    from dynabert_paddle.data.tasks import default_text_column

    endings = (".txt", *DATA_FILE_ENDINGS)
    if path.suffix.lower() not in endings:
        raise DataError(f"{path}: unknown file ending '{path.suffix}'; the endings are {', '.join(endings)}")
    if path.suffix.lower() == ".txt":
        if pair_column:
            raise UsageError(f"{path}: a .txt file has single texts: give pairs as .tsv, .csv or .jsonl with a header")
        yield from ((text,) for _, text in read_lines(path))
        return
    for row in read_rows(path, Columns(text_column or default_text_column(path), pair_column)):
        yield (row.text,) if pair_column is None else (row.text, row.pair)


def _check_pairs(predictor: Predictor, pair_column: str | None) -> None:
    if predictor.takes_pairs and not pair_column:
        raise UsageError("this bundle's task has pairs of texts: name the second text's column with --text_pair_column")
    if pair_column and not predictor.takes_pairs:
        raise UsageError("this bundle's task has single texts: leave out --text_pair_column")


def _begin(rows: Iterator[tuple]) -> Iterator[tuple]:
    """Read the first row, in which what is wrong with the whole file shows before anything is written."""
    return chain([first], rows) if (first := next(rows, None)) else rows


def _predictions(
    predictor: Predictor, texts: Iterator[tuple[str, ...]], *, batch_size: int, as_json: bool
) -> Iterator[str]:
    """What is printed for texts, line by line."""
    from dynabert_paddle.text.decode import columns

    if not as_json:
        yield "\t".join(columns(predictor.kind))
    for prediction in predictor.stream(texts, batch_size=batch_size):
        yield json_.dumps(asdict(prediction), ensure_ascii=False) if as_json else "\t".join(prediction.cells)


def _submission(predictor: Predictor, form: SubmissionForm, rows: Iterator[Row], *, batch_size: int) -> Iterator[str]:
    """What a benchmark's server takes for a test file's rows, line by line."""
    rows, again = tee(rows)
    texts = ((row.text,) if row.pair is None else (row.text, row.pair) for row in rows)
    yield form.heading
    for row, prediction in zip(again, predictor.stream(texts, batch_size=batch_size), strict=True):
        yield form.line(row.label, prediction.label, prediction.score)


def _count(rows: Iterator[tuple]) -> Iterator[tuple]:
    """Pass rows on, and show on a terminal how many there were."""
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


COMMANDS = (extract, export, predict, bench)
