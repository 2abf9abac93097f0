"""What a training run says while it runs: a progress bar, log lines, a JSONL file, VisualDL scalars."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.files.atomic import handle_write_errors, write_text
from dynabert_paddle.runtime.ranks import is_rank_zero

logger = logging.getLogger("dynabert_paddle")

LOG_FOLDER = "vdl"  # VisualDL's files in a stage's folder

# Log lines and the progress bar share one console, so that the lines appear above the bar.
console = Console(stderr=True)

# In a notebook without widgets Rich draws the bar when it is full, and needs to say no more.
warnings.filterwarnings("ignore", message='install "ipywidgets"')


class RunLog:
    """Logs one stage's run, of several processes in the first one alone; a context manager.

    Args:
        output_dir: gets `train.jsonl` and VisualDL's files in `vdl/`.
        stage: name of the stage, shown beside the bar.
        total_steps: steps of the whole run.
        first_step: steps that an earlier, interrupted process has done; log lines after them are dropped.
        hparams: the stage's settings, for VisualDL.
        metrics: VisualDL tags that the hyper-parameters are compared by.

    Raises:
        DynabertError: something that is no file stands where the log goes.
    """

    def __init__(
        self,
        output_dir: Path,
        stage: str,
        *,
        total_steps: int,
        first_step: int,
        hparams: Mapping[str, object],
        metrics: list[str],
    ) -> None:
        self._path = output_dir / "train.jsonl"
        self._writer = None
        if is_rank_zero():
            from dynabert_paddle.training.record_log import RecordLog

            if self._path.exists() and not self._path.is_file():
                raise DynabertError(f"{self._path}: no file: remove it, the log goes there")
            with handle_write_errors(output_dir):
                self._keep_until(first_step)
                self._writer = RecordLog(logdir=str(output_dir / LOG_FOLDER))
                self._writer.add_hparams({key: _shown(value) for key, value in hparams.items()}, metrics)
        self._stage = stage
        self._total = total_steps
        self._live = is_rank_zero() and (console.is_terminal or console.is_jupyter)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._task = self._progress.add_task(stage, total=total_steps, completed=first_step, note="")

    def __enter__(self) -> RunLog:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live:
            self._progress.stop()
        if self._writer:
            self._writer.close()

    def advance(self) -> None:
        """Move the progress bar by one step."""
        self._progress.advance(self._task)

    def train(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the parts of a step's loss and the learning rate.

        Args:
            step: optimizer steps done.
            scalars: values by name.
        """
        self._record(step, {f"train/{name}": value for name, value in scalars.items()})
        note = f"loss {scalars['loss']:.4f}"
        self._progress.update(self._task, note=note)
        # Where a bar shows them, steps are for a log file alone.
        level = logging.DEBUG if self._live else logging.INFO
        logger.log(level, "%s %d/%d %s", self._stage, step, self._total, note)

    def evaluation(self, step: int, scores: Mapping[str, Mapping[str, float]], split: str) -> None:
        """Log every evaluated sub-network's metrics.

        Args:
            step: optimizer steps done.
            scores: metrics by sub-network.
            split: which data.
        """
        scalars = {f"eval/{metric}/{name}": value for name, row in scores.items() for metric, value in row.items()}
        self._record(step, scalars)
        first = [next(iter(row.values())) for row in scores.values()]
        metric = next(iter(next(iter(scores.values()))))
        logger.info(
            "%s %d/%d %s on %s: mean %.4f, lowest %.4f",
            self._stage,
            step,
            self._total,
            metric,
            split,
            sum(first) / len(first),
            min(first),
        )

    def _record(self, step: int, scalars: Mapping[str, float]) -> None:
        if not self._writer:
            return
        for tag, value in scalars.items():
            self._writer.add_scalar(tag=tag, step=step, value=value)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scalars}) + "\n")

    def _keep_until(self, step: int) -> None:
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and _step_of(line) <= step]
            write_text(self._path, "".join(kept))


def _step_of(line: str) -> float:
    """The step that a line is of; beyond all where the line is damaged, and is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")


def _shown(value: object) -> int | float | str:
    """As VisualDL takes a setting."""
    return value if isinstance(value, (int, float, str)) else str(value)
