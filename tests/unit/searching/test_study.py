"""A search's database: one that another process has locked, and what must be the same to go on."""

import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest

from dynabert_paddle.config.command_settings import SearchConfig
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.searching.objectives import Objectives
from dynabert_paddle.searching.run import _Search
from dynabert_paddle.searching.study import STUDY_FILE, database_errors, open_study

pytestmark = pytest.mark.reference


def test_a_database_in_use_is_not_called_damaged(tmp_path):
    study = open_study(tmp_path, {"seed": 1}, goals=["macs"])
    with closing(sqlite3.connect(tmp_path / STUDY_FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            DynabertError, match=r"study\.db: in use by another process: wait until it has ended, or name"
        ):
            open_study(tmp_path, {"seed": 1}, goals=["macs"])
        with pytest.raises(DynabertError, match="in use"), database_errors(tmp_path):
            study.set_user_attr("key", 1)
    assert open_study(tmp_path, {"seed": 1}, goals=["macs"]).user_attrs == {"settings": {"seed": 1}}


def settings_of(config=None, **described):
    """What a search of a task must have in common with the one that it goes on with."""
    task = SimpleNamespace(name="custom", metrics=("f1",), to_dict=lambda: described)
    judge = SimpleNamespace(content=())
    config = config or SearchConfig()
    objectives = Objectives.from_config(config)
    return _Search("model", "hash", None, task, judge, None, objectives, config, None)._settings("hash")


@pytest.mark.parametrize(("key", "first", "second"), [("positive_label", "a", "b"), ("max_answer_length", 30, 8)])
def test_a_search_goes_on_only_with_the_same_metric(tmp_path, key, first, second):
    """Scores of two metrics are not comparable."""
    open_study(tmp_path, settings_of(**{key: first}), goals=["macs"])
    open_study(tmp_path, settings_of(**{key: first}), goals=["macs"])
    with pytest.raises(UsageError, match=f"holds a search with {key} = {first}, this one has {second}"):
        open_study(tmp_path, settings_of(**{key: second}), goals=["macs"])


@pytest.mark.parametrize(
    ("goals", "length", "goes_on"), [("macs", 64, False), ("macs", 128, True), ("params", 64, True)]
)
def test_a_search_of_other_macs_does_not_go_on(tmp_path, goals, length, goes_on):
    """In earlier versions MACs were of `seq_length` tokens."""
    settings = settings_of(SearchConfig(goals=(goals,)))
    earlier = {key: value for key, value in settings.items() if key != "macs_length"}
    open_study(tmp_path, {**earlier, "seq_length": length}, goals=[goals])
    if goes_on:
        open_study(tmp_path, settings, goals=[goals])
    else:
        with pytest.raises(UsageError, match=f"holds a search with macs_length = {length}, this one has 128"):
            open_study(tmp_path, settings, goals=[goals])


def test_a_search_of_an_earlier_version_goes_on(tmp_path):
    earlier = {name: value for name, value in settings_of().items() if value is not None}
    open_study(tmp_path, earlier, goals=["macs"])
    open_study(tmp_path, settings_of(positive_label="a"), goals=["macs"])
