"""What a user should know about tokenized rows: what is cut, unknown, or taken for a special token."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data import stored_texts
from dynabert_paddle.data.question_answering import read_questions
from dynabert_paddle.data.readers import Columns, Examples, read_examples
from dynabert_paddle.data.token_checks import MAX_UNKNOWN, count_tokens, describe_tokens
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.data.word_settings import WordSettings
from dynabert_paddle.text.tokenizer import Tokenizer

TEXTS = ["play some jazz", "play some jazz " * 4, "play [SEP] jazz", "天气预报 是 什么", "[sep] [UNK] a"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_pretrained(find_backbone("minilm-l6"))


def make_examples(texts, pairs=None):
    return Examples(texts, pairs, np.arange(len(texts)), Path("memory.tsv"))


def count(examples, tokenizer, *, max_seq_length=8, takes_pairs=False):
    features = examples.tokenize(tokenizer, max_seq_length=max_seq_length)
    return count_tokens(features, tokenizer, takes_pairs=takes_pairs)


def describe(*counts, tokenizer, max_seq_length=8, is_fixed=False):
    return list(describe_tokens(counts, tokenizer, "train.tsv", max_seq_length=max_seq_length, is_fixed=is_fixed))


def test_counts_are_those_of_the_tokenizers_ids(tokenizer):
    counts = count(make_examples(TEXTS), tokenizer)
    ids, _ = tokenizer.encode(TEXTS, max_seq_length=8)
    whole, _ = tokenizer.encode(TEXTS, max_seq_length=100)
    unknown = tokenizer.unk_token_id
    assert (counts.rows, counts.unread, counts.words) == (5, 0, 0)
    assert counts.cut == sum(short != long for short, long in zip(ids, whole, strict=True)) >= 1
    assert counts.tokens == sum(map(len, ids)) - 2 * len(ids)
    assert counts.unknown == sum(row.count(unknown) for row in ids) > 1
    assert counts.with_special == 1  # [sep] is a text; [UNK] counts as unknown


@pytest.mark.parametrize("texts", [("a [CLS]", "b"), ("a", "b [MASK] c"), ("[PAD]", "[SEP] [SEP]")])
def test_special_tokens_in_either_text_of_a_pair(tokenizer, texts):
    pairs = make_examples(["a", texts[0]], ["b", texts[1]])
    assert count(pairs, tokenizer, max_seq_length=16, takes_pairs=True).with_special == 1


def test_a_row_that_fits_exactly_is_not_cut(tokenizer):
    whole, _ = tokenizer.encode([TEXTS[0]], max_seq_length=100)
    for length, cut in ((len(whole[0]), 0), (len(whole[0]) - 1, 1)):
        assert count(make_examples(TEXTS[:1]), tokenizer, max_seq_length=length).cut == cut
        pair = make_examples(["play some"], ["jazz"])  # a special token more
        assert count(pair, tokenizer, max_seq_length=length + 1, takes_pairs=True).cut == cut


def test_the_cache_keeps_the_counts_of_truncated_rows(tokenizer):
    first, second = (count(make_examples(TEXTS), tokenizer) for _ in range(2))
    assert first == second
    assert first.cut


def test_messages(tokenizer):
    plain = count(make_examples(TEXTS[:1]), tokenizer)
    assert describe(plain, tokenizer=tokenizer) == []
    cut, special = (count(make_examples([text]), tokenizer) for text in TEXTS[1:3])
    (message,) = describe(plain, cut, tokenizer=tokenizer)
    assert message.startswith("train.tsv: 1 of 2 rows (50.0%) are longer than max_seq_length 8, and")
    (message,) = describe(cut, cut, tokenizer=tokenizer)
    assert message.startswith("train.tsv: all 2 rows are longer than max_seq_length 8")
    (message,) = describe(*[plain] * 3, special, tokenizer=tokenizer)
    assert message.startswith(
        "train.tsv: 1 of 4 rows (25.0%) contain the text of a special token ([CLS], [MASK], [PAD], [SEP])"
    )


def test_the_advice_names_only_settings_that_the_caller_takes(tokenizer):
    """`compress` and `search` read texts as the model was trained to."""
    cut, special, unknown = (count(make_examples([text]), tokenizer) for text in TEXTS[1:4])
    for counts, free, fixed in (
        (cut, "or choose a larger max_seq_length", "or fine-tune a model with a larger max_seq_length"),
        (special, "; with special_tokens_in_text off", "; a model that is fine-tuned with special_tokens_in_text off"),
        (unknown, "; fine-tune a backbone (model_name_or_path) whose vocabulary", "; fine-tune a backbone (model_name"),
    ):
        for is_fixed, advice in ((False, free), (True, fixed)):
            messages = describe(counts, tokenizer=tokenizer, is_fixed=is_fixed)
            assert any(advice in message for message in messages), messages


@pytest.mark.parametrize("is_more", [False, True])
def test_unknown_tokens_count_from_a_share_on(tokenizer, is_more):
    num = round(1 / MAX_UNKNOWN) * 3
    text = " ".join(["什"] * (3 + is_more) + ["play"] * (num - 3 - is_more))
    messages = describe(count(make_examples([text]), tokenizer, max_seq_length=100), tokenizer=tokenizer)
    assert [message.partition(" are not in")[0] for message in messages] == ["train.tsv: 7% of the tokens"] * is_more


def test_words_that_are_cut(tokenizer):
    words = [["play", "some", "jazz"], ["play"] * 9]
    sentences = Sentences(words, [["O"] * len(row) for row in words], ("O", "B-X"), Path("train.conll"))
    counts = count(sentences, tokenizer)
    assert (counts.rows, counts.words, counts.cut_words, counts.cut) == (2, 12, 0, 0)  # one is in windows
    counts = count(replace(sentences, settings=WordSettings(long_text="truncate")), tokenizer)
    assert (counts.words, counts.cut_words, counts.cut) == (12, 3, 1)
    (message,) = describe(counts, tokenizer=tokenizer)
    assert message.startswith("train.tsv: 3 of 12 words, in 1 of 2 rows, are past max_seq_length 8")


def test_a_question_with_several_windows_is_counted_once(tokenizer, tmp_path):
    answers = [{"text": "Ada", "answer_start": 0}]
    rows = [
        {"question": "who [SEP] was it that met him", "context": "Ada met Bob and " * 9, "answers": answers},
        {"question": "who", "context": "Ada met Bob and " * 9, "answers": answers},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    counts = count(read_questions(path), tokenizer, max_seq_length=13, takes_pairs=True)
    assert (counts.rows, counts.cut, counts.with_special) == (2, 1, 1)


def test_of_a_file_on_disk_some_rows_are_counted(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_texts, "_LARGE_FILE", 5000)
    monkeypatch.setattr("dynabert_paddle.data.token_checks._SAMPLE", 50)
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\n" + "play some jazz and some more of it\ta\nplay\tb\n" * 200)
    examples = read_examples(path, Columns("sentence", None, "label"), labels=("a", "b"))
    counts = count(examples, tokenizer)
    assert (counts.rows, counts.unread) == (50, 350)
    assert 10 < counts.cut < 40  # the expected 25 by more than four standard deviations
    (message,) = describe(counts, tokenizer=tokenizer)
    assert f"{counts.cut} of 50 rows that were looked at ({counts.cut / 50:.1%})" in message
    monkeypatch.setattr("dynabert_paddle.data.token_checks._SAMPLE_BYTES", 100)
    assert 1 < count(examples, tokenizer).rows < 25


def test_a_file_with_rows_too_long_to_check_causes_no_warning(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_texts, "_LARGE_FILE", 10)
    monkeypatch.setattr("dynabert_paddle.data.token_checks._SAMPLE_BYTES", 10)
    path = tmp_path / "train.tsv"
    path.write_text("sentence\tlabel\nplay some jazz\ta\nplay some music\tb\n")
    counts = count(read_examples(path, Columns("sentence", None, "label"), labels=("a", "b")), tokenizer)
    assert counts == (0, 0, 0, 0, 0, 0, 0, 2)
    assert describe(counts, tokenizer=tokenizer) == []
