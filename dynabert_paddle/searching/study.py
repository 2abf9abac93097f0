"""The search's database: Optuna's, opened, checked to be whole and to be of this search."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.atomic import write_error
from dynabert_paddle.files.folder import make_folder
from dynabert_paddle.searching.sampler import finished_trials
from dynabert_paddle.searching.space import GenomeSpace

STUDY_FILE = "study.db"

_NAME = "search"
# What Optuna fails with where the database is whole and its content is not.
_ODD = (AssertionError, KeyError, RuntimeError, TypeError, ValueError)
_SETTINGS = "settings"

# In SQLite's messages where a file or its journal cannot be written.
_NO_ROOM = ("disk is full", "readonly", "unable to open", "disk I/O")


def open_study(folder: Path, settings: Mapping[str, Any], *, goals: Sequence[str]) -> optuna.Study:
    """Open a folder's search to go on with it, or begin one.

    Args:
        folder: the search's folder.
        settings: what an interrupted search must have in common with this one to be resumed, in JSON's types.
        goals: names of the costs that are traded against the score.

    Returns:
        The study.

    Raises:
        DynabertError: the database is damaged, in use, or cannot be written.
        UsageError: it is another search's.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = (folder / STUDY_FILE).absolute()
    if "?" in str(path):  # where its address would end
        raise UsageError(f"{path}: a search's database cannot have '?' in its path: name another --output_dir")
    with database_errors(folder, *_ODD):
        _check_whole(path)
        study = optuna.create_study(
            storage=f"sqlite:///{path}",
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
        _check_same(folder, before or settings, settings)
        _check_trials(study, goals)
    return study


@contextmanager
def database_errors(folder: Path, *others: type[Exception]) -> Iterator[None]:
    """Say in one line what is wrong with a search's database.

    Args:
        folder: the search's folder.
        others: what else shows that it is damaged.

    Yields:
        Nothing.

    Raises:
        DynabertError: it is damaged, in use, or cannot be written.
    """
    path = folder / STUDY_FILE
    errors: tuple[type[Exception], ...] = (sqlite3.Error, SQLAlchemyError, StorageInternalError, *others)
    try:
        yield
    except errors as error:
        said = _said(error)
        if "locked" in said:
            raise DynabertError(
                f"{path}: in use by another process: wait for its end, or name another --output_dir"
            ) from None
        if any(word in said for word in _NO_ROOM):
            make_folder(folder)  # a read-only one says so itself, in clearer words
            raise write_error(folder, OSError(said)) from None
        raise _damaged(path) from None


def _said(error: BaseException | None) -> str:
    """SQLite's own words, under what SQLAlchemy and Optuna have made of them."""
    while error and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return str(error)


def check_genomes(folder: Path, study: optuna.Study, genomes: GenomeSpace) -> None:
    """Refuse a study of which a trial's genome is not the sub-network that it says.

    Args:
        folder: the search's folder.
        study: the study.
        genomes: what the search varies.

    Raises:
        DynabertError: the database is damaged.
    """
    for trial in finished_trials(study):
        try:
            subnet = genomes.decode(genomes.from_params(trial.params))
        except (KeyError, TypeError, UsageError):
            raise _damaged(folder / STUDY_FILE) from None
        if genomes.space.name(subnet) != trial.user_attrs["subnet"]:
            raise _damaged(folder / STUDY_FILE)


def _damaged(path: Path) -> DynabertError:
    return DynabertError(
        f"{path}: damaged, or no search's database: pass --overwrite_output_dir to search anew, or name another "
        f"--output_dir"
    )


def _check_whole(path: Path) -> None:
    if path.exists():
        if not path.is_file():
            raise sqlite3.DatabaseError("no file")
        with closing(sqlite3.connect(path)) as database:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)


def _check_trials(study: optuna.Study, goals: Sequence[str]) -> None:
    for trial in finished_trials(study):
        written = {"subnet", "score", "stopped"} <= trial.user_attrs.keys()
        if not written or len(trial.values or ()) != len(study.directions):
            raise sqlite3.DatabaseError(f"trial {trial.number} lacks a part of what a search writes")
        if trial.values != [trial.user_attrs[name] for name in ("score", *goals)]:  # which are stored twice
            raise sqlite3.DatabaseError(f"trial {trial.number} has other values than it was given")


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in now:
        if before.get(key) != now[key]:
            raise UsageError(
                f"{folder} holds a search with {key} = {_show(before.get(key))}, this one has {_show(now[key])}: name "
                f"another --output_dir, or pass --overwrite_output_dir to search anew"
            )


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
