"""The verb `data`: how a file is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import one_line, show_json, show_next
from dynabert_paddle.cli.run import Json, Overrides
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.errors import UsageError

if TYPE_CHECKING:
    from dynabert_paddle.data.describe import LengthEncoder
    from dynabert_paddle.data.tasks import Task

_MAX_LABELS = 50  # that the table shows, the most frequent ones


@with_sections(("task", TaskConfig))
def data(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A data file, or a folder with a task's training and dev file.")
    ],
    *,
    model_name_or_path: Annotated[
        str | None,
        typer.Option(
            "--model_name_or_path",
            help="Measure lengths with the tokenizer of this built-in backbone, PaddleNLP name or model folder.",
        ),
    ] = None,
    override: Overrides = None,
    json: Json = False,
    flags: dict[str, Any],
) -> None:
    """Show how a file is read: format, columns, labels with counts, lengths, and what may spoil a training."""
    from dynabert_paddle.config.loading import load_config
    from dynabert_paddle.data.described_tasks import load_task_config
    from dynabert_paddle.data.file_format import find_format
    from dynabert_paddle.runtime.home import user_path

    place = user_path(path)
    if flags["task.data_dir"] or flags["task.train_file"]:
        raise UsageError("PATH is the folder or the training file: leave out --data_dir and --train_file")
    is_folder = place.is_dir()
    base: dict[str, dict[str, Any]] = {"task": {"name": "custom"}}
    files = sorted(place.glob("train.*")) if is_folder else [place]
    if len(files) == 1 and flags["task.name"] in (None, "custom") and flags["task.kind"] != "embedding":
        kind = find_format(files[0]).kind  # a file that is not there or cannot be read is told here
        base["task"] |= {"kind": kind} if kind != "classification" else {}
    is_one_file = not is_folder and not flags["task.dev_file"]
    flags |= {"task.data_dir": str(place)} if is_folder else {"task.train_file": str(place)}
    flags |= {"task.dev_file": str(place)} if is_one_file else {}
    config = load_config(None, override or (), flags, base=base).task
    task = load_task_config(config)
    tokenizer, length = _load_tokenizer(model_name_or_path, config.max_seq_length, flags["task.max_seq_length"])
    described = _describe(task, tokenizer, length, is_one_file=is_one_file)
    if json:
        show_json(described)
    else:
        _show(described, length)
    words = ["--task_name", task.name, "--data_dir", path] if is_folder else ["--task_name", task.name]
    words += [] if is_folder else ["--train_file", path, "--dev_file", str(config.dev_file)]
    words[-1] = "DEV_FILE" if is_one_file else words[-1]
    words += ["--kind", task.kind] if task.name == "custom" and task.kind != "classification" else []
    verb = ("rewire", "MODEL") if task.kind == "embedding" else ("finetune",)
    show_next(*verb, *words, "--output_dir", "NEW_DIR")


def _load_tokenizer(name: str | None, max_seq_length: int, given: int | None) -> tuple[LengthEncoder | None, int]:
    """Load the tokenizer of a model, and the length to which it cuts texts unless the user gives one."""
    if name is None:
        return None, max_seq_length
    from dynabert_paddle.files.metadata import METADATA_FILE, read_metadata
    from dynabert_paddle.runtime.environment import import_paddle

    import_paddle(models_only=True)
    from dynabert_paddle.backbone.loading import find_backbone
    from dynabert_paddle.text.tokenizer import Tokenizer

    folder = find_backbone(name)
    if folder is not None and given is None and (folder / METADATA_FILE).is_file():
        max_seq_length = read_metadata(folder).max_seq_length
    return Tokenizer.from_pretrained(folder or name), max_seq_length


def _describe(task: Task, tokenizer: LengthEncoder | None, length: int, *, is_one_file: bool) -> dict[str, Any]:
    from dynabert_paddle.data.data_file import ending_of
    from dynabert_paddle.data.describe import describe_target, find_warnings, measure_lengths
    from dynabert_paddle.data.file_format import FileFormat, find_format
    from dynabert_paddle.data.records import DATA_FILE_ENDINGS

    columns = {"text": task.columns.text, "second text": task.columns.pair, "label": task.columns.label}
    files = []
    for examples in (task.train,) if is_one_file else (task.train, task.dev):
        if task.kind == "embedding" and ending_of(examples.source) not in DATA_FILE_ENDINGS:
            name = "retrieval folder" if examples.source.is_dir() else "lines of text"
            seen = FileFormat(name, (), task.kind)
        else:
            seen = find_format(examples.source)
        lengths = {"tokens": asdict(measure_lengths(examples, tokenizer, length))} if tokenizer else {}
        target = describe_target(examples, task.labels)
        about = {"file": str(examples.source), "format": seen.name, "columns": list(seen.columns)}
        files.append({**about, "rows": len(examples), "target": target, **lengths})
    read = {key: name for key, name in columns.items() if name is not None and files[0]["columns"]}
    return {
        "task": task.name,
        "kind": task.kind,
        "read": read,
        "metrics": list(task.metrics),
        **({"labels": list(task.labels)} if task.labels else {}),
        "files": files,
        "warnings": list(find_warnings(task, tokenizer, length, is_one_file=is_one_file)),
    }


def _show(described: dict[str, Any], length: int) -> None:
    files = described["files"]
    for file in files:
        print(one_line(f"{file['file']}: {file['format']}"))
        if file["columns"]:
            print(one_line(f"  columns: {', '.join(file['columns'])}"))
    read = ", ".join(f"{key} in '{name}'" for key, name in described["read"].items())
    print(
        one_line(f"kind: {described['kind']}{', ' if read else ''}{read}; metrics: {', '.join(described['metrics'])}")
    )
    names = [Path(file["file"]).name for file in files]
    if "tokens" in files[0]:
        columns = ["file", "rows", "median tokens", "95 %", "longest", f"longer than {length}"]
        keys = ("median", "p95", "longest", "cut")
        cells = [[f"{file['rows']:,}", *(f"{file['tokens'][key]:,}" for key in keys)] for file in files]
    else:
        columns, cells = ["file", "rows"], [[f"{file['rows']:,}"] for file in files]
    show_table(columns, [[name, *row] for name, row in zip(names, cells, strict=True)], title="")
    _show_targets(names, [file["target"] for file in files], "label" if "labels" in described else "")
    for message in described["warnings"]:
        print(one_line(f"warning: {message}"))
    if not described["warnings"]:
        print("no warnings")


def _show_targets(files: Sequence[str], targets: Sequence[dict[str, Any]], heading: str) -> None:
    names = sorted(targets[0], key=lambda name: -targets[0][name]) if heading else list(targets[0])
    hidden = len(names) - _MAX_LABELS if heading else 0
    shown = names[:_MAX_LABELS] if hidden > 0 else names
    cells = [[name, *(_number(target[name]) for target in targets)] for name in shown]
    show_table([heading, *files], cells, title=f"{len(names)} labels" if heading else "")
    if hidden > 0:
        print(f"and {hidden:,} more labels; --json lists all")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


COMMANDS = (data,)
