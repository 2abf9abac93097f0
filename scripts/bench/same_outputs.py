"""Compare what two checkouts of this package write: a quick start, exports of it, a search, baselines, predictions.

    git worktree add ../before REVISION
    python scripts/bench/same_outputs.py ../before . --work_dir out/same

Both sides run the same commands with the same seed, in the same environment and with two threads. Weights, graphs,
tokenizers, metrics, logged losses and predictions must be equal byte for byte; JSON without durations, checksums that
follow from them, and the hashes of `infer.py` and `README.md`. VisualDL's logs, the search's database and stderr are
not compared: they hold absolute times. The second checkout must also evaluate the first one's
model, predict with its bundle, and resume its interrupted training to the same weights.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

# Durations and what follows from them.
VARYING_KEYS = {"seconds", "checksum", "latency_ms", "setting"}
# Hashed in bundle.json; their text may change.
VARYING_FILES = {"infer.py", "infer_lite.py", "README.md"}
# Hold durations, absolute times or the texts of a page.
SKIPPED = re.compile(r"(^|/)(stderr-.*|vdl|\.dynabert|study\.(db|sqlite3?)|.*\.db|vdlrecords.*|report\.html)($|/)")

SHORT_RUN = ["finetune.max_steps=12", "width.max_steps=6", "depth.max_steps=6", "train.save_steps=4"]
FORMATS = [("paddle", "fp32"), ("paddle", "bf16"), ("paddle", "int8"), ("pir", "fp32"), ("onnx", "fp32"),
           ("openvino", "fp32")]  # fmt: skip


def main(
    before: Annotated[Path, typer.Argument(help="Checkout of the code before a change.")],
    after: Annotated[Path, typer.Argument(help="Checkout of the code after it.")],
    *,
    work_dir: Annotated[Path, typer.Option("--work_dir", help="Folder for the outputs of both.")] = Path("out/same"),
) -> None:
    """Make the outputs of both checkouts, unless they are there already, and compare them."""
    work_dir = work_dir.absolute()
    for name, checkout in (("before", before), ("after", after)):
        make_outputs(checkout.absolute(), work_dir / name)
    differences = compare_folders(work_dir / "before", work_dir / "after")
    differences += compare_public_names(before.absolute(), after.absolute())
    differences += check_compatible(after.absolute(), work_dir)
    for line in differences:
        print(f"DIFFERENT {line}")
    print(f"{len(differences)} differences")
    raise typer.Exit(1 if differences else 0)


def make_outputs(checkout: Path, folder: Path) -> None:
    """Run all commands in a folder of their own; each leaves a marker, so that a second call goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = folder / "texts.txt"
    rows = (checkout / "dynabert_paddle/data/snips/dev.tsv").read_text(encoding="utf-8").splitlines()[1:65]
    texts.write_text("".join(row.split("\t")[0] + "\n" for row in rows), encoding="utf-8")

    overrides = [word for setting in SHORT_RUN for word in ("-o", setting)]
    commands = [("quickstart", *overrides, "--output_dir", "out/run")]
    commands.append(("extract", "out/run/depth", "w0.50d0.50", "--output_dir", "out/small"))
    for method, source in (("distilbert", "finetune"), ("tinybert", "finetune"), ("pruned", "rewire")):
        settings = ("--subnet", "w1.00d0.50", "--max_steps", "4")
        commands.append(("baseline", method, f"out/run/{source}", *settings, "--output_dir", f"out/{method}"))
    commands.append(("search", "out/run/depth", "--num_evaluations", "60", "--population_size", "20",
                     "--max_macs", "1e9"))  # fmt: skip
    for format, precision in FORMATS:
        bundle = f"out/bundle-{format}-{precision}"
        commands.append(("export", "out/small", "--format", format, "--precision", precision, "--output_dir", bundle))
        commands.append(("predict", bundle, "-i", "texts.txt", "-o", f"out/predict-{format}-{precision}.tsv"))
    commands.append(("export", "out/run/depth", "--subnets", "pareto:3", "--output_dir", "out/bundle-members"))
    commands.append(("evaluate", "out/run/depth", "--grid", "--json"))
    for number, words in enumerate(commands):
        run_once(folder, f"{number:02d}-{words[0]}", [*dynabert(), *words], checkout)
    for format, precision in FORMATS:
        script = folder / f"out/bundle-{format}-{precision}/infer.py"
        run_once(folder, f"infer-{format}-{precision}", [sys.executable, str(script), "-i", "texts.txt"], checkout)
    interrupt_training(folder, checkout)


def dynabert() -> list[str]:
    return [sys.executable, "-m", "dynabert_paddle"]


def environment(folder: Path, checkout: Path) -> dict[str, str]:
    """Two threads and this checkout; its tokenized data is cached in the folder."""
    cache = folder.parent / f"cache-{folder.name}"
    return {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "2", "DYNABERT_CACHE_DIR": str(cache)}


def run_once(folder: Path, name: str, command: list[str], checkout: Path) -> None:
    """Run a command in a folder and keep its stdout in `stdout-NAME.txt`, unless that is there already."""
    output = folder / f"stdout-{name}.txt"
    if output.exists():
        return
    print(f"{folder.name}: {' '.join(command[1:])}", file=sys.stderr)
    done = subprocess.run(command, cwd=folder, env=environment(folder, checkout), capture_output=True, text=True)
    (folder / f"stderr-{name}.txt").write_text(done.stderr, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stderr[-3000:]}")
    output.write_text(done.stdout, encoding="utf-8")


def finetune_command(output_dir: str) -> list[str]:
    settings = ["--max_steps", "12", "--save_steps", "2", "--learning_rate", "1e-4", "--max_seq_length", "32"]
    return [
        *dynabert(),
        "finetune",
        "--model_name_or_path",
        "minilm-l6",
        "--task_name",
        "snips",
        *settings,
        "--output_dir",
        output_dir,
    ]


def interrupt_training(folder: Path, checkout: Path) -> None:
    """Train once to the end, and once until the first checkpoint."""
    run_once(folder, "whole", finetune_command("out/whole"), checkout)
    if (folder / "interrupted").exists():
        return
    shutil.rmtree(folder / "out/interrupted", ignore_errors=True)
    process = subprocess.Popen(
        finetune_command("out/interrupted"), cwd=folder, env=environment(folder, checkout), stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list((folder / "out").glob("interrupted/checkpoint-*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    if process.wait() != 130 or (folder / "out/interrupted/model.safetensors").exists():
        raise SystemExit("the training had ended before it was interrupted: take more steps")
    (folder / "out/interrupted").rename(folder / "interrupted")  # its step depends on the machine: not compared


def compare_folders(before: Path, after: Path) -> list[str]:
    """List the files that one side lacks or that differ; print how many of each kind are equal."""
    files = [
        {path.relative_to(side) for path in side.rglob("*") if is_compared(path, side)} for side in (before, after)
    ]
    differences = [f"{path}: on one side only" for path in sorted(files[0] ^ files[1])]
    equal: Counter[str] = Counter()
    for path in sorted(files[0] & files[1]):
        if path.name in VARYING_FILES:
            continue
        if content(before, path) == content(after, path):
            equal[path.suffix or path.name] += 1
        else:
            differences.append(str(path))
    for suffix, count in sorted(equal.items()):
        print(f"same: {count} files {suffix}")
    return differences


def is_compared(path: Path, side: Path) -> bool:
    relative = str(path.relative_to(side))
    return path.is_file() and not SKIPPED.search(relative) and not relative.startswith("interrupted")


def content(side: Path, path: Path) -> Any:
    """A file's bytes; JSON without what varies, and text without the path of the folder."""
    raw = (side / path).read_bytes()
    if path.suffix in (".json", ".jsonl") and path.name != "tokenizer.json":
        lines = raw.decode().splitlines() if path.suffix == ".jsonl" else [raw.decode()]
        return [without_varying(json.loads(line.replace(str(side), "SIDE"))) for line in lines]
    if path.suffix in (".txt", ".yaml", ".tsv", ".csv"):
        return raw.replace(str(side).encode(), b"SIDE")
    return raw


def without_varying(value: Any) -> Any:
    """JSON without durations, checksums and the hashes of files whose text may change."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if key not in VARYING_KEYS | VARYING_FILES}
        return {key: without_varying(item) for key, item in kept.items()}
    return [without_varying(item) for item in value] if isinstance(value, list) else value


def compare_public_names(*checkouts: Path) -> list[str]:
    code = "import dynabert_paddle as db; print(sorted(db.__all__))"
    names = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
        ).stdout
        for checkout in checkouts
    ]
    return [] if names[0] == names[1] and names[0] else [f"db.__all__: {names[0]} {names[1]}"]


def check_compatible(after: Path, work_dir: Path) -> list[str]:
    """Let the second checkout use what the first one has written."""
    mixed = work_dir / "mixed"
    shutil.rmtree(mixed, ignore_errors=True)
    mixed.mkdir()
    for name in ("out", "texts.txt"):
        source = work_dir / "before" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, mixed / name)
    shutil.copytree(work_dir / "before/interrupted", mixed / "out/interrupted")
    run_once(mixed, "evaluate", [*dynabert(), "evaluate", "out/run/depth", "--grid", "--json"], after)
    run_once(mixed, "predict", [*dynabert(), "predict", "out/bundle-paddle-fp32", "-i", "texts.txt",
                                "-o", "predictions.tsv"], after)  # fmt: skip
    run_once(mixed, "resume", finetune_command("out/interrupted"), after)
    first = work_dir / "before"
    pairs = {
        "evaluate of the first checkout's model": ("stdout-evaluate.txt", find(first, "evaluate")),
        "predict with the first checkout's bundle": (
            "predictions.tsv",
            first / "out/predict-paddle-fp32.tsv",
        ),
        "resumed training": ("out/interrupted/model.safetensors", first / "out/whole/model.safetensors"),
    }
    differences = []
    if "going on from step" not in (mixed / "stderr-resume.txt").read_text(encoding="utf-8"):
        differences.append("the interrupted training began anew")
    for what, (ours, theirs) in pairs.items():
        if (mixed / ours).read_bytes() == theirs.read_bytes():
            print(f"same: {what}")
        else:
            differences.append(what)
    return differences


def find(folder: Path, verb: str) -> Path:
    """The stdout of a verb that ran once."""
    (path,) = folder.glob(f"stdout-*-{verb}.txt")
    return path


if __name__ == "__main__":
    typer.run(main)
