"""The errors that a user can cause and fix; each message is one line: what is wrong, where, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

# A damaged file can have columns or labels of any length and number.
_MAX_CHARACTERS, _MAX_WORDS = 200, 10_000


class DynabertError(Exception):
    """A failure with a message for users; the command line prints it in one line and exits with `exit_code`."""

    exit_code = 1


class UsageError(DynabertError):
    """A wrong flag, config key, name or value."""

    exit_code = 2


class DataError(DynabertError):
    """A data file that does not fit the task."""


class ModelError(DynabertError):
    """A model folder that cannot be loaded, or a model that is not supported."""


class Interrupted(DynabertError):
    """A signal has stopped work that can be resumed.

    Args:
        message: how far the work has come, and what a repetition of the command does.
        exit_code: 128 and the signal's number, as shells have it: 143 for SIGTERM, 130 for Ctrl-C.
        is_saved: whether a repetition goes on with what was saved; otherwise it begins anew.
    """

    def __init__(self, message: str, *, exit_code: int, is_saved: bool = True) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.is_saved = is_saved


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the allowed word nearest to a misspelt one; empty if none is near."""
    if len(word) > _MAX_CHARACTERS:
        return ""
    matches = get_close_matches(
        word, islice((other for other in allowed if len(other) <= _MAX_CHARACTERS), _MAX_WORDS), n=1
    )
    return f" Did you mean '{matches[0]}'?" if matches else ""
