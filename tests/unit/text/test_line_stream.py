"""Lines of a pipe: those of a file with the same content, each as soon as its end is written."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.text.line_stream import LineStream
from dynabert_paddle.text.lines import LineError, read_lines

pytestmark = pytest.mark.reference


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, os.fdopen(writing, "wb", buffering=0)
    os.close(reading)


def test_a_line_is_there_when_its_end_is(pipe):
    reading, file = pipe
    stream = LineStream(reading, "stdin")
    lines = iter(stream)
    assert not stream.is_ready()
    file.write("\ufeffone\n".encode())
    assert stream.is_ready()
    assert next(lines) == "one"
    assert not stream.is_ready()
    file.write(b"two\r\nthree\nfo")
    assert next(lines) == "two"
    assert stream.is_ready()
    assert next(lines) == "three"
    file.write(b"ur")
    file.close()
    assert list(lines) == ["four"]
    assert stream.is_ready()  # reading on does not wait


@given(parts=st.lists(st.text(st.sampled_from("ab\n\r中\ufeff")), max_size=5))
def test_a_pipe_has_the_lines_of_a_file(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("lines") / "x.txt"
    path.write_bytes("".join(parts).encode())
    reading, writing = os.pipe()
    for part in parts:
        os.write(writing, part.encode())
    os.close(writing)
    assert list(LineStream(reading, "stdin")) == list(read_lines(path))
    os.close(reading)


def test_what_is_no_utf8_is_refused_with_its_line(pipe):
    reading, file = pipe
    file.write(b"one\ncaf\xe9\n")
    lines = iter(LineStream(reading, "stdin"))
    assert next(lines) == "one"
    with pytest.raises(LineError, match="byte 4 of the line is not UTF-8") as caught:
        next(lines)
    assert caught.value.line == 2
