"""Output folders are created where possible, and no folder of the user's is removed."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.claim import claim
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, read_metadata, write_metadata
from dynabert_paddle.files.ownership import check_maker, check_replaceable

pytestmark = pytest.mark.reference


def files(folder):
    """The content of all files below a folder by path, hidden files too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mark(folder, maker="width"):
    """An output folder, as a verb has made it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".dynabert").write_text(f"{maker}\n")
    return folder


def overwrite(folder, maker="width", *, overwrite=True, inputs=()):
    """Replace a folder's content by nothing, as a verb does."""
    check_replaceable(folder, maker, overwrite=overwrite, inputs=inputs)
    with claim(folder, maker) as claimed:
        claimed.clear()


def test_claim_marks_a_new_folder_and_keeps_its_files(tmp_path):
    for _ in range(2):
        with claim(tmp_path / "a" / "b", "width") as claimed:
            (claimed.folder / "log").write_text("kept")
    assert files(tmp_path) == {"a/b/log": b"kept", "a/b/.dynabert": b"width\n"}


def test_claim_adds_nothing_to_a_folder_of_the_users(tmp_path):
    (tmp_path / "log").write_text("kept")
    with claim(tmp_path, "search"):
        pass
    assert files(tmp_path) == {"log": b"kept"}


def test_a_claimed_folder_that_stays_empty_is_removed_with_those_above_it(tmp_path):
    with claim(tmp_path / "a" / "b", "width"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not files(tmp_path) and not (tmp_path / "a").exists()


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
        from dynabert_paddle.files.claim import claim
        folder = Path(sys.argv[1])
        with claim(folder, "width") as claimed:
            claimed.write(lambda partial: (partial / "a.json").write_text("whole"), last="a.json")
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
        from dynabert_paddle.files.claim import claim
        subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
        for folder in (sys.argv[1], sys.argv[1] + "/new"):
            try:
                with claim(folder, "width"):
                    pass
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
        from dynabert_paddle.files.claim import claim
        folder = Path(sys.argv[1]) / "model"
        for text in ("old", "x" * 2**21):
            try:
                with claim(folder, None) as claimed:
                    claimed.write(lambda partial: (partial / "a.json").write_text(text), last="a.json")
            except DynabertError as error:
                print(error)
        print(sorted(str(path.relative_to(sys.argv[1])) for path in Path(sys.argv[1]).rglob("*")))
        print((folder / "a.json").read_text())
        """,
        tmp_path,
    )
    remedy = "cannot be written: No space left on device: make room or name another folder, then run again"
    assert done.stdout == f"{tmp_path}/model: {remedy}\n['model', 'model/a.json']\nold\n", done.stderr


@pytest.mark.parametrize("allowed", [True, False])
def test_an_absent_or_empty_folder_is_accepted(tmp_path, allowed):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        check_replaceable(tmp_path / name, "width", overwrite=allowed)
    assert not (tmp_path / "new").exists()


def test_a_finished_folder_is_cleared_only_with_overwrite(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    write_metadata(folder, Metadata(stage="width"))
    with pytest.raises(UsageError, match="model exists: pass overwrite=True to replace it"):
        overwrite(folder, overwrite=False)
    assert read_metadata(folder).stage == "width"
    overwrite(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [
        "thesis.tex",
        "model.safetensors",  # another tool's model
        "train.jsonl",  # the user's data: tasks read this name
        "vdl/vdlrecords.1.log",  # VisualDL's logs of another project
        "run.yaml",  # many tools have one
        "bundle.json",
        "study.db",
    ],
)
@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("maker", ["width", "run", "export", "extract", "search", "baseline"])
def test_a_folder_that_dynabert_did_not_make_is_never_removed(tmp_path, name, allowed, maker):
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"sentence": "play some jazz", "label": "PlayMusic"}\n')
    before = files(tmp_path)
    with pytest.raises(UsageError, match=r"mine (was not created by dynabert, and is not removed|exists)"):
        overwrite(tmp_path / "mine", maker, overwrite=allowed)
    assert files(tmp_path) == before


def write_model(folder, **metadata):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").touch()
    write_metadata(folder, Metadata(**metadata))


# What made a folder of an earlier version, which has an empty mark or none -> its content.
OLD_FOLDERS = {
    "width": lambda folder: write_model(folder, stage="width", metrics={"steps": 3}),
    "finetune": lambda folder: write_model(folder, stage="finetune", metrics={"steps": 3}, subnet={"name": "w"}),
    "baseline": lambda folder: write_model(folder, stage="baseline", metrics={"steps": 3}, subnet={"name": "w"}),
    "extract": lambda folder: write_model(folder, stage="width", subnet={"name": "w0.50d1.00"}),
    "save_pretrained": write_model,
    "export": lambda folder: (folder / "bundle.json").write_text('{"format_version": 1, "files": {"model.nb": {}}}'),
    "search": lambda folder: (folder / "study.db").touch(),
    "run": lambda folder: (folder / "run.yaml").touch(),
    "depth": lambda folder: (
        (folder / "checkpoint-2").mkdir(),
        (folder / "checkpoint-2" / "state.json").write_text('{"settings": {"stage": "depth"}}'),
    ),
}


@pytest.mark.parametrize("made_by", OLD_FOLDERS)
@pytest.mark.parametrize("maker", ["width", "finetune", "baseline", "extract", "export", "search", "depth"])
def test_a_folder_of_an_earlier_version_belongs_to_the_verb_that_its_content_tells(tmp_path, made_by, maker):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / ".dynabert").touch()
    OLD_FOLDERS[made_by](folder)
    before = files(folder)
    if maker == made_by:
        overwrite(folder, maker)
        assert not folder.exists()
    else:
        with pytest.raises(UsageError, match=r"old was made by .* removes only what it made itself: remove it first"):
            overwrite(folder, maker)
        assert files(folder) == before


EXPORTED = [
    *("model.json", "model.pdmodel", "model.pdiparams", "model.onnx", "model.npz", "model.2.json", "model.13.pdmodel"),
    *("model_arm.nb", "model_x86.nb", "lite_tokenizer.json", "tokenizer.json", "vocab.txt", "infer_lite.py"),
]


def test_the_files_of_an_export_that_was_killed_are_known(tmp_path):
    """Its bundle.json, which lists them, comes last."""
    folder = mark(tmp_path / "out", "export")
    for name in EXPORTED:
        (folder / name).touch()
    overwrite(folder, "export")
    assert not folder.exists()


@pytest.mark.parametrize(
    "mine", ["model_card.json", "tokenizer_old.json", "model.old.json", "model_v2.onnx", "models.npz", ".notes.tmp"]
)
def test_names_that_resemble_those_of_a_bundle_are_the_users(tmp_path, mine):
    folder = mark(tmp_path / "out", "export")
    for name in ("bundle.json", mine):
        (folder / name).touch()
    with pytest.raises(UsageError, match=f"did not write, and is not removed: {re.escape(mine)}: move that away"):
        overwrite(folder, "export")
    assert (folder / mine).exists()


@pytest.mark.parametrize(
    ("maker", "known"),
    [
        (
            "width",
            ["dynabert.json", "vocab.txt", "vdl/vdlrecords.1.log", "checkpoint-3/state.json", ".0123abcd.partial"],
        ),
        ("finetune", ["train.jsonl", "report.html", "vdl_report/vdlrecords.report.log", "search/study.db"]),
        ("baseline", ["baseline.json", "config.json", ".checkpoint-3.0123abcd.partial/best.safetensors"]),
        ("export", ["bundle.json", "infer.py", "model.pdmodel", "README.md", "__pycache__/infer.pyc"]),
        ("search", ["study.db", "study.db-journal", "search.json", "pareto.csv", "best/config.json"]),
        ("extract", ["config.json", "model.safetensors", "tokenizer.json"]),
    ],
)
@pytest.mark.parametrize(
    "mine", [None, "notes.txt", "mydata/train.tsv", "vdl/mine", "search/notes.txt", "checkpoint-3/a"]
)
def test_unknown_files_are_listed_and_nothing_is_removed(tmp_path, maker, known, mine):
    folder = mark(tmp_path / "out", maker)
    for name in (*known, *([mine] if mine else ())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    before = files(folder)
    if mine is None:
        overwrite(folder, maker)
        assert not folder.exists()
        return
    with pytest.raises(UsageError, match=r"did not write, and is not removed: (notes|mydata|vdl|search|checkpoint-3)"):
        overwrite(folder, maker)
    assert files(folder) == before


def test_a_folder_of_another_verb_inside_is_not_removed(tmp_path):
    folder = mark(tmp_path / "out", "width")
    mark(folder / "search", "export")
    (folder / "search" / "bundle.json").touch()
    with pytest.raises(UsageError, match="did not write, and is not removed: search"):
        overwrite(folder)


@pytest.mark.parametrize("place", ["train.jsonl", "search/best", "."])
def test_an_input_is_not_removed(tmp_path, place):
    folder = mark(tmp_path / "out", "width")
    (folder / "search" / "best").mkdir(parents=True)
    (folder / "train.jsonl").touch()
    with pytest.raises(UsageError, match=r"out holds .*, which is read here: name another output_dir"):
        overwrite(folder, inputs=[folder / place])
    assert (folder / "train.jsonl").exists()


@pytest.mark.parametrize("fails_at", range(3))
def test_the_remains_of_a_killed_removal_can_be_removed(tmp_path, monkeypatch, fails_at):
    folder = mark(tmp_path / "model")
    for name in (METADATA_FILE, "model.safetensors", "vocab.txt"):
        (folder / name).touch()
    unlink, count = os.unlink, iter(range(20))

    def killed(path, *args, missing_ok=False, **kwargs):
        if str(path).endswith((".json", ".safetensors", ".txt")) and next(count) == fails_at:
            raise KeyboardInterrupt
        unlink(path, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "unlink", killed)
        patch.setattr(Path, "unlink", killed)
        overwrite(folder)
    overwrite(folder)
    assert not folder.exists()


@pytest.mark.parametrize("allowed", [True, False])
def test_a_file_in_the_way_is_not_removed(tmp_path, allowed):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="out is a file: name another output_dir"):
        overwrite(tmp_path / "out", overwrite=allowed)
    assert (tmp_path / "out").read_text() == "mine"


def test_overwriting_a_link_clears_the_folder_that_it_names(tmp_path):
    """Output folders are often links to a larger disk."""
    target = tmp_path / "disk"
    target.mkdir()
    write_metadata(target, Metadata(stage="width"))
    link = tmp_path / "out"
    link.symlink_to(target)
    overwrite(link)
    assert not (target / METADATA_FILE).exists()
    with claim(link, "width") as claimed:
        claimed.write(lambda partial: (partial / "a.json").touch(), last="a.json")
    assert link.is_symlink() and (target / "a.json").exists()


def test_overwriting_the_current_directory_is_refused_and_removes_nothing(tmp_path, monkeypatch):
    """A process can remove the content of its current directory, but not the directory."""
    folder = mark(tmp_path / "here")
    write_metadata(folder, Metadata(stage="width"))
    (folder / "inner").mkdir()
    before = files(folder)
    for place, name in ((folder, "."), (folder / "inner", "..")):
        monkeypatch.chdir(place)
        with pytest.raises(UsageError):
            overwrite(Path(name))
        assert files(folder) == before


@pytest.mark.parametrize("name", ["~", "~/mine"])
@pytest.mark.parametrize("allowed", [True, False])
def test_a_tilde_is_checked_as_the_folder_that_is_replaced(tmp_path, monkeypatch, name, allowed):
    """The shell leaves it in `--output_dir=~`, and the folder `./~`, which is not there, was checked in its place."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "mine").mkdir(parents=True)
    (tmp_path / "home" / "mine" / "thesis.tex").touch()
    before = files(tmp_path)
    with pytest.raises(UsageError, match=r"(home|mine) (was not created by dynabert, and is not removed|exists)"):
        overwrite(name, "extract", overwrite=allowed)
    mark(tmp_path / "home" / "made", "width")
    (tmp_path / "home" / "made" / "config.json").touch()
    with pytest.raises(UsageError, match="made was made by 'dynabert train_width'"):
        check_maker("~/made", "search")
    with pytest.raises(UsageError, match=r"made holds ~/made/config.json, which is read here"):
        overwrite(tmp_path / "home" / "made", inputs=["~/made/config.json"])
    assert before.items() <= files(tmp_path).items()
