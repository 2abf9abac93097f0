"""`compress`: one method, from a model folder to a smaller one, with a record of sizes and scores before and after."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.compressing.distil import distil
from dynabert_paddle.compressing.low_rank import compress_low_rank
from dynabert_paddle.compressing.quantize_aware import compress_quantize_aware
from dynabert_paddle.compressing.share_layers import compress_share_layers
from dynabert_paddle.compressing.sparse import compress_sparse
from dynabert_paddle.compressing.vocabulary import compress_vocabulary
from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.array_hash import hash_model
from dynabert_paddle.files.folder import COMPRESS
from dynabert_paddle.files.metadata import Metadata, check_expected
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.seeds import set_seed
from dynabert_paddle.supernet.folder import weight_files
from dynabert_paddle.supernet.quantized import find_bits
from dynabert_paddle.supernet.sparsity import measure_sparsity
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.checkpoint import claim_output
from dynabert_paddle.training.data_warnings import warn_about_task
from dynabert_paddle.training.evaluate import evaluate_named, trained_space
from dynabert_paddle.training.inputs import check_apart, match_task
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.thresholds import choose_anew

# Returns the smaller model, and the record of the compression.
Method = Callable[[Supernet, Task, CompressConfig], tuple[Supernet, dict[str, Any]]]

METHODS: dict[str, Method] = {
    "vocabulary": compress_vocabulary,
    "low_rank": compress_low_rank,
    "sparse": compress_sparse,
    "share_layers": compress_share_layers,
    "quantize_aware": compress_quantize_aware,
}

# The settings that not all methods have.
_SETTINGS = {
    "vocabulary": ("vocab_size", "text_file", "max_positions"),
    "low_rank": ("rank_share", "part", "num_calibration_examples"),
    "quantize_aware": ("weight_bits", "num_calibration_examples"),
    "share_layers": ("groups", "start"),
    "sparse": ("sparsity", "criterion", "part", "num_calibration_examples"),
}


def compress(
    model_name_or_path: str | Path,
    task: Task,
    *,
    output_dir: str | Path,
    config: CompressConfig | None = None,
    overwrite: bool = False,
    expected: Metadata | None = None,
) -> Supernet:
    """Make a model smaller with one method, and write it as an ordinary model folder.

    Args:
        model_name_or_path: a model folder of any stage, an extracted one, or one that another method has made.
        task: its task; its training texts guide the method, and its dev set scores the model before and after.
        output_dir: where the model goes; an interrupted training in it is resumed.
        config: the method, its strength, and how many steps train the smaller model.
        overwrite: replace what is in `output_dir`.
        expected: the metadata of the model, if the settings were made from them.

    Returns:
        The smaller model; the last entry of its `metadata.compression` is the record of the compression.

    Raises:
        DynabertError: with the reason in one line.
    """
    config = resolve_config(CompressConfig, asdict(config or CompressConfig()))
    _check_settings(config)
    check_apart(model_name_or_path, output_dir)
    set_seed(config.seed)
    source = Supernet.from_pretrained(model_name_or_path)
    check_expected(model_name_or_path, expected, source.metadata)
    if config.method != "vocabulary" and find_bits(source.model):
        order = "" if config.method == "quantize_aware" else f": first {config.method}, then quantize_aware"
        raise UsageError(f"{model_name_or_path} is quantized already: start from the model before{order}")
    task = match_task(source, task, model_name_or_path)
    warn_about_task(task, source, is_fixed=True)
    inputs = [model_name_or_path, *task.files.values(), *config.text_file]

    def make() -> tuple[Supernet, Callable[[], None]]:
        small, done = METHODS[config.method](source, task, config)

        def add_record() -> None:
            logger.info("compress: scoring the model before and after on dev")
            record = {
                "method": config.method,
                **done,
                "finetune_steps": config.finetune_steps,
                "before": _measure(source, task, config, small.metadata.sparse_parts),
                "after": {
                    **_measure(small, task, config, small.metadata.sparse_parts),
                    "weights": hash_model(to_arrays(small.model)),
                },
            }
            small.metadata = small.metadata.replace(
                stage=source.metadata.stage, compression=(*source.metadata.compression, record)
            )

        return small, add_record

    if config.finetune_steps:
        small, add_record = make()
        return distil(
            source, small, task, config, output_dir=output_dir, overwrite=overwrite, inputs=inputs, finish=add_record
        )
    with claim_output(user_path(output_dir), COMPRESS, overwrite=overwrite, inputs=inputs) as claimed:
        small, add_record = make()
        subnets = trained_space(small).grid()
        chosen = choose_anew(small, task, subnets, batch_size=config.per_device_eval_batch_size)
        small.metadata = small.metadata.replace(metrics={}, thresholds=chosen or small.metadata.thresholds)
        add_record()
        small.save_claimed(claimed, replace=True)
    return small


def _check_settings(config: CompressConfig) -> None:
    """Refuse a setting that the method would pass over."""
    for name in sorted({name for names in _SETTINGS.values() for name in names} - set(_SETTINGS[config.method])):
        if getattr(config, name) != getattr(CompressConfig(), name):
            methods = " and ".join(method for method, names in _SETTINGS.items() if name in names)
            raise UsageError(f"{setting(f'compress.{name}')} is for {methods}, not for {config.method}: leave it out")


def _measure(model: Supernet, task: Task, config: CompressConfig, sparse_parts: Sequence[str]) -> dict[str, Any]:
    """What a model costs, its scores on dev, and for a sparse one its zeros and what they save in an archive."""
    (row,) = evaluate_named(model, task, ["w1.00d1.00"], batch_size=config.per_device_eval_batch_size)
    arrays = to_arrays(model.model)
    zeros = {"zeros": measure_sparsity(model, sparse_parts), "gzip_bytes": _gzip_bytes(arrays)} if sparse_parts else {}
    return {
        "params": row["params"],
        "bytes": sum(array.nbytes for stored in weight_files(model.model).values() for array in stored.values()),
        "macs": row["macs"],
        "metrics": {metric: row[metric] for metric in task.metrics},
        **zeros,
    }


def _gzip_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    """The bytes of weights as gzip compresses them at its default level, 6, without its few bytes of header."""
    compressor = zlib.compressobj(level=6)
    size = sum(len(compressor.compress(np.ascontiguousarray(array).data)) for array in arrays.values())
    return size + len(compressor.flush())
