"""Words, windows, entities and answers, compared with brute force and with examples by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_paddle.text import encode
from dynabert_paddle.text.decode import best_answer, cut_padding, find_entities
from dynabert_paddle.text.encode import first_tokens, split_words, write_words
from dynabert_paddle.text.word_labels import WordLabelScheme


@pytest.mark.parametrize(
    "text, words",
    [
        ("Angela Merkel, in Paris.", ["Angela", "Merkel", ",", "in", "Paris", "."]),
        ("他住在北京2024年", ["他", "住", "在", "北", "京", "2024", "年"]),
        ("it's 5€ x_1", ["it's", "5", "€", "x_1"]),
        (
            "U.S. beat Al-Ain 2-1 (a@b.de), 1,233 at 12:30",
            ["U.S", ".", "beat", "Al-Ain", "2-1", "(", "a@b.de", ")", ",", "1,233", "at", "12:30"],
        ),
        ("Merkel,in:Paris", ["Merkel", ",", "in", ":", "Paris"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("cafe\u0301 noir", ["cafe\u0301", "noir"]),
        ("cafe\u0301, noir!", ["cafe\u0301", ",", "noir", "!"]),
        ("re\u0301-e\u0301lu (e\u0301)", ["re\u0301-e\u0301lu", "(", "e\u0301", ")"]),
        ("यह भाषा है।", ["यह", "भाषा", "है", "।"]),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\u060c \u0628\u0644\u0647",
            ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u060c", "\u0628\u0644\u0647"],
        ),
        ("co\u00adop New\u200bYork\u200e, \ufeffa", ["co\u00adop", "New\u200bYork\u200e", ",", "\ufeff", "a"]),
        (
            "👍🏽👨\u200d👩\u200d👧 ❤\ufe0flove 1\ufe0f\u20e3",
            ["👍🏽", "👨\u200d👩\u200d👧", "❤\ufe0f", "love", "1\ufe0f\u20e3"],
        ),
        (
            "\uff21\uff22\uff23\uff11\uff12\uff13\uff0c你好\uff01\uff12\uff10\uff11\uff10年",
            ["\uff21\uff22\uff23\uff11\uff12\uff13", "\uff0c", "你", "好", "\uff01", "\uff12\uff10\uff11\uff10", "年"],
        ),
        ("我爱New\tYork的iPhone15手机\u3000ok", ["我", "爱", "New", "York", "的", "iPhone15", "手", "机", "ok"]),
        ("二\u3007一\u3007年\uff0c北\u0301京", ["二", "\u3007", "一", "\u3007", "年", "\uff0c", "北\u0301", "京"]),
        ("a\x00b\x7f.", ["a\x00b\x7f", "."]),
        ("naïve שלום 😀", ["naïve", "שלום", "😀"]),
        (" \t\n", []),
        ("", []),
    ],
)
def test_words(text, words):
    assert [text[start:end] for start, end in split_words(text)] == words


@pytest.mark.parametrize(
    "text, words",
    [
        ("北京2010年", ["北", "京", "2", "0", "1", "0", "年"]),
        ("cafe\u0301 a", ["c", "a", "f", "e\u0301", "a"]),
        ("e\u0301t", ["e\u0301", "t"]),
        ("👨\u200d👩 U.", ["👨\u200d👩", "U", "."]),
        ("👍🏽我\u200b爱 \uff11\uff12\tA", ["👍🏽", "我\u200b", "爱", "\uff11", "\uff12", "A"]),
        ("", []),
    ],
)
def test_characters(text, words):
    assert [text[start:end] for start, end in split_words(text, "characters")] == words


@pytest.mark.parametrize(
    "words, word_split, text",
    [
        (["Angela", "Merkel", "."], "words", "Angela Merkel ."),
        (["在", "北", "京", "2010", "年", "Python", "3"], "words", "在北京2010年Python 3"),
        (["北京", "。", "東京", "カ", "「", "x"], "words", "北京。東京カ「x"),
        (["서울", "시"], "words", "서울 시"),
        (["2", "0", "年"], "characters", "20年"),
        (["", "a", ""], "words", " a "),
        ([], "words", ""),
    ],
)
def test_written_words(words, word_split, text):
    written, spans = write_words(words, word_split)
    assert written == text
    assert [written[start:end] for start, end in spans] == words


@given(st.text(max_size=60), st.sampled_from(encode.WORD_SPLITS))
def test_words_cover_all_of_a_text_but_whitespace(text, word_split):
    spans = split_words(text, word_split)
    assert "".join(text[start:end] for start, end in spans) == "".join(c for c in text if not c.isspace())
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_a_word_is_found_by_its_first_token():
    # "un##believ##ably quiet" and a dropped word; then with a byte-level tokenizer's leading spaces.
    words = [(0, 12), (13, 14), (15, 20)]
    assert first_tokens([(0, 2), (2, 8), (8, 12), (15, 20)], words) == [0, -1, 3]
    assert first_tokens([(0, 2), (2, 12), (12, 14), (14, 20)], words) == [0, 2, 3]
    assert first_tokens([], words) == [-1, -1, -1]
    assert first_tokens([(3, 3)], words) == [-1, -1, -1]


@given(st.integers(0, 200), st.integers(1, 50), st.integers(1, 60))
def test_windows_cover_all_tokens_without_a_redundant_window(num_tokens, max_tokens, stride):
    found = list(encode.windows(num_tokens, max_tokens, stride))
    assert found[-1][1] == num_tokens
    assert all(0 <= start <= end <= start + max_tokens for start, end in found)
    assert set().union(*(range(start, end) for start, end in found)) == set(range(num_tokens))
    # No window is redundant: each has a different end.
    assert len({end for _, end in found}) == len(found)


def test_an_entity_has_the_lowest_score_of_its_words():
    scheme = WordLabelScheme(["B-PER", "I-PER"])
    (entity,) = find_entities("Angela Merkel", [(0, 6), (7, 13)], ["B-PER", "I-PER"], [0.9, 0.7], scheme)
    assert (entity.text, entity.start, entity.end, entity.score) == ("Angela Merkel", 0, 13, 0.7)


def test_padding_is_cut():
    assert cut_padding(np.zeros(3), 2, "classification").shape == (3,)
    assert cut_padding(np.zeros((9, 5)), 7, "token_classification").shape == (7, 5)
    assert cut_padding(np.zeros((2, 9)), 7, "question_answering").shape == (2, 7)


CONTEXT = "abcdefghijkl"


def make_windows(rng, counts):
    """Windows of a context of one-letter tokens, with a stride of two tokens."""
    return [
        (rng.normal(size=(2, 3 + count + 1)) * 3, 3, [(2 * k + i, 2 * k + i + 1) for i in range(count)])
        for k, count in enumerate(counts)
    ]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("may_be_empty", [True, False])
@pytest.mark.parametrize("longest", [1, 3, 100])
def test_the_answer_is_the_best_of_all_spans(seed, may_be_empty, longest):
    windows = make_windows(np.random.default_rng(seed), (6, 5, 1))
    sums = {}
    for k, (logits, first, spans) in enumerate(windows):
        for i, j in itertools.combinations_with_replacement(range(len(spans)), 2):
            if j - i < longest:
                sums[k, spans[i][0], spans[j][1]] = logits[0, first + i] + logits[1, first + j]
    if may_be_empty:
        sums[None, 0, 0] = min(logits[0, 0] + logits[1, 0] for logits, _, _ in windows)
    (_, start, end), best = max(sums.items(), key=lambda item: item[1])
    answer = best_answer(CONTEXT, windows, max_answer_length=longest, may_be_empty=may_be_empty)
    assert (answer.start, answer.end, answer.answer) == (start, end, CONTEXT[start:end])
    assert answer.score == pytest.approx(np.exp(best) / np.exp(list(sums.values())).sum())


@pytest.mark.parametrize("may_be_empty, score", [(True, 1.0), (False, 0.0)])
def test_an_empty_context_has_an_empty_answer(may_be_empty, score):
    answer = best_answer("", [(np.ones((2, 4)), 3, [])], max_answer_length=9, may_be_empty=may_be_empty)
    assert (answer.answer, answer.score) == ("", score)
