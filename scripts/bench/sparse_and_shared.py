#!/usr/bin/env python
"""Sparse weights and shared layers against the dense model that they were made of, which teaches them.

For every task and seed the backbone is fine-tuned once, and compressed with each of the settings in VARIANTS. Finished
parts are skipped and interrupted ones resumed; what the result file has for the same settings is not run again.

    python scripts/bench/sparse_and_shared.py glue_data --result_file docs/sparse_and_shared.json
    python scripts/bench/sparse_and_shared.py glue_data --task mrpc --seed 1 --num_examples 1000 --finetune_steps 50
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from schedule import write_short_task
from timing import describe_machine

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.files.metadata import METADATA_FILE, read_metadata
from dynabert_paddle.runtime.environment import import_paddle

sys.path.append(str(Path(__file__).parents[1] / "lib"))
from parts import add_records, describe_commit, find_records, hash_settings, read_records

KEY = ("task", "seed", "variant", "settings")  # of a record; the settings by their hash
VARIANTS: dict[str, dict[str, Any]] = {
    "sparse 0.3 magnitude": {"method": "sparse", "sparsity": 0.3},
    "sparse 0.4 magnitude": {"method": "sparse", "sparsity": 0.4},
    "sparse 0.3 gradient": {"method": "sparse", "sparsity": 0.3, "criterion": "gradient"},
    "sparse 0.4 gradient": {"method": "sparse", "sparsity": 0.4, "criterion": "gradient"},
    "shared 3 first": {"method": "share_layers", "groups": 3, "start": "first"},
    "shared 3 mean": {"method": "share_layers", "groups": 3, "start": "mean"},
    "shared 3 last": {"method": "share_layers", "groups": 3, "start": "last"},
    "shared 1 first": {"method": "share_layers", "groups": 1, "start": "first"},
}


def main(
    data_dir: Annotated[str, typer.Argument(help="Folder that contains the folders of the tasks.")],
    task: Annotated[list[str], typer.Option("--task", help="Repeat for more tasks.")] = ["sst-2", "mrpc"],  # noqa: B006
    seed: Annotated[list[int], typer.Option("--seed", help="Repeat for more seeds.")] = [1],  # noqa: B006
    variant: Annotated[
        list[str], typer.Option("--variant", help="A name in VARIANTS; repeat for more.", show_default="all")
    ] = list(VARIANTS),  # noqa: B006
    num_examples: Annotated[int, typer.Option("--num_examples", help="Rows of the training file to use.")] = 20_000,
    epochs: Annotated[float, typer.Option("--epochs", help="Of the dense model.")] = 2,
    finetune_steps: Annotated[int, typer.Option("--finetune_steps", help="Of a compressed model.")] = 400,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="Of both.")] = 1e-4,
    max_seq_length: Annotated[int, typer.Option("--max_seq_length", help="Longer texts are cut, in tokens.")] = 128,
    model: Annotated[str, typer.Option("--model", help="Backbone: a name or a folder.")] = "minilm-l6",
    output_dir: Annotated[Path, typer.Option("--output_dir", help="For the models.")] = Path("out/sparse_and_shared"),
    result_file: Annotated[Path | None, typer.Option("--result_file", help="Default: OUTPUT_DIR/results.json.")] = None,
) -> None:
    """Train; print a row for each task, seed and variant; add each to the result file."""
    import_paddle()
    import dynabert_paddle as db

    settings = {
        "num_examples": num_examples,
        "epochs": epochs,
        "finetune_steps": finetune_steps,
        "learning_rate": learning_rate,
        "max_seq_length": max_seq_length,
        "model": model,
    }
    result_file = result_file or output_dir / "results.json"
    label = hash_settings(settings)
    for name in task:
        files = write_short_task(name, data_dir, num_examples, output_dir / name)
        loaded = db.load_task(name, train_file=files["task.train_file"], dev_file=files["task.dev_file"])
        for number in seed:
            folder = output_dir / name / f"seed-{number}"
            for kind in variant:
                key = dict(zip(KEY, (name, number, kind, label), strict=True))
                if find_records(read_records(result_file), key):
                    continue
                commit = describe_commit()  # before: the checkout may change meanwhile
                if not (folder / "dense" / METADATA_FILE).exists():
                    config = db.FinetuneConfig(num_train_epochs=epochs, learning_rate=learning_rate, seed=number)
                    db.finetune(
                        model, loaded, output_dir=folder / "dense", config=config, max_seq_length=max_seq_length
                    )
                place = folder / kind.replace(" ", "-")
                if not (place / METADATA_FILE).exists():
                    compressing = CompressConfig(**VARIANTS[kind], finetune_steps=finetune_steps, seed=number)
                    db.compress(folder / "dense", loaded, output_dir=place, config=compressing)
                origin = {"configuration": settings, "machine": describe_machine(), "commit": commit}
                add_records(result_file, [{**key, **_measured(place), **origin}], KEY)
    rows = find_records(read_records(result_file), {"settings": label})
    _show([row for row in rows if row["task"] in task and row["seed"] in seed])
    print(f"wrote {result_file}")


def _measured(folder: Path) -> dict[str, Any]:
    """What the compression of a folder has written about it."""
    metadata = asdict(read_metadata(folder))
    record = metadata["compression"][-1]
    seconds = metadata["provenance"]["spent"]["seconds"]
    return {"before": record["before"], "after": record["after"], "seconds": round(seconds)}


def _show(rows: list[dict[str, Any]]) -> None:
    lines = []
    for row in rows:
        metric = next(iter(row["before"]["metrics"]))
        before, after = (row[side]["metrics"][metric] for side in ("before", "after"))
        sizes = [f"{row[side].get('gzip_bytes', row[side]['bytes']) / 1e6:.1f}" for side in ("before", "after")]
        points = f"{100 * (after - before):+.2f}"
        lines.append([row["task"], str(row["seed"]), row["variant"], f"{before:.4f}", f"{after:.4f}", points, *sizes])
    names = ["task", "seed", "variant", "dense", "compressed", "points", "MB before", "MB after"]
    show_table(names, lines, title="on dev; MB of the weights, for sparse ones as gzip -6")


if __name__ == "__main__":
    run_command(main)
