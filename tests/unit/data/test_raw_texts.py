"""Files of raw text: what is read, what is held out, and what is refused."""

import gzip
import os
import threading
import tracemalloc
from collections import Counter

import pytest

from dynabert_paddle.data import raw_texts
from dynabert_paddle.data.raw_texts import open_raw_texts
from dynabert_paddle.errors import DataError


def open_texts(path, *, holdout_size=1, seed=0):
    return open_raw_texts(path, holdout_size=holdout_size, seed=seed, key="general.text_file")


def write(path, texts, end="\n"):
    path.write_bytes("".join(text + end for text in texts).encode())
    return path


def all_texts(texts):
    return [text for block in range(texts.num_blocks) for text in texts.read(block)]


def test_every_text_is_read_or_held_out_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_texts, "_BLOCK_TEXTS", 7)
    lines = [f"text {number} {'word ' * (number % 5)}".strip() for number in range(100)]
    file = write(tmp_path / "a.txt", [line for text in lines for line in (text, "", "  ")])
    texts = open_texts(file, holdout_size=9)
    assert len(texts.held_out) == 9
    assert texts.num_blocks == 15
    assert texts.num_texts == 91 == sum(map(texts.count, range(texts.num_blocks)))
    assert all_texts(texts) == [text for text in lines if text not in texts.held_out]
    assert texts.read(11) == all_texts(texts)[sum(map(texts.count, range(11))) :][: texts.count(11)]


def test_held_out_texts_are_nowhere_else_and_do_not_depend_on_the_order(tmp_path):
    lines = [f"text {number % 40}" for number in range(400)]
    texts = open_texts(write(tmp_path / "a.txt", lines), holdout_size=30)
    assert len(texts.held_out) == 4  # a tenth of those that differ
    assert texts.num_texts == 360
    lines.reverse()
    reverse = open_texts(write(tmp_path / "b.txt", lines), holdout_size=30)
    assert set(texts.held_out) == set(reverse.held_out)
    assert not {*texts.held_out} & {*all_texts(texts)}
    assert set(open_texts(tmp_path / "b.txt", holdout_size=3, seed=1).held_out) != set(texts.held_out[:3])


def test_gzip_a_pipe_and_other_line_ends_are_the_same_texts(tmp_path):
    lines = ["a b", "你好 世界", "c", "café", "d"]
    plain = open_texts(write(tmp_path / "a.txt", lines))
    with gzip.open(tmp_path / "a.txt.gz", "wb") as packed:
        packed.write((tmp_path / "a.txt").read_bytes())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes((tmp_path / "a.txt").read_bytes()))
    writer.start()
    others = [open_texts(tmp_path / "a.txt.gz"), open_texts(pipe)]
    writer.join()
    others += [open_texts(write(tmp_path / f"{len(end)}{ord(end[0])}", lines, end)) for end in ("\r\n", "\r")]
    marked = tmp_path / "marked"
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.txt").read_bytes())
    for texts in (*others, open_texts(marked)):
        assert (all_texts(texts), texts.held_out) == (all_texts(plain), plain.held_out)
    assert (others[0].fingerprint == plain.fingerprint).all()
    assert (others[2].fingerprint != plain.fingerprint).any()


@pytest.mark.parametrize("filler", ["word ", "界", "w"])
def test_a_line_that_does_not_fit_is_several_texts(filler, tmp_path, monkeypatch):
    monkeypatch.setattr(raw_texts, "MAX_LINE", 64)
    monkeypatch.setattr(raw_texts, "_BLOCK_BYTES", 100)
    file = tmp_path / "a.txt"
    file.write_bytes((filler * 100 + "\nshort").encode())
    texts = open_texts(file)
    read = all_texts(texts)
    assert max(len(text.encode()) for text in read) <= 64
    lost = Counter("".join(texts.held_out).replace(" ", ""))
    copies = (len(filler.strip()) * 100 + 5 - len("".join(read).replace(" ", ""))) // max(1, lost.total())
    left = Counter("".join(read).replace(" ", "")) + Counter({key: n * copies for key, n in lost.items()})
    assert left == Counter(filler.strip() * 100 + "short")
    assert texts.num_blocks > 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no text"),
        (b"\n  \n\r\n", "has no text"),
        (b"one text\n", "has one text, and training needs others"),
        (b"the same\n" * 9, "has 9 times the same text"),
        ("a\nb\n".encode("utf-16"), "the file is in UTF-16; convert it with"),
        (b"a\nb\xff\n", "line 2: byte 2 of the line is not UTF-8"),
        (b"a\nb\0\n" + b"text\n" * 9, "line 2: byte 2 of the line is 0"),
        (b"PK\x03\x04\xff", "a zip archive"),
        (b"\x1f\x8b\x08", "compressed by gzip: unpack it with gunzip, or let its name end with .gz"),
    ],
)
def test_what_is_no_text_is_refused(content, message, tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_texts(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_damaged_archives_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        open_texts(tmp_path / "none.txt")
    with pytest.raises(DataError, match="is a folder"):
        open_texts(tmp_path)
    packed = gzip.compress(b"a\nb\n" * 1000)
    for name, content in (("cut.gz", packed[:-9]), ("plain.gz", b"a\nb\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="cut off, or not what gzip writes"):
            open_texts(tmp_path / name)


def test_a_file_that_changes_is_refused_when_it_is_read_again(tmp_path):
    texts = open_texts(write(tmp_path / "a.txt", ["a", "b", "c"]))
    (tmp_path / "a.txt").write_bytes(b"\xff" * 6)
    with pytest.raises(DataError, match="has changed while it was read"):
        texts.read(0)


def test_the_index_of_a_large_file_is_small(tmp_path):
    file = write(
        tmp_path / "a.txt", (f"a text with the number {number} and some more words" for number in range(150_000))
    )
    assert file.stat().st_size > 7e6
    tracemalloc.start()
    texts = open_texts(file, holdout_size=500)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts.num_texts == 149_500
    assert held < 5e5
    assert peak < 2e6
