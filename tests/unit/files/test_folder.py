"""Output folders: made where they can be, and nothing of the user's removed."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.folder import check_absent, make_folder
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, read_metadata, write_metadata


def files(folder):
    """All files below a folder with their content, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
        from dynabert_paddle.files.atomic import write_folder
        from dynabert_paddle.files.folder import make_folder
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


def test_a_full_disk_leaves_the_finished_model(tmp_path):
    done = in_own_mounts(
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


@pytest.mark.parametrize("fails_at", range(3))
def test_what_stays_of_a_removal_that_was_killed_can_be_removed(tmp_path, monkeypatch, fails_at):
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
        check_absent(folder, overwrite=True)
    check_absent(folder, overwrite=True)
    assert not folder.exists()


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
