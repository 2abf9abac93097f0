#!/usr/bin/env python
"""Task-agnostic distillation against the plain cut: the same shape, fine-tuned on as many examples.

A backbone is rewired without labels, and distilled in general, from the texts of the tasks' training files without
their labels (and without any development file). From both, the rewired backbone ("cut") and the general supernet
("general"), the same sub-networks are extracted, and each is fine-tuned on the rows of a task. Finished parts are
skipped and interrupted ones resumed; what the result file has for the same settings is not run again.

    python scripts/bench/general.py glue_data --result_file docs/general.json
    python scripts/bench/general.py glue_data --task mrpc --seed 1 --num_examples 1000 --general_steps 100
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer
from schedule import write_short_task
from timing import describe_machine

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.files.atomic import write_text
from dynabert_paddle.files.metadata import METADATA_FILE, read_metadata
from dynabert_paddle.runtime.environment import import_paddle

sys.path.append(str(Path(__file__).parents[1] / "lib"))
from guides import markdown, update
from parts import add_records, describe_commit, find_records, hash_settings, read_records

KEY = ("task", "seed", "subnet", "start", "settings")  # of a record; the settings by their hash
STARTS = {"cut": "rewire", "general": "general"}
BEGIN = "<!-- made by scripts/bench/general.py -->"
HEADINGS = {
    "": ("task", "sub-network", "MACs", "seeds", "cut and fine-tuned", "general, cut and fine-tuned", "points"),
    "_cn": ("任务", "子网络", "MACs", "种子", "直接裁剪后微调", "通用蒸馏后裁剪、微调", "差 (百分点)"),
}


def main(
    data_dir: Annotated[Path, typer.Argument(help="Folder that contains the folders of the tasks.")],
    text_task: Annotated[
        list[str], typer.Option("--text_task", help="Task whose training texts are read without labels; repeat.")
    ] = ["cola", "sst-2", "mrpc", "sts-b", "rte", "wnli"],  # noqa: B006 - typer copies it
    task: Annotated[list[str], typer.Option("--task", help="Repeat for more tasks.")] = ["mrpc", "sst-2"],  # noqa: B006
    seed: Annotated[list[int], typer.Option("--seed", help="Of the fine-tuning; repeat for more.")] = [1, 2, 3],  # noqa: B006
    subnet: Annotated[list[str], typer.Option("--subnet", help="Its shape; repeat for more.")] = ["w1.00d0.50"],  # noqa: B006
    general_steps: Annotated[int, typer.Option("--general_steps", help="Of the stage general.")] = 3000,
    general_learning_rate: Annotated[float, typer.Option("--general_learning_rate")] = 2e-4,
    mults: Annotated[str, typer.Option("--mults", help="Widths and depths that it trains.")] = "1.0 0.5",
    num_examples: Annotated[int, typer.Option("--num_examples", help="Rows of a task's training file.")] = 10_000,
    epochs: Annotated[float, typer.Option("--epochs", help="Of the fine-tuning.")] = 3,
    learning_rate: Annotated[float, typer.Option("--learning_rate", help="Of the fine-tuning.")] = 1e-4,
    max_seq_length: Annotated[int, typer.Option("--max_seq_length", help="Longer texts are cut, in tokens.")] = 128,
    model: Annotated[str, typer.Option("--model", help="Backbone: a name or a folder.")] = "minilm-l6",
    output_dir: Annotated[Path, typer.Option("--output_dir", help="For the models.")] = Path("out/general"),
    result_file: Annotated[
        Path | None, typer.Option("--result_file", help="The guide with the table is beside it.", show_default="none")
    ] = None,
) -> None:
    """Train; print a row for each task and sub-network; add each model's score to the result file."""
    import_paddle()
    import dynabert_paddle as db

    settings = {
        "text_task": sorted(text_task),
        "general_steps": general_steps,
        "general_learning_rate": general_learning_rate,
        "mults": mults,
        "num_examples": num_examples,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "max_seq_length": max_seq_length,
        "model": model,
    }
    found, label = result_file or output_dir / "general.json", hash_settings(settings)
    wanted = [(name, number, part, start) for name in task for number in seed for part in subnet for start in STARTS]
    keys = [dict(zip(KEY, (*values, label), strict=True)) for values in wanted]
    for key in keys:
        if find_records(read_records(found), key):
            continue
        commit = describe_commit()  # before: the checkout may change meanwhile
        texts = _write_texts(data_dir, text_task, output_dir / "texts.txt")
        run = output_dir / "supernet"
        words = ["stages=[rewire, general]", f"task.max_seq_length={max_seq_length}"]
        words += [f"general.max_steps={general_steps}", f"general.learning_rate={general_learning_rate}"]
        words += [f"space.width_mult_list={mults}", f"space.depth_mult_list={mults}", "general.eval_steps=200"]
        flags = {"model_name_or_path": model, "general.text_file": str(texts), "output_dir": str(run)}
        db.run(db.load_config(None, words, flags))
        files = write_short_task(key["task"], str(data_dir), num_examples, output_dir / key["task"])
        loaded = db.load_task(key["task"], train_file=files["task.train_file"], dev_file=files["task.dev_file"])
        small = output_dir / f"{key['start']}-{key['subnet']}"
        if not (small / METADATA_FILE).exists():
            supernet = db.load_model(run / STARTS[key["start"]])
            db.extract(supernet, supernet.search_space().parse(key["subnet"])).save_pretrained(small)
        place = output_dir / key["task"] / f"seed-{key['seed']}" / small.name
        if not (place / METADATA_FILE).exists():
            config = db.FinetuneConfig(num_train_epochs=epochs, learning_rate=learning_rate, seed=key["seed"])
            db.finetune(small, loaded, output_dir=place, config=config, max_seq_length=max_seq_length)
        (row,) = db.evaluate_grid(db.load_model(place), loaded)
        record = {
            **key,
            "metrics": {name: row[name] for name in loaded.metrics},
            "macs": row["macs"],
            "general": _spent(run / "general"),
            "finetune": _spent(place),
            "configuration": settings,
            "machine": describe_machine(),
            "commit": commit,
        }
        add_records(found, [record], KEY)
    rows = [row for row in find_records(read_records(found), {"settings": label}) if row["task"] in task]
    show_table(HEADINGS[""], _lines(rows), title="on dev, mean over the seeds", num_names=2)
    for suffix, headings in HEADINGS.items() if result_file else ():
        guide = result_file.parent / f"general{suffix}.md"
        if guide.is_file():
            update(guide, BEGIN, markdown(headings, _lines(rows)))
    print(f"wrote {found}")


def _write_texts(data_dir: Path, tasks: list[str], path: Path) -> Path:
    """Write the texts of training files, each once, in a file of one text a line."""
    import dynabert_paddle as db

    if not path.is_file():
        texts: dict[str, None] = {}
        for name in tasks:
            examples = db.load_task(name, data_dir=data_dir).train
            for column in (examples.texts, examples.pairs or ()):
                texts |= dict.fromkeys(" ".join(text.split()) for text in column)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(f"{text}\n" for text in texts if text))
    return path


def _spent(folder: Path) -> dict[str, Any]:
    """The examples that a stage has read, and the seconds that it took."""
    return dict(read_metadata(folder).provenance["spent"])


def _lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """One line for each task and sub-network that both starts have, over the seeds that both have."""
    lines = []
    for name, part in sorted({(row["task"], row["subnet"]) for row in rows}):
        scores = {
            start: {row["seed"]: next(iter(row["metrics"].items())) for row in group}
            for start in STARTS
            if (group := find_records(rows, {"task": name, "subnet": part, "start": start}))
        }
        seeds = sorted(set.intersection(*map(set, scores.values()))) if len(scores) == len(STARTS) else []
        if not seeds:
            continue
        metric = scores["cut"][seeds[0]][0]
        cut, general = ([scores[start][seed][1] for seed in seeds] for start in STARTS)
        macs = next(row["macs"] for row in rows if row["subnet"] == part)
        shown = [
            f"{100 * mean(values):.2f} ({' '.join(f'{100 * v:.2f}' for v in values)})" for values in (cut, general)
        ]
        points = f"{100 * (mean(general) - mean(cut)):+.2f}"
        lines.append([f"{name} ({metric})", part, f"{macs / 1e9:.2f} G", ", ".join(map(str, seeds)), *shown, points])
    return lines


if __name__ == "__main__":
    run_command(main)
