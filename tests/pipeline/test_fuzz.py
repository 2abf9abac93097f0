"""The script that damages what users load: some cases of it, and that it would see what it looks for."""

import re
import subprocess
import sys
from random import Random

import pytest
from conftest import ROOT

from dynabert_paddle.files.atomic import read_json, write_json
from dynabert_paddle.files.hashing import hash_file

sys.path.insert(0, str(ROOT / "scripts/soak"))

from fuzz import judge
from fuzz_kinds import KINDS, Case, Done
from fuzz_mutations import mutate_bytes, mutate_files, mutate_numbers, mutate_values

ONE_PROCESS = [name for name in KINDS if name not in ("paddle", "several", "onnx", "words", "questions")]


@pytest.mark.full
def test_damaged_files_are_read_correctly_or_refused_in_one_line(tmp_path):
    words = ["--count", "60", "--seed", "1", "--kinds", " ".join(ONE_PROCESS), "--work_dir", tmp_path]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/soak/fuzz.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    verified, stored, refused, failed = map(int, rows["all"])
    assert (verified + stored + refused, failed) == (60, 0)
    assert verified >= 5 and refused >= 20
    assert re.search(r"^60 cases in \d+ s$", done.stdout, re.MULTILINE)
    assert not (tmp_path / "failures").exists()


@pytest.fixture
def case(tmp_path):
    (tmp_path / "in").mkdir()
    return Case(KINDS["model"], tmp_path / "originals", tmp_path, KINDS["model"].commands[0])


ERROR = "error: in/config.json: damaged: copy it again\n"


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        (Done(1, "", ERROR), "refused"),
        (Done(2, "", f"reading\n{ERROR}"), "refused"),
        (Done(3, "", ERROR), "FAILURE"),
        (Done(1, "", ""), "FAILURE"),
        (Done(1, "", ERROR + ERROR), "FAILURE"),
        (Done(1, "", f"{ERROR}and more\n"), "FAILURE"),
        (Done(1, "", f"Traceback (most recent call last):\n{ERROR}"), "FAILURE"),
        (Done(1, "", "error: \x1b[31mred: copy it again\n"), "FAILURE"),
        (Done(1, "", "error: KeyError: 'x' (--debug before the verb shows where)\n"), "FAILURE"),
        (Done(0, '{"rows": [1]}', ""), "verified"),
        (Done(0, '{"rows": [2]}', ""), "FAILURE"),
        ("ran for more than 30 s", "FAILURE"),
    ],
)
def test_verdicts(case, ended, verdict):
    assert judge(case, ended, {"rows": [1]}, sealed=False).name == verdict


def test_leftover_files_are_found(case):
    for name in ("out", ".out.partial", "hacked"):
        (case.folder / name).mkdir()
        assert judge(case, Done(1, "", ERROR), {}, sealed=False).name == "FAILURE"
        (case.folder / name).rmdir()
    assert judge(case, Done(1, "", ERROR), {}, sealed=False).name == "refused"


@pytest.mark.parametrize("mutate", [mutate_bytes, mutate_files, mutate_values, mutate_numbers])
def test_damage_follows_from_the_seed(tmp_path, mutate):
    def damage(seed):
        (tmp_path / "a.json").unlink(missing_ok=True)
        (tmp_path / "a.json").write_text('{"x": [1, 2, {"y": "z"}], "checksum": "0"}')
        what = mutate(tmp_path / "a.json", Random(seed))
        path = tmp_path / "a.json"
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for left in tmp_path.iterdir():
            left.rmdir() if left.is_dir() else left.unlink()
        return what, content

    for seed in range(30):
        assert damage(seed) == damage(seed)
    assert len({damage(seed) for seed in range(30)}) > 5


def test_hostile_numbers_pass_all_checksums(tmp_path):
    """Else only the checksums would be tested."""
    values = set()
    for seed in range(60):
        (tmp_path / "a.json").write_text('{"x": 3}')
        write_json(tmp_path / "b.json", {"files": {"a.json": ""}, "y": [5]})
        path = tmp_path / ("a.json" if seed % 2 else "b.json")
        values.add(mutate_numbers(path, Random(seed)).split()[-1])
        if "[" * 900 not in path.read_text():
            assert read_json(tmp_path / "b.json")["files"]["a.json"] == hash_file(tmp_path / "a.json")
    assert values == {"0", "1", "-1", "2147483647", "nan", "deep", "deeper"}
