"""The verb `evaluate`: the scores of sub-networks, of their classes, and the rows that they get wrong."""

from __future__ import annotations

import json as json_
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from dynabert_paddle.cli.class_tables import show_classes
from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import check_output_file, open_output, show_next
from dynabert_paddle.cli.run import Device, Json
from dynabert_paddle.cli.stages import load_settings, read_model_metadata, start_paddle
from dynabert_paddle.cli.table import recommended, show_grid
from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.errors import UsageError
from dynabert_paddle.multipliers import FULL_NAME
from dynabert_paddle.runtime.ranks import is_rank_zero

if TYPE_CHECKING:
    from dynabert_paddle.data.tasks import Task
    from dynabert_paddle.files.metadata import Metadata
    from dynabert_paddle.training.evaluate import DevOutputs

logger = logging.getLogger(__name__)


@with_sections(("task", TaskConfig), from_dir=["task"])
def evaluate(
    model_dir: Annotated[str, typer.Argument(metavar="DIR", help="Model folder of a stage.")],
    *,
    subnet: Annotated[
        str | None, typer.Option("--subnet", help="One sub-network, such as w0.50d0.75.", show_default="the full model")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="All trained sub-networks.")] = False,
    per_class: Annotated[
        bool,
        typer.Option(
            "--per_class",
            help="Also precision, recall and F1 of each class or type of entity, the confusion matrix and calibration.",
        ),
    ] = False,
    errors_file: Annotated[
        str | None,
        typer.Option(
            "--errors_file",
            help="Write the rows that the sub-network gets wrong and the teacher right: .jsonl for JSON lines, .csv, "
            "or another for TSV.",
        ),
    ] = None,
    teacher_name_or_path: Annotated[
        str | None,
        typer.Option(
            "--teacher_name_or_path", help="Model folder of the teacher.", show_default="the full model of DIR"
        ),
    ] = None,
    overwrite_output_file: Annotated[
        bool, typer.Option("--overwrite_output_file", help="Replace errors_file.")
    ] = False,
    per_device_eval_batch_size: Annotated[int, typer.Option("--per_device_eval_batch_size", min=1)] = 64,
    device: Device = None,
    json: Json = False,
    flags: dict[str, Any],
) -> None:
    """Score the full model, --subnet, or all of --grid on the task's dev set."""
    _check_flags(subnet=subnet, grid=grid, errors_file=errors_file, teacher=teacher_name_or_path)
    expected = read_model_metadata(model_dir, needs_task=False)
    if expected.is_general:
        _show_general(model_dir, expected, as_json=json)
        return
    config = load_settings(expected, None, None, {**flags, "device": device})
    start_paddle(config.device)
    from dynabert_paddle.data.described_tasks import for_evaluation, load_task_config
    from dynabert_paddle.files.metadata import check_expected
    from dynabert_paddle.supernet.supernet import Supernet
    from dynabert_paddle.training.evaluate import run_on_dev, score_each_class, score_outputs, trained_space
    from dynabert_paddle.training.inputs import match_task

    task = load_task_config(for_evaluation(config.task))
    _check_kind(task, {"--per_class": per_class, "--errors_file": errors_file is not None})
    supernet = Supernet.from_pretrained(model_dir)
    check_expected(model_dir, expected, supernet.metadata)
    supernet.read_special_tokens(config.task.special_tokens_in_text)
    task = match_task(supernet, task, model_dir)
    space = trained_space(supernet)
    names = list(space.grid()) if grid else [subnet or FULL_NAME]
    is_own_teacher = errors_file is not None and not teacher_name_or_path
    if is_own_teacher and space.parse(names[0]) == supernet.full:
        raise UsageError(
            f"{model_dir} is scored as a whole, and has no larger model to compare with: name a sub-network with "
            f"--subnet, or a teacher with --teacher_name_or_path"
        )
    length, batch_size = config.task.max_seq_length, per_device_eval_batch_size
    with _open_errors(errors_file, task, overwrite=overwrite_output_file) as out:
        outputs = run_on_dev(
            supernet, task, [*names, FULL_NAME] if is_own_teacher else names, length, batch_size=batch_size
        )
        teacher = outputs
        if teacher_name_or_path:
            teacher = _run_teacher(teacher_name_or_path, task, batch_size=batch_size)
        if errors_file is not None and out is not None:
            out.writelines(f"{line}\n" for line in _missed_lines(errors_file, outputs, names[0], teacher))
    rows = [row for row in score_outputs(supernet, outputs) if row["subnet"] in names]
    scores = {}
    if per_class:
        scores = {name: one for name, one in score_each_class(outputs).items() if name in names}
    if json:
        rows = [row | {"per_class": scores[row["subnet"]].to_dict()} if scores else row for row in rows]
    show_grid(rows, split="dev", as_json=json, positive_label=task.positive_label)
    if scores and not json:
        show_classes(scores, metrics=task.metrics, positive_label=task.positive_label)
    wrote = [] if errors_file is None else [errors_file]
    show_next("evaluate", model_dir, *(recommended(rows) if grid else ["--grid"]), wrote=wrote)


def _show_general(model_dir: str, metadata: Metadata, *, as_json: bool) -> None:
    """Show what the sub-networks of a model without a task have scored when it was trained."""
    start_paddle("cpu")
    from dynabert_paddle.files.metadata import describe_general
    from dynabert_paddle.supernet.supernet import Supernet
    from dynabert_paddle.training.evaluate import recorded_grid

    logger.info("%s; shown is what its last stage has recorded", describe_general(model_dir))
    split, rows = recorded_grid(Supernet.from_pretrained(model_dir))
    show_grid(rows, split=split, as_json=as_json)
    show_next("finetune", "--model_name_or_path", model_dir, "--output_dir", "NEW_DIR")


def _check_flags(*, subnet: str | None, grid: bool, errors_file: str | None, teacher: str | None) -> None:
    """Refuse flags that exclude each other."""
    if subnet and grid:
        raise UsageError("--subnet and --grid exclude each other: pass one of them")
    if errors_file is not None and grid:
        raise UsageError("--errors_file is of one sub-network: name it with --subnet in place of --grid")
    if teacher and errors_file is None:
        raise UsageError("--teacher_name_or_path is for --errors_file: pass that, too")


def _check_kind(task: Task, options: dict[str, bool]) -> None:
    """Refuse options that are for tasks with classes, where a task has none."""
    from dynabert_paddle.data.kinds import CLASS_KINDS, list_kinds

    for option, is_given in options.items():
        if is_given and task.kind not in CLASS_KINDS:
            raise UsageError(f"{option} is for {list_kinds(CLASS_KINDS)}, this task is {task.kind}: leave it out")


@contextmanager
def _open_errors(name: str | None, task: Task, *, overwrite: bool) -> Iterator[TextIO | None]:
    """Open the file of errors before minutes of evaluation, in the first process; None without one."""
    if name is None or not is_rank_zero():
        yield None
        return
    check_output_file(name, overwrite=overwrite, inputs=[task.train.source, task.dev.source], key="errors_file")
    with open_output(name, key="errors_file") as out:
        yield out


def _run_teacher(folder: str, task: Task, *, batch_size: int) -> DevOutputs:
    """Run another model over the dev set, as it was trained to read texts."""
    from dynabert_paddle.supernet.supernet import Supernet
    from dynabert_paddle.training.evaluate import run_on_dev
    from dynabert_paddle.training.inputs import match_task

    read_model_metadata(folder)  # which refuses what is no model's folder
    teacher = Supernet.from_pretrained(folder)
    return run_on_dev(teacher, match_task(teacher, task, folder), [FULL_NAME], batch_size=batch_size)


def _missed_lines(errors_file: str, small: DevOutputs, subnet: str, teacher: DevOutputs) -> Iterator[str]:
    """Yield the lines of the file of errors, and log their number."""
    from dynabert_paddle.bundle.label_choice import choose_separator
    from dynabert_paddle.bundle.tables import format_row
    from dynabert_paddle.text.lines import data_ending
    from dynabert_paddle.training.missed_rows import missed_columns, missed_rows

    ending, columns, count = data_ending(errors_file), missed_columns(small.task), 0
    delimiter = "," if ending == ".csv" else "\t"
    separator = choose_separator(small.task.labels, small.task.label_separator)
    if ending != ".jsonl":
        yield format_row(columns, delimiter)
    for row in missed_rows(small, subnet, teacher, FULL_NAME):
        count += 1
        if ending == ".jsonl":
            yield json_.dumps(row, ensure_ascii=False)
        else:
            yield format_row([_cell(row[column], separator) for column in columns], delimiter)
    unit = "word" if small.task.kind == "token_classification" else "row"
    logger.info("%s gets %d %s%s wrong that the teacher gets right", subnet, count, unit, "" if count == 1 else "s")


def _cell(value: Any, separator: str | None) -> str:
    """A value as a cell of a table; several labels as `predict` writes them."""
    if not isinstance(value, list):
        return str(value)
    return json_.dumps(value, ensure_ascii=False) if separator is None else separator.join(value)


COMMANDS = (evaluate,)
