"""The verb `report`."""

from __future__ import annotations

from typing import Annotated

import typer

from dynabert_paddle.cli.output import show_next
from dynabert_paddle.cli.run import Device
from dynabert_paddle.cli.stages import start_paddle


def report(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a run, or of one of its stages.")],
    *,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="DIR",
            help="A model that 'dynabert compress' has made, as a point of the charts; repeat for more.",
        ),
    ] = None,
    output_file: Annotated[
        str | None, typer.Option("--output_file", help="The page.", show_default="DIR/report.html")
    ] = None,
    language: Annotated[
        str, typer.Option("--language", help="Language shown first: en, zh, or auto for the browser's.")
    ] = "auto",
    visualdl: Annotated[
        bool, typer.Option("--visualdl/--no_visualdl", help="Also write the charts for VisualDL, to DIR/vdl_report.")
    ] = True,
    per_class: Annotated[
        bool,
        typer.Option(
            "--per_class",
            help="Also score each class with the full model and the recommended sub-network on the dev set.",
        ),
    ] = False,
    device: Device = None,
) -> None:
    """Write the report of a run as one HTML page: charts, settings and provenance."""
    from dynabert_paddle.files.folder import CONFIG_FILE, RECORDS_FOLDER
    from dynabert_paddle.reporting.collect import collect
    from dynabert_paddle.reporting.run import recommend, score_classes_of, write_page

    run = collect(folder, compare or ())
    classes = {}
    if per_class:
        start_paddle(device or "auto")
        classes = score_classes_of(run)
    page = write_page(run, output_file=output_file, language=language, visualdl=visualdl, classes=classes)
    wrote = [page, run.folder / RECORDS_FOLDER] if visualdl else [page]
    if run.model:
        subnet = recommend(run)
        chosen = ["--subnet", subnet] if subnet else []
        show_next("export", run.model.folder, *chosen, "--output_dir", "NEW_DIR", wrote=wrote)
    elif run.config:
        show_next("run", run.folder / CONFIG_FILE, wrote=wrote)
    else:
        show_next("report", run.folder, wrote=wrote)


COMMANDS = (report,)
