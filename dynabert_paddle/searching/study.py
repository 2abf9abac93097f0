"""The search's Optuna study: opens its database, and checks its integrity and that it belongs to this search."""

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

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.question_answering import ANSWER_SETTINGS
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.atomic import write_error
from dynabert_paddle.files.claim import Claim
from dynabert_paddle.files.folder import SEARCH
from dynabert_paddle.genomes import GenomeSpace
from dynabert_paddle.searching.sampler import finished_trials

STUDY_FILE = "study.db"

# Settings of the task that decide the metric; searches of earlier versions have not stored them.
METRIC_SETTINGS = ("positive_label", *ANSWER_SETTINGS)

_NAME = "search"
_SETTINGS = "settings"

# Raised by Optuna for a readable database with invalid content.
_CONTENT_ERRORS = (AssertionError, KeyError, RuntimeError, TypeError, ValueError)

# Parts of SQLite's messages if the file or its journal cannot be written.
_WRITE_ERRORS = ("disk is full", "readonly", "unable to open", "disk I/O")


def open_study(folder: Path, settings: Mapping[str, Any], *, goals: Sequence[str]) -> optuna.Study:
    """Open the study of a folder to resume its search, or create one.

    Args:
        folder: the search's folder.
        settings: what must be unchanged to resume an interrupted search, in JSON's types.
        goals: names of the costs to minimize.

    Returns:
        The study.

    Raises:
        DynabertError: the database is damaged, in use, or cannot be written.
        UsageError: it belongs to a search with other settings.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = (folder / STUDY_FILE).absolute()
    if "?" in str(path):  # it would end the path in the database's URL
        raise UsageError(
            f"{path}: a search's database cannot have '?' in its path: name another {setting('output_dir')}"
        )
    with database_errors(folder, *_CONTENT_ERRORS):
        _check_integrity(path)
        study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name=_NAME,
            directions=["maximize", *["minimize"] * len(goals)],
            load_if_exists=True,
        )
        stored = study.user_attrs.get(_SETTINGS)
        if stored is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(["score", *goals])
            study.set_user_attr(_SETTINGS, dict(settings))
        _check_same(folder, stored or settings, settings)
        _check_trials(study, goals)
    return study


@contextmanager
def database_errors(folder: Path, *others: type[Exception]) -> Iterator[None]:
    """Convert errors of a search's database to errors of one line.

    Args:
        folder: the search's folder.
        others: further exceptions that mean that the database is damaged.

    Yields:
        Nothing.

    Raises:
        DynabertError: the database is damaged, in use, or cannot be written.
    """
    path = folder / STUDY_FILE
    errors: tuple[type[Exception], ...] = (sqlite3.Error, SQLAlchemyError, StorageInternalError, *others)
    try:
        yield
    except errors as error:
        message = _sqlite_message(error)
        if "locked" in message:
            raise DynabertError(
                f"{path}: in use by another process: wait until it has ended, or name another {setting('output_dir')}"
            ) from None
        if any(part in message for part in _WRITE_ERRORS):
            Claim(folder, SEARCH, None).mark()  # raises a clearer error if the folder is read-only
            raise write_error(folder, OSError(message)) from None
        raise _damaged(path) from None


def _sqlite_message(error: BaseException | None) -> str:
    """The message of the SQLite error that SQLAlchemy and Optuna have wrapped."""
    while error and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return str(error)


def check_genomes(folder: Path, study: optuna.Study, genomes: GenomeSpace) -> None:
    """Refuse a study in which a trial's genome does not match its sub-network's name.

    Args:
        folder: the search's folder.
        study: the study.
        genomes: the genomes of the search.

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
        f"{path}: damaged, or not the database of a search: pass {setting('overwrite_output_dir')} to start a new "
        f"search, or name another {setting('output_dir')}"
    )


def _check_integrity(path: Path) -> None:
    if path.exists():
        if not path.is_file():
            raise sqlite3.DatabaseError("not a file")
        with closing(sqlite3.connect(path)) as database:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)


def _check_trials(study: optuna.Study, goals: Sequence[str]) -> None:
    for trial in finished_trials(study):
        complete = {"subnet", "score", "stopped"} <= trial.user_attrs.keys()
        if not complete or len(trial.values or ()) != len(study.directions):
            raise sqlite3.DatabaseError(f"trial {trial.number} is incomplete")
        if trial.values != [trial.user_attrs[name] for name in ("score", *goals)]:  # both store the same
            raise sqlite3.DatabaseError(f"trial {trial.number} has values that differ from its attributes")


def _check_same(folder: Path, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    stored = {"macs_length": stored.get("seq_length"), **stored}  # in earlier versions the latency's was the MACs', too
    for key, value in settings.items():
        if stored.get(key) != value and (key in stored or key not in METRIC_SETTINGS):
            raise UsageError(
                f"{folder} holds a search with {key} = {_format(stored.get(key))}, this one has {_format(value)}: name "
                f"another {setting('output_dir')}, or pass {setting('overwrite_output_dir')} to start a new search"
            )


def _format(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
