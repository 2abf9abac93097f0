"""The job of an export: the arguments of the worker process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExportJob:
    """The checked arguments of `run.export`.

    Args:
        model_dir: the model folder.
        output_dir: the bundle to write, for messages.
        partial_dir: hidden folder to write it to.
        format: one of `formats.TOLERANCES`.
        precision: one of the format's precisions.
        subnet: name of the only sub-network to export; None for the whole model.
        subnets: names, or `pareto:N`, for a bundle of several sub-networks; None for a bundle of one.
        trained_task: the task of the model when the export began.
        task: settings of `config.TaskConfig` for the data that calibrates and scores.
        task_is_given: whether the user set some of them; then missing data is an error.
        max_seq_length: tokens to which texts are cut; None for the length the model was trained with.
        num_calibration_examples: training texts for int8's calibration.
        tolerance: replaces the format's own tolerance.
    """

    model_dir: Path
    output_dir: Path
    partial_dir: Path
    format: str
    precision: str
    subnet: str | None
    subnets: str | tuple[str, ...] | None
    trained_task: Mapping[str, Any]
    task: Mapping[str, Any]
    task_is_given: bool
    max_seq_length: int | None
    num_calibration_examples: int
    tolerance: float | None
