"""A search's database that another process has locked."""

import sqlite3
from contextlib import closing

import pytest

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.searching.study import STUDY_FILE, database_errors, open_study


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
