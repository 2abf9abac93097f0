"""How a bundle splits texts into words, and what its entities refer to."""

import numpy as np
import pytest

from dynabert_paddle.bundle.manifest import BundleError
from dynabert_paddle.bundle.rows import RowEncoder
from dynabert_paddle.text.encode import Template
from dynabert_paddle.text.leading import Tokens

LABELS = ["O", "B-LOC", "I-LOC"]
FULL = "w1.00d1.00"
TEMPLATE = Template(([101], [102]), ([0], [0]), (0,))
WORDS = ["在", "北", "京", "2", "0", "1", "0"]
PLACE = ["O", "B-LOC", "I-LOC", "O", "O", "O", "O"]


def make_encoder(word_split=None, *, max_seq_length=32, labels=LABELS, decode=None, task=()):
    task = {"kind": "token_classification", **({"word_split": word_split} if word_split else {}), **dict(task)}
    description = {"task": task, "labels": labels, "pair": False, "max_seq_length": max_seq_length}
    return RowEncoder(description, TEMPLATE, decode=decode)


def blank_tokens(text):
    """One token for each part between blanks, as WordPiece has one for a number."""
    spans, start = [], 0
    for part in text.split(" "):
        if part:
            spans.append((start, start + len(part)))
        start += len(part) + 1
    return Tokens(list(range(1, len(spans) + 1)), spans)


def predict(encoder, text, labels):
    """Encode a text, and decode logits that say one label a token, in their order."""
    row = encoder.read([text], 1)
    encoded = encoder.encode(row, [blank_tokens(text) for text in row.texts])
    ((ids, _),) = encoded.windows
    logits = np.zeros((len(ids), len(encoder.labels)))
    for token, label in enumerate(labels[: len(ids) - 2], start=1):
        logits[token, encoder.labels.index(label)] = 9
    return encoded.decode([logits], FULL)


def test_characters_are_words_where_they_are_in_training():
    found = predict(make_encoder("characters"), "在北京 2010", PLACE)
    assert (found.words, found.labels) == (WORDS, PLACE)
    assert [(entity.text, entity.start, entity.end) for entity in found.entities] == [("北京", 1, 3)]


def test_characters_are_tokenized_as_in_training():
    encoder = make_encoder("characters")
    assert encoder.read(["在北京2010"], 1).texts == encoder.read([WORDS], 1).texts == [" ".join(WORDS)]


@pytest.mark.parametrize("word_split", ["words", None])
def test_numbers_are_words_otherwise(word_split):
    row = make_encoder(word_split).read(["在北京 2010"], 1)
    assert [row.shown[start:end] for start, end in row.shown_words] == ["在", "北", "京", "2010"]
    assert row.texts == (["在 北 京 2010"] if word_split else ["在北京 2010"])  # an old bundle: as before


@pytest.mark.parametrize("word_split", ["characters", "words", None])
def test_entities_of_given_characters_have_no_blanks(word_split):
    found = predict(make_encoder(word_split), WORDS, PLACE)
    (entity,) = found.entities
    assert (entity.text, entity.start, entity.end) == ("北京", 1, 3)
    assert found.words == WORDS


@pytest.mark.parametrize(
    "text, expected",
    [
        ("in  New \t York,", "New \t York"),
        ("in New\u3000York", "New\u3000York"),
        (["in", "New", "York"], "New York"),
    ],
)
def test_an_entity_is_a_slice_of_the_text(text, expected):
    found = predict(make_encoder("words"), text, ["O", "B-LOC", "I-LOC", "O"])
    (entity,) = found.entities
    assert entity.text == expected
    if isinstance(text, str):
        assert text[entity.start : entity.end] == expected


def test_words_of_a_wrong_shape_stay_words():
    assert predict(make_encoder("words"), ["", "a b"], ["O", "B-LOC"]).words == ["", "a b"]
    assert predict(make_encoder("characters"), [], []).words == []
    assert predict(make_encoder("characters"), " \n", []).words == []


def test_words_that_are_cut_are_counted():
    encoder = make_encoder("words", max_seq_length=5)
    long, short = (predict(encoder, text, ["B-LOC"] * 9) for text in ("a b c d e", "a b c"))
    assert (long.num_cut, long.labels) == (2, ["B-LOC"] * 3 + ["O"] * 2)
    assert (short.num_cut, short.labels) == (0, ["B-LOC"] * 3)
    (message,) = encoder.counts.messages()
    assert message.startswith("1 text is longer than 5 tokens: 2 words at the end were not read")


def test_no_word_of_a_long_text_is_cut():
    encoder = make_encoder("words", max_seq_length=6, task={"doc_stride": 2})
    row = encoder.read(["a b c d e f g"], 1)
    encoded = encoder.encode(row, [blank_tokens(text) for text in row.texts])
    assert [ids for ids, _ in encoded.windows] == [[101, 1, 2, 3, 4, 102], [101, 3, 4, 5, 6, 102], [101, 5, 6, 7, 102]]
    logits = np.random.default_rng(0).normal(size=(3, 6, 3))
    found = encoded.decode([logits[0], logits[1], logits[2, :5]], FULL)
    # By the window and the token in it whose distance to the window's ends is largest.
    places = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 2), (2, 3)]
    assert found.labels == [LABELS[logits[place].argmax()] for place in places]
    assert (found.num_cut, encoder.counts.messages()) == (0, [])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"decode": "greedy"}, "decode is 'greedy'; it must be one of constrained, free"),
        ({"decode": "constrained"}, "needs the scheme of the labels, and the bundle does not name it: export"),
        ({"task": {"label_scheme": "IOBES"}, "labels": ["A", "C"]}, "'A', 'C' are not labels of IOBES: export"),
        ({"task": {"doc_stride": 1}, "max_seq_length": 2}, "max_seq_length is 2, but a row needs at least 3 tokens"),
    ],
)
def test_what_a_bundle_cannot_decode_is_refused(arguments, message):
    with pytest.raises(BundleError, match=message):
        make_encoder("words", **arguments)


def test_decode_is_for_labels_of_words():
    description = {"task": {"kind": "classification"}, "labels": ["a", "b"], "pair": False, "max_seq_length": 8}
    with pytest.raises(BundleError, match="decode 'free' is for labels of words, and the bundle's task is class"):
        RowEncoder(description, TEMPLATE, decode="free")


def test_a_text_is_given_back_with_its_marks():
    labels = ["O", "COMMA", "PERIOD"]
    encoder = make_encoder("words", labels=labels, task={"label_scheme": "marks", "decode": "constrained"})
    found = predict(encoder, "yes no  i am", ["COMMA", "COMMA", "O", "PERIOD"])
    assert (found.text, found.cells) == ("yes, no,  i am.", ["yes, no,  i am."])
    assert encoder.column_names == ["text"]
    assert [(entity.label, entity.text) for entity in found.entities] == [
        ("COMMA", "yes"),
        ("COMMA", "no"),
        ("PERIOD", "am"),
    ]
    # Labels that name no marks: each word stands for itself, and there is no text to write.
    encoder = make_encoder("words", labels=["N", "V"], task={"label_scheme": "marks"})
    found = predict(encoder, "cats dogs run", ["N", "N", "V"])
    assert found.cells == ["N: cats; N: dogs; V: run"]
    assert encoder.column_names == ["entities"]


def test_entities_of_other_schemes():
    found = predict(make_encoder("words", labels=["O", "P-B", "P-I"]), "in New York", ["O", "P-B", "P-I"])
    assert [(entity.label, entity.text) for entity in found.entities] == [("P", "New York")]


def scores_of(rows, encoder):
    """Logits of a row with these values for the words' labels, in the order of the tokens."""
    logits = np.zeros((len(rows) + 2, len(encoder.labels)))
    logits[1:-1] = rows
    return logits


@pytest.mark.parametrize(
    "decode, recorded, expected",
    [
        ("constrained", {}, ["O", "B-LOC", "I-LOC"]),
        (None, {"decode": "constrained"}, ["O", "B-LOC", "I-LOC"]),
        (None, {"decode": "free"}, ["O", "I-LOC", "I-LOC"]),
        ("free", {"decode": "constrained"}, ["O", "I-LOC", "I-LOC"]),
        (None, {}, ["O", "I-LOC", "I-LOC"]),
    ],
)
def test_labels_are_those_that_the_scheme_allows(decode, recorded, expected):
    encoder = make_encoder("words", decode=decode, task={"label_scheme": "IOB2", **recorded})
    row = encoder.read(["in New York"], 1)
    encoded = encoder.encode(row, [blank_tokens(text) for text in row.texts])
    found = encoded.decode([scores_of([[5, 0, 0], [0, 2, 3], [0, 0, 5]], encoder)], FULL)
    assert found.labels == expected
    assert [entity.text for entity in found.entities] == ["New York"]


@pytest.mark.parametrize(("max_seq_length", "is_enough"), [(3, False), (6, False), (7, True)])
def test_a_question_needs_room_for_its_context(max_seq_length, is_enough):
    """Else its windows would not come forward, for ever."""
    template = Template(([101], [102], [102]), ([0], [0], [1]), (0, 1))
    answers = {"doc_stride": 1, "max_answer_length": 1, "may_be_empty": False}
    description = {"task": {"kind": "question_answering"}, "labels": [], "pair": True, "answers": answers}
    description["max_seq_length"] = max_seq_length
    if not is_enough:
        with pytest.raises(BundleError, match=f"max_seq_length is {max_seq_length}, but a row needs at least 7 tokens"):
            RowEncoder(description, template)
        return
    encoder = RowEncoder(description, template)
    row = encoder.read(["a b c", "d e f"], 1)
    encoded = encoder.encode(row, [blank_tokens(text) for text in row.texts])
    assert [ids for ids, _ in encoded.windows] == [[101, 1, 2, 102, 1, 2, 102], [101, 1, 2, 102, 2, 3, 102]]
