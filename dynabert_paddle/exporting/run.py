"""Export a model to a bundle, in a process of its own, so that it works where Paddle is already imported."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dynabert_paddle.bundle.manifest import BUNDLE_FILE
from dynabert_paddle.config.loading import inherited_settings
from dynabert_paddle.errors import UsageError
from dynabert_paddle.exporting.formats import PADDLE_FORMATS, check_request, needs_legacy, paddle_format
from dynabert_paddle.exporting.verification import summarize_verification
from dynabert_paddle.exporting.worker import export_job
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.folder import check_replaceable
from dynabert_paddle.files.metadata import check_model_folder, read_metadata
from dynabert_paddle.runtime.interpreter import run_apart

if TYPE_CHECKING:
    from dynabert_paddle.supernet.supernet import Supernet

logger = logging.getLogger(__name__)


def export(
    model: Supernet | str | Path,
    output_dir: str | Path,
    *,
    format: str | None = None,
    precision: str = "fp32",
    subnet: str | None = None,
    subnets: str | Sequence[str] | None = None,
    task: Mapping[str, Any] | None = None,
    max_seq_length: int | None = None,
    num_calibration_examples: int = 64,
    tolerance: float | None = None,
    overwrite: bool = False,
) -> Path:
    """Export a model to a bundle and check it against the model before it is called done.

    Args:
        model: a model, or its folder.
        output_dir: the bundle.
        format: paddle (legacy `.pdmodel`), pir (`.json`), openvino (which runs the legacy graph), onnx, or lite; by
            default paddle, or pir from Paddle 3.2 on.
        precision: fp32; for some formats bf16, int16 or int8.
        subnet: export this sub-network of the model.
        subnets: export several into one bundle that stores their weights once: their names, or `pareto:N` for N of the
            Pareto set that `dynabert search` has found.
        task: for int8 and `subnets`, the settings of `config.TaskConfig` that differ from what the model was trained
            on. int8: its training texts calibrate, its dev set decides. `subnets`: its dev set tells which is the best;
            MACs do where it is not to be had.
        max_seq_length: longer texts are cut to so many tokens; by default as the model was trained.
        num_calibration_examples: training texts that int8 is calibrated on.
        tolerance: how far the bundle may be from the model, in place of the format's own: the largest difference of
            logits, as a share of the largest logit where that is more than 1, or for int8 the loss of the task's first
            metric on the dev set.
        overwrite: replace what is in `output_dir`.

    Returns:
        The bundle's folder.

    Raises:
        DynabertError: with the reason in one line; no bundle was written.
    """
    format = format or paddle_format()
    check_request(format, precision)
    if subnets is not None:
        _check_several(subnets, model, subnet=subnet, format=format, precision=precision)
    if num_calibration_examples < 1:
        raise UsageError(f"num_calibration_examples is at least 1, not {num_calibration_examples}")
    if tolerance is not None and not tolerance >= 0:
        raise UsageError(f"tolerance is at least 0, not {tolerance}")
    if not str(output_dir) or not Path(output_dir).name:
        raise UsageError(f"--output_dir '{output_dir}' names no folder: name one for the bundle")
    output_dir = Path(output_dir)
    check_replaceable(output_dir, overwrite=overwrite)
    with TemporaryDirectory(prefix="dynabert-export-") as scratch:
        folder = Path(model) if isinstance(model, (str, Path)) else model.save_pretrained(Path(scratch) / "model")
        check_model_folder(folder)
        if output_dir.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise UsageError(f"{output_dir} holds the model to export: name another --output_dir")
        trained_for = read_metadata(folder).task
        given = {key: value for key, value in (task or {}).items() if value is not None}
        job = {
            "model_dir": str(folder),
            "output_dir": str(output_dir),
            "format": format,
            "precision": precision,
            "subnet": subnet,
            "subnets": subnets if subnets is None or isinstance(subnets, str) else list(map(str, subnets)),
            "task_is_given": bool(given),
            "task": {**inherited_settings(trained_for, given), **given},
            "max_seq_length": max_seq_length,
            "num_calibration_examples": num_calibration_examples,
            "tolerance": tolerance,
            "overwrite": overwrite,
        }
        logger.info("exporting %s to %s, %s", folder, format, precision)
        missing = [parent for parent in output_dir.parents if not parent.exists()]
        try:
            verification = run_apart(export_job, job, legacy=needs_legacy(format), name=f"the export to {format}")
        except BaseException:
            for parent in missing:  # the innermost first
                with suppress(OSError):
                    parent.rmdir()
            raise
    logger.info("checked against the model: %s", summarize_verification(verification))
    if subnets is not None:
        made = read_json(output_dir / BUNDLE_FILE)
        names = ", ".join(f"{member['subnet']} ({member['score']:.4g})" for member in made["members"])
        logger.info("best first by %s: %s", made["ranked_by"]["metric"], names)
    return output_dir


def _check_several(
    subnets: str | Sequence[str], model: Any, *, subnet: str | None, format: str, precision: str
) -> None:
    if subnet:
        raise UsageError("--subnet is for one sub-network and --subnets for several: give one of them")
    if format not in PADDLE_FORMATS or precision not in ("fp32", "bf16"):
        raise UsageError(
            f"--subnets is there for the formats {', '.join(PADDLE_FORMATS)} in fp32 or bf16, not for {format} in "
            f"{precision}: export each sub-network by itself with --subnet"
        )
    if not isinstance(model, (str, Path)) and "pareto:" in str(subnets):
        raise UsageError("pareto:N are a search's results, which lie in the model's folder: give that, not the model")
