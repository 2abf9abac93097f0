"""Which files of an output folder its verb wrote: `--overwrite_output_dir` removes those, and refuses any other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dynabert_paddle.config.names import setting
from dynabert_paddle.config.settings import STAGES
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.folder import (
    BASELINE,
    COMPRESS,
    EXPORT,
    EXTRACT,
    MARKER_FILE,
    RECORDS_FOLDER,
    REPORT_FILE,
    SAVE,
    SEARCH,
    check_ours,
    command_of,
    is_free,
    maker_of,
    read_object,
)
from dynabert_paddle.files.metadata import METADATA_FILE
from dynabert_paddle.files.partial import is_partial
from dynabert_paddle.files.search_result import RESULT_FILE, SEARCH_FOLDER, TABLE_FILE
from dynabert_paddle.runtime.home import user_path

_MAX_LISTED = 5

_OURS = (MARKER_FILE, ".DS_Store")
_RECORDS = re.compile(r"vdlrecords\..*")
_CHECKPOINT = re.compile(r"checkpoint-\d+|\.checkpoint-\d+\.[0-9a-f]{8}\.partial")
_CHECKPOINT_FILES = re.compile(r"state\.json|(model|optimizer|best)\.safetensors")
# Beside the files that `dynabert.json` lists; all of them where a stage was killed before it wrote that.
_MODEL_FILES = re.compile(
    r"config\.json|model\.safetensors|dynabert\.json|baseline\.json|train\.jsonl|report\.html"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
    r"|vocab\.(txt|json)|merges\.txt|sentencepiece\.bpe\.model|spiece\.model"
)
_BUNDLE_FILES = re.compile(
    r"bundle\.json|README\.md|infer(_lite)?\.py|(lite_)?tokenizer\.json|tokenizer_config\.json"
    r"|special_tokens_map\.json|added_tokens\.json|vocab\.(txt|json)|merges\.txt"
    r"|model(\.\d+)?\.(pdmodel|json)|model\.(pdiparams|onnx|npz)|model_(arm|x86)\.nb"
)
_SEARCH_FILES = re.compile(rf"study\.db(-journal|-wal|-shm)?|{re.escape(RESULT_FILE)}|{re.escape(TABLE_FILE)}")
_CACHES = "__pycache__"


def check_replaceable(folder: str | Path, maker: str, *, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse an output folder that is not free, unless a verb may replace it; nothing is changed.

    Args:
        folder: the output folder.
        maker: what wants to write it, such as a stage's name.
        overwrite: an existing folder may be replaced.
        inputs: files and folders that the verb reads.

    Raises:
        UsageError: it is not free, and `overwrite` is false or `check_removable` refuses it; or it is a file.
    """
    folder = user_path(folder)  # as `claim` does: else another folder would be checked than is replaced
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name another {setting('output_dir')}")
    if is_free(folder):
        return
    if not overwrite:
        raise UsageError(
            f"{folder} exists: pass {setting('overwrite_output_dir')} to replace it, or name another "
            f"{setting('output_dir')}"
        )
    check_removable(folder, maker, inputs=inputs)


def check_removable(folder: Path, maker: str, *, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse to remove a folder's content unless the verb made the folder and knows every file in it.

    Args:
        folder: an existing folder.
        maker: what wants to replace it, such as a stage's name.
        inputs: files and folders that the verb reads.

    Raises:
        UsageError: the current directory or an input is in it, something else made it, or it holds other files.
    """
    folder = user_path(folder)
    place = folder.resolve()
    if place in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(
            f"{folder} contains the current directory, and is not removed: name another {setting('output_dir')}"
        )
    for path in inputs:
        read = user_path(path).resolve()
        if place in (read, *read.parents):
            raise UsageError(f"{folder} holds {path}, which is read here: name another {setting('output_dir')}")
    made_by = maker_of(folder)
    check_ours(folder)
    if made_by not in (None, maker):
        raise UsageError(
            f"{folder} was made by '{command_of(made_by or '')}', and '{command_of(maker)}' removes only what it made "
            f"itself: remove it first, or name another {setting('output_dir')}"
        )
    unknown = [str(path.relative_to(folder)) for path in find_unknown(folder, maker)]
    if unknown:
        more = f" and {len(unknown) - _MAX_LISTED} more" if len(unknown) > _MAX_LISTED else ""
        raise UsageError(
            f"{folder} holds what '{command_of(maker)}' did not write, and is not removed: "
            f"{', '.join(unknown[:_MAX_LISTED])}{more}: move that away first, or name another {setting('output_dir')}"
        )


def check_maker(folder: Path, maker: str) -> None:
    """Refuse to write into a folder that another verb has made; one of the user's is accepted.

    Args:
        folder: the output folder.
        maker: what wants to write it, such as a stage's name.

    Raises:
        UsageError: another verb has made it.
    """
    folder = user_path(folder)
    made_by = None if is_free(folder) or not folder.is_dir() else maker_of(folder)
    if made_by not in (None, maker):
        raise UsageError(f"{folder} was made by '{command_of(made_by or '')}': name another {setting('output_dir')}")


def find_unknown(folder: Path, maker: str) -> list[Path]:
    """Find the files and folders in an output folder that its verb did not write.

    Args:
        folder: the folder.
        maker: what made it, such as a stage's name.

    Returns:
        Their paths, sorted.
    """
    return sorted(_unknown(folder, maker))


def _unknown(folder: Path, maker: str) -> Iterator[Path]:
    if maker == EXPORT:
        yield from _others(folder, _BUNDLE_FILES, {*_listed(folder / "bundle.json"), _CACHES})
    elif maker == SEARCH:
        yield from _others(folder, _SEARCH_FILES, {"best"})
        yield from _unknown_inside(folder / "best", "width")
    elif maker in (*STAGES, BASELINE, EXTRACT, COMPRESS, SAVE):
        yield from _unknown_of_model(folder)
    else:
        yield from folder.iterdir()


def _unknown_of_model(folder: Path) -> Iterator[Path]:
    inside = {path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()}
    checkpoints = {name for name in inside if _CHECKPOINT.fullmatch(name)}
    folders = inside & {"vdl", RECORDS_FOLDER, SEARCH_FOLDER} | checkpoints
    yield from _others(folder, _MODEL_FILES, {*_listed(folder / METADATA_FILE), REPORT_FILE, *folders})
    for name in checkpoints:
        yield from _others(folder / name, _CHECKPOINT_FILES)
    for name in folders & {"vdl", RECORDS_FOLDER}:
        yield from _others(folder / name, _RECORDS)
    yield from _unknown_inside(folder / SEARCH_FOLDER, SEARCH)


def _unknown_inside(folder: Path, maker: str) -> Iterator[Path]:
    """What a verb did not write in a folder at its default place; the whole folder, if another verb made it."""
    if folder.is_dir() and not folder.is_symlink():
        if maker_of(folder) in (None, maker):
            yield from _unknown(folder, maker)
        else:
            yield folder


def _others(folder: Path, known: re.Pattern[str], names: Iterable[str] = ()) -> Iterator[Path]:
    """Entries of a folder whose names are neither known nor hidden ones of ours."""
    names = set(names)
    for path in folder.iterdir():
        is_known = path.name in names or path.name in _OURS or is_partial(path.name)
        if not is_known and not (known.fullmatch(path.name) and not path.is_dir()):
            yield path


def _listed(manifest: Path) -> set[str]:
    """The names of the files whose checksums a manifest holds."""
    files = (read_object(manifest) or {}).get("files")
    return set(files) if isinstance(files, dict) else set()
