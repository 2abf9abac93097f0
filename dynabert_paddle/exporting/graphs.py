"""Write the graph of a model in every format but Paddle Lite's, and check it against the model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dynabert_paddle.bundle.engines import Engine
from dynabert_paddle.bundle.members import open_subnet
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.data.embedding_metrics import needs_teacher
from dynabert_paddle.data.features import FeatureSet
from dynabert_paddle.errors import UsageError
from dynabert_paddle.exporting.check import Run, collate_inputs, compare_logits, compare_metric
from dynabert_paddle.exporting.inference import save_graph
from dynabert_paddle.exporting.int8 import fuse_int8_matmuls
from dynabert_paddle.exporting.job import ExportJob
from dynabert_paddle.exporting.manifest import BundleManifest, BundleMember, LogitCheck, MetricCheck
from dynabert_paddle.exporting.onnx import quantize_dynamic, quantize_static, to_onnx
from dynabert_paddle.exporting.openvino import quantize_matmul_inputs
from dynabert_paddle.exporting.quantize import quantize
from dynabert_paddle.exporting.sharing import share_weights
from dynabert_paddle.exporting.trained_scales import quantize_as_trained, read_scales
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.quantized import find_bits
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.supernet.thresholds import as_array
from dynabert_paddle.training.data_warnings import warn_about_task
from dynabert_paddle.training.inputs import match_task, tokenize_examples
from dynabert_paddle.training.teacher_vectors import add_targets, load_teacher

_CALIBRATION_BATCH_SIZE = 8
_PADDLE_FILES = ("model.pdmodel", "model.json", "model.pdiparams")


@dataclass(frozen=True)
class Int8Data:
    """Batches of training texts for the calibration, and the dev set and metric for the check."""

    calibration: Sequence[dict[str, np.ndarray]]
    dev: FeatureSet
    metric: str


def load_int8_data(supernet: Supernet, job: ExportJob, max_seq_length: int, *, calibrates: bool) -> Int8Data:
    """Load what int8 reads of the task.

    Args:
        supernet: the model.
        job: its task and number of calibration examples are used.
        max_seq_length: tokens to which texts are cut.
        calibrates: whether activations are quantized with scales from training texts; others quantize them at run time,
            or not at all.

    Returns:
        The data; without calibration for a model whose training gave the scales.

    Raises:
        DynabertError: the model was not fine-tuned, or the data cannot be read.
    """
    if not job.task.get("name"):
        remedy = "run 'dynabert finetune' first"
        if job.task.get("kind") == "embedding":
            remedy = f"give texts with {setting('task.name')} custom and {setting('task.train_file')}"
        raise UsageError(f"int8 needs data of the task, but this model was not fine-tuned: {remedy}")
    task = match_task(supernet, load_described_task(job.task), job.model_dir)
    warn_about_task(task, supernet, max_seq_length=max_seq_length)
    batches = []
    if calibrates and not find_bits(supernet.model):
        chosen = np.random.default_rng(0).permutation(len(task.train))[: job.num_calibration_examples]
        train = tokenize_examples(task.train.select(chosen), supernet, max_seq_length=max_seq_length)
        rows = np.arange(len(train))
        starts = range(0, len(train), _CALIBRATION_BATCH_SIZE)
        parts = [rows[start : start + _CALIBRATION_BATCH_SIZE] for start in starts]
        batches = [collate_inputs(train, part, supernet.pad_token_id) for part in parts]
    dev = tokenize_examples(task.dev, supernet, max_seq_length=max_seq_length)
    if needs_teacher(task.metrics[:1]):
        dev = add_targets(dev, task.dev, load_teacher(supernet), max_seq_length=max_seq_length)
    return Int8Data(calibration=batches, dev=dev, metric=task.metrics[0])


def write_graph(
    supernet: Supernet,
    folder: Path,
    graph: Path,
    *,
    format: str,
    precision: str,
    calibration: Sequence[dict[str, np.ndarray]] = (),
) -> None:
    """Write a model's graph in a format and precision.

    Args:
        supernet: the model.
        folder: where to write it.
        graph: folder with the model's static graph from `save_graph`; an ONNX model is kept there, too.
        format: paddle, pir, openvino or onnx.
        precision: one of the format's precisions.
        calibration: batches of training texts, for int8 in a format that Paddle Inference runs.
    """
    if format == "onnx":
        _write_onnx(supernet, folder, graph, precision)
    elif precision != "int8":
        for path in filter(Path.exists, (graph / name for name in _PADDLE_FILES)):
            shutil.copyfile(path, folder / path.name)
    else:
        write_matmuls = quantize_matmul_inputs if format == "openvino" else fuse_int8_matmuls
        scales = read_scales(supernet)
        if scales:
            quantize_as_trained(graph, folder, scales, write_matmuls)
        else:
            quantize(graph, folder, calibration, write_matmuls)


def _write_onnx(supernet: Supernet, folder: Path, graph: Path, precision: str) -> None:
    converted = graph / "model.onnx"
    if not converted.exists():
        to_onnx(graph, converted)
    scales = read_scales(supernet) if precision == "int8" else {}
    if precision != "int8":
        shutil.copyfile(converted, folder / converted.name)
    elif scales:
        quantize_static(converted, folder / converted.name, scales)
    else:
        quantize_dynamic(converted, folder / converted.name)


def write_members(supernet: Supernet, members: Sequence[BundleMember], folder: Path) -> list[BundleMember]:
    """Write several sub-networks' graphs and the weights that they share.

    Args:
        supernet: the model.
        members: the sub-networks.
        folder: where to write them.

    Returns:
        The members with the names of their graphs, and their parameters.
    """
    space = supernet.search_space()
    with TemporaryDirectory() as scratch:
        graphs = {member.subnet: Path(scratch) / str(number) for number, member in enumerate(members)}
        for name, graph in graphs.items():
            graph.mkdir()
            save_graph(extract(supernet, space.parse(name)), graph)
        stored = share_weights(graphs, folder)
    return [
        replace(member, graph=shared.graph, parameters=shared.parameters)
        for member, shared in zip(members, stored, strict=True)
    ]


def check_members(manifest: BundleManifest, supernet: Supernet, folder: Path, tolerance: float) -> BundleManifest:
    """Check each sub-network of a bundle of several against the model.

    Args:
        manifest: of the bundle, its members written.
        supernet: the model.
        folder: the bundle.
        tolerance: as for `compare_logits`.

    Returns:
        The manifest with the checks.

    Raises:
        ModelError: a sub-network's logits differ by more than the tolerance.
    """
    space, description = supernet.search_space(), manifest.to_json()
    checked: list[BundleMember] = []
    checks: list[LogitCheck] = []
    for member in manifest.members or ():
        run = run_batches(open_subnet(folder, description, member.subnet))
        model = extract(supernet, space.parse(member.subnet))
        checks.append(compare_logits(model, run, max_seq_length=manifest.max_seq_length, tolerance=tolerance))
        checked.append(replace(member, verification=checks[-1]))
    return replace(manifest, members=checked, verification=max(checks, key=lambda check: check.max_abs_diff))


def check_graph(
    manifest: BundleManifest, supernet: Supernet, run: Run, data: Int8Data | None, tolerance: float
) -> BundleManifest:
    """Check the only graph of a bundle against the model: int8 by the score on the dev set, others by their logits.

    Args:
        manifest: of the bundle.
        supernet: the model.
        run: runs the graph.
        data: for int8.
        tolerance: as for `compare_metric` or `compare_logits`.

    Returns:
        The manifest with the check.

    Raises:
        ModelError: the bundle exceeds the tolerance.
    """
    check: LogitCheck | MetricCheck
    if data is None:
        check = compare_logits(supernet, run, max_seq_length=manifest.max_seq_length, tolerance=tolerance)
    else:
        thresholds = None if manifest.thresholds is None else as_array(manifest.thresholds, tuple(manifest.labels))
        check = compare_metric(supernet, run, data.dev, metric=data.metric, tolerance=tolerance, thresholds=thresholds)
    return replace(manifest, verification=check)


def run_batches(engine: Engine) -> Run:
    """Make a function of batches of an engine."""
    return lambda batches: [engine(batch) for batch in batches]
