"""A user without a home folder, or with one that cannot be written."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dynabert_paddle as db
from dynabert_paddle.cli import main
from dynabert_paddle.data.features import default_cache_dir
from dynabert_paddle.errors import UsageError
from dynabert_paddle.runtime import home


@pytest.fixture
def homeless(monkeypatch):
    """HOME is not set, and the user is in no list of users, as in many containers."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DYNABERT_CACHE_DIR", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])


def test_the_cache_is_optional_without_a_home(homeless):
    folder = default_cache_dir()
    with pytest.raises(OSError, match=r".+"):
        folder.mkdir(parents=True)


def test_a_path_with_a_tilde_needs_a_home(homeless):
    with pytest.raises(UsageError, match=r"~/out: this user has no home folder: write the whole path, or set HOME"):
        home.user_path("~/out")
    assert home.user_path("out") == Path("out")


def test_a_name_may_begin_with_a_tilde():
    assert home.user_path("~draft.tsv") == Path("~draft.tsv")


@pytest.mark.parametrize("name", [None, "/dev/null/x"])
def test_libraries_get_a_temporary_home(homeless, monkeypatch, caplog, name):
    if name:
        monkeypatch.setenv("HOME", name)
    home._temporary_home.cache_clear()
    with caplog.at_level(logging.WARNING), home.writable_home(".library"):
        temporary = os.environ["HOME"]
        assert Path(temporary).is_dir()
    assert os.environ.get("HOME") == name
    assert f"cannot be written: PaddleNLP and VisualDL use {temporary} until the end" in caplog.text
    assert caplog.text.count("\n") == 1
    with home.writable_home(".library"):
        assert os.environ["HOME"] == temporary


def test_a_home_that_can_be_written_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with home.writable_home(".library/models"):
        assert os.environ["HOME"] == str(tmp_path)
    assert (tmp_path / ".library" / "models").is_dir()


def test_paddlenlp_and_visualdl_load_without_a_home(tmp_path):
    code = (
        "from dynabert_paddle.runtime.environment import import_paddle\nimport_paddle()\n"
        "import dynabert_paddle.training.record_log, os\nassert os.environ['HOME'] == '/dev/null/x'"
    )
    environment = {**os.environ, "HOME": "/dev/null/x"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_tilde_in_the_settings_and_in_words_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert db.load_config(None, ["output_dir=~/out"]).output_dir == str(tmp_path / "out")
    words = ["--output_dir=~/out", "~/model", "--output-dir", "out", "a~/b", "-o", "x=~/y", "~", "--flag"]
    expected = [f"--output_dir={tmp_path}/out", f"{tmp_path}/model", *words[2:]]
    assert list(map(main._expand_home, words)) == expected
