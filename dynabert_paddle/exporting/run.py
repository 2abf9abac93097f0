"""Export a model to a bundle, in a fresh process: Paddle's graph format is fixed once Paddle is imported."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dynabert_paddle.bundle.manifest import BUNDLE_FILE
from dynabert_paddle.config.loading import inherited_settings
from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import UsageError
from dynabert_paddle.exporting.auto import export_fastest
from dynabert_paddle.exporting.candidates import AUTO_PRECISION, list_candidates
from dynabert_paddle.exporting.formats import AUTO, PADDLE_FORMATS, check_request, needs_legacy, paddle_format
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import APP_FILES, BundleManifest
from dynabert_paddle.files.claim import claim
from dynabert_paddle.files.folder import EXPORT, folder_bytes
from dynabert_paddle.files.metadata import check_has_task, read_metadata
from dynabert_paddle.files.model_folder import check_model_folder
from dynabert_paddle.files.ownership import check_replaceable
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.interpreter import run_apart
from dynabert_paddle.runtime.machine import slow_precision

if TYPE_CHECKING:
    from dynabert_paddle.supernet.supernet import Supernet

logger = logging.getLogger(__name__)


def export(
    model: Supernet | str | Path,
    output_dir: str | Path,
    *,
    format: str | None = None,
    precision: str | None = None,
    subnet: str | None = None,
    subnets: str | Sequence[str] | None = None,
    task: Mapping[str, Any] | None = None,
    max_seq_length: int | None = None,
    num_calibration_examples: int = 64,
    tolerance: float | None = None,
    batch_size: int | None = None,
    seq_length: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Export a model to a bundle. The bundle appears in `output_dir` only after it passed its check against the model.

    Args:
        model: a model, or its folder.
        output_dir: the bundle's folder.
        format: paddle (legacy `.pdmodel`), pir (`.json`), openvino (runs the legacy graph), onnx, or lite; by default
            paddle, or pir from Paddle 3.2 on. auto writes the fastest of all but lite, timed on this machine.
        precision: fp32; for some formats also bf16, int16 or int8. By default fp32, with the format auto the fastest.
        subnet: name of the only sub-network to export; by default the whole model.
        subnets: export several sub-networks into one bundle that stores their weights once: their names, or `pareto:N`
            for N of the Pareto front that `dynabert search` found.
        task: settings of `config.TaskConfig` that differ from the model's training task. int8 reads training texts for
            the calibration, and the dev set to check the score. `subnets` reads the dev set to rank the sub-networks;
            without a dev set, they are ranked by MACs.
        max_seq_length: tokens to which texts are cut; by default as in training.
        num_calibration_examples: number of training texts for int8's calibration.
        tolerance: replaces the default of the format and precision. It bounds the difference between logits, relative
            to the largest logit if that exceeds 1; for int8, the loss of the task's first metric on the dev set.
            With the format auto it bounds that loss alone.
        batch_size: texts in the batches on which the format auto times formats; 1 by default.
        seq_length: tokens in each of these texts; by default 64, or the bundle's maximum if that is smaller.
        overwrite: replace an existing `output_dir`.

    Returns:
        The bundle's folder.

    Raises:
        DynabertError: the export failed; no bundle was written.
    """
    format = format or paddle_format()
    if format == AUTO:
        precision = precision or AUTO_PRECISION
        list_candidates(None if precision == AUTO_PRECISION else precision, has_members=subnets is not None)
    else:
        precision = precision or "fp32"
        check_request(format, precision)
    _check_shape(format, batch_size, seq_length)
    if subnets is not None:
        _check_subnets(subnets, model, subnet=subnet, format=format, precision=precision)
    if num_calibration_examples < 1:
        raise UsageError(f"{setting('num_calibration_examples')} is at least 1, not {num_calibration_examples}")
    if tolerance is not None and not tolerance >= 0:
        raise UsageError(f"{setting('tolerance')} is at least 0, not {tolerance}")
    if not str(output_dir) or not user_path(output_dir).name:
        raise UsageError(f"{setting('output_dir')} '{output_dir}' is not the name of a folder: name one for the bundle")
    output_dir = user_path(output_dir)
    changes = {key: value for key, value in (task or {}).items() if value is not None}
    with ExitStack() as stack:
        if isinstance(model, (str, Path)):
            folder = user_path(model)
        else:
            scratch = stack.enter_context(TemporaryDirectory(prefix="dynabert-export-"))
            folder = model.save_pretrained(Path(scratch) / "model")
        check_model_folder(folder)
        metadata = read_metadata(folder)
        check_has_task(folder, metadata)
        trained_task = metadata.task
        task = {**inherited_settings(trained_task, changes), **changes}
        if overwrite and output_dir.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise UsageError(f"{output_dir} holds the model to export: name another {setting('output_dir')}")
        inputs = [str(task[key]) for key in ("data_dir", "train_file", "dev_file", "retrieval_dir") if task.get(key)]
        check_replaceable(output_dir, EXPORT, overwrite=overwrite, inputs=inputs)
        claimed = stack.enter_context(claim(output_dir, EXPORT))
        check_replaceable(output_dir, EXPORT, overwrite=overwrite, inputs=inputs)  # it may just have been written
        partial = stack.enter_context(claimed.partial())
        job = ExportJob(
            model_dir=folder,
            output_dir=output_dir,
            partial_dir=partial,
            format=format,
            precision=precision,
            subnet=subnet,
            subnets=subnets if subnets is None or isinstance(subnets, str) else tuple(map(str, subnets)),
            trained_task=trained_task,
            task=task,
            task_is_given=bool(changes),
            max_seq_length=max_seq_length,
            num_calibration_examples=num_calibration_examples,
            tolerance=tolerance,
        )
        if format == AUTO:
            logger.info("exporting %s to the fastest format of this machine", folder)
            manifest = export_fastest(job, batch_size=batch_size or 1, seq_length=seq_length)
            logger.info("the fastest: %s in %s", manifest.format, manifest.precision)
        else:
            logger.info("exporting %s to %s, %s", folder, format, precision)
            manifest = run_apart(export_job, job, legacy=needs_legacy(format), name=f"the export to {format}")
        claimed.take(partial, last=BUNDLE_FILE, replace=True)
    logger.info("checked against the model: %s", manifest.verification)
    logger.info("the bundle has %.2f MB in all", folder_bytes(output_dir) / 1e6)
    if manifest.footprint is not None:
        app = sum((output_dir / name).stat().st_size for name in APP_FILES) / 1e6
        logger.info("an app needs %.2f MB of it; %s", app, manifest.footprint)
    if format not in (AUTO, "lite") and (warning := slow_precision(precision, format)):  # Lite is for other machines
        logger.warning("%s: compare the bundle with the model on the machine that will run it", warning)
    if manifest.members is not None and manifest.ranked_by is not None:
        names = ", ".join(f"{member.subnet} ({member.score:.4g})" for member in manifest.members)
        logger.info("best first by %s: %s", manifest.ranked_by["metric"], names)
    return output_dir


def export_job(job: ExportJob) -> BundleManifest:
    """Run the export's worker in the fresh process that `export` starts, and return the bundle's manifest."""
    # Imported here, because it imports Paddle, which the process that calls `export` does not need.
    from dynabert_paddle.exporting.worker import make_bundle

    return make_bundle(job)


def _check_shape(format: str, batch_size: int | None, seq_length: int | None) -> None:
    for name, value in (("batch_size", batch_size), ("seq_length", seq_length)):
        if value is not None and format != AUTO:
            raise UsageError(
                f"{setting(name)} is for {setting('format')} auto alone, which times formats: leave it out"
            )
        if value is not None and value < 1:
            raise UsageError(f"{setting(name)} is at least 1, not {value}")


def _check_subnets(
    subnets: str | Sequence[str], model: Any, *, subnet: str | None, format: str, precision: str
) -> None:
    if subnet:
        raise UsageError(
            f"{setting('subnet')} exports one sub-network and {setting('subnets')} several: give one of them"
        )
    if format != AUTO and (format not in PADDLE_FORMATS or precision not in ("fp32", "bf16")):
        raise UsageError(
            f"{setting('subnets')} supports the formats {', '.join(PADDLE_FORMATS)} in fp32 or bf16, not {format} in "
            f"{precision}: export each sub-network separately with {setting('subnet')}"
        )
    if not isinstance(model, (str, Path)) and "pareto:" in str(subnets):
        raise UsageError("pareto:N reads the search result in a model folder: pass that folder, not a model object")
