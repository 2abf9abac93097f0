"""A bundle counts the texts that it cut, tokens that it does not know, and special tokens in texts."""

import pytest

from dynabert_paddle.bundle.input_counts import InputCounts
from dynabert_paddle.bundle.rows import RowEncoder
from dynabert_paddle.text.encode import Template
from dynabert_paddle.text.leading import Tokens

DESCRIPTION = {"max_seq_length": 6, "unk_token_id": 1, "special_token_ids": [0, 2, 3]}


def messages(*rows, description=DESCRIPTION, **given):
    counts = InputCounts(description)
    for row in rows:
        counts.add(row, **{"is_cut": False, **given})
    return counts.messages()


def test_usual_texts_cause_no_warning():
    assert messages() == []
    assert messages([[5, 6, 7]], [[], [8]], [[*[9] * 19, 1]]) == []


def test_texts_and_words_that_are_cut():
    assert messages([[5]], [[6]], is_cut=True) == [
        "2 texts are longer than 6 tokens: what is beyond was not read: split the texts"
    ]
    assert messages([[5]], is_cut=True, num_cut_words=1) == [
        "1 text is longer than 6 tokens: 1 word at the end were not read and are labelled O: split the texts"
    ]


def test_unknown_and_special_tokens():
    (message,) = messages([[5, 1, 1], [6]], [[7] * 4])
    assert message.startswith("25% of the tokens are not in the model's vocabulary")
    assert messages([[5], [6, 2]], [[3, 3]], [[7]]) == [
        "2 texts contain the text of a special token, such as [SEP], which was read as that token"
    ]


def test_older_bundles_have_no_counts_of_tokens():
    assert messages([[0, 1, 2, 3]], description={"max_seq_length": 6}) == []


@pytest.mark.parametrize("pair", [False, True])
def test_a_row_that_fits_exactly_is_not_cut(pair):
    description = {**DESCRIPTION, "task": {}, "labels": ["a", "b"], "pair": pair}
    template = Template(([2], [3], [3])[: 2 + pair], ([0], [0], [1])[: 2 + pair], (0, 1)[: 1 + pair])
    encoder = RowEncoder(description, template)

    def read(*lengths):
        rows = [encoder.read(["x" * length for length in lengths], 1)]
        encoder.encode_all(rows, lambda texts: [Tokens([9] * len(text), []) for text in texts], None)
        return bool(encoder.counts.messages())

    assert not read(*((2, 1) if pair else (4,)))
    assert read(*((2, 2) if pair else (5,)))
