"""The verb `baseline`: train models of a fixed size for comparison."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import show_json, show_next
from dynabert_paddle.cli.resume import from_checkpoint
from dynabert_paddle.cli.run import Device, Json, Overrides, OverwriteOutputDir
from dynabert_paddle.cli.stages import ConfigFile, OutputDir, load_settings, read_model_metadata
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.config.settings import BaselineConfig, TaskConfig
from dynabert_paddle.model_shape import MACS_LENGTH
from dynabert_paddle.runtime.interruption import resumable


@with_sections(("task", TaskConfig), ("baseline", BaselineConfig), from_dir=["task"])
def baseline(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="distilbert, tinybert, pruned or finetuned.")],
    model_dir: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="Fine-tuned model; for pruned the rewired model; for finetuned also a backbone."
        ),
    ],
    *,
    output_dir: OutputDir,
    config: ConfigFile = None,
    override: Overrides = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    json: Json = False,
    flags: dict[str, Any],
) -> None:
    """Train a model of one fixed size for comparison, and score it on the task's dev set."""
    flags = {**flags, "baseline.method": method, "device": device}
    is_name = method == "finetuned" and not Path(model_dir).exists()  # of a backbone
    expected = None if is_name else read_model_metadata(model_dir)
    settings = load_settings(expected, config, override, flags)
    with resumable("baseline", resume_point=partial(from_checkpoint, output_dir)):
        from dynabert_paddle.runtime.device import set_device
        from dynabert_paddle.runtime.environment import import_paddle

        import_paddle(models_only=True)
        set_device(settings.device)
        from dynabert_paddle.data.described_tasks import load_task_config
        from dynabert_paddle.files.atomic import read_json
        from dynabert_paddle.training.baseline import BASELINE_FILE, baseline

        baseline(
            model_dir,
            load_task_config(settings.task),
            output_dir=output_dir,
            config=settings.baseline,
            max_seq_length=settings.task.max_seq_length,
            special_tokens_in_text=settings.task.special_tokens_in_text,
            overwrite=overwrite_output_dir,
            expected=expected,
        )
    result = read_json(Path(output_dir) / BASELINE_FILE)
    if json:
        show_json(result)
    else:
        _show(result)
    show_next("export", output_dir, "--output_dir", "BUNDLE_DIR", wrote=[output_dir])


def _show(result: dict[str, Any]) -> None:
    columns = ["method", "shape", *result["metrics"], "params", "MACs", "examples", "seconds"]
    line = [
        result["method"],
        result["subnet"],
        *(f"{value:.4f}" for value in result["metrics"].values()),
        f"{result['params'] / 1e6:.2f} M",
        f"{result['macs'] / 1e9:.3f} G",
        str(result["examples_seen"]),
        f"{result['seconds']:.1f}",
    ]
    title = f"baseline on dev (MACs of one sequence of {MACS_LENGTH} tokens; costs include the fine-tuning)"
    show_table(columns, [line], title=title, num_names=2)


COMMANDS = (baseline,)
