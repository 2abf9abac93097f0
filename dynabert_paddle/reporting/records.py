"""The report for VisualDL: the charts as images, importance as histograms, scores as scalars."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dynabert_paddle.files.claim import claim
from dynabert_paddle.reporting.chart import Chart
from dynabert_paddle.reporting.content import Run

# VisualDL takes any name that contains 'vdlrecords'; a fixed one lets a new report replace the old one.
_FILE = "vdlrecords.report.log"


def write_records(folder: Path, run: Run, charts: Iterable[Chart]) -> None:
    """Write a folder that `visualdl --logdir` shows as one run.

    Args:
        folder: the folder.
        run: the run.
        charts: drawn charts.

    Raises:
        DynabertError: the folder cannot be written to.
    """
    from dynabert_paddle.training.record_log import RecordLog

    def write(partial: Path) -> None:
        with RecordLog(logdir=str(partial), file_name=_FILE) as writer:
            for chart in charts:
                writer.add_image(tag=f"report/{chart.name}", img=chart.image(), step=0)
            importance = run.model.metadata.importance if run.model else {}
            for what, layers in importance.items():
                for layer, values in enumerate(layers):
                    writer.add_histogram(tag=f"importance/{what}/layer{layer}", values=values, step=0, buckets=20)
            if run.grid:
                for row in run.grid.rows:
                    for metric, value in row.metrics.items():
                        writer.add_scalar(tag=f"{run.grid.split}/{metric}/{row.subnet}", value=value, step=0)

    # A second report of the same folder waits for the first: each is written within seconds.
    with claim(folder, None, wait_seconds=60) as claimed:
        claimed.write(write, last=_FILE)
