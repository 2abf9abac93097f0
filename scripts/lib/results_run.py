"""Runs a part of results.sh: trains or searches, and keeps what the models compute for the rows that score them.

A part leaves a record in a result file, and its logits in a file beside it. The labels of the rows that score are not
read here.
"""

from __future__ import annotations

import hashlib
import io
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from parts import Record, add_records, describe_commit, dynabert, find_records, read_records
from results_plan import BEST_SETTINGS, FULL, KEY, PARAMS_SHARE, TRIAL, Part, config_values
from results_rows import Split, read_texts, splits_of
from results_shapes import BUDGETS

from dynabert_paddle.data.catalog import find_declaration
from dynabert_paddle.data.metrics import compute_metrics
from dynabert_paddle.errors import DataError
from dynabert_paddle.files.atomic import read_json, write_json, write_text
from dynabert_paddle.runtime.environment import import_paddle
from dynabert_paddle.runtime.machine import describe_processor

BASELINE_FILE = "baseline.json"
DONE, SPENT = "part.json", "spent.json"  # in a part's folder: its CPU seconds, and those before it is done


@dataclass(frozen=True)
class Bench:
    """Where everything is.

    Args:
        glue_dir: the folder that contains the tasks'.
        output_dir: folder of the models.
        parts_file: the records; logits are beside it.
    """

    glue_dir: Path
    output_dir: Path
    parts_file: Path

    def folder(self, part: Part) -> Path:
        """The folder of a part's model or search."""
        return self.output_dir / part.task / f"{part.backbone.name}-seed-{part.seed}" / part.name

    def logits_file(self, key: Mapping[str, Any]) -> Path:
        """The file of a part's logits."""
        return self.parts_file.with_name(f"{'_'.join(str(key[name]) for name in KEY)}.npz")


def run_part(bench: Bench, part: Part, split: Split) -> None:
    """Run a part and those that it starts from; does nothing if the records have it."""
    if find_records(read_records(bench.parts_file), part.key):
        return
    for need in part.chain[:-1]:
        run_part(bench, need, split)
        make(bench, need, split)  # another machine may have the model
    commit = describe_commit()  # before: the checkout may change meanwhile
    seconds = make(bench, part, split)
    rows, logits = measure(bench, part, split)
    content = pack(logits)
    bench.parts_file.parent.mkdir(parents=True, exist_ok=True)
    if logits:
        bench.logits_file(part.key).write_bytes(content)
    changed = {name: value for name, value in part.settings.items() if BEST_SETTINGS.get(name) != value}
    record = {
        **part.key,
        **({"settings": changed} if part.method == TRIAL else {}),
        "rows": rows,
        "needs": part.needs and part.needs.name,
        "examples": count_examples(bench, part),
        "seconds": round(seconds, 1),
        "logits": hash_bytes(content) if logits else None,
        "processor": describe_processor(),
        "commit": commit,
    }
    add_records(bench.parts_file, [record], KEY)


def make(bench: Bench, part: Part, split: Split) -> float:
    """Train or search, unless that is done; returns the CPU seconds, those of interrupted attempts included."""
    folder = bench.folder(part)
    if not (folder / DONE).exists():
        print(f"part: {', '.join(map(str, part.key.values()))}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        spent = read_json(folder / SPENT)["cpu_seconds"] if (folder / SPENT).exists() else 0.0
        began = cpu_seconds()
        try:
            search(bench, part) if part.kind == "search" else train(bench, part, split)
        finally:
            write_json(folder / SPENT, {"cpu_seconds": spent + cpu_seconds() - began})
        (folder / SPENT).rename(folder / DONE)
    return read_json(folder / DONE)["cpu_seconds"]


def cpu_seconds() -> float:
    """The CPU seconds of this process and of the commands that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def train(bench: Bench, part: Part, split: Split) -> None:
    """Train a part's models with a command of the package, which resumes what was interrupted."""
    folder, source = bench.folder(part), start_of(bench, part)
    files = {"task.name": part.task, "task.train_file": str(split.train), "task.dev_file": str(split.tuning)}
    if part.kind == "run":
        files |= {"model_name_or_path": source, "output_dir": str(folder / "run")}
    config = folder / "config.yaml"
    values = config_values(part.settings, part.seed, files)
    write_text(config, yaml.safe_dump(values, sort_keys=False))
    if part.kind == "run":
        dynabert("run", config)
    elif not (folder / "run" / BASELINE_FILE).exists():
        method = part.settings["baseline.method"]
        dynabert("baseline", method, source, "--config", config, "--output_dir", folder / "run")


def start_of(bench: Bench, part: Part) -> str:
    """The model that a part starts from: a backbone, or a stage of the part before, its last unless it names one."""
    if part.needs is None:
        return part.backbone.source
    return str(bench.folder(part.needs) / "run" / part.from_stage if part.from_stage else model_of(bench, part.needs))


def model_of(bench: Bench, part: Part) -> Path:
    """The folder of the model that a part has made; a search has made none, and its model is that it has searched."""
    if part.kind == "search":
        assert part.needs is not None
        return model_of(bench, part.needs)
    folder = bench.folder(part) / "run"
    return folder / part.settings["stages"][-1] if part.kind == "run" else folder


def search(bench: Bench, part: Part) -> None:
    """Search a supernet once for every budget."""
    import_paddle()
    import dynabert_paddle as db

    folder, source = bench.folder(part), start_of(bench, part)
    space = db.load_model(source).search_space()
    layers = space.num_params(space.full, embeddings=False) - space.other_params
    limits = [{"max_macs": share * space.num_macs(space.full)} for share in BUDGETS]
    limits.append({"max_params": space.num_params(space.full) - (1 - PARAMS_SHARE) * layers})
    for number, limit in enumerate(limits):
        config = db.SearchConfig(**part.settings, **limit, seed=part.seed)
        db.search(source, output_dir=folder / "search", config=config, overwrite=not number)
        found = read_json(folder / "search" / "search.json")
        write_json(folder / f"search-{number}.json", found)


def measure(bench: Bench, part: Part, split: Split) -> tuple[list[Record], dict[str, np.ndarray]]:
    """Run a part's models over the rows that choose and those that score.

    Args:
        bench: where everything is.
        part: the part; its folder is there.
        split: the task's rows.

    Returns:
        A row for each model, with its costs and its metric on the rows that choose; for each file of rows the models'
        outputs `[k, n]`, see `margins`.
    """
    import_paddle()
    import dynabert_paddle as db
    from dynabert_paddle.training.inputs import tokenize_examples
    from dynabert_paddle.training.predict import predict_logits

    if part.method is None:
        return [], {}
    model = db.load_model(model_of(bench, part))
    space = model.search_space()
    named = subnets_of(bench, part)
    subnets = [space.parse(FULL if part.kind == "baseline" else name) for name, _ in named]
    declaration = find_declaration(part.task)
    task = db.load_task(part.task, train_file=split.train, dev_file=split.tuning)
    if model.labels and tuple(model.labels) != task.labels:
        raise DataError(f"{model_of(bench, part)}: its labels are {model.labels}, and {part.task} has {task.labels}")

    def outputs(examples: Any) -> list[np.ndarray]:
        found = predict_logits(model, tokenize_examples(examples, model), subnets)
        return [np.asarray(logits) for logits in found]

    tuning = [compute_metrics(task.metrics[:1], logits, task.dev.labels) for logits in outputs(task.dev)]
    rows = [
        {
            "method": part.method,
            "subnet": name,
            "macs_share": share,
            "params": space.num_params(subnet),
            "tuning": scores[task.metrics[0]],
        }
        for (name, share), subnet, scores in zip(named, subnets, tuning, strict=True)
    ]
    logits = {}
    for name in () if part.method == TRIAL else splits_of(part.task):
        texts = read_texts(part.task, bench.glue_dir, name)
        logits[name] = np.stack([margins(values, declaration.kind) for values in outputs(texts)])
    return rows, logits


def subnets_of(bench: Bench, part: Part) -> list[tuple[str, float]]:
    """The names of a part's models, and the MACs that they stand for, as shares of the full model's.

    A searched one stands for its budget; the one with few parameters for its own MACs.
    """
    backbone = part.backbone
    if part.kind == "search":
        files = [bench.folder(part) / f"search-{number}.json" for number in range(len(BUDGETS) + 1)]
        names = [read_json(file)["best"]["subnet"] for file in files]
        shares = [*BUDGETS, backbone.macs_share(names[-1])]
        return list(zip(names, shares, strict=True))
    if part.kind == "baseline":
        name = part.settings["baseline.subnet"]
        return [(name, min(BUDGETS, key=lambda share: abs(share - backbone.macs_share(name))))]
    names = [FULL] if part.method == "teacher" else list(backbone.space.grid())
    return [(name, backbone.macs_share(name)) for name in names]


def margins(logits: np.ndarray, kind: str) -> np.ndarray:
    """Keep one number a row: the value of a regression, or by how much the second class's logit exceeds the first's.

    Args:
        logits: `[n, 1]` or `[n, 2]`.
        kind: of the task.

    Returns:
        `[n]`; differences in half precision, as their signs tell the classes.
    """
    if kind == "regression":
        return logits[:, 0].astype(np.float32)
    return (logits[:, 1] - logits[:, 0]).astype(np.float16)


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of an .npz file; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def hash_bytes(content: bytes) -> str:
    """Return eight digits that name a file's content."""
    return hashlib.sha256(content).hexdigest()[:8]


def read_packed(bench: Bench, record: Record) -> bytes:
    """Read the file of a part's logits.

    Raises:
        DataError: it is missing, or not that of the record.
    """
    path = bench.logits_file(record)
    content = path.read_bytes() if path.is_file() else b""
    if hash_bytes(content) != record["logits"]:
        raise DataError(f"{path}: it is missing or not the file of the record in {bench.parts_file}: copy it again")
    return content


def read_logits(bench: Bench, record: Record) -> dict[str, np.ndarray]:
    """Read a part's outputs `[k, n]`, by the name of the rows; raises a `DataError` as `read_packed` does."""
    with np.load(io.BytesIO(read_packed(bench, record))) as arrays:
        return {name: arrays[name].astype(np.float64) for name in arrays.files}


def count_examples(bench: Bench, part: Part) -> int:
    """The examples that a part's model has read since its backbone."""
    import_paddle()
    from dynabert_paddle.files.metadata import read_metadata
    from dynabert_paddle.training.baseline import total_spent

    folder = model_of(bench, part)
    own = total_spent(read_metadata(folder), folder).examples
    if part.kind == "baseline":
        return read_json(folder / BASELINE_FILE)["examples_seen"]
    return own


def merge(bench: Bench, other: Path) -> int:
    """Add the records of another machine's result file, with their logits; returns how many were new.

    Args:
        bench: where this machine's are.
        other: the file, its logits beside it.

    Raises:
        DataError: logits are missing.
    """
    theirs = Bench(bench.glue_dir, bench.output_dir, other)
    known = read_records(bench.parts_file)
    new = [record for record in read_records(other) if not find_records(known, {name: record[name] for name in KEY})]
    bench.parts_file.parent.mkdir(parents=True, exist_ok=True)
    for record in (record for record in new if record["logits"]):
        bench.logits_file(record).write_bytes(read_packed(theirs, record))
    add_records(bench.parts_file, new, KEY)
    return len(new)
