"""The errors that a user can cause and mend: one line each, with what was seen, what is allowed and what to do next."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_LONGEST, _MOST = 200, 10_000  # characters and words: a damaged file has columns or labels of any length and number


class DynabertError(Exception):
    """A failure that its message explains; the command line prints it in one line and exits with `exit_code`."""

    exit_code = 1


class UsageError(DynabertError):
    """A request that cannot be met as written: a flag, a config key, a name or a value."""

    exit_code = 2


class DataError(DynabertError):
    """A data file that cannot be read as the task describes it."""


class ModelError(DynabertError):
    """A model folder that cannot be loaded, or a model that is not supported."""


class Interrupted(DynabertError):
    """The run was asked to stop, and has saved a checkpoint.

    Args:
        message: where the run stands.
        exit_code: 0 where all is as whoever asked will want it, 130 after Ctrl-C, as shells expect.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Suggest the allowed word that is nearest to a misspelt one.

    Args:
        word: what was written.
        allowed: the words that would have been accepted.

    Returns:
        ` Did you mean 'x'?`, or the empty string where nothing is near.
    """
    if len(word) > _LONGEST:
        return ""
    matches = get_close_matches(word, islice((other for other in allowed if len(other) <= _LONGEST), _MOST), n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""
