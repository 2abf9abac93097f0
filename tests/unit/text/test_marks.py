"""Punctuation marks as labels of words, and texts with their marks."""

import pytest

from dynabert_paddle.text.marks import mark_of, write_marks


@pytest.mark.parametrize(
    "label, mark",
    [
        ("COMMA", ","),
        ("period", "."),
        ("QUESTION", "?"),
        ("?QUESTIONMARK", "?"),
        (",COMMA", ","),
        ("full_stop", "."),
        ("EXCLAMATION-MARK", "!"),
        (";", ";"),
        ("\u3002", "\u3002"),
        ("O", None),
        ("B-COMMA", None),
        ("PER", None),
        ("", None),
    ],
)
def test_labels_that_are_marks(label, mark):
    assert mark_of(label) == mark


@pytest.mark.parametrize(
    "text, words, labels, expected",
    [
        ("yes i  am", [(0, 3), (4, 5), (7, 9)], ["COMMA", "O", "PERIOD"], "yes, i  am."),
        ("\u4f60\u597d a", [(0, 1), (1, 2), (3, 4)], ["O", "QUESTION", "PERIOD"], "\u4f60\u597d\uff1f a."),
        (" a ", [(1, 2)], ["O"], " a "),
        ("", [], [], ""),
    ],
)
def test_texts_with_marks(text, words, labels, expected):
    assert write_marks(text, words, labels) == expected
