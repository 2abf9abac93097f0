"""What stops work that can be resumed becomes one line, and tells a request from Ctrl-C."""

import pytest

from dynabert_paddle.errors import Interrupted
from dynabert_paddle.runtime.interruption import resumable
from dynabert_paddle.runtime.streams import Terminated


@pytest.mark.parametrize(("stop", "exit_code"), [(KeyboardInterrupt, 130), (Terminated, 143), (Terminated(1), 129)])
def test_an_interruption_of_resumable_work_names_the_command_to_resume(stop, exit_code):
    with (
        pytest.raises(
            Interrupted, match=r"^search: stopped after 3 of 5; the same command goes on from there$"
        ) as caught,
        resumable("search", lambda: " after 3 of 5"),
    ):
        raise stop
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize(
    ("point", "then"), [("its last checkpoint", "goes on from its last checkpoint"), ("", "begins anew, since nothing")]
)
def test_what_a_repetition_does_is_found_out_when_work_is_stopped(point, then):
    found = []
    with (
        pytest.raises(Interrupted, match=f"^rewire: stopped; the same command {then}") as caught,
        resumable("rewire", resume_point=lambda: found[0]),
    ):
        found.append(point)
        raise KeyboardInterrupt
    assert caught.value.is_saved == bool(point)


def test_other_errors_pass():
    with pytest.raises(ValueError, match="wrong"), resumable("search"):
        raise ValueError("wrong")
