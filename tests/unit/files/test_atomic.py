"""Atomic writes of files and folders; JSON that was changed is refused."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from dynabert_paddle.errors import DynabertError, ModelError
from dynabert_paddle.files.atomic import read_json, write_json, write_new_folder
from dynabert_paddle.files.claim import claim

pytestmark = pytest.mark.reference


def files(folder):
    """The content of all files below a folder by path, hidden files too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_json_that_is_not_utf8_is_called_damaged(tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ModelError, match=r"config\.json: not JSON"):
        read_json(tmp_path / "config.json")


def test_an_object_with_a_key_twice_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"a": {"num_labels": 2, "b": 1, "num_labels": 3}}')
    with pytest.raises(ModelError, match=r"config\.json: the key 'num_labels' occurs twice in one object: keep one"):
        read_json(tmp_path / "config.json")


def test_a_byte_order_mark_of_an_editor_is_passed_over(tmp_path):
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "config.json") == {"a": 1}


def test_a_missing_json_file_or_a_folder_in_its_place_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: missing: a model folder needs it"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match=r"config\.json: not a file: a model folder needs it"):
        read_json(tmp_path / "config.json")


def test_a_failed_write_keeps_the_old_json(tmp_path):
    path = tmp_path / "grid.json"
    write_json(path, {"text": "é"})
    before = files(tmp_path)
    assert read_json(path) == {"text": "é"}
    with pytest.raises(TypeError):
        write_json(path, {"first": 1, "second": object()})
    assert path.read_bytes() == before["grid.json"]
    write_json(path, {"text": "new"})
    assert read_json(path) == {"text": "new"}
    assert sorted(files(tmp_path)) == ["grid.json"]


def write_two(partial, *, text="new"):
    (partial / "a.txt").write_text(text)
    (partial / "z.json").write_text(text)


def test_a_new_folder_appears_only_when_complete(tmp_path):
    folder = tmp_path / "deep" / "model"

    def write(partial):
        write_two(partial)
        assert not folder.exists()
        assert partial.parent == folder.parent  # renaming within one file system needs no copy

    write_new_folder(folder, write)
    assert files(tmp_path) == {"deep/model/a.txt": b"new", "deep/model/z.json": b"new"}


def claim_and_write(folder, write, *, last):
    with claim(folder, "width") as claimed:
        claimed.write(write, last=last)


def test_an_existing_folder_gets_its_marker_file_last(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "train.jsonl").write_text("log")
    # Moving b.txt fails, because a folder has its name.
    (folder / "b.txt").mkdir()
    (folder / "b.txt" / "x").touch()

    def write(partial):
        for name in ("0.json", "a.txt", "b.txt"):
            (partial / name).write_text("new")

    with pytest.raises(DynabertError, match="model: cannot be written"):
        claim_and_write(folder, write, last="0.json")
    assert not (folder / "0.json").exists()
    assert (folder / "train.jsonl").read_text() == "log"
    shutil.rmtree(folder / "b.txt")
    claim_and_write(folder, write, last="0.json")
    assert set(files(tmp_path)) == {"model/0.json", "model/a.txt", "model/b.txt", "model/train.jsonl"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("wrong"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failed_write_changes_nothing(tmp_path, error, exists):
    folder = tmp_path / "model"
    if exists:
        write_new_folder(folder, write_two)

    def fail(partial):
        write_two(partial, text="other")
        raise error

    before = files(tmp_path)
    with pytest.raises((DynabertError, type(error))) as caught:
        claim_and_write(folder, fail, last="z.json") if exists else write_new_folder(folder, fail)
    assert files(tmp_path) == before
    assert folder.exists() is exists
    assert sorted(path.name for path in tmp_path.iterdir()) == (["model"] if exists else [])
    if isinstance(error, OSError):
        assert str(caught.value) == (
            f"{folder}: cannot be written: No space left on device: make room or name another folder, then run again"
        )


@pytest.fixture
def disk_calls(monkeypatch):
    """Calls of fsync and rename in order, with the name of the synced file or the new name."""
    calls = []

    def plain(name):
        """A hidden name without what makes it unique."""
        return re.sub(r"\.?[0-9a-f]{8}\.partial", ".partial", name)

    def fsync(descriptor):
        calls.append(("sync", plain(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))))
        return real_fsync(descriptor)

    def rename(path, target):
        calls.append(("rename", target.name))
        return real_rename(path, target)

    real_fsync, real_rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", rename)
    return calls


def test_a_folder_is_synced_before_and_after_it_is_renamed(tmp_path, disk_calls):
    write_new_folder(tmp_path / "model", write_two)
    renamed = disk_calls.index(("rename", "model"))
    assert set(disk_calls[:renamed]) == {("sync", "a.txt"), ("sync", "z.json"), ("sync", ".model.partial")}
    assert disk_calls[renamed + 1 :] == [("sync", tmp_path.name)]
    with claim(tmp_path / "model", None) as claimed:
        disk_calls.clear()
        claimed.write(write_two, last="z.json")
    renamed = disk_calls.index(("rename", "a.txt"))
    assert set(disk_calls[:renamed]) == {("sync", "a.txt"), ("sync", "z.json"), ("sync", ".partial")}
    assert disk_calls[renamed + 1 :] == [("sync", "model"), ("rename", "z.json"), ("sync", "model")]


def test_a_file_is_synced_before_and_after_it_is_renamed(tmp_path, disk_calls):
    write_json(tmp_path / "grid.json", {})
    assert disk_calls == [("sync", ".grid.json.partial"), ("rename", "grid.json"), ("sync", tmp_path.name)]


def test_remains_of_a_killed_process_are_replaced(tmp_path):
    (tmp_path / ".model.0123abcd.partial").mkdir()
    (tmp_path / ".model.0123abcd.partial" / "rest.bin").write_text("old")
    write_new_folder(tmp_path / "model", write_two)
    assert set(files(tmp_path)) == {"model/a.txt", "model/z.json"}


def claim_nothing(folder):
    with claim(folder, "width"):
        pass


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for call in (claim_nothing, lambda folder: write_new_folder(folder, write_two)):
        with pytest.raises(DynabertError, match="file/model: cannot be written: Not a directory: .*another folder"):
            call(tmp_path / "file" / "model")
    assert files(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize("old, new", [("0.5", "0.6"), ('"a"', '"b"'), ("true", "false"), ('"x": 1', '"x": 1, "y": 2')])
def test_changed_json_is_refused_until_its_checksum_is_removed(tmp_path, old, new):
    path = tmp_path / "grid.json"
    write_json(path, {"score": 0.5, "name": "a", "ok": True, "x": 1, "nan": float("nan"), "rows": {3: (1, 2)}})
    assert read_json(path)["rows"] == {"3": [1, 2]}
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    words = r"grid\.json: changed since it was written: .* remove 'checksum' from grid\.json"
    with pytest.raises(ModelError, match=words):
        read_json(path)
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_text(json.dumps(values))
    assert "checksum" not in read_json(path)


def test_write_json_replaces_an_old_checksum(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "b.json", json.loads((tmp_path / "a.json").read_text()) | {"x": 2})
    assert read_json(tmp_path / "b.json") == {"x": 2}


def test_reading_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelError, match=r"config\.json: not a file"):
        read_json(tmp_path / "config.json")
