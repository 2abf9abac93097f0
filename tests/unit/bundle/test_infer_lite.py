"""The command line of `infer_lite.py`, without a runtime."""

import io
import sys

import pytest

from dynabert_paddle.bundle import infer_lite
from dynabert_paddle.text.decode import Prediction


class Stub:
    """A bundle with one class, in Chinese."""

    description = {"max_seq_length": 128}  # noqa: RUF012

    def __init__(self, folder, **options):
        pass

    def predict(self, rows):
        return (Prediction("好评", 1.0, {"好评": 1.0}) for _ in rows)

    def input_warnings(self):
        return []


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_output_is_utf_8_whatever_the_locale(monkeypatch, flags):
    monkeypatch.setattr(infer_lite, "Bundle", Stub)
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    assert infer_lite.main(["text", *flags]) == 0
    assert "好评" in out.buffer.getvalue().decode("utf-8")
