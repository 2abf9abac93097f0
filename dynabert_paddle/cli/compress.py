"""The verb `compress`: make a model smaller with one method."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import show_json, show_next
from dynabert_paddle.cli.resume import from_checkpoint
from dynabert_paddle.cli.run import Device, Json, OverwriteOutputDir
from dynabert_paddle.cli.stages import OutputDir, check_encoding, load_settings, read_model_metadata
from dynabert_paddle.cli.table import show_table
from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.runtime.interruption import resumable


@with_sections(("compress", CompressConfig), ("task", TaskConfig))
def compress(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="vocabulary, low_rank, sparse, share_layers or quantize_aware.")
    ],
    model_dir: Annotated[str, typer.Argument(metavar="DIR", help="Model folder of any stage, or an extracted one.")],
    *,
    output_dir: OutputDir,
    text_file: Annotated[
        list[str] | None,
        typer.Option(
            "--text_file",
            metavar="FILE",
            help="vocabulary: plain text to count pieces in, too, one text per line; repeat for more files.",
        ),
    ] = None,
    device: Device = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    json: Json = False,
    flags: dict[str, Any],
) -> None:
    """Make a model smaller with one method: a model folder in, a model folder out."""
    from dynabert_paddle.config.loading import resolve_config

    own = {key.partition(".")[2]: flags.pop(key) for key in list(flags) if key.startswith("compress.")}
    given = {"method": method, "text_file": tuple(text_file or ()), **own}
    config = resolve_config(CompressConfig, {key: value for key, value in given.items() if value is not None})
    expected = read_model_metadata(model_dir)
    settings = load_settings(expected, None, None, {**flags, "device": device})
    check_encoding(model_dir, expected, settings.task)
    with resumable("compress", resume_point=partial(from_checkpoint, output_dir)):
        from dynabert_paddle.runtime.device import set_device
        from dynabert_paddle.runtime.environment import import_paddle

        import_paddle(models_only=True)
        set_device(settings.device)
        from dynabert_paddle.compressing.compress import compress
        from dynabert_paddle.data.described_tasks import load_task_config

        small = compress(
            model_dir,
            load_task_config(settings.task),
            output_dir=output_dir,
            config=config,
            overwrite=overwrite_output_dir,
            expected=expected,
        )
    record = dict(small.metadata.compression[-1])
    if json:
        show_json(record)
    else:
        _show(record)
    show_next("evaluate", output_dir, "--grid", wrote=[output_dir])


def _show(record: dict[str, Any]) -> None:
    """Print sizes and scores before and after."""
    sides = [record.pop("before"), record.pop("after")]
    zeros = [side.get("zeros", {}) for side in sides]
    method, _ = record.pop("method"), record.pop("finetune_steps")
    pairs = {
        **{metric: [f"{side['metrics'][metric]:.4f}" for side in sides] for metric in sides[0]["metrics"]},
        "parameters": [f"{side['params'] / 1e6:.2f} M" for side in sides],
        "weights": [f"{side['bytes'] / 1e6:.1f} MB" for side in sides],
        **({"weights as gzip -6": [f"{side['gzip_bytes'] / 1e6:.1f} MB" for side in sides]} if zeros[1] else {}),
        "MACs": [f"{side['macs'] / 1e9:.3f} G" for side in sides],
        **{f"zeros in {part}": [f"{100 * side[part]:.1f} %" for side in zeros] for part in zeros[1]},
        **{name: list(map(str, value)) for name, value in record.items() if isinstance(value, list)},
        **{name: ["", str(value)] for name, value in record.items() if not isinstance(value, list)},
    }
    lines = [[name.replace("_", " "), *values] for name, values in pairs.items()]
    show_table(["", "before", "after"], lines, title=f"{method}: the model on dev (MACs of 128 tokens)")
    if method == "sparse":
        print("A sparse model is smaller in an archive alone: its own file is as large, and it is not faster.")


COMMANDS = (compress,)
