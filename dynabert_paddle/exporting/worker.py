"""The worker of an export. It runs in a fresh process, which imports Paddle for one graph format."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dynabert_paddle.bundle.engines import open_engine
from dynabert_paddle.exporting import lite_converter
from dynabert_paddle.exporting.bundle import seal, write_tokenizer_and_script
from dynabert_paddle.exporting.byte_tables import store_tables_as_bytes
from dynabert_paddle.exporting.check import Run
from dynabert_paddle.exporting.formats import PADDLE_FORMATS, TOLERANCES
from dynabert_paddle.exporting.graphs import (
    check_graph,
    check_members,
    load_int8_data,
    run_batches,
    write_graph,
    write_members,
)
from dynabert_paddle.exporting.inference import save_graph
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import BundleManifest, Footprint
from dynabert_paddle.exporting.program import matmul_to_mul, rewrite
from dynabert_paddle.exporting.source import describe_source, load_source
from dynabert_paddle.files.atomic import handle_write_errors
from dynabert_paddle.runtime.machine import describe_processor
from dynabert_paddle.supernet.supernet import Supernet


def make_bundle(job: ExportJob) -> BundleManifest:
    """Export a model folder to a bundle in the hidden folder `job.partial_dir`.

    Args:
        job: the checked arguments of `run.export`.

    Returns:
        The manifest of the finished bundle.

    Raises:
        DynabertError: the export failed; no bundle was written.
    """
    supernet, weights = load_source(job)
    manifest = describe_source(supernet, job, weights)
    tolerance = TOLERANCES[job.format][job.precision] if job.tolerance is None else job.tolerance
    with handle_write_errors(job.output_dir):
        write_tokenizer_and_script(supernet, job.partial_dir, format=job.format)
        if manifest.members is None:
            finished = _write_one(manifest, supernet, job, tolerance)
        else:
            written = replace(manifest, members=write_members(supernet, manifest.members, job.partial_dir))
            finished = check_members(written, supernet, job.partial_dir, tolerance)
        seal(job.partial_dir, finished)
    return finished


def _write_one(manifest: BundleManifest, supernet: Supernet, job: ExportJob, tolerance: float) -> BundleManifest:
    """Write the graph of the whole model, check it, and return the finished manifest."""
    data, folder = None, job.partial_dir
    if job.precision == "int8":
        calibrates = job.format in PADDLE_FORMATS
        data = load_int8_data(supernet, job, manifest.max_seq_length, calibrates=calibrates)
    run: Run
    with TemporaryDirectory() as scratch:
        graph = Path(scratch)
        save_graph(supernet, graph)
        if job.format == "lite":
            python = lite_converter.find_converter()
            manifest = _write_lite(manifest, folder, graph, python)
            run = partial(lite_converter.run_x86, folder / "model_x86.nb", python=python)
        else:
            calibration = data.calibration if data else ()
            write_graph(supernet, folder, graph, format=job.format, precision=job.precision, calibration=calibration)
            run = run_batches(open_engine(folder, manifest.to_json()))
    return check_graph(manifest, supernet, run, data, tolerance)


def _write_lite(manifest: BundleManifest, folder: Path, graph: Path, python: Path) -> BundleManifest:
    """Write a `.nb` file for each target; the manifest gets Lite's order of inputs and version, and the footprint."""
    rewrite(graph / "model.pdmodel", matmul_to_mul)
    if manifest.precision == "int8":
        store_tables_as_bytes(graph)
    for target in lite_converter.TARGETS:
        model = folder / f"model_{target}.nb"
        lite_converter.convert(graph, model, target=target, precision=manifest.precision, python=python)
    inputs = lite_converter.input_names(folder / "model_arm.nb", python=python)
    length = manifest.max_seq_length
    measured = lite_converter.measure_x86(folder / "model_x86.nb", seq_length=length, python=python)
    return replace(
        manifest,
        inputs=inputs,
        paddlelite=lite_converter.converter_version(python),
        footprint=Footprint(**measured, seq_length=length, processor=describe_processor()),
    )
