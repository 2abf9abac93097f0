"""Lines of text files: what is no text in UTF-8 is refused with its encoding, by every reader alike."""

import gzip
import io
import json
import shlex
import subprocess
import zipfile

import pytest

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.bundle.tables import read_texts
from dynabert_paddle.compressing.texts import read_text_file
from dynabert_paddle.data.question_answering import iterate_questions
from dynabert_paddle.data.readers import Columns, read_rows
from dynabert_paddle.data.records import read_lines as read_numbered
from dynabert_paddle.data.token_classification import iterate_sentences
from dynabert_paddle.errors import DataError
from dynabert_paddle.text.lines import LineError, read_lines

pytestmark = pytest.mark.reference

ENGLISH, CHINESE = "play some jazz\nbook a table\n", "中文文本\n今天天气\n"
ENCODINGS = ("utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "utf-32be")


def write(folder, content, name="a b.txt"):
    (folder / name).write_bytes(content)
    return folder / name


def refusal(path):
    with pytest.raises(LineError) as caught:
        list(read_lines(path))
    return str(caught.value)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, "caf\u00e9, no\u00ebl\n", "é" * 9000 + "\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_command_for_utf16_and_utf32_converts(tmp_path, text, encoding):
    path = write(tmp_path, text.encode(encoding))
    message = refusal(path)
    assert message.startswith(f"the file is in {encoding.upper()}")
    subprocess.run(message.partition("convert it with: ")[2], shell=True, check=True)
    assert list(read_lines(tmp_path / "a b.utf8.txt")) == text.splitlines()


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_one_line_of_utf16_is_refused(tmp_path, text):
    for encoding in ENCODINGS[:3]:
        assert "UTF" in refusal(write(tmp_path, text.split("\n")[0].encode(encoding)))


@pytest.mark.parametrize("encoding", ["latin-1", "gb18030", "big5", "shift-jis", "koi8-r"])
def test_other_encodings_are_refused_with_the_place(tmp_path, encoding):
    text = {"latin-1": "café", "koi8-r": "текст"}.get(encoding, "中文")
    path = write(tmp_path, f"good\n{text}\n".encode(encoding), "x.txt")
    with pytest.raises(LineError, match=r"^byte \d of the line is not UTF-8; convert the file with: iconv") as caught:
        list(read_lines(path))
    assert caught.value.line == 2


def test_zeros_of_a_damaged_file_are_removed_as_said(tmp_path):
    path = write(tmp_path, f"{ENGLISH}中文\0".encode())
    message = refusal(path)
    assert message.startswith("byte 7 of the line is 0")
    subprocess.run(message.partition("with: ")[2], shell=True, check=True)
    assert list(read_lines(tmp_path / "a b.utf8.txt")) == [*ENGLISH.splitlines(), "中文"]
    assert "is 0" in refusal(write(tmp_path, bytes(9000)))  # a file that a crash left empty blocks of


def test_packed_files_are_named_as_packed(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    assert "a workbook of Excel" in refusal(write(tmp_path, packed.getvalue(), "x.csv"))
    assert "unpack it with gunzip" in refusal(write(tmp_path, gzip.compress(ENGLISH.encode()), "x.tsv"))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\nb\r\nc", ["a", "b", "c"]),
        (b"a\rb\r\rc\r", ["a", "b", "", "c"]),
        (b"a\rb\n", ["a", "b"]),  # as some tools end such a file
        (b"a\rb\nc\n", ["a\rb", "c"]),  # part of the text
        ("a\u2028b\x0bc\x85d\n".encode(), ["a\u2028b\x0bc\x85d"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfa\nb\n\xef\xbb\xbfc\n", ["a", "b", "c"]),  # of files that were joined
    ],
)
def test_ends_and_marks(tmp_path, content, lines):
    assert list(read_lines(write(tmp_path, content))) == lines


WORDS = {"task": {"kind": "token_classification"}, "pair": False, "labels": ["O", "B-PER"]}
TEXTS = {"task": {"text_column": "text"}, "pair": False, "labels": []}
ANSWERS = {"task": {"kind": "question_answering"}, "pair": True, "labels": []}
QUESTION = {"id": "1", "question": "who", "answers": [{"text": "I", "answer_start": 0}]}
SQUAD = json.dumps({"data": [{"paragraphs": [{"context": "I am", "qas": [QUESTION]}]}]}, indent=0)

# A file's name and lines -> how training and the commands, and how a bundle's scripts, read it.
READERS = {
    "x.txt": ("play\nbook", read_numbered, TEXTS),
    "y.txt": ("play\nbook", read_text_file, TEXTS),
    "x.tsv": ("text\tlabel\nplay\ta\nbook\tb", lambda path: read_rows(path, Columns("text")), TEXTS),
    "x.csv": ("text,label\nplay,a\nbook,b", lambda path: read_rows(path, Columns("text")), TEXTS),
    "x.jsonl": ('{"text": "play"}\n{"text": "book"}', lambda path: read_rows(path, Columns("text")), TEXTS),
    "x.json": ('[{"text": "play"},\n{"text": "book"}]', lambda path: read_rows(path, Columns("text")), TEXTS),
    "x.conll": ("Ann B-PER\nsings O\n\nshe O", lambda path: iterate_sentences(path), WORDS),
    "z.txt": ("Ann B-PER\nsings O\n\nshe O", lambda path: iterate_sentences(path), WORDS),
    "z.json": (SQUAD, lambda path: iterate_questions(path), ANSWERS),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_reads_carriage_returns_and_refuses_other_encodings(tmp_path, name):
    text, read, description = READERS[name]
    expected = [list(each) for each in _read_both(write(tmp_path, text.encode(), name), read, description)]
    for content in (text.replace("\n", "\r") + "\r", text.replace("\n", "\r\n"), f"\ufeff{text}\n"):
        found = [list(each) for each in _read_both(write(tmp_path, content.encode(), name), read, description)]
        assert found == expected
    for encoding in ("utf-16le", "utf-32be"):
        path = write(tmp_path, text.encode(encoding), name)
        words = f"{path}:1: the file is in {encoding.upper()}; convert it with: iconv -f {encoding.upper()} "
        for reader, error in zip(_read_both(path, read, description), (DataError, BundleError), strict=True):
            with pytest.raises(error) as caught:
                list(reader)
            assert str(caught.value).startswith(words)
            assert shlex.quote(str(path)) in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_reads_gzip_by_its_ending(tmp_path, name):
    text, read, description = READERS[name]
    expected = [list(each) for each in _read_both(write(tmp_path, text.encode(), name), read, description)]
    packed = write(tmp_path, gzip.compress(text.encode()), f"{name}.GZ")
    assert [list(each) for each in _read_both(packed, read, description)] == expected


def test_gzip_files_that_are_damaged_or_none_are_refused(tmp_path):
    packed = gzip.compress((ENGLISH * 9000).encode())
    for content, words in (
        (packed[: len(packed) // 2], "cut off or damaged"),
        (packed[:-9] + b"x" + packed[-8:], "damaged"),
        (ENGLISH.encode(), "not what gzip writes"),
    ):
        assert words in refusal(write(tmp_path, content, "x.tsv.gz"))
    path = write(tmp_path, gzip.compress(CHINESE.encode("utf-16")), "a b.txt.gz")
    subprocess.run(refusal(path).partition("convert it with: ")[2], shell=True, check=True)
    assert list(read_lines(tmp_path / "a b.utf8.txt")) == CHINESE.splitlines()


def _read_both(path, read, description):
    """The rows as training and the commands read them, and as a bundle's scripts do, each read when it is iterated."""
    yield (row for row in read(path))
    yield read_texts(str(path), description)
