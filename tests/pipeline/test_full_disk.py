"""A disk that fills up, or turns read-only, in mid-work: one line says so, nothing half-written stays, work goes on."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

STAGES = ("finetune", "rewire", "width")
REASONS = {"full": "No space left on device|database or disk is full", "read-only": "Read-only file system|readonly"}


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A folder on which a file system can be mounted, for processes of ours alone."""
    folder, unshare = tmp_path_factory.mktemp("disk"), shutil.which("unshare")
    mount = f"mount -t tmpfs tmpfs {folder}"
    if os.geteuid() or unshare is None or subprocess.run([unshare, "-m", "sh", "-c", mount], check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    return folder


@pytest.fixture(scope="module")
def outcomes(disk, tiny_folder, tiny_data, masked_lm, tmp_path_factory):
    """The outcome of each command, by its name and how the disk failed ('' for no failure)."""
    work = tmp_path_factory.mktemp("work")
    (work / "run.yaml").write_text(
        f"""
        model_name_or_path: {tiny_folder}
        stages: [{", ".join(STAGES)}]
        task: {{data_dir: {tiny_data}, max_seq_length: 16}}
        space: {{width_mult_list: [1.0, 0.5], depth_mult_list: [1.0, 0.5]}}
        train:
          max_steps: 6
          save_steps: 2
          eval_steps: 3
          logging_steps: 1
          learning_rate: 1e-3
          per_device_train_batch_size: 16
        """
    )
    run = ["run", work / "run.yaml", "--json", "--output_dir"]
    search = ["--force", "--num_evaluations", 18, "--population_size", 6, "--seq_length", 16, "--max_macs", "6e6"]
    search = ["search", *search, "--json", disk / "out/width", "--output_dir"]
    export = ["export", disk / "out/width", "--subnet", "w0.50d1.00", "--output_dir", disk / "bundle"]
    augment = ["augment", "--masked_lm", masked_lm, "--data_dir", tiny_data, "--num_copies", 2, "--batch_size", 20]
    augment = [*augment, "--max_seq_length", 16, "--output_file"]
    planned = {
        ("run", "whole"): [[*run, disk / "whole"]],
        ("checkpoint", "full"): [[*run, disk / "out"], "full", "finetune 3/6 loss"],
        ("checkpoint", "read-only"): [[*run, disk / "out"], "read-only", "finetune 3/6 loss", disk / "out/finetune"],
        ("model", "full"): [[*run, disk / "out"], "full", "finetune 5/6 loss"],
        ("rewired", "full"): [[*run, disk / "out"], "full", "rewire: computing"],
        ("log", "read-only"): [[*run, disk / "out"], "read-only", "width: ", disk / "out/width"],
        ("grid", "full"): [[*run, disk / "out"], "full", "evaluating"],
        ("grid", "read-only"): [[*run, disk / "out"], "read-only", "evaluating", disk / "out"],
        ("run", ""): [[*run, disk / "out"]],
        ("settings", "full"): [[*run, disk / "new"], "full"],
        ("search", "whole"): [[*search, disk / "whole-search"]],
        ("search", "full"): [[*search, disk / "search"], "full", "search 6/18"],
        ("search", "read-only"): [[*search, disk / "search"], "read-only", "search 12/18", disk / "search"],
        ("found", "full"): [[*search, disk / "search"], "full", "search 18/18"],
        ("search", ""): [[*search, disk / "search"]],
        ("begun", "full"): [[*search, disk / "begun"], "full"],
        ("export", "full"): [export, "full", "exporting"],
        ("export", ""): [export],
        ("report", "full"): [["report", disk / "out"], "full"],
        ("report", ""): [["report", disk / "out"]],
        ("augment", "whole"): [[*augment, disk / "whole.tsv"]],
        ("augment", "full"): [[*augment, disk / "augmented.tsv"], "full", "augment: "],
        ("augment", ""): [[*augment, disk / "augmented.tsv"]],
        ("cache", "full"): [["evaluate", disk / "out/width", "--grid", "--max_seq_length", 15, "--json"], "full"],
    }
    (work / "attempts.json").write_text(json.dumps(list(planned.values()), default=str))
    script = Path(__file__).with_name("faulty_disk.py")
    command = ["unshare", "-m", sys.executable, script, disk, work / "attempts.json", work / "results.json"]
    environment = {**os.environ, "DYNABERT_CACHE_DIR": str(disk / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return dict(zip(planned, json.loads((work / "results.json").read_text()), strict=True))


FAULTS = [
    ("checkpoint", "full"),
    ("checkpoint", "read-only"),
    ("model", "full"),
    ("rewired", "full"),
    ("log", "read-only"),
    ("grid", "full"),
    ("grid", "read-only"),
    ("settings", "full"),
    ("search", "full"),
    ("search", "read-only"),
    ("found", "full"),
    ("begun", "full"),
    ("export", "full"),
    ("report", "full"),
    ("augment", "full"),
]


@pytest.mark.parametrize(("what", "how"), FAULTS)
def test_a_full_disk_is_one_line_with_cause_and_remedy(outcomes, disk, what, how):
    done = outcomes[what, how]
    assert (done["code"], done["out"]) == (1, ""), done["err"]
    last = done["err"].splitlines()[-1]
    assert re.fullmatch(rf"error: {disk}/.*: cannot be written: .*({REASONS[how]}).*: make room .*", last), last
    assert "Traceback" not in done["err"]


@pytest.mark.parametrize(("what", "how"), FAULTS)
def test_nothing_half_written_stays(outcomes, what, how):
    left = [name for name in outcomes[what, how]["files"] if "partial" in name or name.endswith(".tmp")]
    if what == "augment":  # is what the next run goes on from
        left = [name for name in left if not name.startswith(".augmented.tsv")]
    assert left == []


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_the_last_good_checkpoint_stays_whole(outcomes, how):
    files = outcomes["checkpoint", how]["files"]
    kept = {name: size for name, size in files.items() if name.startswith("out/finetune/checkpoint-")}
    names = ("model.safetensors", "optimizer.safetensors", "state.json")
    assert set(kept) == {f"out/finetune/checkpoint-2/{name}" for name in names}
    again = outcomes["checkpoint", "read-only"] if how == "full" else outcomes["model", "full"]
    assert "finetune: going on from step 2 of 6" in again["err"]


def test_with_room_again_everything_ends_as_if_there_had_been_room(outcomes):
    for name in ("run", "search", "export", "report", "augment", "cache"):
        done = outcomes[name, "full" if name == "cache" else ""]
        assert done["code"] == 0, done["err"]
    assert outcomes["run", ""]["out"] == outcomes["run", "whole"]["out"]
    found, whole = (json.loads(outcomes["search", key]["out"]) for key in ("", "whole"))
    assert found == whole
    files = outcomes["cache", "full"]["files"]
    assert files["augmented.tsv"] == files["whole.tsv"]
    assert not [name for name in files if "partial" in name or "checkpoint-" in name]


def test_without_room_for_the_cache_texts_are_tokenized_all_the_same(outcomes):
    assert "tokenized data is not cached" in outcomes["cache", "full"]["err"]
    assert len(json.loads(outcomes["cache", "full"]["out"])["rows"]) == 2
