"""CoNLL's format: sentences, comments, and which files are in it."""

import pytest

from dynabert_paddle.text.conll import count_columns, is_conll, split_conll
from dynabert_paddle.text.lines import LineError

LABELS = ["O", "B-PER", "I-PER"]


def sentences(text):
    lines = text.split("\n")
    return [[fields for _, fields in sentence] for sentence in split_conll(lines, count_columns(lines))]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a O\nb O\n\n\nc O", [[["a", "O"], ["b", "O"]], [["c", "O"]]]),
        ("-DOCSTART- -X- O\n\na X O\n-DOCSTART-\nb X O", [[["a", "X", "O"]], [["b", "X", "O"]]]),
        # Comments: before, inside and after a sentence, with more and with fewer columns.
        ("# id 7 of x\na O\n# a b\nb O\n#\n\n# end of file", [[["a", "O"], ["b", "O"]]]),
        ("# text = a b c\n\n#\n", []),
        ("# id 7 domain=en\na _ _ O\n# _ _ O\n", [[["a", "_", "_", "O"], ["#", "_", "_", "O"]]]),
        # Words that begin with #.
        ("# O\n#news B-PER\na O", [[["#", "O"], ["#news", "B-PER"], ["a", "O"]]]),
        ("#\n#news\na\n# sent 3", [[["#"], ["#news"], ["a"]]]),
        ("# # #\n£ # X", [[["#", "#", "#"], ["£", "#", "X"]]]),
        # White space that separates no columns: a word of it, and one with it.
        ("\u4e2d B-LOC\n\u3000 O\n\u56fd I-LOC", [[["\u4e2d", "B-LOC"], ["\u56fd", "I-LOC"]]]),
        ("\u3000 O\n\na O", [[["a", "O"]]]),
        ("a\u00a0b X O\n\u3000\nc  X\tO ", [[["a\u00a0b", "X", "O"]], [["c", "X", "O"]]]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


def test_another_number_of_columns_is_refused():
    with pytest.raises(LineError, match="3 columns, expected 2") as caught:
        sentences("# id\na O\nb X O")
    assert caught.value.line == 3


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a O\nb B-PER\n\nc O", True),
        ("# id 1 of 2\na\tX\tO\nb\tX\tO", True),
        ("-DOCSTART- -X- O\n\na X O\nb X O", True),
        ("he has blood type O", False),  # one text alone
        ("O\nO", False),
        ("she lives in Paris\nhe has type O", False),
        ("she lives in Paris\n\nOslo", False),
        ("", False),
        ("\n\n", False),
    ],
)
def test_which_texts_are_conll(text, expected):
    lines = text.splitlines()
    assert is_conll(lines, count_columns(lines), LABELS) is expected


def test_a_label_unknown_to_the_bundle_is_named():
    lines = ["a O", "b O", "", "c PER"]
    with pytest.raises(LineError, match="'PER' is not one of the bundle's labels, with which most lines end") as caught:
        is_conll(lines, count_columns(lines), LABELS)
    assert caught.value.line == 4
