"""Candidates are what a brute-force reading of the masked LM gives, whatever the batch, the layout and the language."""

import json
from dataclasses import replace

import numpy as np
import paddle
import pytest
from conftest import save_masked_lm
from paddlenlp.transformers import (
    BertConfig,
    BertForMaskedLM,
    ErnieConfig,
    ErnieForMaskedLM,
    ErnieTokenizer,
    RobertaConfig,
    RobertaForMaskedLM,
)
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

import dynabert_paddle as db
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.weights import read_weights, write_safetensors
from dynabert_paddle.rewiring.components import sort_embedding
from dynabert_paddle.training.masked_lm import MaskedLM

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
CHINESE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "。", "1", "##天", "ok", *"今天气很好我们去公园散步听音乐"]
TEXTS = [
    "Play some jazz music on the radio",
    "weather in Paris",
    "",
    "it was just so",
    "unaffable folk 1959 !",
    "river",
]


def no_neighbours(word):
    return ()


@pytest.fixture(scope="module")
def lm(masked_lm):
    return MaskedLM.from_pretrained(masked_lm)


def find(lm, texts, *, num_candidates=5, max_seq_length=64, neighbours=no_neighbours):
    return lm.find_words(texts, num_candidates=num_candidates, max_seq_length=max_seq_length, neighbours=neighbours)


def brute_force(folder, text, word, count):
    """Mask one word, run the whole model on the one sequence without padding, and sort all of the vocabulary."""
    vocab = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    model = BertForMaskedLM(BertConfig(**json.loads((folder / "config.json").read_text())))
    model.set_state_dict({name: paddle.to_tensor(array) for name, array in read_weights(folder).items()})
    model.eval()
    words = ["[CLS]", *text.lower().split(), "[SEP]"]
    position = words.index(word)
    words[position] = "[MASK]"
    logits = model(paddle.to_tensor([[vocab.index(token) for token in words]]))[0, position].numpy()
    ranked = [vocab[index] for index in np.argsort(-logits, kind="stable")]
    return [token for token in ranked if token.isalpha() and token != word][:count]


def test_candidates_are_the_likeliest_whole_words(lm, masked_lm):
    text = TEXTS[0]
    (words,) = find(lm, [text], num_candidates=15)
    assert [text[word.start : word.end] for word in words] == ["Play", "jazz", "music", "radio"]
    for word in words:
        assert list(word.candidates) == brute_force(masked_lm, text, text[word.start : word.end].lower(), 15)


def test_candidates_do_not_depend_on_the_other_texts(lm):
    many = TEXTS * 12  # several calls of the model
    together = find(lm, many)
    assert together == [words for text in many for words in find(lm, [text])]
    assert together[: len(TEXTS)] == find(lm, TEXTS[::-1])[::-1]


def test_texts_without_words_have_none(lm):
    assert find(lm, ["", "it was just so", "1959 ! ...", "   "]) == [[], [], [], []]


def test_a_word_of_several_tokens_gets_its_neighbours(lm):
    text = "an Unaffable radio"
    (words,) = find(lm, [text], neighbours=lambda word: ["rude", "cold"] if word == "Unaffable" else ())
    assert [text[word.start : word.end] for word in words] == ["Unaffable", "radio"]
    assert list(words[0].candidates) == ["rude", "cold"]
    assert [text[word.start : word.end] for word in find(lm, [text])[0]] == ["radio"]


def test_only_whole_words_before_the_truncation_are_found(lm):
    text = "radio " * 40 + "unaffable"
    (words,) = find(lm, [text], max_seq_length=12, neighbours=lambda word: ["rude"])
    # 10 words fit between the special tokens; what was cut off might have belonged to the last of them.
    assert len(words) == 9
    assert max(word.end for word in words) < len(text)


def test_more_candidates_than_there_are_words(tmp_path):
    lm = MaskedLM.from_pretrained(chinese_bert(tmp_path / "lm"))
    (words,) = find(lm, ["今天"], num_candidates=1000)
    whole_words = {"ok", *"今天气很好我们去公园散步听音乐"}
    assert [set(word.candidates) for word in words] == [whole_words - {"今"}, whole_words - {"天"}]


def chinese_bert(folder):
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(CHINESE) + "\n", encoding="utf-8")
    paddle.seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=len(CHINESE), max_position_embeddings=64, **SIZES))
    return save_masked_lm(folder, model, db.Tokenizer.from_pretrained(folder))


def chinese_ernie(folder):
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(CHINESE) + "\n", encoding="utf-8")
    ErnieTokenizer(str(folder / "vocab.txt")).save_pretrained(str(folder))
    model = ErnieForMaskedLM(ErnieConfig(vocab_size=len(CHINESE), max_position_embeddings=64, **SIZES))
    return MaskedLM(model, db.Tokenizer.from_pretrained(folder))


@pytest.mark.parametrize("load", [lambda folder: MaskedLM.from_pretrained(chinese_bert(folder)), chinese_ernie])
def test_the_words_of_a_chinese_text_are_its_characters(tmp_path, load):
    text = "今天天气很好。1 们"
    (words,) = find(load(tmp_path / "lm"), [text], num_candidates=3)
    assert "".join(text[word.start : word.end] for word in words) == "今天天气很好们"
    for word in words:
        assert len(word.candidates) == 3
        assert set(word.candidates) <= {"ok", *"今天气很好我们去公园散步听音乐"} - {text[word.start : word.end]}


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    """A small random RoBERTa with a byte-level tokenizer that was trained on a few sentences."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["play café music on my radio", "some music of my café"] * 5, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True)
    folder = tmp_path_factory.mktemp("roberta")
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer", "pad_token": "<pad>"}')
    paddle.seed(0)
    config = RobertaConfig(
        vocab_size=backend.get_vocab_size(), max_position_embeddings=66, pad_token_id=1, initializer_range=0.2, **SIZES
    )
    return save_masked_lm(folder, RobertaForMaskedLM(config), db.Tokenizer.from_pretrained(folder))


def test_byte_level_words_are_cut_and_filled_without_their_blank(roberta):
    text = "some café music on my radio"
    (words,) = find(MaskedLM.from_pretrained(roberta), [text], num_candidates=1000)
    assert [text[word.start : word.end] for word in words] == ["café", "music", "radio"]
    tokens = Backend.from_file(str(roberta / "tokenizer.json")).get_vocab()
    begin = {token[1:].replace("Ã©", "é") for token in tokens if token.startswith("Ġ")}
    begin = {word for word in begin if word.isalpha() and "Ã" not in word}
    assert {"café", "music", "on"} <= begin
    for word in words:
        assert set(word.candidates) == begin - {text[word.start : word.end]}


def to_hugging_face(folder, target, names):
    """The same weights as Hugging Face names and orients them: matrices of `nn.Linear` the other way round."""
    arrays = {}
    for name, value in read_weights(folder).items():
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        is_linear = value.ndim == 2 and "embeddings" not in name and "decoder" not in name
        arrays[name] = np.ascontiguousarray(value.T) if is_linear else value
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    write_safetensors(target / "model.safetensors", arrays, metadata={"format": "pt"})
    return target


LAYERS = [
    ("encoder.layers.", "encoder.layer."),
    ("self_attn.q_proj", "attention.self.query"),
    ("self_attn.k_proj", "attention.self.key"),
    ("self_attn.v_proj", "attention.self.value"),
    ("self_attn.out_proj", "attention.output.dense"),
    ("linear1", "intermediate.dense"),
    ("linear2", "output.dense"),
    ("norm1", "attention.output.LayerNorm"),
    ("norm2", "output.LayerNorm"),
    ("embeddings.layer_norm", "embeddings.LayerNorm"),
]
BERT_HEAD = [
    ("predictions.transform.", "predictions.transform.dense."),
    ("predictions.decoder_bias", "predictions.bias"),
]
NORM = ("predictions.layer_norm", "predictions.transform.LayerNorm")


@pytest.mark.parametrize("gamma", [False, True])
def test_a_hugging_face_bert_computes_the_same(masked_lm, lm, tmp_path, gamma):
    names = [*LAYERS, *BERT_HEAD, NORM]
    if gamma:  # as in checkpoints of 2019
        names += [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]
    converted = MaskedLM.from_pretrained(to_hugging_face(masked_lm, tmp_path / "hf", names))
    assert find(converted, TEXTS) == find(lm, TEXTS)
    assert converted.fingerprint == lm.fingerprint


def test_a_hugging_face_roberta_computes_the_same(roberta, tmp_path):
    ours = MaskedLM.from_pretrained(roberta)
    theirs = MaskedLM.from_pretrained(to_hugging_face(roberta, tmp_path / "hf", LAYERS))
    assert theirs.fingerprint == ours.fingerprint


def test_nothing_is_written_to_the_folder(masked_lm):
    before = {path: path.stat().st_mtime_ns for path in masked_lm.iterdir()}
    MaskedLM.from_pretrained(masked_lm)
    assert {path: path.stat().st_mtime_ns for path in masked_lm.iterdir()} == before


def test_a_model_without_the_head_is_refused(tiny_folder):
    for name in (tiny_folder, "minilm-l6"):
        with pytest.raises(ModelError, match="lack 'cls.predictions.*it is no masked LM"):
            MaskedLM.from_pretrained(name)


@pytest.mark.parametrize("rank", [None, 8])
def test_a_supernets_stage_is_no_masked_lm_with_or_without_ranks(masked_lm, tmp_path, rank):
    supernet = db.Supernet.from_pretrained(masked_lm)
    sort_embedding(supernet, [{"input_ids": np.arange(12).reshape(2, 6), "attention_mask": np.ones((2, 6), np.int64)}])
    supernet.metadata = supernet.metadata.replace(stage="width")
    folder = db.extract(supernet, replace(supernet.full, embedding_rank=rank)).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=r"the stage 'width' has written .* it is no masked LM"):
        MaskedLM.from_pretrained(folder)


def test_a_head_that_shares_the_table_of_words_keeps_the_embedding_whole(masked_lm):
    supernet = db.Supernet(BertForMaskedLM(BertConfig(**json.loads((masked_lm / "config.json").read_text()))))
    with pytest.raises(ModelError, match="BertForMaskedLM predicts words with the table .*cls.predictions"):
        sort_embedding(supernet, [])
    assert supernet.max_rank is None


def test_a_vocabulary_of_another_backbone_is_refused(lm, tmp_path):
    lm.check_vocabulary("minilm-l6")
    with pytest.raises(UsageError, match="30522 tokens and that of .* 24; 1 are the same") as caught:
        lm.check_vocabulary(chinese_bert(tmp_path / "other"))
    assert "\n" not in str(caught.value)
