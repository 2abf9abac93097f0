"""The script that runs two commands at once on one folder: some rounds here, many by hand."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.full


@pytest.mark.parametrize("pair", ["evaluate mv", "extract extract", "compress compress"])
def test_two_commands_at_once_disturb_nothing(tmp_path, pair):
    words = ["--rounds", "1", "--seed", "1", "--pair", pair, "--output_dir", tmp_path / "soak"]
    command = [sys.executable, ROOT / "scripts/soak/concurrency.py", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("1 rounds? of 1 pairs?, seed 1", done.stdout), done.stdout
    assert "fault" not in done.stdout
