"""What a stage was made of: recorded when it has finished, and compared when a run finds it finished."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import RewireConfig, TaskConfig, TrainConfig, WidthConfig
from dynabert_paddle.data.embedding_settings import EMBEDDING_SETTINGS
from dynabert_paddle.data.fingerprint import hash_examples
from dynabert_paddle.data.labels import describe_difference, permutation
from dynabert_paddle.data.question_answering import ANSWER_SETTINGS
from dynabert_paddle.data.tasks import Task
from dynabert_paddle.data.word_settings import EARLIER_WORD_SETTINGS
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.array_hash import hash_model
from dynabert_paddle.files.hashing import hash_file
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.files.unchanged import load_unchanged
from dynabert_paddle.files.weights import read_weights
from dynabert_paddle.supernet.supernet import Supernet

_NAMES = {
    "train": "training rows",
    "dev": "dev rows",
    "augmented": "augmented texts",
    "unlabelled": "texts without labels",
    "model": "starting weights",
    "teacher": "teacher",
}


def hash_data(task: Task, config: TrainConfig | RewireConfig, *, reads_dev: bool = False) -> dict[str, str]:
    """Hash the data that a stage reads.

    Args:
        task: the task.
        config: the stage's settings.
        reads_dev: the stage reads the dev rows, whatever its settings say.

    Returns:
        Hashes by `train`, `dev`, `augmented` and `unlabelled`, the others only if the stage reads them.
    """
    data = {"train": hash_examples(task.train, task.labels)}
    if isinstance(config, RewireConfig):
        reads_dev = config.accumulation == "huawei"
    elif config.select_on == "dev":
        reads_dev = True
    if reads_dev:
        data["dev"] = hash_examples(task.dev, task.labels)
    if isinstance(config, WidthConfig) and config.augmented_file:
        with suppress(OSError):  # a stage that needs it says so
            data["augmented"] = hash_file(Path(config.augmented_file))
    if isinstance(config, WidthConfig) and config.unlabelled_files:
        with suppress(OSError):
            hashes = [hash_file(Path(path)) for path in config.unlabelled_files]
            data["unlabelled"] = hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    return data


def hash_source(name_or_path: str | Path, *, whole_model: bool = False) -> str | None:
    """Hash the weights of a model that a stage starts from.

    Args:
        name_or_path: its folder or name.
        whole_model: leave out the weights that only sub-networks use, as its teacher does.

    Returns:
        The hash; None for a model that is gone, or that PaddleNLP downloads.
    """
    with suppress(ModelError):
        folder = find_backbone(name_or_path)
        return hash_model(read_weights(folder, whole_model=whole_model)) if folder else None
    return None


def load_and_hash(name_or_path: str | Path, load: Callable[[], Supernet]) -> tuple[Supernet, str | None]:
    """Load a model that a stage starts from, and hash its weights as they were loaded.

    Args:
        name_or_path: its folder or name.
        load: loads it.

    Returns:
        The model, and the hash from `hash_source`.

    Raises:
        ModelError: from `load`, or the folder changes all the time.
    """
    folder = None
    with suppress(ModelError):  # which `load` raises in its own words
        folder = find_backbone(name_or_path)
    if folder is None:
        return load(), None
    return load_unchanged(folder, lambda: (load(), hash_source(folder)), ModelError)


def check_data(
    folder: Path,
    before: Metadata,
    task: Task,
    data: Mapping[str, str],
    *,
    max_seq_length: int,
    special_tokens_in_text: bool = TaskConfig.special_tokens_in_text,
) -> None:
    """Refuse a finished stage that was made of other labels or rows than the task has now.

    Args:
        folder: the stage's folder, for messages.
        before: its metadata.
        task: the task.
        data: from `hash_data`.
        max_seq_length: the task's.
        special_tokens_in_text: the task's; a folder from before this setting has the default.

    Raises:
        UsageError: something differs; fields that the folder does not record are not compared.
    """
    labels = before.task.get("labels")
    if labels is not None and permutation(labels, task.labels) is None:
        raise UsageError(
            f"{folder} has other labels than the data now ({describe_difference(labels, task.labels)}): "
            f"{_remedy(folder)}"
        )
    compared = (*ANSWER_SETTINGS, *task.settings_given, *EMBEDDING_SETTINGS)
    now = {
        "metrics": list(task.metrics),
        "positive_label": task.positive_label,
        "word_split": task.word_split,
        "max_seq_length": max_seq_length,
        "special_tokens_in_text": special_tokens_in_text,
        **{key: value for key, value in task.to_dict().items() if key in compared},
    }
    earlier = {"special_tokens_in_text": TaskConfig.special_tokens_in_text, **EARLIER_WORD_SETTINGS}
    recorded = {**earlier, **before.task}
    for key, value in now.items():
        if (was := recorded.get(key, value)) != value:
            raise UsageError(f"{folder} was made with {key} = {was}, this run has {value}: {_remedy(folder)}")
    check_hashes(folder, before, data)


def check_hashes(folder: Path, before: Metadata, now: Mapping[str, str | None]) -> None:
    """Refuse a finished stage that had other inputs.

    Args:
        folder: the stage's folder, for messages.
        before: its metadata.
        now: hashes by a key of the recorded ones; None and keys that are not recorded are not compared.

    Raises:
        UsageError: a hash differs.
    """
    recorded: Mapping[str, Any] = before.provenance.get("made_of", {})
    for key, value in now.items():
        if value is not None and recorded.get(key, value) != value:
            raise UsageError(f"{folder} was made with other {_NAMES[key]} than this run has: {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    return (
        f"go on with those of before, name another {setting('output_dir')}, or remove {folder} and the stages after it"
    )
