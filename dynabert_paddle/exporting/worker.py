"""The worker of an export. It runs in a fresh process, which imports Paddle for one graph format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.backbone.text_embedding import FOR_EMBEDDING, BackboneForTextEmbedding
from dynabert_paddle.bundle.engines import Engine, open_engine
from dynabert_paddle.bundle.members import open_subnet
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.data.embedding_settings import EmbeddingSettings
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.exporting import lite_converter
from dynabert_paddle.exporting.bundle import describe, kind_of_model, seal, write_tokenizer_and_script
from dynabert_paddle.exporting.byte_tables import store_tables_as_bytes
from dynabert_paddle.exporting.check import Run, collate_inputs, compare_logits, compare_metric
from dynabert_paddle.exporting.described_task import describe_task
from dynabert_paddle.exporting.formats import PADDLE_FORMATS, TOLERANCES
from dynabert_paddle.exporting.inference import save_graph
from dynabert_paddle.exporting.int8 import fuse_int8_matmuls
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import BundleManifest, BundleMember, Footprint, LogitCheck
from dynabert_paddle.exporting.onnx import quantize_dynamic, quantize_static, to_onnx
from dynabert_paddle.exporting.openvino import quantize_matmul_inputs
from dynabert_paddle.exporting.program import matmul_to_mul, rewrite
from dynabert_paddle.exporting.quantize import quantize
from dynabert_paddle.exporting.selection import select_members
from dynabert_paddle.exporting.sharing import share_weights
from dynabert_paddle.exporting.thresholds import add_thresholds
from dynabert_paddle.exporting.trained_scales import quantize_as_trained, read_scales
from dynabert_paddle.files.atomic import handle_write_errors
from dynabert_paddle.files.search_result import hash_weights
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.runtime.machine import describe_processor
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.quantized import find_bits
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.supernet.thresholds import as_array
from dynabert_paddle.training.data_warnings import warn_about_task
from dynabert_paddle.training.inputs import match_task, tokenize_examples

_CALIBRATION_BATCH_SIZE = 8


@dataclass(frozen=True)
class _Int8Data:
    """Batches of training texts for the calibration, and the dev set and metric for the check."""

    calibration: Sequence[dict[str, np.ndarray]]
    dev: FeatureSet
    metric: str


def make_bundle(job: ExportJob) -> BundleManifest:
    """Export a model folder to a bundle in the hidden folder `job.partial_dir`.

    Args:
        job: the checked arguments of `run.export`.

    Returns:
        The manifest of the finished bundle.

    Raises:
        DynabertError: the export failed; no bundle was written.
    """
    load = partial(_load_with_hash, job.model_dir, job.task)
    supernet, weights = load_unchanged(job.model_dir, load, ModelError)
    if dict(supernet.metadata.task) != dict(job.trained_task):
        raise ModelError(f"{job.model_dir} was replaced while this command read it: run the command again")
    if job.subnet:
        supernet = extract(supernet, supernet.search_space().parse(job.subnet))
    if job.task.get("special_tokens_in_text") is not None:
        supernet.read_special_tokens(job.task["special_tokens_in_text"])
    task = describe_task(supernet.metadata.task, job.task, kind=kind_of_model(supernet))
    if isinstance(supernet.model, BackboneForTextEmbedding):
        task |= supernet.model.settings.to_dict()
    supernet.metadata = supernet.metadata.replace(task=task)
    max_seq_length = _max_seq_length(supernet, job.max_seq_length)
    manifest = describe(
        supernet,
        format=job.format,
        precision=job.precision,
        max_seq_length=max_seq_length,
        given_labels=job.task.get("labels"),
    )
    if job.subnets is not None:
        manifest = _add_members(manifest, supernet, job, job.subnets, weights)
    if manifest.task["kind"] == "multi_label":
        manifest = add_thresholds(manifest, supernet, job)
    with handle_write_errors(job.output_dir):
        write_tokenizer_and_script(supernet, job.partial_dir, format=job.format)
        write_graphs = _write_graph if manifest.members is None else _write_members
        finished = write_graphs(manifest, supernet, job, job.partial_dir)
        seal(job.partial_dir, finished)
    return finished


def _load_with_hash(folder: Path, task: Mapping[str, Any]) -> tuple[Supernet, str]:
    """Load a model, and hash its weights, by which a search's result knows them; no other weights' file has such."""
    weights = hash_weights(folder)
    if task.get("kind") != "embedding":
        return Supernet.from_pretrained(folder), weights
    supernet = Supernet.from_pretrained(folder, head=FOR_EMBEDDING)  # of another library, too
    assert isinstance(supernet.model, BackboneForTextEmbedding)
    supernet.model.settings = EmbeddingSettings.of(task).completed(supernet.model.settings, folder)
    return supernet, weights


def _max_seq_length(supernet: Supernet, requested: int | None) -> int:
    length = supernet.metadata.max_seq_length if requested is None else requested
    positions = num_positions(supernet.model.config)
    task = supernet.metadata.task
    texts = 2 if task.get("text_pair_column") and task.get("kind") != "embedding" else 1
    minimum = supernet.tokenizer.num_special_tokens(texts) + texts if supernet.tokenizer else 1
    if requested is not None and not minimum <= requested <= positions:
        raise UsageError(
            f"{setting('task.max_seq_length')} is {requested}: allowed are {minimum} to {positions}, the model's "
            "positions"
        )
    return min(length, positions)


def _add_members(
    manifest: BundleManifest, supernet: Supernet, job: ExportJob, subnets: str | Sequence[str], weights: str
) -> BundleManifest:
    """Return the manifest with the selected sub-networks as members, instead of the whole model."""
    members, ranking = select_members(
        supernet,
        job.model_dir,
        subnets,
        task=job.task,
        task_is_given=job.task_is_given,
        max_seq_length=manifest.max_seq_length,
        weights=weights,
    )
    return replace(manifest, subnet=None, num_params=None, members=members, ranked_by=ranking)


def _write_graph(manifest: BundleManifest, supernet: Supernet, job: ExportJob, folder: Path) -> BundleManifest:
    """Write the graph of the whole model, check it, and return the finished manifest."""
    tolerance = TOLERANCES[job.format][job.precision] if job.tolerance is None else job.tolerance
    data = _load_int8_data(supernet, job, manifest.max_seq_length) if job.precision == "int8" else None
    run: Run
    with TemporaryDirectory() as scratch:
        if job.format == "lite":
            python = lite_converter.find_converter()
            manifest = _write_lite(manifest, supernet, folder, Path(scratch), python)
            run = partial(lite_converter.run_x86, folder / "model_x86.nb", python=python)
        else:
            if job.format == "onnx":
                _write_onnx(supernet, job, folder, Path(scratch))
            else:
                _write_paddle(supernet, job, folder, Path(scratch), data)
            run = _run_batches(open_engine(folder, manifest.to_json()))
    if data is not None:
        thresholds = None if manifest.thresholds is None else as_array(manifest.thresholds, tuple(manifest.labels))
        verification = compare_metric(
            supernet, run, data.dev, metric=data.metric, tolerance=tolerance, thresholds=thresholds
        )
        return replace(manifest, verification=verification)
    return replace(manifest, verification=_check_logits(supernet, run, manifest, tolerance))


def _write_members(manifest: BundleManifest, supernet: Supernet, job: ExportJob, folder: Path) -> BundleManifest:
    """Write several sub-networks' graphs and shared weights, check each, and return the finished manifest."""
    tolerance = TOLERANCES[job.format][job.precision] if job.tolerance is None else job.tolerance
    space = supernet.search_space()
    selected = manifest.members or ()
    models = {member.subnet: extract(supernet, space.parse(member.subnet)) for member in selected}
    with TemporaryDirectory() as scratch:
        graphs = {name: Path(scratch) / str(i) for i, name in enumerate(models)}
        for name, graph in graphs.items():
            graph.mkdir()
            save_graph(models[name], graph)
        stored = share_weights(graphs, folder)
    written = [
        replace(member, graph=shared.graph, parameters=shared.parameters)
        for member, shared in zip(selected, stored, strict=True)
    ]
    description = replace(manifest, members=written).to_json()
    checked: list[BundleMember] = []
    checks: list[LogitCheck] = []
    for member in written:
        run = _run_batches(open_subnet(folder, description, member.subnet))
        checks.append(_check_logits(models[member.subnet], run, manifest, tolerance))
        checked.append(replace(member, verification=checks[-1]))
    return replace(manifest, members=checked, verification=max(checks, key=lambda check: check.max_abs_diff))


def _check_logits(supernet: Supernet, run: Run, manifest: BundleManifest, tolerance: float) -> LogitCheck:
    return compare_logits(supernet, run, max_seq_length=manifest.max_seq_length, tolerance=tolerance)


def _run_batches(engine: Engine) -> Run:
    return lambda batches: [engine(batch) for batch in batches]


def _load_int8_data(supernet: Supernet, job: ExportJob, max_seq_length: int) -> _Int8Data:
    if not job.task.get("name"):
        raise UsageError(
            "int8 needs data of the task, but this model was not fine-tuned: run 'dynabert finetune' first"
        )
    task = match_task(supernet, load_described_task(job.task), job.model_dir)
    warn_about_task(task, supernet, max_seq_length=max_seq_length)
    batches = []
    # The others quantize activations at run time without calibration, or not at all.
    if job.format in PADDLE_FORMATS and not find_bits(supernet.model):
        chosen = np.random.default_rng(0).permutation(len(task.train))[: job.num_calibration_examples]
        train = tokenize_examples(task.train.select(chosen), supernet, max_seq_length=max_seq_length)
        rows = np.arange(len(train))
        starts = range(0, len(train), _CALIBRATION_BATCH_SIZE)
        parts = [rows[start : start + _CALIBRATION_BATCH_SIZE] for start in starts]
        batches = [collate_inputs(train, part, supernet.pad_token_id) for part in parts]
    dev = tokenize_examples(task.dev, supernet, max_seq_length=max_seq_length)
    return _Int8Data(calibration=batches, dev=dev, metric=task.metrics[0])


def _write_paddle(supernet: Supernet, job: ExportJob, folder: Path, scratch: Path, data: _Int8Data | None) -> None:
    """Write `model.pdmodel` or `model.json`, and `model.pdiparams`; quantized if `data` is not None."""
    if data is None:
        save_graph(supernet, folder)
        return
    save_graph(supernet, scratch)
    write_matmuls = quantize_matmul_inputs if job.format == "openvino" else fuse_int8_matmuls
    scales = read_scales(supernet)
    if scales:
        quantize_as_trained(scratch, folder, scales, write_matmuls)
    else:
        quantize(scratch, folder, data.calibration, write_matmuls)


def _write_onnx(supernet: Supernet, job: ExportJob, folder: Path, scratch: Path) -> None:
    save_graph(supernet, scratch)
    if job.precision == "int8":
        to_onnx(scratch, scratch / "model.onnx")
        scales = read_scales(supernet)
        if scales:
            quantize_static(scratch / "model.onnx", folder / "model.onnx", scales)
        else:
            quantize_dynamic(scratch / "model.onnx", folder / "model.onnx")
    else:
        to_onnx(scratch, folder / "model.onnx")


def _write_lite(
    manifest: BundleManifest, supernet: Supernet, folder: Path, scratch: Path, python: Path
) -> BundleManifest:
    """Write a `.nb` file for each target; the manifest gets Lite's order of inputs and version, and the footprint."""
    save_graph(supernet, scratch)
    rewrite(scratch / "model.pdmodel", matmul_to_mul)
    if manifest.precision == "int8":
        store_tables_as_bytes(scratch)
    for target in lite_converter.TARGETS:
        model = folder / f"model_{target}.nb"
        lite_converter.convert(scratch, model, target=target, precision=manifest.precision, python=python)
    inputs = lite_converter.input_names(folder / "model_arm.nb", python=python)
    length = manifest.max_seq_length
    measured = lite_converter.measure_x86(folder / "model_x86.nb", seq_length=length, python=python)
    return replace(
        manifest,
        inputs=inputs,
        paddlelite=lite_converter.converter_version(python),
        footprint=Footprint(**measured, seq_length=length, processor=describe_processor()),
    )
