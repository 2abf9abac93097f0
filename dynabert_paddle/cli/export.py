"""The verbs `extract` and `export`: small models, and bundles of them for other runtimes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dynabert_paddle.cli.options import with_sections
from dynabert_paddle.cli.output import show_next
from dynabert_paddle.cli.run import OverwriteOutputDir
from dynabert_paddle.config.settings import TaskConfig


def extract(
    model_dir: Annotated[str, typer.Argument(metavar="DIR", help="Supernet's folder.")],
    subnet: Annotated[str, typer.Argument(help="Sub-network, such as w0.50d0.75 or l0h6f768-l2h3f384.")],
    *,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Folder for the small model.")],
    overwrite_output_dir: OverwriteOutputDir = False,
) -> None:
    """Cut a sub-network out of a supernet as a small model of its own."""
    from dynabert_paddle.errors import UsageError
    from dynabert_paddle.files.claim import claim
    from dynabert_paddle.files.folder import EXTRACT
    from dynabert_paddle.files.ownership import check_replaceable
    from dynabert_paddle.runtime.device import set_device
    from dynabert_paddle.runtime.environment import import_paddle

    if not output_dir:
        raise UsageError("--output_dir is empty: name a folder")
    check = partial(check_replaceable, output_dir, EXTRACT, overwrite=overwrite_output_dir, inputs=[model_dir])
    check()  # now, and again once no other run writes there
    import_paddle(models_only=True)
    set_device("cpu")
    from dynabert_paddle.supernet.extract import extract
    from dynabert_paddle.supernet.supernet import load_model

    supernet = load_model(model_dir)
    small = extract(supernet, supernet.search_space().parse(subnet))
    with claim(output_dir, EXTRACT) as claimed:
        check()
        small.save_claimed(claimed, replace=True)
    whole, part = (model.search_space().num_params(model.full) for model in (supernet, small))
    print(f"{part / 1e6:.2f} M of {whole / 1e6:.2f} M parameters")
    is_general = small.metadata.is_general
    then = ("finetune", "--model_name_or_path", output_dir) if is_general else ("export", output_dir)
    show_next(*then, "--output_dir", "NEW_DIR", wrote=[output_dir])


@with_sections(("task", TaskConfig), from_dir=["task"])
def export(
    model_dir: Annotated[str, typer.Argument(metavar="DIR", help="Model folder.")],
    *,
    output_dir: Annotated[str, typer.Option("--output_dir", help="Folder for the bundle.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="paddle, pir, openvino, onnx or lite; auto for the fastest on this machine.",
            show_default="paddle; pir from Paddle 3.2 on",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="fp32, bf16, int16 or int8, if the format has it; auto with --format auto.",
            show_default="fp32; auto with --format auto",
        ),
    ] = None,
    subnet: Annotated[
        str | None,
        typer.Option("--subnet", help="Export this sub-network of the model.", show_default="the whole model"),
    ] = None,
    subnets: Annotated[
        str | None,
        typer.Option(
            "--subnets",
            metavar="'A B'",
            help="Export several into one bundle: names, or pareto:N of the search's Pareto front.",
        ),
    ] = None,
    num_calibration_examples: Annotated[
        int, typer.Option("--num_calibration_examples", help="Training texts that calibrate int8.")
    ] = 64,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            help="Allowed difference between bundle and model: of logits, relative to the largest if that exceeds 1; "
            "for int8 the loss of the metric on the dev set.",
            show_default="that of the format and precision",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch_size", min=1, help="Texts in a batch that --format auto times.", show_default="1"),
    ] = None,
    seq_length: Annotated[
        int | None,
        typer.Option("--seq_length", min=1, help="Tokens of these texts.", show_default="64, or the bundle's maximum"),
    ] = None,
    overwrite_output_dir: OverwriteOutputDir = False,
    flags: dict[str, Any],
) -> None:
    """Export a model to a bundle for Paddle Inference, ONNX Runtime or Paddle Lite, and check it against the model."""
    from dynabert_paddle.exporting.run import export

    task = {key.partition(".")[2]: value for key, value in flags.items() if value is not None}
    export(
        model_dir,
        output_dir,
        format=format,
        precision=precision,
        subnet=subnet,
        subnets=subnets,
        task=task,
        max_seq_length=task.pop("max_seq_length", None),
        num_calibration_examples=num_calibration_examples,
        tolerance=tolerance,
        batch_size=batch_size,
        seq_length=seq_length,
        overwrite=overwrite_output_dir,
    )
    if format == "auto":
        _show_choice(Path(output_dir))
    if format == "lite":
        show_next("evaluate", model_dir, wrote=[output_dir])
    else:
        show_next("predict", output_dir, "-i", "texts.tsv", wrote=[output_dir])


def _show_choice(bundle: Path) -> None:
    """Print what was compared, as the bundle records it."""
    from dynabert_paddle.bundle.manifest import BUNDLE_FILE
    from dynabert_paddle.cli.table import show_table
    from dynabert_paddle.files.atomic import read_json

    choice = read_json(bundle / BUNDLE_FILE)["choice"]
    lines = [
        [
            f"{one['format']} {one['precision']}",
            one["result"],
            "" if "latency_ms" not in one else f"{one['latency_ms']:.2f}",
            "" if "ratio" not in one else f"{one['ratio']:.2f}",
        ]
        for one in choice["candidates"]
    ]
    sets = ", ".join(choice["instruction_sets"]) or "none of AVX2, AVX-512, VNNI, bf16, AMX"
    shape = f"{choice['batch_size']}x{choice['seq_length']} tokens, {choice['num_threads']} threads"
    title = f"{shape}; {choice['processor']} ({sets})"
    show_table(["format", "result", "ms", "/ chosen"], lines, title=title, num_names=2)


COMMANDS = (extract, export)
