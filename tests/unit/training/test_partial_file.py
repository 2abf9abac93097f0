"""A file that is written piece by piece: what counts stays, the rest is dropped, and other settings are refused."""

import json

import pytest

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.partial import lock
from dynabert_paddle.training.partial_file import PartialFile

SETTINGS = {"seed": 1}


def begin(path, settings=SETTINGS, **options):
    return PartialFile(path, settings, counts={"rows": 0}, **options)


@pytest.fixture
def interrupted(tmp_path):
    """A file with two complete pieces and half of a third."""
    path = tmp_path / "out.tsv"
    with pytest.raises(RuntimeError), begin(path) as file:
        file.write("one\n", {"rows": 1})
        file.write("zwölf\n", {"rows": 2})
        raise RuntimeError
    with (tmp_path / ".out.tsv.partial").open("a") as partial:
        partial.write("thr")
    return path


def test_a_finished_file_is_alone(tmp_path):
    with begin(tmp_path / "out.tsv") as file:
        file.write("one\n", {"rows": 1})
        file.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]
    assert (tmp_path / "out.tsv").read_text() == "one\n"


def test_an_interrupted_file_goes_on_after_its_last_piece(interrupted):
    with begin(interrupted) as file:
        assert file.counts == {"rows": 3}
        file.write("four\n", {"rows": 1})
        file.finish()
    assert interrupted.read_text(encoding="utf-8") == "one\nzwölf\nfour\n"
    assert file.counts == {"rows": 4}


def test_other_settings_are_refused_in_one_line_or_begin_anew(interrupted):
    with pytest.raises(UsageError, match="begun with seed = 1, this run has 2") as caught:
        begin(interrupted, {"seed": 2})
    assert "\n" not in str(caught.value)
    with begin(interrupted, {"seed": 2}, overwrite=True) as file:
        assert file.counts == {"rows": 0}
        file.write("two\n", {"rows": 1})
        file.finish()
    assert interrupted.read_text() == "two\n"


def test_with_the_same_settings_overwriting_goes_on_too(interrupted):
    with begin(interrupted, overwrite=True) as file:
        assert file.counts == {"rows": 3}


def test_a_second_run_is_refused_at_once(interrupted):
    refused = "out.tsv is in use by another run: wait until it has ended, or name another output_file"
    with begin(interrupted) as file:
        for options in ({}, {"settings": {"seed": 2}, "overwrite": True}):
            with pytest.raises(UsageError, match=refused):
                begin(interrupted, **options)
        file.write("four\n", {"rows": 1})
        file.finish()
    assert interrupted.read_text(encoding="utf-8") == "one\nzwölf\nfour\n"


def test_a_run_that_another_has_overtaken_leaves_its_file(tmp_path, monkeypatch):
    """The other one gives the file its name between this one's opening and locking it."""
    path = tmp_path / "out.tsv"
    first = begin(path)
    first.write("one\n", {"rows": 1})

    def finish_first(handle):
        first.finish()
        first.__exit__(None, None, None)
        return lock(handle)

    monkeypatch.setattr("dynabert_paddle.training.partial_file.lock", finish_first)
    with pytest.raises(UsageError, match="in use by another run"):
        begin(path)
    assert path.read_text() == "one\n"


def test_a_missing_piece_is_named(interrupted):
    interrupted.with_name(".out.tsv.partial").write_text("one\n")
    with pytest.raises(DynabertError, match="is damaged: remove it"):
        begin(interrupted)


def test_nothing_stays_of_a_file_without_a_piece(tmp_path):
    with pytest.raises(RuntimeError), begin(tmp_path / "out.tsv"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DynabertError, match="cannot be written"):
        begin(tmp_path / "missing" / "out.tsv")


@pytest.mark.parametrize("state", [{}, {"settings": [], "bytes": 4, "counts": {}}, {"settings": {}, "bytes": "4"}])
def test_a_state_of_another_kind_is_called_damaged(interrupted, state):
    interrupted.with_name(".out.tsv.state").write_text(json.dumps(state))
    with pytest.raises(DynabertError, match=r"\.out\.tsv\.state is damaged: remove it to begin anew"):
        begin(interrupted)


@pytest.mark.parametrize("count", [-1, 2**0.5, None, "1", True])
def test_counts_that_are_none_are_called_damaged(interrupted, count):
    path = interrupted.with_name(".out.tsv.state")
    state = json.loads(path.read_text())
    del state["checksum"]
    path.write_text(json.dumps({**state, "counts": dict.fromkeys(state["counts"], count)}))
    with pytest.raises(DynabertError, match=r"\.out\.tsv\.state is damaged: remove it to begin anew"):
        begin(interrupted)
