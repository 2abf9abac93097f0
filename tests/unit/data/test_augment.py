"""Word replacement changes only replaceable words; augmented files round-trip."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.data.augment import SOURCE_ROW, STOP_WORDS, Word, copy_row, is_replaceable, read_augmented, to_line
from dynabert_paddle.data.readers import Columns, Examples
from dynabert_paddle.errors import DataError

TEXT = "Play some music, now!"
PLAY, MUSIC = Word(0, 4, ("start", "stop", "run")), Word(10, 15, ("jazz",))


def copies(texts=(TEXT,), words=((PLAY, MUSIC),), *, seed=0, num_copies=200, probability=0.4):
    rng = np.random.default_rng(seed)
    return copy_row(texts, words, rng, num_copies=num_copies, probability=probability)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("music", True),
        ("Naïve", True),
        ("nai\u0308ve", True),  # the same, with the accent as a combining character
        ("音", True),
        ("the", False),
        ("The", False),
        ("don", False),
        ("1959", False),
        ("a1b", False),
        ("!", False),
        ("##s", False),
        ("[MASK]", False),
        ("two words", False),
        ("", False),
    ],
)
def test_only_words_of_letters_that_are_not_stop_words_are_replaceable(text, expected):
    assert is_replaceable(text) is expected


def test_the_stop_words_equal_those_of_tinyberts_script():
    # Its list has 173 entries; 28 contain an apostrophe, where tokenizers split, and are listed in parts here.
    assert len(STOP_WORDS) == 145
    assert {"i", "the", "wouldn", "ll"} <= STOP_WORDS
    assert all(word.isalpha() and word.islower() for word in STOP_WORDS)


def test_with_probability_0_every_copy_is_the_text():
    assert copies(num_copies=3, probability=0) == ([(TEXT,)] * 4, 0)


def test_with_probability_1_every_word_is_replaced():
    versions, replaced = copies(num_copies=50, probability=1)
    assert versions[0] == (TEXT,)
    assert {text for (text,) in versions[1:]} == {f"{word} some jazz, now!" for word in PLAY.candidates}
    assert replaced == 2 * 50


def test_replacement_probability_and_uniform_choice_of_candidates():
    versions, replaced = copies(num_copies=3000, probability=0.4)
    changed = [text.split()[0] for (text,) in versions[1:] if not text.startswith("Play")]
    # Three standard deviations of a binomial: 3 * sqrt(3000 * 0.4 * 0.6) = 81, 3 * sqrt(1200 * 2 / 9) = 49, plus some.
    assert abs(len(changed) - 1200) < 85
    assert all(abs(changed.count(word) - len(changed) / 3) < 55 for word in PLAY.candidates)
    assert replaced == len(changed) + sum("jazz" in text for (text,) in versions)


def test_both_texts_of_a_pair_change_in_a_copy():
    versions, _ = copies(("a play", "music"), ((Word(2, 6, ("game",)),), (Word(0, 5, ("jazz",)),)), probability=0.5)
    assert versions[0] == ("a play", "music")
    assert set(versions) == {(first, second) for first in ("a play", "a game") for second in ("music", "jazz")}


def test_the_seed_determines_the_copies():
    assert copies(seed=1) == copies(seed=1)
    assert copies(seed=1) != copies(seed=2)


def test_a_text_without_words_is_copied():
    assert copies(("",), ((),), num_copies=2) == ([("",)] * 3, 0)


# No reader lets a zero byte through, or a byte order mark at the start of a line.
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff")), as_json=st.booleans())
def test_augmented_file_round_trip(tmp_path_factory, text, as_json):
    path = tmp_path_factory.mktemp("files") / ("aug.jsonl" if as_json else "aug.tsv")
    header = "" if as_json else to_line({"text": "text", SOURCE_ROW: SOURCE_ROW}, as_json=False)
    path.write_text(header + to_line({"text": text, SOURCE_ROW: 0}, as_json=as_json), encoding="utf-8", newline="")
    found, sources = read_augmented(path, Columns("text"), Examples([text], None, None, path))
    blanks = text if as_json else "".join(" " if character in "\t\r\n" else character for character in text)
    assert found.texts == [blanks]
    assert found.labels is None and found.pairs is None
    assert sources.tolist() == [0]


def test_json_keeps_letters_readable():
    assert json.loads(line := to_line({"text": "音\n"}, as_json=True)) == {"text": "音\n"}
    assert "音" in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text\nred\n", "no column 'source_row'"),
        ("text\tsource_row\nred\t2\n", ":2: source_row '2' is not this row"),
        pytest.param(f"text\tsource_row\nred\t{'1' * 5000}\n", "is not this row", id="5,000 digits"),
        ("text\tsource_row\nred\t-1\n", ":2: source_row '-1' is not this row"),
        ("text\tsource_row\nred\t0\nrod\t0\nred\t1\n", ":4: source_row '1' is not this row"),
    ],
)
def test_a_file_of_other_rows_is_refused(tmp_path, content, said):
    path = tmp_path / "aug.tsv"
    path.write_text(content)
    with pytest.raises(DataError, match="dynabert augment") as caught:
        read_augmented(path, Columns("text"), Examples(["red", "green"], None, None, path))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_words_are_left_out_and_swapped_in_copies_alone():
    text = " ".join(f"w{number}" for number in range(50))

    def versions(**options):
        found, _ = copy_row((text,), ((),), np.random.default_rng(0), num_copies=40, probability=0.4, **options)
        first, *others = [version[0] for version in found]
        assert first == text
        return [other.split(" ") for other in others]

    words = text.split(" ")
    assert versions() == [words] * 40
    dropped = versions(dropout=0.2)
    assert all(kept == [word for word in words if word in kept] for kept in dropped), "their order stays"
    assert sum(map(len, dropped)) / (40 * 50) == pytest.approx(0.8, abs=0.03)
    swapped = versions(swap=0.1)
    assert all(sorted(other) == sorted(words) for other in swapped)
    assert 0.02 < np.mean([a != b for other in swapped for a, b in zip(other, words, strict=True)]) < 0.3


def test_a_copy_keeps_at_least_one_word():
    found, _ = copy_row(("a b", "c"), ((), ()), np.random.default_rng(0), num_copies=60, probability=0, dropout=0.99)
    assert {len(version[0].split(" ")) for version in found[1:]} == {1}
    assert {version[1] for version in found} == {"c"}


def test_without_them_copies_are_what_they_were():
    """The random numbers of replacing come first, and no others are drawn."""
    rng, before = np.random.default_rng(0), np.random.default_rng(0)
    copy_row((TEXT,), ((PLAY, MUSIC),), rng, num_copies=3, probability=0.5, dropout=0.0, swap=0.0)
    before.random((3, 2)), before.random((3, 2))
    assert rng.random() == before.random()
