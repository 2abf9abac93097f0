"""The ARM file of a Paddle Lite bundle on ARM kernels under emulation, against Paddle and against the x86 file."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import dynabert_paddle as db
from dynabert_paddle.files.atomic import read_json

pytestmark = pytest.mark.full

RUNTIME = ROOT.parent / "shared" / "lite_arm"
COMPARE = [sys.executable, ROOT / "scripts/lib/compare_arm.py"]
NEEDED = ("qemu-aarch64", "aarch64-linux-gnu-g++")


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """The program of scripts/bench/run_arm.sh, compiled as it does; skipped where the machine lacks its parts."""
    if not RUNTIME.is_dir() or not all(map(shutil.which, NEEDED)):
        pytest.skip(f"{RUNTIME} or {' or '.join(NEEDED)} is not here")
    folder = tmp_path_factory.mktemp("arm")
    subprocess.run([*COMPARE, "class", ROOT / "docs/lite.md", folder / "classifier.h"], check=True)
    words = ["bash", ROOT / "scripts/bench/run_arm.sh", "MODEL", "--runtime", RUNTIME, "--output_dir", folder]
    shown = subprocess.run([*words, "--dry_run"], check=True, capture_output=True, text=True).stdout
    (line,) = (line for line in shown.splitlines() if "aarch64-linux-gnu-g++" in line)
    subprocess.run(["bash", "-c", line.removeprefix("+ ")], check=True)
    return folder / "run_arm"


@pytest.fixture(scope="module")
def small(finetuned, tiny_data, tmp_path_factory):
    """The fine-tuned model with fewer pieces and positions, and low ranks everywhere."""
    folder, task = tmp_path_factory.mktemp("small"), db.load_task("snips", data_dir=tiny_data)
    config = db.CompressConfig(method="vocabulary", vocab_size=2000, max_positions=16)
    db.compress(finetuned, task, output_dir=folder / "pieces", config=config)
    config = db.CompressConfig(method="low_rank", rank_share=0.4, part=("embedding", "attention", "ffn"))
    db.compress(folder / "pieces", task, output_dir=folder / "rank", config=config)
    return folder / "rank"


def compare(runner, model, folder, *precisions):
    bundles = [db.export(model, folder / name, format="lite", precision=name) for name in precisions]
    subprocess.run([*COMPARE, "compare", model, runner, *bundles], check=True, stdout=subprocess.DEVNULL)
    return {row["precision"]: row for row in read_json(Path(runner).parent / "arm.json")["rows"]}


def test_arm_kernels_give_the_logits_of_paddle_and_of_the_x86_file(runner, converter, finetuned, tmp_path):
    rows = compare(runner, finetuned, tmp_path, "fp32", "int16", "int8")
    assert list(rows) == ["fp32", "int16", "int8"]
    for precision, bound in (("fp32", 1e-4), ("int16", 1e-3), ("int8", 0.1)):
        assert rows[precision]["arm_from_paddle"] <= bound
        assert rows[precision]["arm_from_x86"] <= 1e-4
        assert rows[precision]["texts"] == 42
    assert rows["fp32"]["other_answers"] == 0


def test_bytes_of_a_low_rank_embedding_are_read_right_on_arm(runner, converter, small, tmp_path):
    """A plain cast from int8 is right on x86 and wrong on ARM, where a char is unsigned."""
    rows = compare(runner, small, tmp_path, "fp32", "int8")
    assert rows["int8"]["arm_from_x86"] <= 1e-4
    assert rows["int8"]["arm_from_paddle"] <= 0.1
    saved = rows["fp32"]["nb_bytes"] - rows["int8"]["nb_bytes"]
    assert saved > 3 * 2000 * 13, "the table of 2,000 pieces and rank 13 was left in float32"


def test_each_precision_is_exported_compiled_and_compared(tmp_path):
    words = ["bash", ROOT / "scripts/bench/run_arm.sh", "out/model", "--num_texts", "7", "--dry_run"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True, cwd=tmp_path).stdout.splitlines()
    exported = [line.split("--precision ")[1].split()[0] for line in lines if " export " in line]
    assert exported == ["fp32", "int16", "int8"]
    assert "out/model out/model-arm/run_arm out/model-arm/fp32" in lines[-1] and "--num_texts 7" in lines[-1]
    assert not list(tmp_path.iterdir())
    done = subprocess.run(words[:2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
