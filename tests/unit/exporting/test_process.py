"""Work in a process of its own."""

import sys

import pytest

from dynabert_paddle.errors import DynabertError
from dynabert_paddle.exporting.process import run_apart


def test_a_process_that_dies_says_its_last_line():
    with pytest.raises(DynabertError, match=r"counting sheep failed with exit code 1: {'sheep': 3}"):
        run_apart(sys.exit, {"sheep": 3}, legacy=False, name="counting sheep")
