"""What labels of words say about entities: known schemes equal seqeval's, others are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from dynabert_paddle.text.word_labels import OUTSIDE, UnknownSchemeError, WordLabelScheme

BIOES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-LOC"]


def spans(labels, names=None):
    return [tuple(span) for span in WordLabelScheme(names or labels).spans(labels)]


@given(st.lists(st.sampled_from(BIOES), min_size=1, max_size=12))
def test_entities_equal_seqevals(labels):
    assert spans(labels, BIOES) == get_entities(labels)


@given(st.lists(st.sampled_from(["O", "P-B", "P-I", "A1-B", "A1-I"]), min_size=1, max_size=12))
def test_positions_after_the_type_equal_seqevals(labels):
    assert spans(labels, ["O", "P-B", "P-I", "A1-B", "A1-I"]) == get_entities(labels, suffix=True)


@given(st.data())
@pytest.mark.parametrize("inside, end, single", ["IES", "ILU", "MES"])
def test_schemes_of_whole_entities_decode_to_the_encoded_entities(inside, end, single, data):
    """Entities, written in the scheme's letters before or after the type, are read back."""
    expected, labels = [], []
    is_suffix = data.draw(st.booleans())
    for kind, length in data.draw(st.lists(st.tuples(st.sampled_from(["O", "PER", "ORG-X"]), st.integers(1, 4)))):
        if kind == "O":
            labels += ["O"] * length
            continue
        letters = single if length == 1 else "B" + inside * (length - 2) + end
        expected.append((kind, len(labels), len(labels) + length - 1))
        labels += [f"{kind}-{letter}" if is_suffix else f"{letter}-{kind}" for letter in letters]
    assert spans(labels) == expected


@pytest.mark.parametrize(
    "labels, expected",
    [
        (["LOC", "LOC", "O", "LOC", "PER"], [("LOC", 0, 1), ("LOC", 3, 3), ("PER", 4, 4)]),
        # seqeval takes the first letter for a position: ORG would be outside, BOOK always begin.
        (["ORG", "ORG", "O", "BOOK", "BOOK", "EVENT"], [("ORG", 0, 1), ("BOOK", 3, 4), ("EVENT", 5, 5)]),
        (["loc-city", "loc-city", "loc-land"], [("loc-city", 0, 1), ("loc-land", 2, 2)]),
        (["size-s", "size-m", "size-l"], [("size-s", 0, 0), ("size-m", 1, 1), ("size-l", 2, 2)]),
        (["NN", "M", "P", "VB-X"], [("NN", 0, 0), ("M", 1, 1), ("P", 2, 2), ("VB-X", 3, 3)]),
        # A type that is a position's letter.
        (["B-S", "I-S", "B-S"], [("S", 0, 1), ("S", 2, 2)]),
        (["S-B", "S-I", "L-B"], [("S", 0, 1), ("L", 2, 2)]),
        (["I-PER", "I-PER", "O", "I-LOC"], [("PER", 0, 1), ("LOC", 3, 3)]),
        (["B-a b|c-d", "I-a b|c-d"], [("a b|c-d", 0, 1)]),
        (["O", "O"], []),
        (["O", "None"], [("None", 1, 1)]),
    ],
)
def test_entities_by_hand(labels, expected):
    assert spans(labels) == expected


@pytest.mark.parametrize(
    "labels, message",
    [
        (["O", "B-PER", "I-PER", "MISC"], "'B-PER', 'I-PER' begin with a position, 'MISC' do not"),
        (["O", "B-PER", "X", "[CLS]"], "'X', '\\[CLS\\]' do not"),
        (["o", "B-PER", "I-PER"], "'o' do not"),
        (["O", "B-PER", "I-"], "'I-' do not"),
        (["O", "B-PER", "E-PER", "L-PER"], "the positions of .* are not those of"),
        (["O", "B-PER", "I-PER", "M-PER"], "the positions of"),
        (["O", "b-per", "i-per"], "'b-per', 'i-per' are in no known form"),
        (["O", "B_PER", "I_PER"], "'B_PER', 'I_PER' are in no known form"),
        (["O", "PER_B", "PER_I", "MISC"], "'PER_B', 'PER_I' are in no known form"),
        (["O", "PER-B", "PER-I", "MISC"], "'PER-B', 'PER-I' are in no known form"),
        (["O", "BPER", "IPER"], "'BPER', 'IPER' are in no known form"),
        (["O", "B", "I"], "'B', 'I' have a position and no type"),
        (["o", "PER", "LOC"], "'o' seems to be the label of the words outside, which is 'O'"),
        (["PER", "Outside"], "'Outside' seems to be"),
        (["0", "PER"], "'0' seems to be"),
        (["B", "M", "E", "S"], "have a position and no type"),
        (["O", *(f"B-{i}" for i in range(9)), "x"], r"'B-5', \.\.\. begin"),
    ],
)
def test_unknown_schemes_are_refused(labels, message):
    with pytest.raises(UnknownSchemeError, match=message):
        WordLabelScheme(labels)


def test_old_bundles_of_unknown_schemes_are_read_label_by_label():
    labels = ["O", "B-PER", "I-PER", "MISC", "MISC", "X-"]
    assert [tuple(span) for span in WordLabelScheme.of_bundle(labels).spans(labels)] == [("PER", 1, 2), ("MISC", 3, 4)]
    assert [*WordLabelScheme.of_bundle(["LABEL_0", "LABEL_1"]).spans(["LABEL_1", OUTSIDE])] == [("LABEL_1", 0, 0)]
