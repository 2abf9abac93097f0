#!/usr/bin/env python
"""Used by bench/run_arm.sh: compare_arm.py class GUIDE HEADER; compare_arm.py compare MODEL_DIR RUNNER BUNDLE..."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from dynabert_paddle.cli.table import show_table
from dynabert_paddle.files.atomic import read_json, write_json
from dynabert_paddle.runtime.environment import import_paddle

app = typer.Typer(pretty_exceptions_enable=False)


@app.command("class")
def write_class(guide: Path, header: Path) -> None:
    """Cut the C++ class out of the guide: the code that readers copy is the code that runs."""
    code = re.search(r"```cpp\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    if code is None:
        raise SystemExit(f"error: {guide}: no C++ in it")
    header.write_text(code[1], encoding="utf-8")


@app.command()
def compare(
    model_dir: Path,
    runner: Path,
    bundles: list[Path],
    num_texts: Annotated[int, typer.Option("--num_texts", min=1, help="Texts of the dev set.")] = 100,
) -> None:
    """Print the largest differences of logits for the first texts of the dev set; write them to `arm.json`."""
    import_paddle()  # first, so that importing Paddle prints nothing
    from dynabert_paddle.data.described_tasks import load_described_task
    from dynabert_paddle.exporting import lite_converter
    from dynabert_paddle.exporting.check import collate_inputs, source_logits
    from dynabert_paddle.supernet.supernet import load_model
    from dynabert_paddle.training.inputs import match_task, tokenize_examples

    model = load_model(model_dir)
    task = match_task(model, load_described_task(model.metadata.task), model_dir)
    dev = tokenize_examples(task.dev.select(np.arange(min(num_texts, len(task.dev)))), model)
    batches = [collate_inputs(dev, np.array([row]), model.pad_token_id) for row in range(len(dev))]
    paddle, rows = source_logits(model, batches), []
    python = lite_converter.find_converter()
    for bundle in bundles:
        x86 = lite_converter.run_x86(bundle / "model_x86.nb", batches, python=python)
        arm = run_emulated(runner, bundle / "model_arm.nb", batches)
        rows.append(
            {
                "precision": read_json(bundle / "bundle.json")["precision"],
                "nb_bytes": (bundle / "model_arm.nb").stat().st_size,
                "texts": len(batches),
                "arm_from_paddle": largest_difference(arm, paddle),
                "arm_from_x86": largest_difference(arm, x86),
                "other_answers": sum(int(a.argmax() != b.argmax()) for a, b in zip(arm, paddle, strict=True)),
            }
        )
    write_json(runner.parent / "arm.json", {"rows": rows})
    columns = ["precision", ".nb", "ARM - Paddle", "ARM - x86", "other answers"]
    lines = [
        [
            row["precision"],
            f"{row['nb_bytes'] / 1e6:.2f} MB",
            f"{row['arm_from_paddle']:.1e}",
            f"{row['arm_from_x86']:.1e}",
            f"{row['other_answers']} of {row['texts']}",
        ]
        for row in rows
    ]
    show_table(columns, lines, title="largest difference of logits, ARM kernels under emulation")
    print(f"wrote {runner.parent / 'arm.json'}")


def run_emulated(runner: Path, model: Path, batches: Sequence[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Run single texts through the ARM program; returns the logits of each, `[1, classes]`."""
    lines = [
        " ".join(map(str, [batch["input_ids"].size, *batch["input_ids"][0], *batch["token_type_ids"][0]]))
        for batch in batches
    ]
    command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(runner), str(model)]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    found = [np.array(line.split(), np.float32)[None] for line in done.stdout.splitlines() if not line.startswith("[")]
    if done.returncode or len(found) != len(batches):
        raise SystemExit(f"error: {model}: the ARM program failed: {(done.stderr + done.stdout)[-300:]}")
    return found


def largest_difference(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """The largest absolute difference of logits; NaN if there is one."""
    return float(np.max([np.abs(a - b).max() for a, b in zip(first, second, strict=True)]))


if __name__ == "__main__":
    app()
