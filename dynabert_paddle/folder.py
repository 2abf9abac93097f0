"""The folder that every stage reads and writes: PaddleNLP's files, the tokenizer's, and `dynabert.json`."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dynabert_paddle.deploy.bundle_files import digest
from dynabert_paddle.errors import DynabertError, ModelError, UsageError, did_you_mean
from dynabert_paddle.integrity import as_it_is, hash_files
from dynabert_paddle.runtime import leads

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

METADATA_FILE = "dynabert.json"
FORMAT_VERSION = 1

# What a run keeps beside its stages' folders: its settings, the grid on the dev set, models of a fixed size to compare
# with, and its report as a page and for VisualDL.
CONFIG_FILE = "run.yaml"
GRID_FILE = "grid.json"
BASELINES_FOLDER = "baselines"
REPORT_FILE = "report.html"
RECORDS_FOLDER = "vdl_report"

# In every output folder that this package has made; no other is ever removed.
MARKER_FILE = ".dynabert"


@dataclass(frozen=True)
class Metadata:
    """What `dynabert.json` keeps beside a model's weights.

    Args:
        stage: the stage that made the model; empty for a backbone from elsewhere.
        task: what the model was trained for, as `Task.to_dict` gives it, and `max_seq_length`.
        heads: attention heads of each layer.
        neurons: FFN neurons of each layer.
        space: width and depth multipliers that were trained.
        subnet: for an extracted model, the name of the subnet that it is.
        importance: per layer, the importance of each head and neuron in their sorted order.
        metrics: what was measured, on which split.
        provenance: versions, seed, resolved settings, parent folder.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's protocol for plain dataclasses

    stage: str = ""
    task: Mapping[str, Any] = field(default_factory=dict)
    heads: tuple[int, ...] = ()
    neurons: tuple[int, ...] = ()
    space: Mapping[str, Any] = field(default_factory=dict)
    subnet: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Metadata:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def read_metadata(folder: str | Path) -> Metadata:
    """Read a model folder's `dynabert.json`.

    Args:
        folder: a model folder.

    Returns:
        Its metadata; empty where the folder is a plain PaddleNLP or Hugging Face one.

    Raises:
        ModelError: the file is there and is not what it should be.
    """
    path = Path(folder) / METADATA_FILE
    if not path.is_file():
        return Metadata()
    from pydantic import TypeAdapter, ValidationError

    values = read_json(path)
    values.pop("files", None)
    if values.pop("format_version", None) != FORMAT_VERSION:
        raise ModelError(f"{path}: not format version {FORMAT_VERSION}: it comes from another dynabert_paddle")
    try:
        metadata = TypeAdapter(Metadata).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise ModelError(f"{path}: damaged at '{key}': copy the folder again from where it was made") from None
    if len(metadata.heads) != len(metadata.neurons):
        raise ModelError(f"{path}: damaged: it has heads for {len(metadata.heads)} layers and neurons for others")
    return metadata


def write_metadata(folder: str | Path, metadata: Metadata) -> None:
    """Write `dynabert.json`, with the SHA-256 of every file beside it.

    Args:
        folder: an existing folder with the model's other files.
        metadata: what to write.
    """
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(metadata), "files": hash_files(folder)}
    write_json(Path(folder) / METADATA_FILE, values)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.

    Returns:
        Its content, without the checksum that `write_json` adds.

    Raises:
        ModelError: the file is missing, unreadable, altered since it was written, or holds no JSON object.
    """
    if not path.is_file():  # a pipe could be waited for in vain
        raise ModelError(f"{path}: {'no file' if path.exists() else 'missing'}: a model folder needs it")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        checksum = values.pop("checksum", None) if isinstance(values, dict) else None
        altered = checksum is not None and checksum != digest(values)
        json.dumps(values, ensure_ascii=False).encode()  # JSON can spell half of a character, which no file can hold
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: not JSON: the file is damaged or cut off") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: holds no JSON object")
    if altered:
        raise ModelError(f"{path}: not as it was written: copy it again, or {as_it_is(path, 'checksum')}")
    return values


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, with a checksum as its last key, so that the file is whole or absent.

    Args:
        path: the file.
        values: its content.
    """
    values = json.loads(json.dumps(values))  # keys become strings, as they will be read
    values.pop("checksum", None)
    write_text(path, json.dumps({**values, "checksum": digest(values)}, ensure_ascii=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that the file is whole or as it was before.

    Args:
        path: the file.
        text: its content.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_folder(folder: str | Path, write: Callable[[Path], None], *, last: str) -> Path:
    """Write a folder's files so that the folder is whole or absent.

    The files of a new folder are written to a hidden sibling, which is then renamed. In a folder that exists, because
    it holds logs and checkpoints, they are written to a hidden subfolder, then moved one by one, the one that marks the
    folder as whole last. When this returns, all is on the disk: what it replaces can go.

    Args:
        folder: where the files shall be.
        write: writes all of them into the folder that it is given.
        last: name of the file whose presence says that the folder is whole.

    Returns:
        The folder.

    Raises:
        DynabertError: a full disk, or a folder that cannot be written to.
    """
    folder = Path(folder)
    exists = folder.exists()
    partial = folder / ".partial" if exists else folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        if exists:
            (folder / last).unlink(missing_ok=True)
            for path in sorted(partial.iterdir(), key=lambda path: path.name == last):
                if path.name == last:
                    _sync(folder)
                path.replace(folder / path.name)
            partial.rmdir()
            _sync(folder)
        else:
            partial.rename(folder)
            _sync(folder.parent)
    except OSError as error:
        raise cannot_write(folder, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _sync(path: Path) -> None:
    """Have the disk hold a file's content, or which files a folder has, so that a power failure cannot undo it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a network file system that has no such thing
            raise
    finally:
        os.close(descriptor)


def check_model_folder(folder: str | Path) -> None:
    """Refuse a model folder that is not there.

    Args:
        folder: what the user named.

    Raises:
        ModelError: no such folder; the message has the nearest one beside it.
    """
    if not Path(folder).is_dir():
        siblings = [str(path) for path in Path(folder).parent.glob("*") if path.is_dir()]
        raise ModelError(f"{folder}: no such model folder.{did_you_mean(str(folder), siblings)}")


def make_folder(folder: str | Path) -> Path:
    """Make an output folder, with its parents, and mark it as this package's own where it is new.

    Args:
        folder: the folder, which may exist.

    Returns:
        The folder.

    Raises:
        DynabertError: it cannot be made or written to.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        own = is_own(folder) or not any(folder.iterdir())
        # os.access answers wrongly for root and on network file systems: only writing tells.
        marker = folder / MARKER_FILE
        marker.touch()
        if not own:
            marker.unlink()
    return folder


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keep other runs from writing to an output folder meanwhile; the system forgets it when the process ends.

    Of several processes of one run the first one claims the folder.

    Args:
        folder: an existing folder.

    Yields:
        Nothing.

    Raises:
        UsageError: another run writes to it.
    """
    if not (leads() and fcntl):
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{folder} is in use by another run: wait until it has ended, or name another --output_dir"
            ) from None
        except OSError:  # a file system that knows no locks
            pass
        yield
    finally:
        os.close(handle)


def remove_unused(folder: Path, *settings: str) -> None:
    """Remove an output folder in which nothing was made.

    Args:
        folder: a folder that `make_folder` has made.
        settings: names of files that are nothing without results.
    """
    if is_own(folder) and {path.name for path in folder.iterdir()} <= {MARKER_FILE, *settings}:
        shutil.rmtree(folder, ignore_errors=True)


def is_own(folder: Path) -> bool:
    """Whether this package has made a folder.

    Args:
        folder: an existing folder.

    Returns:
        True where it has, so that it may be removed when the user asks for that.
    """
    return (folder / METADATA_FILE).is_file() or (folder / MARKER_FILE).is_file()


def check_replaceable(folder: str | Path, *, overwrite: bool) -> None:
    """Refuse a folder that is in the way, without touching it.

    Args:
        folder: the output folder.
        overwrite: what is there may be removed.

    Raises:
        UsageError: it exists and is not empty, and `overwrite` is false or this package did not make it.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise UsageError(
                f"{folder} exists: pass --overwrite_output_dir to replace it, or name another --output_dir"
            )
        if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise UsageError(f"{folder} holds the working folder, and is not removed: name another --output_dir")
        if folder.is_symlink() or not is_own(folder):
            raise UsageError(f"{folder} was not made by dynabert, and is not removed: name another --output_dir")
    elif folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name another --output_dir")


def check_absent(folder: str | Path, *, overwrite: bool) -> Path:
    """Refuse a folder that is in the way, or clear it away where that was asked for.

    Args:
        folder: the output folder.
        overwrite: remove what is there.

    Returns:
        The folder, which holds nothing now.

    Raises:
        UsageError: it exists and is not empty, and `overwrite` is false, this package did not make it, or another run
            writes to it.
    """
    folder = Path(folder)
    check_replaceable(folder, overwrite=overwrite)
    if folder.is_dir() and any(folder.iterdir()):
        with claim(folder), writing(folder):
            shutil.rmtree(folder)
    return folder


def clear_folder(folder: Path) -> None:
    """Remove what an output folder holds, and keep the folder, which its run has claimed.

    Args:
        folder: a folder that `make_folder` has made.

    Raises:
        DynabertError: it cannot be removed.
    """
    with writing(folder):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARKER_FILE:
                path.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why something cannot be written.

    Args:
        path: the file or the folder that the message names.

    Yields:
        Nothing.

    Raises:
        DynabertError: a full disk, or a folder that cannot be written to.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(folder: Path, error: OSError) -> DynabertError:
    """Say in one line why an output folder cannot be written to.

    Args:
        folder: the folder.
        error: what the system said.

    Returns:
        The error to raise.
    """
    return DynabertError(
        f"{folder}: cannot be written: {error.strerror or error}: make room or name another folder, then run again"
    )
