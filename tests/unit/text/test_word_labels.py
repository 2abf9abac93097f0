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
        # Other forms, each with what makes it one.
        (["b-per", "i-per", "O", "b-loc"], [("per", 0, 1), ("loc", 3, 3)]),
        (["b-per", "i-per", "o", "b-loc"], [("per", 0, 1), ("loc", 3, 3)]),
        (["o", "B-PER", "I-PER"], [("PER", 1, 2)]),
        (["o", "PER", "LOC"], [("PER", 1, 1), ("LOC", 2, 2)]),
        (["B_PER", "I_PER", "O"], [("PER", 0, 1)]),
        (["PER.B", "PER.I", "LOC.B"], [("PER", 0, 1), ("LOC", 2, 2)]),
        (["per-b", "per-e", "per-b", "per-e"], [("per", 0, 1), ("per", 2, 3)]),
        (["i-per", "e-per", "e-per"], [("per", 0, 1), ("per", 2, 2)]),
        (["B-T", "M-T", "E-T", "W-T"], [("T", 0, 2), ("T", 3, 3)]),
        # Positions alone are of one type.
        (["O", "B", "I", "B"], [("entity", 1, 2), ("entity", 3, 3)]),
        (["o", "b", "i", "i"], [("entity", 1, 3)]),
        (["B", "E", "S", "B", "M", "E"], [("entity", 0, 1), ("entity", 2, 2), ("entity", 3, 5)]),  # words of Chinese
        (["S", "M", "L", "O"], [("S", 0, 0), ("M", 1, 1), ("L", 2, 2)]),
        # None of them is, although each label could be in it.
        (["b-movie", "e-book", "i-phone"], [("b-movie", 0, 0), ("e-book", 1, 1), ("i-phone", 2, 2)]),
        (["size_s", "size_m", "size_m"], [("size_s", 0, 0), ("size_m", 1, 2)]),
        (["W-2", "W-4"], [("W-2", 0, 0), ("W-4", 1, 1)]),
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
        (["O", "B-PER", "I-"], "'I-' do not"),
        (["O", "B-PER", "E-PER", "L-PER"], "the positions of .* are not those of"),
        (["O", "B-PER", "I-PER", "M-PER"], "the positions of"),
        (["O", "PER_B", "PER_I", "MISC"], "'PER_B', 'PER_I' are in no known form"),
        (["O", "PER-B", "PER-I", "MISC"], "'PER-B', 'PER-I' are in no known form"),
        (["O", "BPER", "IPER"], "'BPER', 'IPER' are in no known form"),
        (["O", "b", "I"], "'I', 'b' have a position and no type"),
        (["O", "B", "I", "PER"], "'B', 'I' have a position and no type"),
        (["PER", "Outside"], "'Outside' seems to be"),
        (["0", "PER"], "'0' seems to be the label of the words outside, which is 'O'"),
        (["O", "b-per", "i-per", "misc"], "'b-per', 'i-per' are in no known form"),
        (["O", "B-per", "i-per"], "'B-per' begin with a position, 'i-per' do not"),
        (["O", "b-per", "I_per"], "'I_per', 'b-per' are in no known form"),
        (["B", "I", "E", "W"], "have a position and no type"),
        (["O", *(f"B-{i}" for i in range(9)), "x"], r"'B-5', \.\.\. begin"),
    ],
)
def test_unknown_schemes_are_refused(labels, message):
    with pytest.raises(UnknownSchemeError, match=message):
        WordLabelScheme(labels)


@pytest.mark.parametrize(
    "name, labels, message",
    [
        ("IOB2", ["O", "B-PER", "E-PER"], "'B-PER', 'E-PER' are not labels of IOB2"),
        ("IOBES", ["PER", "LOC"], "'PER', 'LOC' are not labels of IOBES"),
        ("BILOU", ["O", "B-PER", "I-PER", "E-PER"], "are not labels of BILOU"),
    ],
)
def test_labels_of_another_scheme_than_the_named_one_are_refused(name, labels, message):
    with pytest.raises(UnknownSchemeError, match=message):
        WordLabelScheme(labels, name)


def test_a_named_scheme_reads_labels_that_could_be_types():
    labels = ["b-per", "b-loc", "o"]
    assert [tuple(span) for span in WordLabelScheme(labels).spans(labels)] == [("b-per", 0, 0), ("b-loc", 1, 1)]
    assert [tuple(span) for span in WordLabelScheme(labels, "IOB2").spans(labels)] == [("per", 0, 0), ("loc", 1, 1)]
    labels = ["S-100", "B-52", "B-52"]
    assert [tuple(span) for span in WordLabelScheme(labels, "types").spans(labels)] == [("S-100", 0, 0), ("B-52", 1, 2)]


@pytest.mark.parametrize(
    "labels, names",
    [
        (["O", "B-P", "I-P"], ["IOB2", "IOB1", "IOBES", "BILOU", "BIOS", "BIOE"]),
        (["O", "I-P", "I-Q"], ["IO", "IOB2", "IOB1", "IOE2", "IOE1", "IOBES", "BILOU", "BIOS", "BIOE"]),
        (["O", "I-P", "E-P"], ["IOE2", "IOE1", "IOBES", "BIOE"]),
        (["B-P", "M-P", "E-P", "W-P"], ["BMEWO"]),
        (["O", "B-P", "L-P"], ["BILOU"]),
        (["PER", "LOC"], ["types"]),
        (["O", "o"], ["types"]),
    ],
)
def test_which_schemes_labels_can_be_of(labels, names):
    assert WordLabelScheme(labels).possible_names == names


def test_old_bundles_of_unknown_schemes_are_read_label_by_label():
    """In capitals with a dash, or each by itself, whatever forms later versions know."""
    labels = ["O", "B-PER", "I-PER", "MISC", "MISC", "X-"]
    assert [tuple(span) for span in WordLabelScheme.of_bundle(labels).spans(labels)] == [("PER", 1, 2), ("MISC", 3, 4)]
    assert [*WordLabelScheme.of_bundle(["LABEL_0", "LABEL_1"]).spans(["LABEL_1", OUTSIDE])] == [("LABEL_1", 0, 0)]
    assert [*WordLabelScheme.of_bundle(["o", "B-P", "I-P"]).spans(["B-P", "I-P", "o"])] == [("P", 0, 1), ("o", 2, 2)]
