"""Decoding of words' labels: what schemes allow, and the best path against a search of all sequences."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dynabert_paddle.text.decode import softmax
from dynabert_paddle.text.word_decoding import WordDecoder, allowed_transitions, best_path
from dynabert_paddle.text.word_labels import WordLabelScheme
from dynabert_paddle.text.word_windows import word_windows

ALPHABETS = {
    "IO": "I",
    "IOB1": "BI",
    "IOB2": "BI",
    "IOE1": "IE",
    "IOE2": "IE",
    "IOBES": "BIES",
    "BILOU": "BILU",
    "BMES": "BMES",
    "BMEWO": "BMEW",
    "BIOS": "BIS",
    "BIOE": "BIE",
}


def write(scheme, kind, length, *, after_its_type, before_its_type):
    """The labels of one entity, as the definition of the scheme says."""
    inside = "M" if "M" in ALPHABETS[scheme] else "I"
    end = next((letter for letter in "EL" if letter in ALPHABETS[scheme]), inside)
    single = next((letter for letter in "SUW" if letter in ALPHABETS[scheme]), None)
    letters = {
        "IO": inside * length,
        "IOB1": ("B" if after_its_type else "I") + "I" * (length - 1),
        "IOB2": "B" + "I" * (length - 1),
        "IOE1": "I" * (length - 1) + ("E" if before_its_type else "I"),
        "IOE2": "I" * (length - 1) + "E",
        "BIOS": single if length == 1 else "B" + "I" * (length - 1),
        "BIOE": "B" if length == 1 else "B" + "I" * (length - 2) + "E",
    }.get(scheme, single if length == 1 else "B" + inside * (length - 2) + end)
    return [f"{letter}-{kind}" for letter in letters]


def all_texts(scheme, num_words, kinds="PQ"):
    """The labels of all divisions of a text into entities and words outside."""
    found = set()

    def extend(parts, length):
        if length == num_words:
            labels = []
            for index, (kind, size) in enumerate(parts):
                neighbours = [parts[i][0] if 0 <= i < len(parts) else None for i in (index - 1, index + 1)]
                if kind is None:
                    labels += ["O"] * size
                    continue
                after, before = (neighbour == kind for neighbour in neighbours)
                labels += write(scheme, kind, size, after_its_type=after, before_its_type=before)
            found.add(tuple(labels))
            return
        for kind, size in itertools.product([None, *kinds], range(1, num_words - length + 1)):
            extend([*parts, (kind, size)], length + size)

    extend([], 0)
    return found


def labels_of(scheme, kinds="PQ"):
    return ["O", *(f"{letter}-{kind}" for letter in ALPHABETS[scheme] for kind in kinds)]


def is_allowed(sequence, allowed):
    return all(allowed[before, after] for before, after in itertools.pairwise([-1, *sequence, -1]))


@pytest.mark.parametrize("scheme", ALPHABETS)
def test_the_allowed_sequences_are_those_that_entities_can_be_written_as(scheme):
    labels = labels_of(scheme)
    allowed = allowed_transitions(WordLabelScheme(labels, scheme), labels)
    for num_words in range(1, 4):
        found = {
            tuple(labels[index] for index in sequence)
            for sequence in itertools.product(range(len(labels)), repeat=num_words)
            if is_allowed(sequence, allowed)
        }
        assert found == all_texts(scheme, num_words)


@settings(deadline=None, max_examples=15)
@given(data=st.data(), num_words=st.integers(1, 4), ties=st.booleans(), with_outside=st.booleans())
@pytest.mark.parametrize("scheme", ALPHABETS)
def test_the_best_path_is_the_best_of_all_sequences(scheme, data, num_words, ties, with_outside):
    labels = labels_of(scheme, kinds="PQ" if len(ALPHABETS[scheme]) < 4 else "P")[0 if with_outside else 1 :]
    kept = data.draw(st.lists(st.sampled_from(labels), min_size=1, unique=True))
    labels = [label for label in labels if label in kept]  # a file can lack some of a scheme's labels
    allowed = allowed_transitions(WordLabelScheme(labels_of(scheme), scheme), labels)
    values = st.integers(-2, 0) if ties else st.floats(-9, 0)
    scores = np.array(data.draw(st.lists(values, min_size=num_words * len(labels), max_size=num_words * len(labels))))
    scores = scores.reshape(num_words, len(labels)).astype(np.float64)
    totals = {
        sequence: sum(scores[word, label] for word, label in enumerate(sequence))
        for sequence in itertools.product(range(len(labels)), repeat=num_words)
        if is_allowed(sequence, allowed)
    }
    path = tuple(best_path(scores, allowed).tolist())
    if not totals:
        assert path == tuple(scores.argmax(axis=1))
        return
    assert totals[path] == pytest.approx(max(totals.values()))
    if scheme == "IO":
        assert path == tuple(scores.argmax(axis=1))


def test_no_words_have_no_labels():
    scheme = WordLabelScheme(["O", "B-P", "I-P"], "IOB2")
    assert best_path(np.zeros((0, 3)), allowed_transitions(scheme, ["O", "B-P", "I-P"])).shape == (0,)
    decoder = WordDecoder(["O", "B-P", "I-P"], scheme, decode="constrained")
    found, _ = word_windows([], 0, max_tokens=4, stride=2)
    assert decoder(0, found, [np.zeros((2, 3))], before=1) == ([], [])
    found, _ = word_windows([-1, -1], 0, max_tokens=4, stride=2)
    assert decoder(2, found, [np.zeros((2, 3))], before=1) == (["O", "O"], [1.0, 1.0])


def decode(labels, scheme, decode, first, logits):
    """Decode one text whose only window has one special token before it."""
    found, _ = word_windows(first, len(logits), max_tokens=len(logits), stride=None)
    decoder = WordDecoder(labels, WordLabelScheme(labels, scheme), decode=decode)
    return decoder(len(first), found, [np.concatenate([np.zeros((1, len(labels))), logits])], before=1)


IOB2 = ["O", "B-P", "I-P"]


def test_words_get_the_best_labels_of_their_tokens_or_those_of_the_best_path():
    logits = np.array([[0, 2, 3.0], [9, 0, 0], [0, 1, 5]])
    labels, scores = decode(IOB2, "IOB2", "free", [0, 2], logits)
    assert labels == ["I-P", "I-P"]
    np.testing.assert_allclose(scores, [softmax(logits)[0, 2], softmax(logits)[2, 2]])
    labels, scores = decode(IOB2, "IOB2", "constrained", [0, 2], logits)
    assert labels == ["B-P", "I-P"]
    np.testing.assert_allclose(scores, [softmax(logits)[0, 1], softmax(logits)[2, 2]])
    assert decode(IOB2, None, "constrained", [0, 2], logits)[0] == ["I-P", "I-P"]  # of no scheme all is allowed


@pytest.mark.parametrize(
    "logits, expected",
    [
        ([[0, 9, 0], [0, 0, 9]], ["B-P", "I-P", "I-P"]),  # an entity goes on over a word that the tokenizer drops
        ([[0, 9, 0], [9, 0, 0]], ["B-P", "O", "O"]),
        ([[9, 0, 0], [0, 9, 0]], ["O", "O", "B-P"]),
    ],
)
def test_a_word_without_a_token_is_outside_unless_an_entity_goes_on_around_it(logits, expected):
    logits = np.array(logits, dtype=np.float64)
    labels, scores = decode(IOB2, "IOB2", "constrained", [0, -1, 1], logits)
    assert labels == expected
    assert scores[1] == 1.0
    assert decode(IOB2, "IOB2", "free", [0, -1, 1], logits)[0][1] == "O"
    labels, _ = decode(IOB2, "IOB2", "constrained", [-1, 0, -1, 1, -1], logits)
    assert labels == ["O", *expected, "O"]


def test_the_label_of_words_outside_can_be_small():
    labels = ["o", "b-p", "i-p"]
    assert decode(labels, "IOB2", "constrained", [-1, 0], np.array([[0, 1, 2.0]])) == (
        ["o", "b-p"],
        [1.0, pytest.approx(softmax(np.array([0, 1, 2.0]))[1])],
    )


@example(scale=800.0)
@given(scale=st.floats(0, 2000))
def test_improbable_labels_are_told_apart(scale):
    """Their probabilities are 0 in floating point, their logits differ."""
    assert decode(IOB2, "IOB2", "constrained", [0], np.array([[-scale - 1, -scale, 0]]))[0] == ["B-P"]
