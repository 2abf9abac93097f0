"""One writer a folder: a second one is refused, and a lock counts only while its folder is the one at the path."""

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.claim import claim
from dynabert_paddle.files.folder import maker_of
from dynabert_paddle.files.ownership import check_replaceable
from dynabert_paddle.files.partial import lock, partial_file, partial_folder

pytestmark = pytest.mark.reference

IN_USE = "model is in use by another run: wait until it has ended, or name another output_dir"


def write_text(text):
    return lambda partial: (partial / "a.json").write_text(text)


def in_process(script, *words, **options):
    """Start a Python script."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


HOLD_FOLDER = """
    import sys
    from dynabert_paddle.files.claim import claim
    with claim(sys.argv[1], "export") as claimed, claimed.partial() as partial:
        (partial / "weights").write_text("x" * 1000)
        print("claimed", flush=True)
        sys.stdin.readline()
        claimed.take(partial, last="weights")
"""


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_has_one_writer_also_before_it_is_there(tmp_path, exists):
    folder = tmp_path / "model"
    if exists:
        folder.mkdir()
    other = in_process(HOLD_FOLDER, folder)
    assert other.stdout.readline() == "claimed\n"
    with pytest.raises(UsageError, match=IN_USE), claim(folder, "extract"):
        pass
    other.communicate("go on\n")
    assert other.returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == [".dynabert", "weights"]
    with claim(folder, "extract"):
        pass
    assert maker_of(folder) == "export"


def test_a_waiting_writer_gets_the_folder_when_it_is_released(tmp_path):
    got = []

    def write():
        with claim(tmp_path / "model", "width", wait_seconds=30) as claimed:
            claimed.write(write_text("second"), last="a.json")
            got.append(claimed)

    with claim(tmp_path / "model", "width") as first:
        thread = threading.Thread(target=write)
        thread.start()
        first.write(write_text("first"), last="a.json")
        assert not got
    thread.join()
    assert (tmp_path / "model" / "a.json").read_text() == "second"


def test_threads_of_one_process_are_two_writers(tmp_path):
    refused = []

    def write():
        try:
            with claim(tmp_path / "model", "width"):
                pass
        except UsageError as error:
            refused.append(str(error))

    with claim(tmp_path / "model", "width"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert refused == [f"{tmp_path}/{IN_USE}"]


@pytest.mark.parametrize("change", ["removed", "moved", "anew"])
def test_a_writer_that_lost_its_folder_writes_nothing_more(tmp_path, change):
    folder = tmp_path / "model"
    with claim(folder, "width") as first:
        (folder / "train.jsonl").write_text("first")
        shutil.rmtree(folder) if change != "moved" else folder.rename(tmp_path / "elsewhere")
        if change == "anew":
            with claim(folder, "width") as second:
                second.write(write_text("second"), last="a.json")
        for call in (first.check, first.clear, lambda: first.write(write_text("first"), last="a.json")):
            with pytest.raises(DynabertError, match="model was removed or replaced while this run wrote to it"):
                call()
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    assert names == ([".dynabert", "a.json"] if change == "anew" else [])
    if change == "anew":
        assert (folder / "a.json").read_text() == "second"


def test_a_folder_that_goes_in_mid_write_is_not_called_a_full_disk(tmp_path):
    def write(partial):
        shutil.rmtree(tmp_path / "model")
        (partial / "a.json").write_text("late")

    words = "model: cannot be written: its folder does not exist, or was removed or replaced meanwhile"
    with claim(tmp_path / "model", "width") as claimed, pytest.raises(DynabertError, match=words):
        claimed.write(write, last="a.json")
    assert not list(tmp_path.iterdir())


def test_a_write_replaces_the_folder_or_adds_to_it(tmp_path):
    with claim(tmp_path / "model", "extract") as claimed:
        (tmp_path / "model" / "vocab.txt").touch()
        claimed.write(write_text("new"), last="a.json")
        assert (tmp_path / "model" / "vocab.txt").exists()
        claimed.write(write_text("newer"), last="a.json", replace=True)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [".dynabert", "a.json"]


def test_a_folder_of_the_users_is_never_replaced(tmp_path):
    """Even if the caller has not checked it, or has checked another one."""
    (tmp_path / "thesis.tex").touch()
    words = "was not created by dynabert, and is not removed: name another output_dir"
    with claim(tmp_path, "extract") as claimed:
        for call in (claimed.clear, lambda: claimed.write(write_text("new"), last="a.json", replace=True)):
            with pytest.raises(UsageError, match=words):
                call()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_remains_of_a_killed_replacement_can_be_replaced(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (".dynabert", ".moving.partial", "model.safetensors"):
        (folder / name).touch()
    with claim(folder, "extract") as claimed:
        claimed.write(write_text("new"), last="a.json", replace=True)
    assert sorted(path.name for path in folder.iterdir()) == [".dynabert", "a.json"]


@pytest.mark.parametrize("mine", [True, False])
def test_an_unused_file_is_removed_unless_it_was_there_before(tmp_path, mine):
    """A run keeps its settings in `run.yaml`, which may also be the user's config in a folder of its own."""
    folder = tmp_path / "out"
    if mine:
        folder.mkdir()
        (folder / "run.yaml").write_text("mine")
    with claim(folder, "run", unused=("run.yaml",)):
        (folder / "run.yaml").touch()
    assert folder.exists() == mine
    if mine:
        assert (folder / "run.yaml").read_text() == "mine"


def test_a_search_that_runs_inside_keeps_its_folder(tmp_path):
    with claim(tmp_path / "model" / "search", "search"), claim(tmp_path / "model", "width") as outer:
        with pytest.raises(UsageError, match="search is in use by another run"):
            outer.clear()
        assert (tmp_path / "model" / "search").is_dir()


def test_partial_files_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (
        ".dynabert",
        "run.yaml",
        "..dynabert.0123abcd.partial",
        ".moving.partial",
    ):  # the last one has a meaning
        (folder / name).touch()
    with partial_file(folder / "grid.json") as living:
        with claim(folder, "width"):
            names = [".dynabert", "run.yaml", ".moving.partial", Path(living.name).name]
            assert sorted(path.name for path in folder.iterdir()) == sorted(names)
        living.write("{}")
        living.flush()
        os.replace(living.name, folder / "grid.json")
    assert (folder / "grid.json").read_text() == "{}"


def test_partial_folders_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path):
    folder = tmp_path / "model"
    living, dead = ".0123abcd.partial", (".4567cdef.partial", ".checkpoint-7.89abcdef.partial")
    for name in (living, *dead):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights").touch()
    (folder / ".dynabert").touch()
    handle = os.open(folder / living, os.O_RDONLY)
    assert lock(handle)
    with claim(folder, "width"):
        assert sorted(path.name for path in folder.iterdir()) == [living, ".dynabert"]
    os.close(handle)
    with claim(folder, "width"):
        assert sorted(path.name for path in folder.iterdir()) == [".dynabert"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".partial", ".backup.partial", ".model.partial", ".notes.0123ABCD.partial"])
def test_a_hidden_folder_of_the_users_is_kept_under_any_name(tmp_path, name):
    folder, mine = tmp_path / "model", [tmp_path / "model" / name, tmp_path / name]
    for path in mine:
        path.mkdir(parents=True)
        (path / "thesis.tex").touch()
    (folder / ".dynabert").write_text("extract\n")
    with pytest.raises(UsageError, match=f"did not write, and is not removed: {re.escape(name)}"):
        check_replaceable(folder, "extract", overwrite=True)
    with claim(folder, "extract") as claimed:
        claimed.write(write_text("new"), last="a.json", replace=True)
    assert (folder / "a.json").exists()
    assert all((path / "thesis.tex").exists() for path in mine)


def test_a_file_that_the_user_adds_while_a_verb_works_stays(tmp_path):
    """Before, an export removed at its end whatever was in the folder then."""
    folder = tmp_path / "bundle"
    with claim(folder, "export") as claimed:
        claimed.write(lambda partial: (partial / "infer.py").touch(), last="infer.py")
    with claim(folder, "export") as claimed, claimed.partial() as partial:
        (partial / "README.md").touch()
        (folder / "predictions.tsv").write_text("mine")
        (folder / "my data").mkdir()
        (folder / "my data" / "README.md").touch()
        claimed.take(partial, last="README.md", replace=True)
    assert sorted(path.name for path in folder.iterdir()) == [".dynabert", "README.md", "my data", "predictions.tsv"]
    assert (folder / "my data" / "README.md").exists()
    with claim(folder, "export") as claimed:
        claimed.clear()
    assert sorted(path.name for path in folder.iterdir()) == [".dynabert", "my data", "predictions.tsv"]


@pytest.mark.parametrize("content", [[], ["run.yaml"]])
def test_a_folder_that_the_user_has_made_stays(tmp_path, content):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in content:
        (folder / name).touch()
    with pytest.raises(ZeroDivisionError), claim(folder, "run", unused=("run.yaml",)):
        (folder / "run.yaml").touch()
        raise ZeroDivisionError
    assert [path.name for path in folder.iterdir()] == content
    with claim(tmp_path / "deep" / "new", "run"):
        pass
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(("number", "is_lost"), [(errno.ENOENT, True), (errno.ESTALE, True), (errno.EIO, False)])
def test_only_a_missing_folder_is_reported_as_missing(tmp_path, monkeypatch, number, is_lost):
    """A network file system that does not answer for a moment says nothing about the folder."""
    with claim(tmp_path / "model", "width") as claimed:
        (tmp_path / "model" / "train.jsonl").touch()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", lambda handle: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
            with pytest.raises(DynabertError) as caught:
                claimed.check()
        claimed.check()
    assert ("was removed or replaced while this run wrote to it" in str(caught.value)) == is_lost
    assert (os.strerror(number) in str(caught.value)) == (not is_lost)


def test_without_locks_nothing_of_others_is_removed_and_writing_works(tmp_path, monkeypatch):
    """As on some network file systems."""

    def unsupported(handle, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    folder = tmp_path / "model"
    (folder / ".0123abcd.partial").mkdir(parents=True)
    with claim(folder, "width") as claimed:
        claimed.write(write_text("whole"), last="a.json")
    assert sorted(path.name for path in folder.iterdir()) == [".0123abcd.partial", ".dynabert", "a.json"]


def test_two_partial_folders_have_names_of_their_own(tmp_path):
    with partial_folder(tmp_path / "new") as first, partial_folder(tmp_path / "new") as second:
        assert first != second
        assert first.is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_remains_of_a_killed_writer_do_not_block_the_next_one(tmp_path, number):
    folder = tmp_path / "model"
    other = in_process(HOLD_FOLDER, folder)
    assert other.stdout.readline() == "claimed\n"
    other.send_signal(number)
    other.communicate()
    assert [path.name for path in folder.glob("*")] == [".dynabert"] or list(folder.glob(".*.partial"))
    with claim(folder, "width") as claimed:
        claimed.write(write_text("whole"), last="a.json")
    assert sorted(path.name for path in folder.iterdir()) == [".dynabert", "a.json"]
    assert maker_of(folder) == "width"


def test_signals_wait_until_all_files_are_moved(tmp_path, monkeypatch):
    """Between the first file and the last one a folder is a mixture of both."""
    folder, moved = tmp_path / "model", []
    folder.mkdir()

    def replace(path, target):
        os.rename(path, target)
        moved.append(path.name)
        signal.raise_signal(signal.SIGINT)

    def write(partial):
        for name in ("a", "b", "z"):
            (partial / name).touch()

    monkeypatch.setattr(type(tmp_path), "replace", replace)
    with pytest.raises(KeyboardInterrupt), claim(folder, None) as claimed:
        claimed.write(write, last="z")
    assert sorted(moved) == ["a", "b", "z"] and moved[-1] == "z"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "z"]
