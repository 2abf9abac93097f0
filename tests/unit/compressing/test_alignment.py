"""A teacher with the full vocabulary answers for a student whose texts are cut into more pieces."""

import numpy as np
import paddle
import pytest
from conftest import make_bert
from paddlenlp.transformers import BertForQuestionAnswering, BertForTokenClassification

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.compressing.alignment import AlignedTeacher
from dynabert_paddle.compressing.vocabulary import compress_vocabulary

TEXTS = ["play unaffable music", "hello", "zymogenetics? tomorrow"]
PAIRS = ["the weather in brussels", "now", "café 5€"]


@pytest.fixture(scope="module")
def tokenizer():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


@pytest.fixture(scope="module")
def teacher(tokenizer):
    supernet = db.Supernet(make_bert(), tokenizer)
    supernet.eval()
    return supernet


@pytest.fixture(scope="module")
def student(teacher, tiny_data):
    task = db.load_task("snips", data_dir=tiny_data)
    needed = len(teacher.tokenizer.piece_rules().required)
    small, _ = compress_vocabulary(teacher, task, db.CompressConfig(vocab_size=needed))
    return small


def read(tokenizer):
    """The pairs as a batch, and their lengths."""
    ids, types = tokenizer.encode(TEXTS, PAIRS, max_seq_length=128)
    lengths = [len(row) for row in ids]
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    batch = {name: np.zeros(mask.shape, "int64") for name in ("input_ids", "token_type_ids")}
    batch["input_ids"][mask], batch["token_type_ids"][mask] = np.concatenate(ids), np.concatenate(types)
    return {name: paddle.to_tensor(array) for name, array in {**batch, "attention_mask": mask.astype("int64")}.items()}


def offsets(tokenizer, row):
    """Where the pieces of a pair begin and end, by text; None for special tokens."""
    first, second = (tokens.offsets for tokens in tokenizer.encode_offsets([TEXTS[row], PAIRS[row]]))
    return [None, *((0, *span) for span in first), None, *((1, *span) for span in second), None]


def test_the_teacher_reads_the_texts_with_its_own_pieces(teacher, student):
    inputs = read(student.tokenizer)
    with paddle.no_grad():
        found = AlignedTeacher(teacher, student, kind="classification")(**inputs)
        own = teacher(**read(teacher.tokenizer))
    assert inputs["input_ids"].shape[1] > read(teacher.tokenizer)["input_ids"].shape[1]
    np.testing.assert_array_equal(found.logits.numpy(), own.logits.numpy())
    assert len(found.hidden_states) == len(own.hidden_states)
    for row in range(len(TEXTS)):
        ours, theirs = offsets(student.tokenizer, row), offsets(teacher.tokenizer, row)
        for place, span in enumerate(ours):
            if span is None:  # special tokens correspond by their number
                source = [i for i, other in enumerate(theirs) if other is None][ours[:place].count(None)]
            else:
                (source,) = (
                    i
                    for i, other in enumerate(theirs)
                    if other is not None and other[0] == span[0] and other[1] <= span[1] < other[2]
                )
            for hidden, expected in zip(found.hidden_states, own.hidden_states, strict=True):
                np.testing.assert_array_equal(hidden.numpy()[row, place], expected.numpy()[row, source])


def test_without_words_that_are_cut_anew_it_is_the_teacher_itself(teacher):
    inputs = read(teacher.tokenizer)
    with paddle.no_grad():
        found = AlignedTeacher(teacher, teacher, kind="classification")(**inputs)
        own = teacher(**inputs)
    np.testing.assert_array_equal(found.logits.numpy(), own.logits.numpy())
    mask = inputs["attention_mask"].numpy().astype(bool)
    for hidden, expected in zip(found.hidden_states, own.hidden_states, strict=True):
        np.testing.assert_array_equal(hidden.numpy()[mask], expected.numpy()[mask])


def with_head(head, teacher):
    model = head(type(teacher.model.config).from_dict({**teacher.model.config.to_dict(), "num_labels": 2}))
    supernet = db.Supernet(model, teacher.tokenizer)
    supernet.eval()
    return supernet


def test_labels_of_words_follow_the_pieces(teacher, student):
    tagger = with_head(BertForTokenClassification, teacher)
    with paddle.no_grad():
        found = AlignedTeacher(tagger, student, kind="token_classification")(**read(student.tokenizer)).logits.numpy()
        own = tagger(**read(teacher.tokenizer)).logits.numpy()
    ours, theirs = offsets(student.tokenizer, 0), offsets(teacher.tokenizer, 0)
    starts = {span[:2]: place for place, span in enumerate(theirs) if span}
    aligned = [(place, starts[span[:2]]) for place, span in enumerate(ours) if span and span[:2] in starts]
    assert len(aligned) == len(starts)
    for place, source in aligned:
        np.testing.assert_array_equal(found[0, place], own[0, source])


def test_answers_start_and_end_where_the_teachers_pieces_do(teacher, student):
    reader = with_head(BertForQuestionAnswering, teacher)
    with paddle.no_grad():
        found = AlignedTeacher(reader, student, kind="question_answering")(**read(student.tokenizer)).logits.numpy()
        own = reader(**read(teacher.tokenizer)).logits.numpy()
    ours, theirs = offsets(student.tokenizer, 0), offsets(teacher.tokenizer, 0)
    for side, part in enumerate((slice(0, 2), slice(0, 3, 2))):  # starts, then ends
        places = {span[part]: place for place, span in enumerate(theirs) if span}
        for place, span in enumerate(ours):
            if span and span[part] in places:
                assert found[0, side, place] == own[0, side, places[span[part]]]
            elif span:
                assert found[0, side, place] == -1e4
