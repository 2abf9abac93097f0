#!/usr/bin/env python
"""Draw the README's chart from a run's folder: the score on the dev set against MACs, by the report's own code.

python scripts/bench/readme_chart.py out/quickstart docs/tradeoff.svg
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib
import typer

from dynabert_paddle.cli.script import run_command
from dynabert_paddle.reporting.chart import STYLE
from dynabert_paddle.reporting.collect import collect
from dynabert_paddle.reporting.tradeoff import draw_tradeoffs


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    output_file: Annotated[Path, typer.Argument(help="Image to write, such as an .svg.")],
) -> None:
    """Write the chart of the grid and the fixed-size models against MACs."""
    with matplotlib.rc_context(STYLE):
        charts = [chart for chart in draw_tradeoffs(collect(folder)) if "MACs of 128" in chart.title.en]
        charts[-1].figure.savefig(output_file, metadata={"Date": None} if output_file.suffix == ".svg" else None)
    print(f"wrote {output_file}")


if __name__ == "__main__":
    run_command(main)
