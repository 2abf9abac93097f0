"""What an export does in its process, which knows before it imports Paddle which static format is wanted."""

from __future__ import annotations

import shutil
from functools import partial
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.errors import UsageError
from dynabert_paddle.exporting.formats import PADDLE_FORMATS, TOLERANCES

_CALIBRATION_BATCH = 8


def export_job(job: dict[str, Any]) -> dict[str, Any]:
    """Export a model folder to a bundle.

    Args:
        job: the arguments of `run.export`, in types that JSON knows.

    Returns:
        The bundle's verification.

    Raises:
        DynabertError: with the reason in one line; no bundle was written.
    """
    from dynabert_paddle.bundle.manifest import BUNDLE_FILE
    from dynabert_paddle.data.question_answering import ANSWER_SETTINGS
    from dynabert_paddle.exporting import bundle
    from dynabert_paddle.files.atomic import write_folder
    from dynabert_paddle.files.folder import MARKER_FILE, check_absent
    from dynabert_paddle.supernet.extract import extract
    from dynabert_paddle.supernet.supernet import Supernet

    supernet = Supernet.from_pretrained(job["model_dir"])
    if job["subnet"]:
        supernet = extract(supernet, supernet.search_space().parse(job["subnet"]))
    answers = {name: job["task"][name] for name in ANSWER_SETTINGS if job["task"].get(name) is not None}
    supernet.metadata = supernet.metadata.replace(task={**supernet.metadata.task, **answers})
    max_seq_length = _max_seq_length(supernet, job["max_seq_length"])
    kind = {"format": job["format"], "precision": job["precision"]}
    description = bundle.describe(supernet, **kind, max_seq_length=max_seq_length)
    verification: dict[str, Any] = {}
    if job["subnets"] is not None:
        del description["subnet"], description["num_params"]  # each member has its own
        description.update(_describe_members(supernet, job, max_seq_length))

    def write(folder: Path) -> None:
        bundle.write_tokenizer_files(supernet, folder, format=job["format"])
        if job["subnets"] is not None:
            verification.update(_make_members(supernet, description, folder, job["tolerance"]))
        else:
            data = _load_data(supernet, job, max_seq_length) if job["precision"] == "int8" else None
            run = _make_graph(supernet, description, folder, data)
            verification.update(_verify(supernet, description, run, data, job["tolerance"]))
        bundle.seal(folder, {**description, "verification": verification})
        (folder / MARKER_FILE).touch()

    output_dir = Path(job["output_dir"])
    hidden = output_dir.with_name(f".{output_dir.name}.exported")
    shutil.rmtree(hidden, ignore_errors=True)  # of an export that was killed
    made = write_folder(hidden, write, last=BUNDLE_FILE)
    try:
        check_absent(output_dir, overwrite=job["overwrite"])
        made.rename(output_dir)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return verification


def _max_seq_length(supernet, wanted: int | None) -> int:
    from dynabert_paddle.backbone.structure import num_positions

    length = supernet.metadata.task.get("max_seq_length", TaskConfig.max_seq_length) if wanted is None else wanted
    positions = num_positions(supernet.model.config)
    texts = 2 if supernet.metadata.task.get("text_pair_column") else 1
    least = supernet.tokenizer.num_special_tokens(texts) + texts if supernet.tokenizer else 1
    if wanted is not None and not least <= wanted <= positions:
        raise UsageError(f"max_seq_length is {wanted}: allowed are {least} to {positions}, the model's positions")
    return min(length, positions)


def _describe_members(supernet, job: dict[str, Any], max_seq_length: int) -> dict[str, Any]:
    from dynabert_paddle.exporting.selection import select_members

    given = {"task": job["task"], "task_is_given": job["task_is_given"], "max_seq_length": max_seq_length}
    members, ranking = select_members(supernet, Path(job["model_dir"]), job["subnets"], **given)
    return {"members": members, "ranked_by": ranking}


def _load_data(supernet, job: dict[str, Any], max_seq_length: int) -> dict[str, Any]:
    """What int8 needs: the dev set to compare by, and for Paddle Inference training texts to calibrate on."""
    from dynabert_paddle.data.described_tasks import load_described_task
    from dynabert_paddle.exporting.check import pad
    from dynabert_paddle.training.inputs import check_trained, tokenize_examples

    if not job["task"].get("name"):
        raise UsageError(
            "int8 needs the task's texts, and this model was not fine-tuned: run 'dynabert finetune' first"
        )
    task = load_described_task(job["task"])
    check_trained(supernet, task, job["model_dir"])
    batches = []
    if job["format"] in PADDLE_FORMATS:  # the others round activations while they run, or not at all
        chosen = np.random.default_rng(0).permutation(len(task.train))[: job["num_calibration_examples"]]
        train = tokenize_examples(task.train.select(chosen), supernet, max_seq_length=max_seq_length)
        rows = np.arange(len(train))
        starts = range(0, len(train), _CALIBRATION_BATCH)
        batches = [pad(train, rows[start : start + _CALIBRATION_BATCH], supernet.pad_token_id) for start in starts]
    dev = tokenize_examples(task.dev, supernet, max_seq_length=max_seq_length)
    return {"calibration": batches, "dev": dev, "metric": task.metrics[0]}


def _make_graph(supernet, description: dict[str, Any], folder: Path, data: dict[str, Any] | None):
    """Write the format's files into the bundle; returns what runs them on batches."""
    from dynabert_paddle.exporting.inference import save_graph

    format, precision = description["format"], description["precision"]
    with TemporaryDirectory() as scratch:
        if format in PADDLE_FORMATS:
            if precision == "int8":
                from dynabert_paddle.exporting.int8 import fuse_int8_products
                from dynabert_paddle.exporting.openvino import round_products
                from dynabert_paddle.exporting.quantize import quantize

                save_graph(supernet, Path(scratch))
                write_products = round_products if format == "openvino" else fuse_int8_products
                quantize(Path(scratch), folder, data["calibration"], write_products)
            else:
                save_graph(supernet, folder)
        elif format == "onnx":
            from dynabert_paddle.exporting.onnx import quantize_dynamic, to_onnx

            save_graph(supernet, Path(scratch))
            model = folder / "model.onnx"
            to_onnx(Path(scratch), Path(scratch) / "model.onnx" if precision == "int8" else model)
            if precision == "int8":
                quantize_dynamic(Path(scratch) / "model.onnx", model)
        else:
            return _make_lite(supernet, description, folder, Path(scratch))
    from dynabert_paddle.bundle.engines import open_engine

    return _runner(open_engine(folder, description))


def _runner(engine):
    return lambda batches: [engine(batch) for batch in batches]


def _make_lite(supernet, description: dict[str, Any], folder: Path, scratch: Path):
    from dynabert_paddle.exporting import lite
    from dynabert_paddle.exporting.inference import save_graph
    from dynabert_paddle.exporting.program import matmul_to_mul, rewrite

    save_graph(supernet, scratch)
    rewrite(scratch / "model.pdmodel", matmul_to_mul)
    python = lite.find_converter()
    for target in lite.TARGETS:
        model = folder / f"model_{target}.nb"
        lite.convert(scratch, model, target=target, precision=description["precision"], python=python)
    description["inputs"] = lite.input_names(folder / "model_arm.nb", python=python)
    description["paddlelite"] = lite.converter_version(python)
    return partial(lite.run_x86, folder / "model_x86.nb", python=python)


def _make_members(supernet, description: dict[str, Any], folder: Path, tolerance: float | None) -> dict[str, Any]:
    """Write the graphs and the weights of sub-networks into the bundle; returns the worst one's verification."""
    from dynabert_paddle.bundle.members import members_of, open_subnet
    from dynabert_paddle.exporting.inference import save_graph
    from dynabert_paddle.exporting.sharing import share_weights
    from dynabert_paddle.supernet.extract import extract

    space = supernet.search_space()
    small = {name: extract(supernet, space.parse(name)) for name in members_of(description)}
    with TemporaryDirectory() as scratch:
        graphs = {name: Path(scratch) / str(i) for i, name in enumerate(small)}
        for name, graph in graphs.items():
            graph.mkdir()
            save_graph(small[name], graph)
        stored = share_weights(graphs, folder)
    for member, files in zip(description["members"], stored, strict=True):
        member.update(files)
    for name, member in members_of(description).items():
        run = _runner(open_subnet(folder, description, name))
        member["verification"] = _verify(small[name], description, run, None, tolerance)
    return max((member["verification"] for member in description["members"]), key=itemgetter("max_abs_diff"))


def _verify(supernet, description: dict[str, Any], run, data: dict[str, Any] | None, tolerance: float | None):
    from dynabert_paddle.exporting.check import compare_logits, compare_metric

    if tolerance is None:
        tolerance = TOLERANCES[description["format"]][description["precision"]]
    if data is not None:
        return compare_metric(supernet, run, data["dev"], metric=data["metric"], tolerance=tolerance)
    return compare_logits(supernet, run, max_seq_length=description["max_seq_length"], tolerance=tolerance)
