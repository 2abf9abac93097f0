"""Word vectors are read in every format, and neighbours equal a brute-force search."""

import numpy as np
import pytest

from dynabert_paddle.data.word_vectors import WordVectors
from dynabert_paddle.errors import DataError

WORDS = ["the", ",", "music", "jazz", "song", "2024", "river", "Paris"]
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 5)).astype(np.float32)


def write_text(path, words=WORDS, vectors=VECTORS):
    lines = [" ".join([word, *map(str, vector)]) for word, vector in zip(words, vectors, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_folder(folder, words=WORDS, vectors=VECTORS):
    np.save(folder / "vectors.npy", vectors)
    (folder / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def write_parquet(folder, words=WORDS, vectors=VECTORS):
    """The format of the built-in vectors' package."""
    import pyarrow
    from pyarrow import parquet

    np.save(folder / "emb.npy", vectors)
    parquet.write_table(pyarrow.table({"index": words}), folder / "index.parquet")
    return folder


def brute_force(word, count):
    """By the definition of the cosine, among the words of letters only."""
    vector = VECTORS[WORDS.index(word)].astype(np.float64)
    cosines = {
        other: float(theirs @ vector / np.linalg.norm(theirs) / np.linalg.norm(vector))
        for other, theirs in zip(WORDS, VECTORS.astype(np.float64), strict=True)
        if other.isalpha() and other != word
    }
    return sorted(cosines, key=cosines.get, reverse=True)[:count]


@pytest.mark.parametrize("write", [write_text, write_folder, write_parquet])
@pytest.mark.parametrize("count", [1, 3, 100])
def test_neighbours_have_the_highest_cosine(tmp_path, write, count):
    vectors = WordVectors.read(write(tmp_path / "glove.txt" if write is write_text else tmp_path))
    assert vectors.neighbours("music", count) == brute_force("music", count)


def test_lookup_falls_back_to_lower_case_and_keeps_title_case(tmp_path):
    vectors = WordVectors.read(write_text(tmp_path / "glove.txt"))
    assert vectors.neighbours("Music", 3) == [word.title() for word in brute_force("music", 3)]
    assert vectors.neighbours("MUSIC", 3) == brute_force("music", 3)
    assert vectors.neighbours("Paris", 3) == [word.title() for word in brute_force("Paris", 3)]
    assert vectors.neighbours("paris", 3) == []
    assert vectors.neighbours("unheard", 3) == []


def test_the_npy_file_can_be_named(tmp_path):
    assert WordVectors.read(write_folder(tmp_path) / "vectors.npy").words == WordVectors.read(tmp_path).words


def test_the_fingerprint_depends_on_words_and_numbers(tmp_path):
    texts = [write_text(tmp_path / "a.txt"), write_text(tmp_path / "b.txt")]
    others = [write_text(tmp_path / "c.txt", WORDS[::-1]), write_text(tmp_path / "d.txt", vectors=VECTORS[::-1])]
    prints = [WordVectors.read(path).fingerprint for path in (*texts, *others)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ("music 0.1 0.2\njazz 0.1\n", ":2: expected a word and 2 numbers"),
        ("music 0.1 0.2\njazz 0.1 x\n", ":2: expected a word and 2 numbers"),
        ("music\n", ":1: expected a word"),
        ("music 0.1 nan\n", "not finite"),
        ("1 0.1\n2 0.3\n", "no word consists of letters"),
    ],
)
def test_files_without_vectors_are_refused(tmp_path, content, said):
    (tmp_path / "glove.txt").write_text(content)
    with pytest.raises(DataError) as caught:
        WordVectors.read(tmp_path / "glove.txt")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_vectors_is_refused(tmp_path):
    with pytest.raises(DataError, match="0 .npy files and 0 word lists"):
        WordVectors.read(tmp_path)
    write_folder(tmp_path, WORDS[1:])
    with pytest.raises(DataError, match="for 7 words"):
        WordVectors.read(tmp_path)
    (tmp_path / "vectors.npy").write_bytes(b"cut off")
    with pytest.raises(DataError, match="cannot be read"):
        WordVectors.read(tmp_path)


def test_a_pickle_in_the_npy_file_is_refused(tmp_path):
    write_folder(tmp_path)
    np.save(tmp_path / "vectors.npy", np.array([{}] * len(WORDS), dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        WordVectors.read(tmp_path)


def test_a_damaged_parquet_file_is_refused(tmp_path):
    (write_parquet(tmp_path) / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="index.parquet: cannot be read"):
        WordVectors.read(tmp_path)


def test_a_misspelt_built_in_name_suggests_the_nearest(tmp_path):
    with pytest.raises(DataError, match="Did you mean 'glove-6b-50d'"):
        WordVectors.read("glove-6b-50")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x08\x00{'descr'"])
def test_a_truncated_file_of_vectors_is_refused(tmp_path, content):
    write_folder(tmp_path)
    (tmp_path / "vectors.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"vectors\.npy: cannot be read"):
        WordVectors.read(tmp_path)


def test_a_small_parquet_file_of_a_billion_rows_is_refused(tmp_path):
    """Parquet stores a run of equal words once."""
    write_parquet(tmp_path)
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"word": pyarrow.array(["the"] * 3_000_000)}), tmp_path / "index.parquet")
    assert (tmp_path / "index.parquet").stat().st_size < 10_000
    with pytest.raises(DataError, match="more words than vectors"):
        WordVectors.read(tmp_path)


@pytest.mark.parametrize("store_schema", [True, False])
def test_a_small_parquet_file_of_long_words_is_refused(tmp_path, store_schema):
    """Parquet stores a repeated word once in its dictionary."""
    import pyarrow
    from pyarrow import parquet

    np.save(tmp_path / "vectors.npy", np.zeros((4000, 1), np.float32))
    text = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(4000, np.int32)), pyarrow.array(["x" * 100_000]))
    table = pyarrow.table({"word": text})
    parquet.write_table(table, tmp_path / "index.parquet", compression="zstd", store_schema=store_schema)
    assert (tmp_path / "index.parquet").stat().st_size < 1_000
    with pytest.raises(DataError, match="words of more than 1,000 characters"):
        WordVectors.read(tmp_path)
