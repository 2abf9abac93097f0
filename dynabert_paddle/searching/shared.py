"""Measurements that several searches share through an Optuna storage: each is made once, by one of them.

Searches of the same settings ask for the same measurements in the same order, because children depend only on the seed
and on earlier scores. So none of them leads: each asks this storage first, measures what nobody has begun, and waits
for the others' rest.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.files.hashing import hash_json
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.searching.estimate import Estimate
from dynabert_paddle.searching.ranks import DistributedScorer
from dynabert_paddle.searching.scoring import Score
from dynabert_paddle.subnet import Subnet

T = TypeVar("T")

_CLAIMS = 4  # sub-networks that a search measures at a time: they share each batch's embedding
_PAUSE_SECONDS = 0.2  # between two looks at what the others do
_BEAT_SECONDS = 5.0
_SILENT_SECONDS = 60.0  # after which a search counts as dead, and others measure what it has begun


@dataclass(frozen=True)
class SharedScorer:
    """Scores and measures sub-networks as a `DistributedScorer` does, together with the searches of other processes.

    Args:
        scorer: measures here.
        results: what all of them have measured.
        name: returns a sub-network's name.
    """

    scorer: DistributedScorer
    results: SharedResults
    name: Callable[[Subnet], str]

    def score(self, subnets: Sequence[Subnet], to_beat: Sequence[float]) -> list[Score]:
        """See `DistributedScorer.score`."""
        # What is stopped early depends on the score to beat, which differs between the evolution and the cells.
        keys = [f"score {self.name(subnet)} {beat!r}" for subnet, beat in zip(subnets, to_beat, strict=True)]

        def run(indices: Sequence[int]) -> list[Any]:
            scores = self.scorer.score([subnets[i] for i in indices], [to_beat[i] for i in indices])
            return [[score.value, score.stopped] for score in scores]

        return [Score(*found) for found in self.results.compute(keys, run)]

    def measure(self, subnets: Sequence[Subnet], sample: int | str) -> list[Mapping[str, Estimate]]:
        """See `DistributedScorer.measure`."""
        keys = [f"sample {sample} {self.name(subnet)}" for subnet in subnets]

        def run(indices: Sequence[int]) -> list[Any]:
            measured = self.scorer.measure([subnets[i] for i in indices], sample)
            return [{name: [one.value, one.parts.tolist()] for name, one in found.items()} for found in measured]

        return [
            {name: Estimate(value, np.array(parts)) for name, (value, parts) in found.items()}
            for found in self.results.compute(keys, run)
        ]


class SharedResults:
    """Results by key, in a study whose name tells the settings that they are of: a trial for each.

    Args:
        address: URL of a database, or the path of a journal file.
        settings: what must be equal for results to be the same, in JSON's types.
        silent_seconds: after which the claim of a process that does not renew it counts no more.

    Raises:
        UsageError: the address cannot be one.
        DynabertError: the storage cannot be reached.
    """

    def __init__(self, address: str, settings: Mapping[str, Any], *, silent_seconds: float = _SILENT_SECONDS) -> None:
        self._shown, self._silent_seconds = shown_address(address), silent_seconds
        self._owner = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
        self._seen: dict[
            int, tuple[Any, float]
        ] = {}  # of other processes' claims: what they last wrote, and since when
        with self._errors():
            self._storage = _open(address)
            study = optuna.create_study(
                storage=self._storage,
                study_name=f"dynabert-search-{hash_json(dict(settings))[:16]}",
                directions=[StudyDirection.MAXIMIZE],
                load_if_exists=True,
            )
            study.set_user_attr("settings", dict(settings))
            self._study = study._study_id

    def compute(self, keys: Sequence[str], run: Callable[[Sequence[int]], Sequence[Any]]) -> list[Any]:
        """Return the results of some keys; what no process has begun is computed here.

        Args:
            keys: the keys.
            run: computes the results of the keys of these indices, in JSON's types.

        Returns:
            One result a key, the same in all processes.

        Raises:
            DynabertError: the storage cannot be reached.
        """
        indices = {key: index for index, key in enumerate(keys)}
        while True:
            with self._errors():
                done, claimed = self._read(indices)
                free = [key for key in indices if key not in done and key not in claimed]
                own = self._claim(free[:_CLAIMS]) if free else {}
            if len(done) == len(indices):
                return [done[key] for key in keys]
            if own:
                self._run(own, indices, run)
            else:
                time.sleep(_PAUSE_SECONDS)

    def _read(self, keys: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """The results that are there, and the keys that living processes have claimed."""
        done: dict[str, Any] = {}
        claimed: set[str] = set()
        for trial in self._storage.get_all_trials(self._study, deepcopy=False):
            key: str = trial.user_attrs.get("key", "")
            if key not in keys:
                continue
            if trial.state is TrialState.COMPLETE:
                done[key] = json.loads(trial.user_attrs["result"])
            elif trial.state is TrialState.RUNNING:
                if self._is_silent(trial):
                    self._end(trial._trial_id, TrialState.FAIL)
                else:
                    claimed.add(key)
        return done, claimed

    def _is_silent(self, trial: FrozenTrial) -> bool:
        """Whether a claim was not renewed for too long, by this machine's clock alone."""
        beat, now = trial.user_attrs.get("beat"), time.monotonic()
        if trial._trial_id not in self._seen or self._seen[trial._trial_id][0] != beat:
            self._seen[trial._trial_id] = beat, now
        return now - self._seen[trial._trial_id][1] > self._silent_seconds

    def _claim(self, keys: Sequence[str]) -> dict[str, int]:
        """Claim keys; returns the trials of those that this process has got."""
        claims = {}
        for key in keys:
            # A trial is made with its key in one step, and their numbers are in the order in which they were made: the
            # first one has the key.
            attributes = {"key": key, "owner": self._owner}
            claims[key] = self._storage.create_new_trial(
                self._study, create_trial(state=TrialState.RUNNING, user_attrs=attributes)
            )
        first: dict[str, FrozenTrial] = {}
        for trial in self._storage.get_all_trials(self._study, deepcopy=False):
            if trial.user_attrs.get("key") in claims and trial.state in (TrialState.RUNNING, TrialState.COMPLETE):
                first.setdefault(trial.user_attrs["key"], trial)
        for key, trial_id in list(claims.items()):
            if key not in first or first[key]._trial_id != trial_id:
                self._end(claims.pop(key), TrialState.FAIL)
        return claims

    def _run(self, own: Mapping[str, int], indices: Mapping[str, int], run: Callable[..., Sequence[Any]]) -> None:
        """Compute what was claimed, and store it; what fails is free again."""
        try:
            with self._beats(list(own.values())):
                results = run([indices[key] for key in own])
            with self._errors():
                for trial_id, result in zip(own.values(), results, strict=True):
                    with suppress(RuntimeError):  # it took so long that another process has it
                        self._storage.set_trial_user_attr(trial_id, "result", json.dumps(result))
                        self._end(trial_id, TrialState.COMPLETE, _first_number(result))
        finally:
            with suppress(Exception):  # the error that ended it counts
                for trial_id in own.values():
                    self._end(trial_id, TrialState.FAIL)

    def _end(self, trial_id: int, state: TrialState, value: float | None = None) -> None:
        with suppress(RuntimeError):  # it has ended
            self._storage.set_trial_state_values(trial_id, state, None if value is None else [value])

    @contextmanager
    def _beats(self, trial_ids: Sequence[int]) -> Iterator[None]:
        """Renew claims while they are worked on."""
        ended = threading.Event()

        def beat() -> None:
            number = 0
            while not ended.wait(min(_BEAT_SECONDS, self._silent_seconds / 4)):
                number += 1
                for trial_id in trial_ids:
                    with suppress(Exception):  # another attempt follows
                        self._storage.set_trial_user_attr(trial_id, "beat", number)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of the storage to errors of one line."""
        name = setting("search.storage")
        try:
            yield
        except ImportError as error:
            message = str(error).splitlines()[0].split(":")[-1].strip()
            raise DynabertError(
                f"{name} {self._shown}: the database's driver is missing ({message}): install it, such as "
                "psycopg2-binary for postgresql://, PyMySQL for mysql+pymysql://"
            ) from None
        except (SQLAlchemyError, OSError, optuna.exceptions.OptunaError, json.JSONDecodeError) as error:
            while not isinstance(error, SQLAlchemyError) and isinstance(error.__cause__, SQLAlchemyError):
                error = error.__cause__
            reason = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
            raise DynabertError(
                f"{name} {self._shown}: cannot be used: {reason}: check that it can be reached and written"
            ) from None


def shown_address(address: str) -> str:
    """Check the address of a storage.

    Args:
        address: URL of a database, or the path of a journal file.

    Returns:
        The address without a password, for messages.

    Raises:
        UsageError: it is no URL, and could be no path.
    """
    if "://" not in address:
        if not address or user_path(address).is_dir():
            raise UsageError(
                f"{setting('search.storage')} is {address!r}: give the URL of a database, such as "
                "postgresql://USER@HOST/NAME, or the path of a journal file on a disk that all machines share"
            )
        return address
    try:
        return make_url(address).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        raise UsageError(
            f"{setting('search.storage')} is not the URL of a database: write postgresql://USER@HOST/NAME"
        ) from None


def _open(address: str) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if "://" not in address:
            return JournalStorage(JournalFileBackend(str(user_path(address))))
        return RDBStorage(address, engine_kwargs={"pool_pre_ping": True})


def _first_number(result: Any) -> float:
    """The number that a dashboard shows for a result: the score, or the first measure."""
    while not isinstance(result, (int, float)):
        result = next(iter(result.values() if isinstance(result, dict) else result))
    return float(result)
