"""Fewer pieces and positions: what they do to texts, and what is refused."""

import json
import os

import numpy as np
import paddle
import pytest
from conftest import make_bert
from small_model import make_supernet

import dynabert_paddle as db
from dynabert_paddle.compressing.texts import count_pieces, read_text_file, row_lengths, task_rows
from dynabert_paddle.compressing.vocabulary import compress_vocabulary
from dynabert_paddle.errors import DataError, ModelError, UsageError


@pytest.fixture(scope="module")
def supernet():
    model = make_supernet()
    model.eval()
    return model


def compress(supernet, task, **settings):
    return compress_vocabulary(supernet, task, db.CompressConfig(**settings))


def test_texts_whose_pieces_are_kept_have_the_same_logits(supernet, task):
    small, done = compress(supernet, task, vocab_size=2500)
    assert done["vocab_size"] == [30522, 2500]
    assert small.model.config.vocab_size == small.tokenizer.vocab_size == 2500
    small.eval()
    pieces = set(small.tokenizer.vocabulary)
    texts = [text for (text,) in task_rows(task.dev)]
    names = {index: piece for piece, index in supernet.tokenizer.vocabulary.items()}
    rows = [supernet.tokenizer.encode([text], max_seq_length=100)[0][0] for text in texts]
    kept = [text for text, row in zip(texts, rows, strict=True) if {names[index] for index in row} <= pieces]
    assert len(kept) > 5
    for text in kept:
        ids = [model.tokenizer.encode([text], max_seq_length=100)[0] for model in (supernet, small)]
        with paddle.no_grad():
            before, after = (
                model(input_ids=paddle.to_tensor(row)).logits.numpy()
                for model, row in zip((supernet, small), ids, strict=True)
            )
        np.testing.assert_array_equal(after, before)


def test_the_pieces_of_the_training_texts_and_of_text_files_are_kept(supernet, task, tmp_path):
    (tmp_path / "more.txt").write_text("zymogenetics brontosaurus\n\n" * 99, encoding="utf-8")
    rules = supernet.tokenizer.piece_rules()
    size = len(rules.required) + 400
    plain, _ = compress(supernet, task, vocab_size=size)
    more, _ = compress(supernet, task, vocab_size=size, text_file=(str(tmp_path / "more.txt"),))
    (wanted,) = supernet.tokenizer.encode(["brontosaurus"], max_seq_length=9)[0]
    names = {index: piece for piece, index in supernet.tokenizer.vocabulary.items()}
    pieces = {names[index] for index in wanted}
    assert pieces <= set(more.tokenizer.vocabulary)
    assert not pieces <= set(plain.tokenizer.vocabulary)
    assert "music" in plain.tokenizer.vocabulary


def test_a_size_too_small_for_coverage_is_refused_with_the_minimum(supernet, task):
    needed = len(supernet.tokenizer.piece_rules().required)
    with pytest.raises(UsageError, match=f"{needed} pieces are needed .*: pass at least {needed}"):
        compress(supernet, task, vocab_size=needed - 1)
    small, _ = compress(supernet, task, vocab_size=needed)
    assert small.tokenizer.vocab_size == needed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "vocabulary needs vocab_size"),
        ({"vocab_size": 30522}, "the model has 30522 pieces: pass a smaller one"),
        ({"vocab_size": 4000, "max_positions": 8}, "was trained with max_seq_length 16"),
        ({"vocab_size": 4000, "max_positions": 129}, "the model has 128: pass at most that"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(supernet, task, settings, message):
    with pytest.raises(UsageError, match=message):
        compress(supernet, task, **settings)


def test_a_folder_that_has_it_is_made_smaller_again_or_refused(supernet, task):
    small, _ = compress(supernet, task, vocab_size=4000)
    with pytest.raises(UsageError, match="the model has 4000 pieces"):
        compress(small, task, vocab_size=4000)
    twice, _ = compress(small, task, vocab_size=3000)
    once, _ = compress(supernet, task, vocab_size=3000)
    assert twice.tokenizer.vocabulary == once.tokenizer.vocabulary


def test_a_tokenizer_of_paddlenlp_alone_is_refused(task):
    supernet = db.Supernet(make_bert(), None)
    with pytest.raises(ModelError, match="runs in PaddleNLP alone"):
        compress(supernet, task, vocab_size=4000)


def test_rows_are_counted_with_their_special_tokens(supernet):
    rows = [("play music",), ("play music", "now"), ("unaffable",)]
    lengths = row_lengths(supernet.tokenizer, rows)
    expected = [
        len(supernet.tokenizer.encode([row[0]], list(row[1:]) or None, max_seq_length=99)[0][0]) for row in rows
    ]
    assert lengths.tolist() == expected
    counts = count_pieces(supernet.tokenizer, ["play play music"])
    assert counts[supernet.tokenizer.vocabulary["play"]] == 2


def test_contexts_of_questions_are_not_counted_as_cut(supernet, tmp_path):
    """They are split into windows."""
    row = {"id": "1", "question": "where", "context": "here " * 99, "answers": [{"text": "here", "answer_start": 0}]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row), encoding="utf-8")
    files = {"train_file": tmp_path / "x.jsonl", "dev_file": tmp_path / "x.jsonl"}
    _, done = compress(supernet, db.load_task("custom", kind="question_answering", **files), vocab_size=4000)
    assert done["rows"] == 2
    assert done["pieces_per_row"][0] > 100
    assert not {"rows_cut", "rows_newly_cut"} & done.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\nwith a \0 byte\n", ":2: byte 8 of the line is 0"),
        (b"\xff\xfe\x00a", "UTF-8"),
        (b"\n \n", "has no text"),
    ],
)
def test_a_file_that_is_not_text_is_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_text_file(tmp_path / "file"))


def test_a_text_file_may_be_a_pipe_and_no_device():
    """As of process substitution: `--text_file <(zcat texts.gz)`."""
    read, write = os.pipe()
    os.write(write, b"play some jazz\n\nand more\n")
    os.close(write)
    assert list(read_text_file(f"/dev/fd/{read}")) == ["play some jazz", "and more"]
    os.close(read)
    with pytest.raises(DataError, match="/dev/null: is not a file; .* write it to a file first"):
        list(read_text_file("/dev/null"))


def test_byte_level_bpe_with_its_files_and_stock_paddlenlp(tmp_path):
    """RoBERTa counts positions from the id of its padding token, which stays."""
    from paddlenlp.transformers import RobertaBPETokenizer, RobertaConfig, RobertaForSequenceClassification
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = ["play the music in the theatre", "rate this café 5 stars", "what is the weather there, 北京?"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts * 3,
        trainers.BpeTrainer(vocab_size=360, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    backend.post_processor = processors.RobertaProcessing(sep=("</s>", 2), cls=("<s>", 0), add_prefix_space=False)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
    config = RobertaConfig(vocab_size=364, pad_token_id=1, type_vocab_size=1, max_position_embeddings=40, **sizes)
    supernet = db.Supernet(RobertaForSequenceClassification(config), db.Tokenizer(backend, {}))
    supernet.metadata = supernet.metadata.replace(task={"max_seq_length": 30})
    supernet.eval()
    lines = "\n".join(f"{text}\tA" for text in texts)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(f"sentence\tlabel\n{lines}\nbye\tB\n", encoding="utf-8")
    task = db.load_task("custom", data_dir=tmp_path)
    small, done = compress(supernet, task, vocab_size=300, max_positions=30)
    assert done["vocab_size"] == [supernet.tokenizer.vocab_size, 300]
    assert small.model.config.pad_token_id == small.tokenizer.pad_token_id == 1
    small.save_pretrained(tmp_path / "small")
    again, stock = db.load_model(tmp_path / "small"), RobertaBPETokenizer.from_pretrained(str(tmp_path / "small"))
    plain = RobertaForSequenceClassification.from_pretrained(str(tmp_path / "small"))
    plain.eval()
    kept = set(small.tokenizer.vocabulary)
    same = 0
    for text in [*texts, "theatre there", "xyz 😀", "the the"]:
        (old,), (new,) = (model.tokenizer.encode([text], max_seq_length=30)[0] for model in (supernet, again))
        assert stock(text)["input_ids"] == new
        before, after, loaded = (
            model(input_ids=paddle.to_tensor([ids])) for model, ids in ((supernet, old), (again, new), (plain, new))
        )
        np.testing.assert_array_equal(loaded.numpy(), after.logits.numpy())
        if {backend.id_to_token(index) for index in old} <= kept:
            np.testing.assert_array_equal(after.logits.numpy(), before.logits.numpy())
            same += 1
    assert 0 < same < 6
