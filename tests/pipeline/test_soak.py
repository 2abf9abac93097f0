"""The script that kills and resumes: some kills here, many by hand."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.full


def soak(folder, *words):
    command = [sys.executable, ROOT / "scripts/soak/resume.py", "--run_only", "--output_dir", folder, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_that_is_killed_repeatedly_ends_with_the_same_result(tmp_path):
    done = soak(tmp_path, "--kills", "2", "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 kills")
    assert done.stdout.splitlines()[-1] == "identical"
    kills = [int(line.split()[-1]) for line in done.stdout.splitlines() if re.match(r"  \S.* \d+ *$", line)]
    assert sum(kills) == 2
    assert "after the end" not in done.stdout
