"""Windows of texts whose words are labelled, against a search by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.text.encode import windows
from dynabert_paddle.text.word_windows import word_windows


@st.composite
def texts(draw):
    """The first token of each word, -1 for some words, and the number of tokens."""
    first, num_tokens = [], draw(st.integers(0, 2))
    for length in draw(st.lists(st.sampled_from([0, 1, 1, 1, 2, 5, 30]), max_size=60)):
        first.append(num_tokens if length else -1)
        num_tokens += length
    return first, num_tokens


@given(texts(), st.integers(1, 20), st.integers(1, 25))
def test_each_word_is_labelled_once_where_it_is_most_central(text, max_tokens, stride):
    first, num_tokens = text
    found, num_cut = word_windows(first, num_tokens, max_tokens=max_tokens, stride=stride)
    places = {}
    for window in found:
        assert window.end - window.start <= max_tokens
        for word, token in zip(window.words.tolist(), window.tokens.tolist(), strict=True):
            assert word not in places
            places[word] = (window.start, window.start + token)
    bounds = list(windows(num_tokens, max_tokens, stride))
    with_token = [word for word, token in enumerate(first) if token >= 0]
    for word in with_token:
        begin = first[word]
        end = min([first[other] for other in with_token if other > word], default=num_tokens)
        # max returns the first of equals
        start, _ = max(
            (bound for bound in bounds if bound[0] <= begin < bound[1]),
            key=lambda bound: min(begin - bound[0], bound[1] - end),
        )
        assert places[word] == (start, begin)
    assert sorted(places) == with_token
    assert num_cut == 0
    assert found
    assert all(len(window.words) for window in found) or not with_token


@given(texts(), st.integers(1, 20))
def test_without_a_stride_words_beyond_the_first_window_are_cut(text, max_tokens):
    first, num_tokens = text
    (window,), num_cut = word_windows(first, num_tokens, max_tokens=max_tokens, stride=None)
    assert (window.start, window.end) == (0, min(max_tokens, num_tokens))
    assert window.tokens.tolist() == [token for token in first if 0 <= token < max_tokens]
    assert [first[word] for word in window.words] == window.tokens.tolist()
    assert num_cut == sum(token >= max_tokens for token in first)


def test_a_word_of_many_tokens_needs_one_window():
    found, _ = word_windows([0, 1, 10_001], 10_002, max_tokens=16, stride=8)
    assert [window.words.tolist() for window in found] == [[0, 1], [2]]


@pytest.mark.parametrize("num_words", [40_000])
def test_long_texts_take_time_in_proportion(num_words):
    found, _ = word_windows(range(num_words), num_words, max_tokens=126, stride=63)
    assert np.array_equal(np.concatenate([window.words for window in found]), np.arange(num_words))
