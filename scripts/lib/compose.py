#!/usr/bin/env python
"""How the compression methods add up: the program behind compose.sh, which says how to call it.

Every row starts from the same fine-tuned model and goes through some steps, each a command of `dynabert`. Rows with the
same first steps share their folders. Training sees the task's training rows alone: a part of them, held out, stands in
for the dev set, which is read after all other parts that were asked for. The time of a training is the CPU time of its
commands, which other processes on the machine change little.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from compose_table import write_documents
from parts import ROOT, add_records, describe_commit, dynabert, find_records, read_records, split_rows

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.atomic import write_text
from dynabert_paddle.runtime.environment import package_versions, set_cpu_environment
from dynabert_paddle.runtime.machine import describe_processor

PARTS = ("held_out", "latency", "dev")
KEY = ("part", "task", "seed", "model")
SNIPS = ROOT / "dynabert_paddle/data/snips"
NUM_HELD_OUT = 500
LATENCY_TOKENS = 32
INT8_FORMATS = ("onnx", "openvino")  # the fastest for one text: docs/performance.md


@dataclass(frozen=True)
class Setting:
    """The rows and the training of a task; learning rates are the quick start's."""

    seeds: tuple[int, ...]
    num_examples: int  # first rows of the training file, those held out included
    finetune: int  # steps
    width: int
    depth: int
    compress: int


SETTINGS = {
    "snips": Setting(seeds=(1, 2, 3), num_examples=13_784, finetune=100, width=60, depth=150, compress=100),
    "sst-2": Setting(seeds=(1, 2), num_examples=5_000, finetune=200, width=120, depth=300, compress=200),
}

# The commands; a setting's numbers, the folder before and the seed are filled in.
TRAINED = "--learning_rate 1e-4 --eval_steps 1000000 --seed {seed}"
DISTILLED = "--finetune_steps {compress} --learning_rate 1e-4 --seed {seed}"
STEPS = {
    "finetune": "finetune --model_name_or_path {source} --task_name {task} --train_file {train} --dev_file {held_out} "
    f"--max_seq_length 64 --max_steps {{finetune}} {TRAINED}",
    "rewire": "rewire {source} --seed {seed}",
    "rewire-ranks": "rewire {source} --embedding_rank_mult_list '1.0 0.5 0.25' --seed {seed}",
    "width": f"train_width {{source}} --max_steps {{width}} {TRAINED}",
    "depth": f"train_depth {{source}} --max_steps {{depth}} --subnets_per_step sandwich {TRAINED}",
    **{name: f"extract {{source}} {name}" for name in ("w0.50d0.75", "w0.25d0.50", "w0.25d0.50r0.25")},
    "pieces-8000": f"compress vocabulary {{source}} --vocab_size 8000 {DISTILLED}",
    "pieces-4000": f"compress vocabulary {{source}} --vocab_size 4000 {DISTILLED}",
    "pieces-4000-untrained": "compress vocabulary {source} --vocab_size 4000 --seed {seed}",
    "rank-0.5": f"compress low_rank {{source}} --part embedding --rank_share 0.5 {DISTILLED}",
    "rank-0.25": f"compress low_rank {{source}} --part embedding --rank_share 0.25 {DISTILLED}",
    "low_rank-0.4": f"compress low_rank {{source}} --rank_share 0.4 {DISTILLED}",
    "low_rank-0.25": f"compress low_rank {{source}} --rank_share 0.25 {DISTILLED}",
    "sparse-0.4": f"compress sparse {{source}} --sparsity 0.4 {DISTILLED}",
    "sparse-0.8": f"compress sparse {{source}} --sparsity 0.8 {DISTILLED}",
    "groups-3": f"compress share_layers {{source}} --groups 3 {DISTILLED}",
    "groups-2": f"compress share_layers {{source}} --groups 2 {DISTILLED}",
    "bits-4": f"compress quantize_aware {{source}} --weight_bits 4 {DISTILLED}",
    "bits-2": f"compress quantize_aware {{source}} --weight_bits 2 {DISTILLED}",
}
SUPERNET, RANKED_SUPERNET = ("rewire", "width", "depth"), ("rewire-ranks", "width", "depth")

# Each row's method, strength and steps after the fine-tuning. Of the rows with all methods each trains as much.
ROWS = {
    ("none", ""): (),
    ("width and depth", "w0.50d0.75"): (*SUPERNET, "w0.50d0.75"),
    ("width and depth", "w0.25d0.50"): (*SUPERNET, "w0.25d0.50"),
    ("embedding rank", "0.5"): ("rank-0.5",),
    ("embedding rank", "0.25"): ("rank-0.25",),
    ("vocabulary", "8,000"): ("pieces-8000",),
    ("vocabulary", "4,000"): ("pieces-4000",),
    ("low_rank", "0.4"): ("low_rank-0.4",),
    ("low_rank", "0.25"): ("low_rank-0.25",),
    ("sparse", "0.4"): ("sparse-0.4",),
    ("sparse", "0.8"): ("sparse-0.8",),
    ("share_layers", "3 groups"): ("groups-3",),
    ("share_layers", "2 groups"): ("groups-2",),
    ("quantize_aware", "4 bits"): ("bits-4",),
    ("quantize_aware", "2 bits"): ("bits-2",),
    ("all", "rank with width and depth, vocabulary"): (*RANKED_SUPERNET, "w0.25d0.50r0.25", "pieces-4000"),
    ("all", "vocabulary, rank with width and depth"): ("pieces-4000", *RANKED_SUPERNET, "w0.25d0.50r0.25"),
    ("all", "width and depth, vocabulary, rank"): (*SUPERNET, "w0.25d0.50", "pieces-4000-untrained", "rank-0.25"),
}


@dataclass(frozen=True)
class Job:
    """One task and seed, its folder, its files, and where the figures go."""

    backbone: str
    task: str
    seed: int
    folder: Path
    result_file: Path
    files: Mapping[str, Path]  # train, held_out, dev

    def name(self, steps: Sequence[str]) -> str:
        """Name a model by its steps, and by a hash of all commands that make it, without their folders and seed."""
        files = {name: path.name for name, path in self.files.items()}
        commands = [self._fill("finetune", files, source=self.backbone, seed="")]
        commands += [self._fill(step, files, source="", seed="") for step in steps]
        digest = hashlib.sha256("\n".join(commands).encode()).hexdigest()
        return f"{'+'.join(steps) or 'finetune'}-{digest[:8]}"

    def key(self, part: str, steps: Sequence[str]) -> dict[str, Any]:
        """Name a part's record."""
        return dict(zip(KEY, (part, self.task, self.seed, self.name(steps)), strict=True))

    def command(self, steps: Sequence[str]) -> list[str]:
        """Return the words of the last step's command."""
        paths = {name: shlex.quote(str(path)) for name, path in self.files.items()}
        source = shlex.quote(str(self.folder / self.name(steps[:-1])) if steps else self.backbone)
        words = self._fill(steps[-1] if steps else "finetune", paths, source=source, seed=self.seed)
        return [*shlex.split(words), "--output_dir", str(self.folder / self.name(steps)), "--overwrite_output_dir"]

    def _fill(self, step: str, files: Mapping[str, Any], **values: Any) -> str:
        return STEPS[step].format(task=self.task, **vars(SETTINGS[self.task]), **files, **values)


def main(
    glue_dir: Annotated[
        Path | None, typer.Option("--glue_dir", help="Folder that contains SST-2's; without it, only snips is run.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="snips or sst-2; repeat for both.")] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Only this seed; repeat for more.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Only this one's rows; repeat for more.")] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", help="held_out, latency (on an idle machine) or dev; repeat for more; trains as needed."
        ),
    ] = None,
    backbone: Annotated[str, typer.Option("--backbone", help="Another one needs another --result_file.")] = "minilm-l6",
    merge: Annotated[
        list[Path] | None, typer.Option("--merge", help="Add another machine's results, and run nothing; repeat.")
    ] = None,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="Folder for the models.")] = Path("out/compose"),
    result_file: Annotated[
        Path, typer.Option("--result_file", help="The chart, and the guides with the tables, are beside it.")
    ] = ROOT / "docs/compression.json",
) -> None:
    """Run the parts that the result file lacks; then write the tables and the chart."""
    for name, values, known in (
        ("task", task, SETTINGS),
        ("method", method, dict.fromkeys(method for method, _ in ROWS)),
        ("part", part, PARTS),
    ):
        for value in values or ():
            if value not in known:
                raise UsageError(f"--{name} {value} is none of {', '.join(known)}")
    set_cpu_environment()
    for other in merge or ():
        if not other.is_file():
            raise UsageError(f"--merge {other}: no such file: name a result file of another machine")
        add_records(result_file, read_records(other), KEY)
    for name in () if merge else task or (SETTINGS if glue_dir else ["snips"]):
        for number in seed or SETTINGS[name].seeds:
            folder = output_dir / name
            job = Job(
                backbone, name, number, folder / f"seed-{number}", result_file, split_files(name, glue_dir, folder)
            )
            run_job(job, [steps for (kind, _), steps in ROWS.items() if kind in (method or (kind,))], part or PARTS)
    rows = {name: name_rows(backbone, name) for name in SETTINGS}
    for path in write_documents(read_records(result_file), rows, result_file):
        print(f"wrote {path}")


def name_rows(backbone: str, task: str) -> dict[tuple[str, str], list[str]]:
    """Return for each row of a task the names of its models, from the fine-tuned one to the last."""
    job = Job(backbone, task, 0, Path(), Path(), {name: Path(path) for name, path in file_names(task).items()})
    return {row: [job.name(steps[:n]) for n in range(len(steps) + 1)] for row, steps in ROWS.items()}


def file_names(task: str) -> dict[str, str]:
    """Name the files that a task's training file is split into; the dev set has a file of its own."""
    size = SETTINGS[task].num_examples - NUM_HELD_OUT
    return {"train": f"{task}-train-{size}.tsv", "held_out": f"{task}-train-next-{NUM_HELD_OUT}.tsv"}


def split_files(task: str, glue_dir: Path | None, folder: Path) -> dict[str, Path]:
    """Write the rows to train on and those held out; returns them and the dev set's file."""
    import dynabert_paddle as db

    if task != "snips" and glue_dir is None:
        raise UsageError(f"--task {task} needs --glue_dir: the folder that contains that of {task.upper()}")
    files = db.load_task(task, data_dir=str(SNIPS if task == "snips" else glue_dir)).files
    parts = {name: folder / file for name, file in file_names(task).items()}
    texts = split_rows(Path(files["train_file"]), SETTINGS[task].num_examples, NUM_HELD_OUT)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(parts.values(), texts, strict=True):
        write_text(path, text)
    return {**parts, "dev": Path(files["dev_file"])}


def run_job(job: Job, rows: Sequence[Sequence[str]], parts: Sequence[str]) -> None:
    """Run what is missing of a task and seed; the dev set is read after everything else."""
    runs: dict[str, Callable[[Job, Sequence[str]], dict[str, Any]]] = {
        "held_out": partial(measure, "held_out"),
        "latency": measure_latency,
        "dev": partial(measure, "dev"),
    }
    if job.seed != SETTINGS[job.task].seeds[0]:
        del runs["latency"]  # does not depend on the seed
    for part, run in runs.items():
        for steps in rows if part in parts else ():
            run_part(job, part, steps, partial(run, job, steps))


def run_part(job: Job, part: str, steps: Sequence[str], run: Callable[[], Mapping[str, Any]]) -> None:
    """Run a part, and add its record; does nothing if the result file has the record."""
    key = job.key(part, steps)
    if not find_records(read_records(job.result_file), key):
        print(f"part: {', '.join(map(str, key.values()))}", flush=True)
        commit = describe_commit()  # before: the checkout may change meanwhile
        versions = package_versions()
        machine = {
            "processor": describe_processor(),
            "threads": os.environ["OMP_NUM_THREADS"],
            "paddle": versions.get("paddlepaddle") or versions["paddlepaddle-gpu"],
        }
        add_records(job.result_file, [{**key, **run(), "machine": machine, "commit": commit}], KEY)


def make_model(job: Job, steps: Sequence[str]) -> Path:
    """Make a model's folder, and those before it, unless it exists; the time of each is a part."""
    folder = job.folder / job.name(steps)
    if not folder.exists():
        if steps:
            make_model(job, steps[:-1])
        seconds = dynabert(*job.command(steps))
        run_part(job, "train", steps, lambda: {"cpu_seconds": round(seconds, 1)})
    return folder


def make_bundle(job: Job, steps: Sequence[str], format: str) -> Path:
    """Export a model to int8, however much it loses, unless that is done."""
    folder = make_model(job, steps)
    bundle = folder.with_name(f"{folder.name}.{format}")
    if not bundle.exists():
        words = ("--format", format, "--precision", "int8", "--tolerance", 1)
        dynabert("export", folder, *words, "--output_dir", bundle)
    return bundle


def measure(rows: str, job: Job, steps: Sequence[str]) -> dict[str, Any]:
    """Return the sizes of a model and of its int8 graph, and the accuracy of both; int8 reads one text at a time."""
    file, bundle = job.files[rows], make_bundle(job, steps, "onnx")
    folder = make_model(job, steps)
    (row,) = json.loads(output_of("evaluate", folder, "--dev_file", file, "--json"))["rows"]
    with TemporaryDirectory() as scratch:
        answers = Path(scratch) / "answers.jsonl"
        dynabert("predict", bundle, "-i", file, "-o", answers, "--batch_size", 1, "--num_threads", 1)
        found = [json.loads(line)["label"] for line in answers.read_text(encoding="utf-8").splitlines()]
    return {
        "examples": len(found),
        "accuracy": row["accuracy"],
        "int8_accuracy": accuracy(found, file),
        "params": row["params"],
        "macs": row["macs"],
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "int8_bytes": sum(path.stat().st_size for path in bundle.glob("model.*")),
    }


def accuracy(found: Sequence[str], file: Path) -> float:
    """Return the share of right labels."""
    heading, *lines = file.read_text(encoding="utf-8").splitlines()
    column = heading.split("\t").index("label")
    labels = [line.split("\t")[column] for line in lines]
    return sum(one == other for one, other in zip(found, labels, strict=True)) / len(labels)


def measure_latency(job: Job, steps: Sequence[str]) -> dict[str, Any]:
    """Return the ms of one text in each format, and how many times faster that is than the uncompressed model."""
    shape = ("--batch_size", 1, "--seq_length", LATENCY_TOKENS, "--num_threads", 1, "--rounds", 9)
    figures: dict[str, Any] = {}
    for format in INT8_FORMATS:
        bundles = [make_bundle(job, chain, format) for chain in ((), steps)]
        *_, row = json.loads(output_of("bench", *bundles, *shape, "--json"))["rows"]
        figures[f"{format} int8"] = {"ms": row["p50_ms"], "speedup": row["speedup"]}
    return {"tokens": LATENCY_TOKENS, "latency": figures}


def output_of(*words: object) -> str:
    """Run a command; returns what it prints."""
    command = [sys.executable, "-m", "dynabert_paddle", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise DynabertError(f"'dynabert {shlex.join(map(str, words))}' failed: see the line above")
    return done.stdout


if __name__ == "__main__":
    run_command(main)
