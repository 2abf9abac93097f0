"""The kinds of folders and files that `fuzz.py` damages: commands that load them, and checks of results."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
import yaml

_ERRORS = (OSError, ValueError, KeyError, TypeError, csv.Error)


class Done(NamedTuple):
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


class Kind(NamedTuple):
    """A kind of folder or file that users load.

    Args:
        commands: arguments of `dynabert`; `IN` is the damaged copy, `OUT` the output, `ORIGINALS` the originals.
        result: returns the result of a successful command.
        original: folder of the undamaged original.
        files: glob pattern of the files to damage.
        find_error: describes what is wrong if the result differs from the original's; "" if nothing is.
        weight: relative frequency of the kind.
        is_cache: `IN` is the folder of cached tokenized data.
    """

    commands: tuple[str, ...]
    result: Callable[[Case, Done], Any]
    original: str
    files: str = "**/*"
    find_error: Callable[[Case, Any, Any], str] = lambda case, expected, found: "its result differs"
    weight: float = 1.0
    is_cache: bool = False


class Case(NamedTuple):
    """A damaged copy, `folder/in`, and the command that loads it."""

    kind: Kind
    originals: Path
    folder: Path
    command: str

    @property
    def words(self) -> list[str]:
        """The arguments of `dynabert`, with paths."""
        places = {"IN": self.folder / "in", "OUT": self.folder / "out", "ORIGINALS": self.originals}
        return [re.sub("IN|OUT|ORIGINALS", lambda match: str(places[match[0]]), word) for word in self.command.split()]

    @property
    def cache(self) -> str:
        """The folder of cached tokenized data."""
        return str(self.folder / "in" if self.kind.is_cache else self.originals.parent / "cache")


def find_files(folder: Path, kind: Kind) -> list[Path]:
    """List the files of a copy that may be damaged."""
    return sorted(path for path in folder.glob(kind.files) if path.is_file() and not path.is_symlink())


def _printed_json(case: Case, done: Done) -> Any:
    values = json.loads(done.out)
    values.pop("model", None)
    return values


def _printed(case: Case, done: Done) -> str:
    return done.out


def _weights(case: Case, done: Done) -> dict[str, bytes]:
    path = next(case.folder.glob("out/model.safetensors"), case.folder / "in/out/model.safetensors")
    return {name: array.tobytes() for name, array in safetensors.numpy.load_file(path).items()}


def _page(case: Case, done: Done) -> str:
    return (case.folder / "out").read_text(encoding="utf-8").replace(str(case.folder), "")


def _settings(case: Case, done: Done) -> Any:
    return yaml.safe_load((case.folder / "out" / "run.yaml").read_text(encoding="utf-8"))


def _check_changed_numbers(case: Case, expected: dict[str, bytes], found: dict[str, bytes]) -> str:
    """Check weights without a checksum: at most as many numbers as bytes of the files have changed."""
    changed_bytes = 0
    for path in find_files(case.originals / case.kind.original, case.kind):
        copy = case.folder / "in" / path.name
        old, new = path.read_bytes(), copy.read_bytes() if copy.is_file() else b""
        size = min(len(old), len(new))
        changed_bytes += np.count_nonzero(np.frombuffer(old[:size], "u1") != np.frombuffer(new[:size], "u1"))
        changed_bytes += abs(len(old) - len(new))
    same_shape = [name for name in found if len(found[name]) == len(expected.get(name, b""))]
    changed = sum(
        np.count_nonzero(np.frombuffer(found[name], "u4") != np.frombuffer(expected[name], "u4")) for name in same_shape
    )
    return f"{changed} numbers changed, but only {changed_bytes} bytes" if changed > changed_bytes else ""


def _check_readable(case: Case, expected: Any, found: Any) -> str:
    """Check data without a checksum: an independent reader accepts it."""
    for path in (case.folder / "in").iterdir():
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8-sig"))["data"]
                continue
            text = path.read_bytes().decode("utf-8-sig")
            lines = text.removesuffix("\n").split("\n")
            if path.suffix == ".jsonl":
                rows = [json.loads(line) for line in lines if line.strip()]
                is_complete = all("sentence" in row and "label" in row for row in rows)
            elif path.suffix == ".csv":
                is_complete = len({len(row) for row in csv.reader(lines, strict=True) if row}) == 1
            elif path.suffix == ".tsv":
                is_complete = len({line.count("\t") for line in lines if line.strip("\r")}) == 1
            else:
                is_complete = True
            if not is_complete:
                return f"{path.name} has incomplete rows"
        except _ERRORS as error:
            return f"{path.name} cannot be read: {error}"
    return ""


def _check_settings(case: Case, expected: Any, found: Any) -> str:
    """Check a config: the settings of the run are those of the file."""
    values = yaml.safe_load((case.folder / "in" / "my.yaml").read_text(encoding="utf-8")) or {}
    lost = [
        key
        for key, value in (values.get("task") or {}).items()
        if value is not None and found["task"][key] != value and str(found["task"][key]) != str(value)
    ]
    return f"task.{lost[0]} is not what the file says" if lost else ""


def _check_report_inputs(case: Case, expected: str, found: str) -> str:
    """Check a report: JSON files with a checksum must be unchanged; logs and files of other tools may change."""
    for path in find_files(case.originals / "run", case.kind):
        copy = case.folder / "in" / path.relative_to(case.originals / "run")
        same = copy.is_file() and not copy.is_symlink() and copy.read_bytes() == path.read_bytes()
        if not same and copy.is_file() and path.suffix == ".json" and path.name not in _WITHOUT_CHECKSUM:
            return f"{path.name} was changed"
    return ""


_WITHOUT_CHECKSUM = ("config.json", "tokenizer.json", "tokenizer_config.json")
_RESUME = (
    "finetune --model_name_or_path ORIGINALS/backbone --task_name custom --data_dir ORIGINALS/tsv --output_dir IN/out "
    "--max_steps 2 --per_device_train_batch_size 8 --logging_steps 1 --eval_steps 1 --max_seq_length 16"
)
_RUN = (
    "run IN/my.yaml --output_dir OUT -o train.max_steps=1 -o train.per_device_train_batch_size=8 -o stages=[finetune] "
    "-o model_name_or_path=ORIGINALS/backbone"
)
_EXTRACT = "extract IN l0h1f16 --output_dir OUT"


def _evaluate(model: str, data: str) -> str:
    files = f"--train_file IN/train.{data} --dev_file IN/dev.{data}"
    return f"evaluate ORIGINALS/{model} --task_name custom {files} --json"


def _data(folder: str, ending: str, *, model: str = "model") -> Kind:
    kind = {"conll": " --kind token_classification", "json": " --kind question_answering"}.get(ending, "")
    return Kind((_evaluate(model, ending) + kind,), _printed_json, folder, find_error=_check_readable)


_PREDICT = "predict IN -i ORIGINALS/tsv/dev.tsv"

KINDS: dict[str, Kind] = {
    "model": Kind(("evaluate IN --grid --json",), _printed_json, "model", files="*", weight=3),
    "extract": Kind(("extract IN w0.50d0.50 --output_dir OUT",), _weights, "model", files="*", weight=2),
    "safetensors": Kind((_EXTRACT,), _weights, "safetensors", find_error=_check_changed_numbers, weight=2),
    "pdparams": Kind((_EXTRACT,), _weights, "pdparams", find_error=_check_changed_numbers, weight=2),
    "torch": Kind((_EXTRACT,), _weights, "torch", find_error=_check_changed_numbers, weight=2),
    "checkpoint": Kind((_RESUME,), _weights, "unfinished", files="out/**/*", weight=2),
    "config": Kind((_RUN,), _settings, "config", find_error=_check_settings, weight=2),
    "tsv": _data("tsv", "tsv"),
    "csv": _data("csv", "csv"),
    "jsonl": _data("jsonl", "jsonl"),
    "conll": _data("conll", "conll", model="conll-model"),
    "squad": _data("squad", "json", model="squad-model"),
    "cache": Kind(("evaluate ORIGINALS/model --json",), _printed_json, "cache", weight=0.5, is_cache=True),
    "search": Kind(
        ("search IN --num_evaluations 16 --population_size 4 --seq_length 16 --json",),
        _printed_json,
        "model",
        files="search/*",
    ),
    "report": Kind(("report IN --output_file OUT",), _page, "run", find_error=_check_report_inputs, weight=0.7),
    "paddle": Kind((_PREDICT,), _printed, "paddle", weight=1.5),
    "several": Kind((_PREDICT, f"{_PREDICT} --subnet w0.50d1.00"), _printed, "several"),
    "onnx": Kind((_PREDICT,), _printed, "onnx"),
    "words": Kind(("predict IN -i ORIGINALS/conll/dev.conll",), _printed, "words"),
    "questions": Kind(("predict IN -i ORIGINALS/squad/dev.json",), _printed, "questions"),
}
