"""A smaller vocabulary reads every text that the full one reads, and cuts what it has pieces for as before."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.errors import ModelError
from dynabert_paddle.text.coverage import Characters, bpe_rules, wordpiece_rules
from dynabert_paddle.text.renumbering import find_characters, piece_rules

LETTERS = Characters(frozenset("abcd"), frozenset("abcd"))
# Letters, and what is known of the characters of words: nothing, if they can be those of the mark `##`.
ALPHABETS = st.sampled_from([("abcd", LETTERS), ("ab#", None)])


def wordpiece(pieces):
    vocab = {piece: index for index, piece in enumerate(["[UNK]", *sorted(set(pieces) - {"[UNK]"})])}
    return models.WordPiece(vocab, unk_token="[UNK]"), vocab


def cut(model, word):
    return [token.value for token in model.tokenize(word)]


@settings(max_examples=1000, deadline=None)
@given(alphabet=ALPHABETS, data=st.data())
def test_no_word_becomes_unknown_with_any_vocabulary_that_follows_the_rules(alphabet, data):
    """Any pieces at all: most letters have no piece of their own inside of a word, or at its start."""
    letters, characters = alphabet
    piece = st.builds("".join, st.tuples(st.sampled_from(["", "##"]), st.text(letters, min_size=1, max_size=4)))
    model, vocab = wordpiece(data.draw(st.sets(piece, min_size=1, max_size=24)))
    words = data.draw(st.lists(st.text(letters, min_size=1, max_size=12), max_size=30))
    rules = wordpiece_rules(vocab, "##", always=[0], characters=characters)
    free = sorted(rules.allowed - rules.required)
    kept = rules.required | set(data.draw(st.lists(st.sampled_from(free)) if free else st.just([])))
    small, _ = wordpiece(piece for piece, index in vocab.items() if index in kept)
    has_fragile = not all("##" + letter in vocab for letter in letters)
    for word in words:
        before, after = cut(model, word), cut(small, word)
        assert "[UNK]" not in after or "[UNK]" in before
        if all(vocab[piece] in kept for piece in before) and ("[UNK]" not in before or not has_fragile):
            assert after == before


def test_a_word_that_is_cut_elsewhere_behind_a_removed_piece_stays_readable():
    """Without `ab`, `abcd` begins with `a ##bc`, after which `d` has no piece."""
    pieces = ["a", "##b", "##c", "ab", "##cd", "##bc"]
    model, vocab = wordpiece(pieces)
    assert cut(model, "abcd") == ["ab", "##cd"]
    without, _ = wordpiece(set(pieces) - {"ab"})
    assert cut(without, "abcd") == ["[UNK]"]  # what the rules are for
    rules = wordpiece_rules(vocab, "##", always=[0], characters=LETTERS)
    assert vocab["##cd"] in rules.required
    assert vocab["##bc"] not in rules.allowed
    small, _ = wordpiece(piece for piece, index in vocab.items() if index in rules.required)
    assert cut(small, "abcd") == ["a", "##b", "##cd"]


def test_the_rules_may_need_the_whole_vocabulary():
    _, vocab = wordpiece(["a", "##b", "##ad", "##da", "##bad"])  # `d` is fragile, and pieces with it end inside others
    rules = wordpiece_rules(vocab, "##", always=[0], characters=LETTERS)
    assert rules.required == rules.allowed


def test_pieces_that_no_text_is_cut_into_are_not_kept():
    _, vocab = wordpiece(["a", "##a", "b", "##b", "中", "##中", "ab中", "[unused1]"])
    rules = wordpiece_rules(vocab, "##", always=[0], characters=Characters(frozenset("ab中["), frozenset("ab")))
    named = {piece for piece, index in vocab.items() if index in rules.allowed}
    assert named == {"[UNK]", "a", "##a", "b", "##b", "中"}


def test_the_most_frequent_pieces_are_chosen_then_those_with_lower_ids():
    _, vocab = wordpiece(["a", "##a", "aa", "aaa", "aaaa", "##aa"])
    rules = wordpiece_rules(vocab, "##", always=[0], characters=LETTERS)
    counts = np.zeros(len(vocab), dtype=int)
    counts[vocab["aaaa"]] = 2
    kept = rules.choose(counts, len(rules.required) + 2)
    assert {piece for piece, index in vocab.items() if index in kept} == {"[UNK]", "a", "##a", "aaaa", "##aa"}


def byte_level(texts, vocab_size):
    """A byte-level BPE tokenizer, learned from texts."""
    from tokenizers import trainers

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    ends = {"sep": ("</s>", 2), "cls": ("<s>", 0)}
    backend.post_processor = processors.RobertaProcessing(**ends, add_prefix_space=False)
    return backend


TEXTS = ["the theme of them", "a cat, the cat; cats", "naïve café 北京 😀", "thethethe they're 1234"] * 5


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.text(st.sampled_from("the catsé北😀 ,'")), max_size=8),
    size=st.integers(261, 330),
    seed=st.integers(0, 99),
)
def test_bpe_keeps_the_halves_of_every_merge_and_so_the_cuts(texts, size, seed):
    backend = byte_level(TEXTS, 340)
    tokenizer = db.Tokenizer(backend, {})
    rules = tokenizer.piece_rules()
    kept = rules.choose(np.random.default_rng(seed).integers(0, 9, tokenizer.vocab_size), size)
    model = json.loads(backend.to_str())["model"]
    halves = [(model["vocab"]["".join(pair)], {model["vocab"][half] for half in pair}) for pair in model["merges"]]
    assert all(parts <= set(kept) for piece, parts in halves if piece in kept)
    small, ids = tokenizer.keep_pieces(kept)
    assert small.vocab_size == len(kept) <= size
    before, after = (each.encode(texts, max_seq_length=10_000)[0] for each in (tokenizer, small))
    for old, new in zip(before, after, strict=True):
        assert small.join_pieces(new[1:-1]) == tokenizer.join_pieces(old[1:-1])
        if set(old) <= set(kept):
            assert [ids[index] for index in old] == new


def test_every_way_to_make_a_piece_counts():
    vocab = {piece: index for index, piece in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    rules = bpe_rules(vocab, [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")], always=[])
    assert rules.with_parts([vocab["abc"]]) == set(vocab.values())


@pytest.fixture(scope="module")
def uncased():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


@pytest.fixture(scope="module")
def small(uncased):
    rules = uncased.piece_rules()
    counts = np.zeros(uncased.vocab_size, dtype=int)
    return uncased.keep_pieces(rules.choose(counts, 3000))


@settings(max_examples=400, deadline=None)
@given(text=st.text(max_size=60))
def test_no_text_gets_an_unknown_token_that_it_had_not(uncased, small, text):
    tokenizer, ids = small
    unknown = uncased.vocabulary["[UNK]"]
    (before,), _ = uncased.encode([text], max_seq_length=10_000)
    (after,), _ = tokenizer.encode([text], max_seq_length=10_000)
    assert after.count(ids[unknown]) == before.count(unknown)
    if set(before) <= set(ids):
        assert [ids[index] for index in before] == after


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_words_of_real_pieces_are_read_as_before(uncased, small, data):
    pieces = data.draw(st.lists(st.sampled_from(sorted(uncased.vocabulary)), max_size=12))
    text = "".join(piece.removeprefix("##") if piece.startswith("##") else f" {piece}" for piece in pieces)
    tokenizer, ids = small
    (before,), (after,) = (each.encode([text], max_seq_length=10_000)[0] for each in (uncased, tokenizer))
    assert after.count(ids[100]) == before.count(100)  # [UNK]
    if set(before) <= set(ids):
        assert [ids[index] for index in before] == after


def test_the_characters_of_words_are_those_after_normalization(uncased):
    found = find_characters(uncased._backend)
    assert {"a", "é"} & found.continuing == {"a"}  # accents are removed
    assert {"A", "!", "中"} & found.starting == {"!", "中"}
    assert not {"A", "!", "中", " "} & found.continuing
    plain = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    plain.normalizer, plain.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    assert find_characters(plain) is None  # `?!` is a word there


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0), "sentencepiece unigram"),
        (models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"), "WordLevel"),
        (models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>"), "BPE of characters"),
    ],
)
def test_other_tokenizers_are_refused_with_the_reason(model, what):
    with pytest.raises(ModelError, match=what):
        piece_rules(tokenizers.Tokenizer(model), always=[])
