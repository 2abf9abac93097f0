"""Resumable training state: `checkpoint-N/` folders inside a stage's output folder."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from dynabert_paddle.backbone.loading import set_arrays, to_arrays
from dynabert_paddle.config.names import setting
from dynabert_paddle.data.labels import describe_difference
from dynabert_paddle.data.long_texts import DOCUMENT_SETTINGS
from dynabert_paddle.data.question_answering import ANSWER_SETTINGS
from dynabert_paddle.data.word_settings import WORD_SETTINGS
from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.files.atomic import read_json, write_json, write_new_folder
from dynabert_paddle.files.claim import Claim, claim
from dynabert_paddle.files.folder import CONFIG_FILE, GRID_FILE, is_free, is_output_folder, maker_of
from dynabert_paddle.files.integrity import check_files, hash_files
from dynabert_paddle.files.metadata import METADATA_FILE
from dynabert_paddle.files.ownership import check_replaceable
from dynabert_paddle.files.partial import is_partial, remove_stale
from dynabert_paddle.files.weights import read_safetensors, write_safetensors
from dynabert_paddle.runtime.ranks import is_rank_zero
from dynabert_paddle.training import processes
from dynabert_paddle.training.latent_weights import LatentWeights
from dynabert_paddle.training.logging import logger
from dynabert_paddle.training.weight_average import WeightAverage

_NAME = re.compile(r"checkpoint-(\d+)")
_STATE_FILE = "state.json"
_LATER_KEYS = {"labels", "positive_label", "selection data", "dev data"}
_LATER_KEYS |= {*ANSWER_SETTINGS, *WORD_SETTINGS, *DOCUMENT_SETTINGS}
_LATENT_FILE = "latent.safetensors"
_AVERAGE_FILE = "average.safetensors"


@dataclass
class TrainState:
    """How far a run is. Random numbers need no state of their own: each step's follow from the seed and the step.

    Args:
        step: optimizer steps done.
        best_score: the best score so far.
        best_step: the step that reached it.
        best_metrics: every sub-network's metrics at that step.
        best_arrays: the weights at that step; empty before the first evaluation.
        examples: seen so far, each as often as it came.
        seconds: spent so far, evaluations included.
    """

    step: int = 0
    best_score: float = float("-inf")
    best_step: int = 0
    best_metrics: dict[str, Any] = field(default_factory=dict)
    best_arrays: dict[str, np.ndarray] = field(default_factory=dict)
    examples: int = 0
    seconds: float = 0.0


@contextmanager
def claim_output(
    output_dir: Path, maker: str, *, overwrite: bool, inputs: Iterable[str | Path] = ()
) -> Iterator[Claim]:
    """Claim a stage's output folder within a `with` block; one with an unfinished run is kept, and the run is resumed.

    Args:
        output_dir: the folder.
        maker: the stage.
        overwrite: remove what the same stage has written there.
        inputs: files and folders that the stage reads.

    Yields:
        The claim.

    Raises:
        UsageError: it is finished, holds something else, or another run writes to it.
    """
    inputs = list(inputs)
    if is_rank_zero():
        check_output(output_dir, maker, overwrite=overwrite, inputs=inputs)
    with claim(output_dir, maker) as claimed:
        processes.on_rank_zero(partial(_prepare, claimed, overwrite=overwrite, inputs=inputs))
        yield claimed


def _prepare(claimed: Claim, *, overwrite: bool, inputs: Iterable[str | Path]) -> None:
    """Clear the claimed folder, or refuse it; another run may have finished it before this one locked it."""
    folder = claimed.folder
    if _is_unfinished(folder, claimed.maker) and not overwrite:
        return
    check_replaceable(folder, claimed.maker, overwrite=overwrite, inputs=inputs)
    if not is_free(folder):
        claimed.clear()


def _is_unfinished(folder: Path, maker: str) -> bool:
    """Whether a folder holds an unfinished run of a stage."""
    if not folder.is_dir() or not is_output_folder(folder) or maker_of(folder) not in (None, maker):
        return False
    return all(map(_is_of_a_run, folder.iterdir()))


def _is_of_a_run(path: Path) -> bool:
    """Whether an unfinished stage can have written this; a run's folder has other folders in it, and its own files."""
    if path.is_dir():
        return path.name == "vdl" or "checkpoint-" in path.name or path.name.endswith("partial")
    return path.name not in (METADATA_FILE, CONFIG_FILE, GRID_FILE)


def save_checkpoint(
    output_dir: Path,
    state: TrainState,
    model: nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    scaler: paddle.amp.GradScaler,
    *,
    settings: Mapping[str, Any],
    latent: LatentWeights | None = None,
    average: WeightAverage | None = None,
) -> Path:
    """Write a checkpoint, then remove the ones before it.

    Args:
        output_dir: the stage's output folder.
        state: how far the run is.
        model: the model that trains.
        optimizer: its optimizer.
        scaler: its loss scaler, which has a state under fp16 only.
        settings: a run resumes from here only if its settings equal these.
        latent: the float weights of a quantized model.
        average: of the weights, if the stage keeps one.

    Returns:
        The checkpoint's folder.

    Raises:
        DynabertError: it cannot be written; older checkpoints stay.
    """
    values = {
        "step": state.step,
        "best_score": state.best_score if state.best_arrays else None,
        "best_step": state.best_step,
        "best_metrics": state.best_metrics,
        "examples": state.examples,
        "seconds": state.seconds,
        "scaler": {key: np.asarray(value).tolist() for key, value in scaler.state_dict().items()},
        "settings": settings,
    }

    def write(folder: Path) -> None:
        write_safetensors(folder / "model.safetensors", to_arrays(model))
        write_safetensors(folder / "optimizer.safetensors", _optimizer_arrays(optimizer, model))
        if latent:
            write_safetensors(folder / _LATENT_FILE, latent.to_arrays())
        if average:
            write_safetensors(folder / _AVERAGE_FILE, average.to_arrays())
        if state.best_arrays:
            write_safetensors(folder / "best.safetensors", state.best_arrays)
        write_json(folder / _STATE_FILE, {**values, "files": hash_files(folder)})

    folder = output_dir / f"checkpoint-{state.step}"
    shutil.rmtree(folder, ignore_errors=True)
    write_new_folder(folder, write)
    for older in _find_checkpoints(output_dir):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)
    return folder


def load_checkpoint(
    output_dir: Path,
    model: nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    scaler: paddle.amp.GradScaler,
    *,
    settings: Mapping[str, Any],
    latent: LatentWeights | None = None,
    average: WeightAverage | None = None,
) -> TrainState:
    """Go back to the newest checkpoint, if there is one.

    Args:
        output_dir: the stage's output folder.
        model: gets the checkpoint's weights.
        optimizer: gets the checkpoint's moments.
        scaler: gets the checkpoint's loss scale.
        settings: of this run.
        latent: gets the float weights of a quantized model.
        average: gets the average of the weights.

    Returns:
        The state; a new one where there is no checkpoint.

    Raises:
        UsageError: the checkpoint was made with other settings.
        ModelError: it is damaged.
    """
    checkpoints = _find_checkpoints(output_dir)
    if not checkpoints:
        return TrainState()
    folder = checkpoints[-1]
    remedy = f"{folder}: damaged: remove it to go on from an earlier checkpoint or from the start"
    try:
        values = read_json(folder / _STATE_FILE)
        _check_settings(output_dir, values.get("settings", {}), settings)
        check_files(folder / _STATE_FILE, values.get("files", {}))
        _check_progress(folder, values)
        has_best = values["best_score"] is not None
        state = TrainState(
            step=values["step"],
            best_score=values["best_score"] if has_best else float("-inf"),
            best_step=values["best_step"],
            best_metrics=values["best_metrics"],
            best_arrays=read_safetensors(folder / "best.safetensors") if has_best else {},
            examples=values["examples"],
            seconds=values["seconds"],
        )
        set_arrays(model, read_safetensors(folder / "model.safetensors"))
        if latent:
            latent.set_arrays(read_safetensors(folder / _LATENT_FILE))
        if average:
            average.set_arrays(read_safetensors(folder / _AVERAGE_FILE))
        _set_optimizer_arrays(optimizer, model, read_safetensors(folder / "optimizer.safetensors"))
        if values["scaler"]:
            scaler.load_state_dict(values["scaler"] | {"scale": np.asarray(values["scaler"]["scale"], "float32")})
    except (KeyError, TypeError, ValueError, AttributeError, ModelError) as error:  # values of another type
        raise ModelError(f"{remedy} ({error})") from None
    return state


def unfinished_settings(output_dir: Path) -> Mapping[str, Any] | None:
    """Return the settings of an unfinished run.

    Args:
        output_dir: a stage's output folder.

    Returns:
        The settings of its newest checkpoint; None if there is none that can be read.
    """
    try:
        return read_json(_find_checkpoints(output_dir)[-1] / _STATE_FILE)["settings"]
    except (IndexError, KeyError, TypeError, OSError, ModelError):  # a damaged one is refused when it is loaded
        return None


def _check_progress(folder: Path, values: Mapping[str, Any]) -> None:
    """Refuse counts that no training writes: a loop would begin at them."""
    whole = {name: values[name] for name in ("step", "best_step", "examples")}
    for name, value in whole.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} is {value}")
    if whole["step"] != _step_of(folder) or whole["best_step"] > whole["step"]:
        raise ValueError(f"step is {whole['step']}, best_step is {whole['best_step']}")
    for name in ("seconds", "best_score"):
        value = values[name]
        if not (math.isfinite(value) if isinstance(value, (int, float)) else value is None and name == "best_score"):
            raise ValueError(f"{name} is {value}")


def remove_checkpoints(output_dir: Path) -> None:
    """Remove the training state of a finished stage, and partial files of killed processes.

    Args:
        output_dir: the stage's output folder, which the caller has claimed.
    """
    for folder in _find_checkpoints(output_dir):
        shutil.rmtree(folder, ignore_errors=True)
    remove_stale(output_dir)


def tidy_finished(output_dir: Path, maker: str) -> None:
    """Remove leftovers of a killed process from the folder of a finished stage, if there are any.

    Args:
        output_dir: the stage's output folder; in one that cannot be written to, they stay.
        maker: the stage.

    Raises:
        UsageError: another run writes to it.
    """
    if not _find_checkpoints(output_dir) and not any(is_partial(path.name) for path in output_dir.iterdir()):
        return
    try:
        with claim(output_dir, maker):
            remove_checkpoints(output_dir)
    except UsageError:
        raise
    except DynabertError as error:  # such as a read-only copy: only the model is read, which is complete
        logger.info("%s: leftovers of a killed run stay there (%s)", output_dir, error)


def check_output(output_dir: Path, maker: str, *, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse an output folder that a stage cannot write to; one with an unfinished run of it is resumed.

    Args:
        output_dir: the folder.
        maker: the stage.
        overwrite: what the same stage has written there may be removed.
        inputs: files and folders that the stage reads.

    Raises:
        UsageError: it is finished, or holds something else.
    """
    if overwrite or not _is_unfinished(output_dir, maker):
        check_replaceable(output_dir, maker, overwrite=overwrite, inputs=inputs)


def _find_checkpoints(output_dir: Path) -> list[Path]:
    """Whole checkpoints, oldest first; one that a killed process left half-written has a hidden name."""
    return sorted((path for path in output_dir.glob("*") if _NAME.fullmatch(path.name)), key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def _check_settings(output_dir: Path, before: Mapping, now: Mapping) -> None:
    if now.get("augmented_file"):  # it may have moved with its folder; "data" is a hash of its texts
        before = {**before, "augmented_file": before.get("augmented_file") and now["augmented_file"]}
    for key in ("unlabelled_files", "teacher_name_or_path"):  # likewise
        if now.get(key):
            before = {**before, key: before.get(key) and now[key]}
    # Checkpoints of earlier versions do not have all keys.
    keys = {*before, *now} - (_LATER_KEYS - {*before})
    changed = [key for key in sorted(keys) if before.get(key) != now.get(key)]
    if "labels" in changed:
        difference = describe_difference(before["labels"], now["labels"])
        raise UsageError(
            f"{output_dir} holds an unfinished run with other labels ({difference}): "
            f"go on with the labels of before, remove that folder, or name another {setting('output_dir')}"
        )
    if changed:
        key = changed[0]
        if key in (
            "data",
            "selection data",
            "dev data",
            "model",
            "teacher",
        ):  # known by a hash, which says nothing to a reader
            raise UsageError(
                f"{output_dir} holds an unfinished run with another {key}: go on with the {key} of before, "
                f"remove that folder, or name another {setting('output_dir')}"
            )
        raise UsageError(
            f"{output_dir} holds an unfinished run with {key} = {before.get(key)}, this one has {now.get(key)}: go on "
            f"with the settings of before, remove that folder, or name another {setting('output_dir')}"
        )


def _optimizer_arrays(optimizer: paddle.optimizer.Optimizer, model: nn.Layer) -> dict[str, np.ndarray]:
    """The optimizer's tensors under the model's parameter names.

    Paddle names them after a counter (`linear_7.w_0_moment1_0`), which differs between processes.
    """
    names = {parameter.name: name for name, parameter in model.named_parameters()}
    arrays = {}
    for key, tensor in optimizer.state_dict().items():
        if isinstance(tensor, paddle.Tensor):
            owner = max((prefix for prefix in names if key.startswith(f"{prefix}_")), key=len)
            arrays[f"{names[owner]}/{key[len(owner) :]}"] = tensor.numpy()
    return arrays


def _set_optimizer_arrays(
    optimizer: paddle.optimizer.Optimizer, model: nn.Layer, arrays: dict[str, np.ndarray]
) -> None:
    names = dict(model.named_parameters())
    state = {}
    for key, array in arrays.items():
        owner, _, suffix = key.partition("/")
        state[names[owner].name + suffix] = paddle.to_tensor(array)
    optimizer.set_state_dict(state)
