"""The folder contract: whole or absent, nothing of the user's removed, and damage named with its file."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.folder import (
    METADATA_FILE,
    Metadata,
    check_absent,
    make_folder,
    read_json,
    read_metadata,
    write_folder,
    write_json,
    write_metadata,
)


def files(folder):
    """All files below a folder with their content, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_metadata_comes_back_as_it_was(tmp_path):
    metadata = Metadata(
        stage="width",
        task={"name": "snips", "labels": ["a", "é"]},
        heads=(4, 3),
        neurons=(48, 36),
        space={"width_mults": [1.0, 0.5], "depth_mults": [1.0]},
        subnet={"name": "w0.50d1.00"},
        importance={"heads": [[0.5, 0.25]]},
        metrics={"holdout": {"w1.00d1.00": {"accuracy": 0.5}}},
        provenance={"parent": {"parent": "minilm-l6"}},
    )
    write_metadata(tmp_path, metadata)
    assert read_metadata(tmp_path) == metadata
    assert metadata.replace(stage="depth").stage == "depth"
    assert metadata.stage == "width"


def test_a_plain_folder_has_empty_metadata(tmp_path):
    assert read_metadata(tmp_path) == Metadata()


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("", "not JSON: the file is damaged or cut off"),
        ('{"format_version": 1, "stage": "wid', "not JSON: the file is damaged or cut off"),
        ("\x00\x00\x00", "not JSON"),
        ("[1, 2]", "holds no JSON object"),
        ("{}", "not format version 1"),
        ('{"format_version": 2}', "not format version 1"),
        ('{"format_version": 1, "colour": "red"}', "damaged at 'colour'"),
        ('{"format_version": 1, "heads": 4}', "damaged"),
        ('{"format_version": 1, "heads": [4], "neurons": null}', "damaged"),
        ('{"format_version": 1, "heads": ["4"], "neurons": ["48"]}', "damaged"),
        ('{"format_version": 1, "heads": [4, 4], "neurons": [48]}', "damaged"),
        ('{"format_version": 1, "task": ["snips"]}', "damaged"),
        ('{"format_version": 1, "space": "grid"}', "damaged"),
        ('{"format_version": 1, "stage": 3}', "damaged"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_damaged_metadata_names_its_file(tmp_path, content, seen):
    (tmp_path / METADATA_FILE).write_text(content)
    with pytest.raises(ModelError, match=seen) as caught:
        read_metadata(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / METADATA_FILE}: ")
    assert "\n" not in str(caught.value)


def test_json_that_is_not_utf8_is_called_damaged(tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(ModelError, match=r"config\.json: not JSON"):
        read_json(tmp_path / "config.json")


def test_json_that_is_missing_or_a_folder_is_said_so(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: missing: a model folder needs it"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match=r"config\.json: no file: a model folder needs it"):
        read_json(tmp_path / "config.json")


def test_json_is_whole_or_as_before(tmp_path):
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


def test_a_new_folder_is_there_once_it_is_whole(tmp_path):
    folder = tmp_path / "deep" / "model"

    def write(partial):
        write_two(partial)
        assert not folder.exists()
        assert partial.parent == folder.parent  # so that renaming it needs no copy

    assert write_folder(folder, write, last="z.json") == folder
    assert files(tmp_path) == {"deep/model/a.txt": b"new", "deep/model/z.json": b"new"}


def test_into_a_folder_with_logs_the_marker_comes_last(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "train.jsonl").write_text("log")
    # A folder in the place of a file stops the moving there, in whichever order files are listed.
    (folder / "b.txt").mkdir()
    (folder / "b.txt" / "x").touch()

    def write(partial):
        for name in ("0.json", "a.txt", "b.txt"):
            (partial / name).write_text("new")

    with pytest.raises(DynabertError, match="model: cannot be written"):
        write_folder(folder, write, last="0.json")
    assert not (folder / "0.json").exists()
    assert (folder / "train.jsonl").read_text() == "log"
    shutil.rmtree(folder / "b.txt")
    write_folder(folder, write, last="0.json")
    assert set(files(tmp_path)) == {"model/0.json", "model/a.txt", "model/b.txt", "model/train.jsonl"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("odd"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [True, False])
def test_a_write_that_fails_leaves_all_as_it_was(tmp_path, error, exists):
    folder = tmp_path / "model"
    if exists:
        write_folder(folder, write_two, last="z.json")

    def fail(partial):
        write_two(partial, text="other")
        raise error

    before = files(tmp_path)
    with pytest.raises((DynabertError, type(error))) as caught:
        write_folder(folder, fail, last="z.json")
    assert files(tmp_path) == before
    assert folder.exists() is exists
    assert sorted(path.name for path in tmp_path.iterdir()) == (["model"] if exists else [])
    if isinstance(error, OSError):
        assert str(caught.value) == (
            f"{folder}: cannot be written: No space left on device: make room or name another folder, then run again"
        )


@pytest.fixture
def disk_calls(monkeypatch):
    """What is said to the disk, in order: names that are synced, and names that files and folders get."""
    calls = []

    def fsync(descriptor):
        calls.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        return real_fsync(descriptor)

    def rename(path, target):
        calls.append(("name", target.name))
        return real_rename(path, target)

    real_fsync, real_rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(Path, "replace", rename)
    return calls


def test_a_power_failure_finds_a_folder_whole_or_not_there(tmp_path, disk_calls):
    write_folder(tmp_path / "model", write_two, last="z.json")
    named = disk_calls.index(("name", "model"))
    assert set(disk_calls[:named]) == {("sync", "a.txt"), ("sync", "z.json"), ("sync", ".model.partial")}
    assert disk_calls[named + 1 :] == [("sync", tmp_path.name)]
    disk_calls.clear()
    write_folder(tmp_path / "model", write_two, last="z.json")
    named = disk_calls.index(("name", "a.txt"))
    assert set(disk_calls[:named]) == {("sync", "a.txt"), ("sync", "z.json"), ("sync", ".partial")}
    assert disk_calls[named + 1 :] == [("sync", "model"), ("name", "z.json"), ("sync", "model")]


def test_a_power_failure_finds_a_file_whole(tmp_path, disk_calls):
    write_json(tmp_path / "grid.json", {})
    assert disk_calls == [("sync", ".grid.json.partial"), ("name", "grid.json"), ("sync", tmp_path.name)]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial" / "rest.bin").write_text("old")
    write_folder(tmp_path / "model", write_two, last="z.json")
    assert set(files(tmp_path)) == {"model/a.txt", "model/z.json"}


def test_below_a_file_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    for call in (make_folder, lambda folder: write_folder(folder, write_two, last="z.json")):
        with pytest.raises(DynabertError, match="file/model: cannot be written: Not a directory: .*another folder"):
            call(tmp_path / "file" / "model")
    assert files(tmp_path) == {"file": b"mine"}


def test_making_a_folder_marks_a_new_one_and_keeps_what_is_there(tmp_path):
    folder = make_folder(tmp_path / "a" / "b")
    (folder / "log").write_text("kept")
    make_folder(folder)
    assert files(tmp_path) == {"a/b/log": b"kept", "a/b/.dynabert": b""}


def test_making_a_folder_of_the_users_leaves_nothing_in_it(tmp_path):
    (tmp_path / "log").write_text("kept")
    make_folder(tmp_path)
    assert files(tmp_path) == {"log": b"kept"}


def in_own_mounts(script, folder):
    """Run Python after shell commands in a mount namespace of its own; skip where that is not permitted."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        pytest.skip("needs root and unshare to mount a file system")
    mount = f"mount -t tmpfs -o size=1m tmpfs {folder}"
    if subprocess.run([unshare, "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    python = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    command = [unshare, "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *python]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_output_folder_may_be_a_mount_of_its_own(tmp_path):
    """As a container's volume is: nothing can be renamed into it from beside it."""
    folder = tmp_path / "volume"
    folder.mkdir()
    done = in_own_mounts(
        """
        import sys
        from pathlib import Path
        from dynabert_paddle.folder import make_folder, write_folder
        folder = make_folder(sys.argv[1])
        write_folder(folder, lambda partial: (partial / "a.json").write_text("whole"), last="a.json")
        print((folder / "a.json").read_text(), sorted(path.name for path in folder.iterdir()))
        """,
        folder,
    )
    assert done.stdout == "whole ['.dynabert', 'a.json']\n", done.stderr


def test_a_read_only_folder_is_refused_before_the_work(tmp_path):
    done = in_own_mounts(
        """
        import subprocess, sys
        from dynabert_paddle.errors import DynabertError
        from dynabert_paddle.folder import make_folder
        subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
        for folder in (sys.argv[1], sys.argv[1] + "/new"):
            try:
                make_folder(folder)
            except DynabertError as error:
                print(error)
        """,
        tmp_path,
    )
    remedy = "cannot be written: Read-only file system: make room or name another folder, then run again"
    assert done.stdout == f"{tmp_path}: {remedy}\n{tmp_path}/new: {remedy}\n", done.stderr


def test_a_full_disk_leaves_the_finished_model(tmp_path):
    done = in_own_mounts(
        """
        import sys
        from pathlib import Path
        from dynabert_paddle.errors import DynabertError
        from dynabert_paddle.folder import write_folder
        folder = Path(sys.argv[1]) / "model"
        for text in ("old", "x" * 2**21):
            try:
                write_folder(folder, lambda partial: (partial / "a.json").write_text(text), last="a.json")
            except DynabertError as error:
                print(error)
        print(sorted(str(path.relative_to(sys.argv[1])) for path in Path(sys.argv[1]).rglob("*")))
        print((folder / "a.json").read_text())
        """,
        tmp_path,
    )
    remedy = "cannot be written: No space left on device: make room or name another folder, then run again"
    assert done.stdout == f"{tmp_path}/model: {remedy}\n['model', 'model/a.json']\nold\n", done.stderr


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_absent_or_empty_folder_is_free(tmp_path, overwrite):
    assert check_absent(tmp_path / "new", overwrite=overwrite) == tmp_path / "new"
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    check_absent(tmp_path / "empty", overwrite=overwrite)


def test_a_finished_folder_goes_only_when_asked(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    write_metadata(folder, Metadata(stage="width"))
    with pytest.raises(UsageError, match="model exists: pass --overwrite_output_dir to replace it"):
        check_absent(folder, overwrite=False)
    assert read_metadata(folder).stage == "width"
    check_absent(folder, overwrite=True)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        "thesis.tex",
        "model.safetensors",  # a model of another tool's
        "train.jsonl",  # the user's data, which a task reads under this very name
        "vdl/vdlrecords.1.log",  # VisualDL's logs of another project
        "run.yaml",  # many tools have one
    ],
)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_dynabert_did_not_make_is_never_removed(tmp_path, name, overwrite):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"sentence": "play some jazz", "label": "PlayMusic"}\n')
    before = files(tmp_path)
    with pytest.raises(UsageError, match=r"mine (was not made by dynabert, and is not removed|exists)"):
        check_absent(tmp_path / "mine", overwrite=overwrite)
    assert files(tmp_path) == before


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_in_the_way_is_not_removed(tmp_path, overwrite):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="out is a file: name another --output_dir"):
        check_absent(tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "mine"


def test_overwriting_through_a_link_is_done_or_refused_in_one_line(tmp_path):
    """Results are often linked to a larger disk."""
    target = tmp_path / "disk"
    target.mkdir()
    write_metadata(target, Metadata(stage="width"))
    link = tmp_path / "out"
    link.symlink_to(target)
    try:
        check_absent(link, overwrite=True)
    except DynabertError as error:
        assert "out" in str(error)
        assert read_metadata(target).stage == "width"
    else:
        assert not link.exists() or not any(link.iterdir())


def test_overwriting_the_working_folder_is_refused_before_anything_goes(tmp_path, monkeypatch):
    """A process cannot remove the folder that it stands in, only what is inside."""
    folder = make_folder(tmp_path / "here")
    write_metadata(folder, Metadata(stage="width"))
    (folder / "inner").mkdir()
    before = files(folder)
    for place, name in ((folder, "."), (folder / "inner", "..")):
        monkeypatch.chdir(place)
        with pytest.raises(UsageError):
            check_absent(name, overwrite=True)
        assert files(folder) == before


@pytest.mark.parametrize("old, new", [("0.5", "0.6"), ('"a"', '"b"'), ("true", "false"), ('"x": 1', '"x": 1, "x": 2')])
def test_json_that_was_altered_is_refused_until_its_checksum_is_removed(tmp_path, old, new):
    path = tmp_path / "grid.json"
    write_json(path, {"score": 0.5, "name": "a", "ok": True, "x": 1, "nan": float("nan"), "rows": {3: (1, 2)}})
    assert read_json(path)["rows"] == {"3": [1, 2]}
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=r"grid\.json: not as it was written: .* remove 'checksum' from grid\.json"):
        read_json(path)
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_text(json.dumps(values))
    assert "checksum" not in read_json(path)


def test_what_was_read_can_be_written_again(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "b.json", json.loads((tmp_path / "a.json").read_text()) | {"x": 2})
    assert read_json(tmp_path / "b.json") == {"x": 2}


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelError, match=r"config\.json: no file"):
        read_json(tmp_path / "config.json")
