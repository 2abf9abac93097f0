#!/usr/bin/env python
"""Run two commands at once on one folder, over and over: each result is whole and right, or refused in one line.

Two small models, A and B, answer "no" to every text, with other weights, the labels in another order, and another
probability. So labels of one with weights of the other would answer "yes". In each round two verbs share a folder that
is absent, a model, or a bundle; one of them may be `mv`, which replaces the folder. The second starts at a random time
after the first. Every pair of verbs that can disturb each other comes equally often. The exit code is 1 if a result is
wrong, a message is not one line, or something half-written is left.

    python scripts/soak/concurrency.py
    python scripts/soak/concurrency.py --rounds 50 --seed 3 --minutes 15
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dynabert_paddle.runtime.environment import import_paddle

import_paddle()

import paddle  # noqa: E402 - Paddle's environment comes first

import dynabert_paddle as db  # noqa: E402
from dynabert_paddle.cli.script import run_command  # noqa: E402
from dynabert_paddle.cli.table import show_table  # noqa: E402
from dynabert_paddle.files.atomic import read_json  # noqa: E402
from dynabert_paddle.files.search_result import hash_weights  # noqa: E402

TINY_MODEL = Path(__file__).parents[1] / "lib" / "tiny_model.py"
WORKER = Path(__file__).with_name("fuzz_worker.py")
LABELS = {"A": ["no", "yes"], "B": ["yes", "no"]}
CONFIDENCE = {"A": 4.0, "B": 2.0}  # difference of the logits
THRESHOLD = 0.94  # the probabilities are 0.98 and 0.88
SPENT = {"settings": {}, "spent": {"examples": 40, "seconds": 1.0}, "parent": "tiny"}
MAJORITY_SHARE = 0.75  # of the dev rows: the accuracy of both models

READERS = ("evaluate", "predict")
WRITERS = ("export", "extract", "finetune", "rewire", "compress", "baseline", "search", "run")
VERBS = (*WRITERS, "report", "mv", *READERS)
# What can be in the shared folder -> the verbs that have something to do there.
KINDS = {"absent": WRITERS, "model": VERBS, "bundle": VERBS}
HARMLESS = [{"evaluate"}, {"predict"}, {"evaluate", "predict"}, {"mv"}]
PAIRS = [pair for pair in combinations_with_replacement(VERBS, 2) if set(pair) not in HARMLESS]

REFUSALS = re.compile(
    r"in use by another run|exists: pass --overwrite_output_dir|was made by '|holds |was not created by dynabert"
    r"|was replaced|change while they are read|files are being replaced|was removed or replaced|no bundle\.json in it"
    r"|no such model folder|: missing|neither a run's folder|holds no tokenizer|no such file|no such folder"
    r"|is an exported bundle|is the result of a search|is the folder of|has no config\.json|has not finished|is empty"
)
HALF_WRITTEN = re.compile(r"\..*(\.partial|\.tmp)|\.partial")


class Done(NamedTuple):
    """How a command has ended."""

    verb: str
    code: int
    errors: list[str]
    out: str


class Fault(Exception):
    """A result that is neither right nor refused."""


def main(
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Number of rounds.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Seed of pairs, folders and times.")] = 0,
    minutes: Annotated[float, typer.Option("--minutes", help="Stop after this time.")] = 60,
    output_dir: Annotated[
        Path, typer.Option("--output_dir", help="Folder for the models and the rounds' results.")
    ] = Path("out/concurrency"),
    pair: Annotated[str | None, typer.Option("--pair", help="Two verbs only, such as 'export predict'.")] = None,
) -> None:
    """Run the rounds; the exit code is 1 if one of them had a fault."""
    work = output_dir.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    make_models(work)
    pairs = [tuple(pair.split())] if pair else PAIRS
    rng, outcomes, faults = random.Random(seed), Counter[str](), []
    workers = [Worker(work, name) for name in ("first", "second")]
    end, done = time.monotonic() + 60 * minutes, 0
    for number, (verbs, kind) in zip(range(rounds), plan(pairs, rng), strict=False):
        if time.monotonic() > end:
            break
        folder = work / f"round-{number}"
        try:
            outcomes[run_round(folder, verbs, kind, workers, rng)] += 1
        except Fault as fault:
            faults.append(f"round {number}, {' and '.join(verbs)} on a folder that is {kind}: {fault}")
            print(faults[-1], flush=True)
            outcomes["fault"] += 1
        else:
            shutil.rmtree(folder)
        done += 1
    for worker in workers:
        worker.close()
    rows = [[outcome, str(count)] for outcome, count in sorted(outcomes.items())]
    print(f"{done} rounds of {len(pairs)} pairs, seed {seed}")
    show_table(["outcome", "rounds"], rows, title="outcomes")
    raise typer.Exit(bool(faults))


def plan(pairs: list[tuple[str, ...]], rng: random.Random) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield pairs in rounds of all, each time in another order, on another kind of folder."""
    turn = 0
    while True:
        for index, verbs in enumerate(rng.sample(pairs, len(pairs))):
            kinds = [kind for kind, known in KINDS.items() if set(verbs) <= set(known)]
            kind = kinds[(turn + index) % len(kinds)]
            yield tuple(rng.sample(verbs, 2)), kind
        turn += 1


def make_models(work: Path) -> None:
    """Write data, the models A and B, and their bundles."""
    for name, count in (("train", 40), ("dev", 20)):
        rows = [f"text {i}\t{'no' if i % 20 < 20 * MAJORITY_SHARE else 'yes'}" for i in range(count)]
        (work / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")
    subprocess.run([sys.executable, TINY_MODEL, work / "tiny"], check=True)
    for name, labels in LABELS.items():
        model = db.Supernet.from_pretrained(work / "tiny")
        classifier, no = model.model.classifier, labels.index("no")
        classifier.bias.set_value(paddle.to_tensor([CONFIDENCE[name] * (i == no) for i in range(2)], dtype="float32"))
        task = {"name": "custom", "kind": "classification", "labels": labels, "metrics": ["accuracy"]}
        files = {f"{part}_file": str(work / f"{part}.tsv") for part in ("train", "dev")}
        task |= {"text_column": "sentence", "label_column": "label", "max_seq_length": 8, **files}
        space = {"width_mults": [1.0, 0.5], "depth_mults": [1.0, 0.5]}
        scores = {"holdout": {"w1.00d1.00": {"accuracy": MAJORITY_SHARE}}}
        model.metadata = model.metadata.replace(
            stage="rewire", task=task, space=space, metrics=scores, provenance=SPENT
        )
        model.save_pretrained(work / "models" / name)
        db.export(work / "models" / name, work / "bundles" / name)


class Worker:
    """A process that runs commands one after the other; its stdout and stderr go to files."""

    def __init__(self, work: Path, name: str) -> None:
        self._folder, self._cache = work / name, work / f"{name}-cache"
        self._folder.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def start(self, verb: str, words: list[str]) -> None:
        """Start a command."""
        self._verb, job = verb, {"folder": str(self._folder), "words": words, "cache": str(self._cache)}
        assert self._process.stdin
        print(json.dumps(job), file=self._process.stdin, flush=True)

    def wait(self) -> Done:
        """Wait until it ends."""
        code = json.loads(self._read())["code"]
        texts = [(self._folder / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
        return Done(self._verb, code, [line for line in texts[1].splitlines() if line.startswith("error: ")], texts[0])

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a worker has died")
        return line


def run_round(folder: Path, verbs: tuple[str, ...], kind: str, workers: list[Worker], rng: random.Random) -> str:
    """Run two verbs on one folder; returns what came of them."""
    work, shared = folder.parent, folder / "shared"
    folder.mkdir()
    if kind != "absent":
        shutil.copytree(work / f"{kind}s" / "A", shared)
    delay, names = rng.choice([0.0, 0.0, rng.uniform(0, 0.5), rng.uniform(0, 4)]), ("first", "second")
    running = []
    for verb, worker, name in zip(verbs, workers, names, strict=True):
        if running:
            time.sleep(delay)
        if verb == "mv":
            replace(shared, work / f"{kind}s" / "B", folder / "away", rng)
        else:
            worker.start(verb, words_of(verb, kind, work, shared, folder / name, rng.choice("AB")))
            running.append(worker)
    results = [worker.wait() for worker in running]
    for done in results:
        check_command(done)
    left = [path for path in folder.rglob(".*") if HALF_WRITTEN.fullmatch(path.name)]
    if left:
        raise Fault(f"left half-written: {', '.join(str(path.relative_to(folder)) for path in left)}")
    for path in (shared, folder / "first", folder / "second"):
        try:
            check_folder(path, work)
        except db.DynabertError as error:
            raise Fault(f"the folder that is left cannot be loaded: {error}") from None
    return " and ".join(sorted("done" if done.code == 0 else "refused" for done in results))


def replace(shared: Path, source: Path, away: Path, rng: random.Random) -> None:
    """Replace a folder as `mv` does, in one moment or after a while without it."""
    new = away.with_name("new")
    shutil.copytree(source, new)
    shared.rename(away)
    time.sleep(rng.choice([0, 0, 0.05]))
    new.rename(shared)


def words_of(verb: str, kind: str, work: Path, shared: Path, own: Path, model: str) -> list[str]:
    """The words of a command that reads or writes the shared folder."""
    source = shared if kind == "model" else work / "models" / model
    output = own if kind == "model" else shared
    to = ["--output_dir", str(output), "--overwrite_output_dir"]
    data = ["--train_file", str(work / "train.tsv"), "--dev_file", str(work / "dev.tsv"), "--max_seq_length", "8"]
    steps = ["--max_steps", "2", "--learning_rate", "1e-6"]
    train = [*to, *data, *steps]
    search = ["--num_evaluations", "6", "--population_size", "3", "--score_on", "dev", "--goals", "macs", "--json"]
    search += to if kind != "model" else ["--overwrite_output_dir"]
    if verb == "run":
        config = own.with_suffix(".yaml")
        task = {"train_file": str(work / "train.tsv"), "dev_file": str(work / "dev.tsv"), "max_seq_length": 8}
        settings = {
            "model_name_or_path": str(source),
            "stages": ["finetune", "rewire"],
            "task": {"name": "custom", **task},
        }
        config.write_text(json.dumps({**settings, "train": {"max_steps": 2, "learning_rate": 1e-6}}), encoding="utf-8")
        return ["run", str(config), *to, "--json"]
    return {
        "export": ["export", str(source), *to],
        "extract": ["extract", str(source), "w0.50d0.50", *to],
        "finetune": ["finetune", "--model_name_or_path", str(source), "--task_name", "custom", *train],
        "rewire": ["rewire", str(source), *to],
        "compress": ["compress", "low_rank", str(source), "--rank_share", "0.25", *to],
        "baseline": ["baseline", "distilbert", str(source), *to, *steps],
        "search": ["search", str(source), *search],
        "report": ["report", str(shared)],
        "evaluate": ["evaluate", str(shared), "--json"],
        "predict": ["predict", str(shared), "-i", str(work / "dev.tsv")],
    }[verb]


def check_command(done: Done) -> None:
    """Compare what a command says with what it may say."""
    if done.code not in (0, 1, 2):
        raise Fault(f"{done.verb} ended with {done.code}")
    if done.code:
        if len(done.errors) != 1 or not REFUSALS.search(done.errors[0]):
            raise Fault(f"{done.verb} is refused with {done.errors}")
        return
    if done.verb == "evaluate":
        (row,) = json.loads(done.out)["rows"]
        if row["accuracy"] != MAJORITY_SHARE:
            raise Fault(f"evaluate says {row}")
    if done.verb == "predict":
        rows = [tuple(line.split("\t")[:2]) for line in done.out.splitlines()[1:]]
        models = {float(probability) > THRESHOLD for _, probability in rows}  # those of A are higher than those of B
        if len(rows) != 20 or len(models) != 1 or {label for label, _ in rows} != {"no"}:
            raise Fault(f"predict says {Counter(rows)}")


def check_folder(folder: Path, work: Path) -> None:
    """Check that a folder is absent, or whole and right; a run's folder with its stages."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()}
    if names <= {".dynabert"}:
        raise Fault(f"an empty folder is left: {folder}")
    if "bundle.json" in names:
        predictor = db.Predictor(folder)
        if {prediction.label for prediction in predictor(["text 1", "text 2"])} != {"no"}:
            raise Fault(f"the bundle {folder} says yes")
    if "dynabert.json" in names:
        model = db.load_model(folder)
        task = db.load_task("custom", train_file=work / "train.tsv", dev_file=work / "dev.tsv")
        (row,) = score(model, task)
        if row["accuracy"] != MAJORITY_SHARE:
            raise Fault(f"the model {folder} has accuracy {row['accuracy']}")
    for result in (folder / "search.json", folder / "search" / "search.json"):
        if result.exists():
            known = {hash_weights(work / "models" / name) for name in LABELS}
            values = read_json(result)
            if values["weights"] not in known or values["full"]["score"] != MAJORITY_SHARE:
                raise Fault(f"{result} is of other weights, or has another score: {values['full']}")
    for stage in ("finetune", "rewire"):
        check_folder(folder / stage, work)


def score(model: db.Supernet, task: db.Task) -> list[dict]:
    """Score a whole model."""
    full = model.search_space(width_mults=(1.0,), depth_mults=(1.0,))
    return db.evaluate_grid(model, task, full)


if __name__ == "__main__":
    run_command(main)
