"""Output folders are created where possible, and no folder of the user's is removed."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.folder import ensure_absent, make_folder
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, read_metadata, write_metadata


def files(folder):
    """The content of all files below a folder by path, hidden files too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_make_folder_marks_a_new_folder_and_keeps_its_files(tmp_path):
    folder = make_folder(tmp_path / "a" / "b")
    (folder / "log").write_text("kept")
    make_folder(folder)
    assert files(tmp_path) == {"a/b/log": b"kept", "a/b/.dynabert": b""}


def test_make_folder_adds_nothing_to_a_folder_of_the_users(tmp_path):
    (tmp_path / "log").write_text("kept")
    make_folder(tmp_path)
    assert files(tmp_path) == {"log": b"kept"}


def run_on_small_disk(script, folder):
    """Run a Python script with a 1 MB file system mounted on `folder`; skip if mounting is not permitted."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        pytest.skip("needs root and unshare to mount a file system")
    mount = f"mount -t tmpfs -o size=1m tmpfs {folder}"
    if subprocess.run([unshare, "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    python = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    command = [unshare, "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *python]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_output_folder_may_be_a_mount_point(tmp_path):
    """Such as a container's volume: a folder beside it cannot be renamed into it."""
    folder = tmp_path / "volume"
    folder.mkdir()
    done = run_on_small_disk(
        """
        import sys
        from pathlib import Path
        from dynabert_paddle.files.atomic import write_folder
        from dynabert_paddle.files.folder import make_folder
        folder = make_folder(sys.argv[1])
        write_folder(folder, lambda partial: (partial / "a.json").write_text("whole"), last="a.json")
        print((folder / "a.json").read_text(), sorted(path.name for path in folder.iterdir()))
        """,
        folder,
    )
    assert done.stdout == "whole ['.dynabert', 'a.json']\n", done.stderr


def test_a_read_only_folder_is_refused_at_once(tmp_path):
    done = run_on_small_disk(
        """
        import subprocess, sys
        from dynabert_paddle.errors import DynabertError
        from dynabert_paddle.files.folder import make_folder
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


def test_a_full_disk_keeps_the_old_model(tmp_path):
    done = run_on_small_disk(
        """
        import sys
        from pathlib import Path
        from dynabert_paddle.errors import DynabertError
        from dynabert_paddle.files.atomic import write_folder
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
def test_an_absent_or_empty_folder_is_accepted(tmp_path, overwrite):
    assert ensure_absent(tmp_path / "new", overwrite=overwrite) == tmp_path / "new"
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    ensure_absent(tmp_path / "empty", overwrite=overwrite)


def test_a_finished_folder_is_removed_only_with_overwrite(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    write_metadata(folder, Metadata(stage="width"))
    with pytest.raises(UsageError, match="model exists: pass --overwrite_output_dir to replace it"):
        ensure_absent(folder, overwrite=False)
    assert read_metadata(folder).stage == "width"
    ensure_absent(folder, overwrite=True)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        "thesis.tex",
        "model.safetensors",  # another tool's model
        "train.jsonl",  # the user's data: tasks read this name
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
    with pytest.raises(UsageError, match=r"mine (was not created by dynabert, and is not removed|exists)"):
        ensure_absent(tmp_path / "mine", overwrite=overwrite)
    assert files(tmp_path) == before


@pytest.mark.parametrize("fails_at", range(3))
def test_the_remains_of_a_killed_removal_can_be_removed(tmp_path, monkeypatch, fails_at):
    folder = make_folder(tmp_path / "model")
    for name in (METADATA_FILE, "model.safetensors", "vocab.txt"):
        (folder / name).touch()
    unlink, count = os.unlink, iter(range(10))

    def killed(*args, **kwargs):
        if next(count) == fails_at:
            raise KeyboardInterrupt
        unlink(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "unlink", killed)
        patch.setattr(Path, "unlink", killed)
        ensure_absent(folder, overwrite=True)
    ensure_absent(folder, overwrite=True)
    assert not folder.exists()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_in_the_way_is_not_removed(tmp_path, overwrite):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="out is a file: name another --output_dir"):
        ensure_absent(tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "mine"


def test_overwriting_a_link_succeeds_or_is_refused_in_one_line(tmp_path):
    """Output folders are often links to a larger disk."""
    target = tmp_path / "disk"
    target.mkdir()
    write_metadata(target, Metadata(stage="width"))
    link = tmp_path / "out"
    link.symlink_to(target)
    try:
        ensure_absent(link, overwrite=True)
    except DynabertError as error:
        assert "out" in str(error)
        assert read_metadata(target).stage == "width"
    else:
        assert not link.exists() or not any(link.iterdir())


def test_overwriting_the_current_directory_is_refused_and_removes_nothing(tmp_path, monkeypatch):
    """A process can remove the content of its current directory, but not the directory."""
    folder = make_folder(tmp_path / "here")
    write_metadata(folder, Metadata(stage="width"))
    (folder / "inner").mkdir()
    before = files(folder)
    for place, name in ((folder, "."), (folder / "inner", "..")):
        monkeypatch.chdir(place)
        with pytest.raises(UsageError):
            ensure_absent(name, overwrite=True)
        assert files(folder) == before
