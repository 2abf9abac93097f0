"""A file of raw text of any size, one text a line: read block by block, some texts held out.

One pass over the file counts its texts and finds where each block begins; nothing of it stays in memory but an index of
a few bytes a block, and the held-out texts.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import IO

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DataError
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.text.lines import LineError, decode_lines

MAX_LINE = 2**16  # bytes; a longer line is read as several texts, so that a file without line ends fits into memory
_HEAD = 2**12  # bytes that tell an encoding
_BLOCK_TEXTS = 2**12
_BLOCK_BYTES = 2**22
_SAMPLE = 2**10 - 1  # texts that tell how many differ: up to as many exactly, beyond with an error of about 3 %


@dataclass
class _Block:
    """A part of the file: where it begins and ends, in bytes, and its texts without the held-out ones."""

    start: int
    end: int = 0
    num_texts: int = 0


@dataclass(frozen=True, eq=False)
class RawTexts:
    """The texts of a file, which stays open; a context manager.

    Args:
        path: the file, for messages.
        file: its content, unpacked.
        num_texts: lines that are not empty, without the held-out ones.
        held_out: texts that are not trained on, wherever they stand in the file.
        fingerprint: a hash of the content.
        blocks: its parts.
    """

    path: Path
    file: IO[bytes]
    num_texts: int
    held_out: tuple[str, ...]
    fingerprint: np.ndarray
    blocks: list[_Block] = field(repr=False)

    def __enter__(self) -> RawTexts:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    @property
    def num_blocks(self) -> int:
        """The number of blocks."""
        return len(self.blocks)

    def count(self, block: int) -> int:
        """Return the number of a block's texts."""
        return self.blocks[block].num_texts

    def read(self, block: int) -> list[str]:
        """Read a block's texts, without the held-out ones.

        Args:
            block: its number, from 0.

        Returns:
            The texts in the order of the file.

        Raises:
            DataError: the file has changed since it was counted.
        """
        place, held_out = self.blocks[block], frozenset(self.held_out)
        texts: list[str] = []
        with suppress(LineError):  # the count tells
            texts = [text for _, text in _read(self.file, self.path, place.start, place.end) if text not in held_out]
        if len(texts) != place.num_texts:
            raise DataError(f"{self.path}: has changed while it was read: start again, and leave the file as it is")
        return texts


def open_raw_texts(path: str | Path, *, holdout_size: int, seed: int, key: str) -> RawTexts:
    """Count the texts of a file, and hold some out.

    Args:
        path: the file, in UTF-8, one text a line; compressed if its name ends with `.gz`; or a pipe. Both are unpacked
            into a temporary file.
        holdout_size: texts to hold out, at most a tenth of all that differ, about.
        seed: with it, the texts alone decide which are held out: the same ones of the same file, in any order.
        key: the setting that names the file, for messages.

    Returns:
        The texts.

    Raises:
        DataError: there is no such file, it is no text, or has fewer than two texts that differ.
    """
    path = user_path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder: name a file of plain text, one text a line, with {setting(key)}")
    try:
        file = _open(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}: correct {setting(key)}") from None
    try:
        return _count(file, path, holdout_size, seed)
    except BaseException:
        file.close()
        raise


def _count(file: IO[bytes], path: Path, holdout_size: int, seed: int) -> RawTexts:
    blocks: list[_Block] = [_Block(0)]
    chosen = _HeldOut(holdout_size, seed)
    num_texts = 0
    hashed = hashlib.blake2b(digest_size=8)
    try:
        for end, text in _read(file, path, 0, None, hashed):
            block = blocks[-1]
            is_full = block.num_texts >= _BLOCK_TEXTS or block.end - block.start >= _BLOCK_BYTES
            if is_full and end > block.end:  # a piece of the file that holds several texts stays in one block
                block = _Block(block.end)
                blocks.append(block)
            block.num_texts += 1
            block.end = end
            num_texts += 1
            chosen.add(text, len(blocks) - 1)
    except LineError as error:
        raise DataError(f"{path}, line {error.line}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not num_texts:
        raise DataError(f"{path}: has no text: give plain text, one text a line")
    texts = chosen.finish()
    if not texts:
        same = "one text" if num_texts == 1 else f"{num_texts} times the same text"
        raise DataError(f"{path}: has {same}, and training needs others to be held out: name a file with more texts")
    for counts in texts.values():
        for number, count in counts.items():
            blocks[number].num_texts -= count
            num_texts -= count
    digest = np.frombuffer(hashed.digest(), dtype=np.uint8)
    return RawTexts(path, file, num_texts, tuple(texts), digest, blocks)


class _HeldOut:
    """The texts with the smallest hashes so far: a sample of the texts that differ, and where each of them stands.

    A text that is among them in the end has been among them since it first came, so that all its places are known.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._key = size, b"%d" % seed
        self._capacity = max(size, _SAMPLE)
        self._heap: list[tuple[int, str]] = []  # the largest hash first
        self._blocks: dict[str, Counter[int]] = {}

    def add(self, text: str, block: int) -> None:
        if text in self._blocks:
            self._blocks[text][block] += 1
            return
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._key).digest()
        value = int.from_bytes(digest, "big")
        if len(self._heap) > self._capacity and value >= -self._heap[0][0]:
            return
        self._blocks[text] = Counter({block: 1})
        heappush(self._heap, (-value, text))
        if len(self._heap) > self._capacity + 1:
            del self._blocks[heappop(self._heap)[1]]

    def finish(self) -> dict[str, Counter[int]]:
        """Return the held-out texts, each with its blocks; none if all texts are the same."""
        num_distinct = len(self._heap)
        if num_distinct > self._capacity:  # there are others: the largest hash tells how densely all of them lie
            num_distinct = round(self._capacity * 2.0**64 / -self._heap[0][0])
        size = min(max(min(self._size, num_distinct // 10), 1), len(self._heap) - 1)
        texts = [text for _, text in sorted(self._heap, reverse=True)[:size]]
        return {text: self._blocks[text] for text in texts}


def _open(path: Path) -> IO[bytes]:
    """Open a file to read it at any place; one that is packed, or a pipe, through a temporary copy."""
    is_packed = path.suffix.lower() == ".gz"
    if not is_packed and path.is_file():
        return path.open("rb")
    folder = tempfile.gettempdir()
    source = gzip.open(path, "rb") if is_packed else path.open("rb")  # noqa: SIM115 - closed below
    with source:
        try:
            copy = tempfile.TemporaryFile(prefix="dynabert-texts-")  # noqa: SIM115 - open for the lifetime of the texts
            shutil.copyfileobj(source, copy, 2**20)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: the file is cut off, or not what gzip writes ({error}): copy it again") from None
        except OSError as error:
            if error.errno is None:
                raise
            raise DataError(
                f"{path}: its texts cannot be stored in {folder} ({error.strerror}); free as much space there as the "
                "size of the unpacked file, or set the environment variable TMPDIR to another folder."
            ) from None
    return copy


def _read(
    file: IO[bytes], path: Path, start: int, end: int | None, hashed: hashlib.blake2b | None = None
) -> Iterator[tuple[int, str]]:
    """Yield the texts between two places, each with the place behind the piece of the file that it is in."""
    place = start

    def pieces() -> Iterator[bytes]:
        nonlocal place
        for piece in _cut(file, start, end):
            place += len(piece)
            if hashed is not None:
                hashed.update(piece)
            yield piece

    file.seek(start)
    head = file.read(_HEAD) if start == 0 else b""
    for line in decode_lines(pieces(), path, head=head):
        for text in line.split("\r"):  # as Excel for Mac ends lines
            if text := text.strip():
                yield place, text


def _cut(file: IO[bytes], start: int, end: int | None) -> Iterator[bytes]:
    """Yield the lines between two places with their ends; those of more than `MAX_LINE` bytes in pieces."""
    file.seek(start)
    place, rest = start, b""
    while end is None or place < end:
        line = rest + file.readline(MAX_LINE - len(rest))
        if not line:
            return
        rest = b""
        if len(line) >= MAX_LINE and not line.endswith(b"\n"):
            size = line.rfind(b"\r") + 1 or line.rfind(b" ") + 1 or _whole_characters(line)
            line, rest = line[:size], line[size:]
        place += len(line)
        yield line


def _whole_characters(line: bytes) -> int:
    """The length of a piece without the character at its end, which may be incomplete."""
    size = len(line) - 1
    while size > len(line) - 4 and line[size] & 0xC0 == 0x80:
        size -= 1
    return size
