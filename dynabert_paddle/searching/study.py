"""The search's database: Optuna's, opened, checked to be whole and to be of this search."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.searching.sampler import finished_trials

STUDY_FILE = "study.db"

_NAME = "search"
_SETTINGS = "settings"


def open_study(folder: Path, settings: Mapping[str, Any], *, goals: Sequence[str]) -> optuna.Study:
    """Open a folder's search to go on with it, or begin one.

    Args:
        folder: the search's folder.
        settings: what an interrupted search must have in common with this one to be resumed, in JSON's types.
        goals: names of the costs that are traded against the score.

    Returns:
        The study.

    Raises:
        DynabertError: the database is damaged.
        UsageError: it is another search's.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / STUDY_FILE
    try:
        _check_whole(path)
        study = optuna.create_study(
            storage=f"sqlite:///{path.absolute()}",
            study_name=_NAME,
            directions=["maximize", *["minimize"] * len(goals)],
            load_if_exists=True,
        )
        before = study.user_attrs.get(_SETTINGS)
        if before is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(["score", *goals])
            study.set_user_attr(_SETTINGS, dict(settings))
        _check_trials(study)
    except (sqlite3.Error, SQLAlchemyError, StorageInternalError, RuntimeError):
        raise DynabertError(
            f"{path}: damaged, or no search's database: pass --overwrite_output_dir to search anew, or name another "
            f"--output_dir"
        ) from None
    _check_same(folder, before or settings, settings)
    return study


def _check_whole(path: Path) -> None:
    if path.exists():
        with closing(sqlite3.connect(path)) as database:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)


def _check_trials(study: optuna.Study) -> None:
    for trial in finished_trials(study):
        written = {"subnet", "score", "stopped"} <= trial.user_attrs.keys()
        if not written or len(trial.values or ()) != len(study.directions):
            raise sqlite3.DatabaseError(f"trial {trial.number} lacks a part of what a search writes")


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in now:
        if before.get(key) != now[key]:
            raise UsageError(
                f"{folder} holds a search with {key} = {_show(before.get(key))}, this one has {_show(now[key])}: name "
                f"another --output_dir, or pass --overwrite_output_dir to search anew"
            )


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
