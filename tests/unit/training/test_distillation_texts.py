"""The texts of a stage that distils: training rows or their copies, texts without labels, and what labels they have."""

from types import SimpleNamespace

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.config.settings import WidthConfig
from dynabert_paddle.data.word_features import IGNORED
from dynabert_paddle.errors import UsageError
from dynabert_paddle.training.class_weights import check_label_loss
from dynabert_paddle.training.inputs import split_task
from dynabert_paddle.training.made_of import hash_data


@pytest.fixture(scope="module")
def supernet(tiny_folder):
    return db.Supernet.from_pretrained(tiny_folder)


@pytest.fixture
def unlabelled(tmp_path):
    (tmp_path / "more.txt").write_text("put on some music\nwill it rain\n")
    return str(tmp_path / "more.txt")


@pytest.fixture
def augmented(task, tmp_path):
    """Each training row and one copy of it."""
    lines = [f"{text}\t{row}\nnow {text}\t{row}\n" for row, text in enumerate(task.train.texts)]
    (tmp_path / "augmented.tsv").write_text("sentence\tsource_row\n" + "".join(lines))
    return str(tmp_path / "augmented.tsv")


def test_off_the_training_rows_are_read_as_before(task, supernet):
    before = split_task(task, supernet, WidthConfig()).train
    assert before.labels is not None
    assert len(before) == 126


def test_texts_without_labels_come_after_the_training_rows(task, supernet, unlabelled):
    before = split_task(task, supernet, WidthConfig()).train
    split = split_task(task, supernet, WidthConfig(unlabelled_files=(unlabelled,)))
    assert len(split.train) == len(before) + 2
    np.testing.assert_array_equal(split.train.lengths[: len(before)], before.lengths)
    assert split.train.labels is None
    labelled = split_task(task, supernet, WidthConfig(unlabelled_files=(unlabelled,), lambda_label=1.0)).train
    np.testing.assert_array_equal(labelled.labels, [*before.labels, IGNORED, IGNORED])


def test_copies_have_their_rows_labels_where_labels_are_read(task, supernet, augmented, unlabelled):
    before = split_task(task, supernet, WidthConfig()).train
    assert split_task(task, supernet, WidthConfig(augmented_file=augmented)).train.labels is None
    config = WidthConfig(augmented_file=augmented, lambda_label=1.0)
    np.testing.assert_array_equal(split_task(task, supernet, config).train.labels, np.repeat(before.labels, 2))
    config = WidthConfig(augmented_file=augmented, lambda_label=1.0, unlabelled_files=(unlabelled,))
    labels = split_task(task, supernet, config).train.labels
    np.testing.assert_array_equal(labels, [*np.repeat(before.labels, 2), IGNORED, IGNORED])


def test_the_texts_are_part_of_what_a_stage_was_made_of(task, unlabelled, tmp_path):
    config = WidthConfig(unlabelled_files=(unlabelled,))
    before = hash_data(task, config)
    assert hash_data(task, WidthConfig()) == {key: value for key, value in before.items() if key != "unlabelled"}
    (tmp_path / "copy.txt").write_bytes((tmp_path / "more.txt").read_bytes())
    assert hash_data(task, WidthConfig(unlabelled_files=(str(tmp_path / "copy.txt"),))) == before
    (tmp_path / "more.txt").write_text("something else\n")
    assert hash_data(task, config)["unlabelled"] != before["unlabelled"]


@pytest.mark.parametrize("setting", ["augmented_file", "unlabelled_files"])
def test_labels_of_words_have_no_such_texts(supernet, tmp_path, unlabelled, setting):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.txt").write_text("Rome\tB-LOC\nis\tO\n\nBo\tB-PER\nran\tO\n\n" * 20)
    words = db.load_task("custom", data_dir=tmp_path, kind="token_classification")
    value = unlabelled if setting == "augmented_file" else (unlabelled,)
    with pytest.raises(UsageError, match=f"{setting} is for tasks of whole texts"):
        split_task(words, supernet, WidthConfig(**{setting: value}))


def test_embeddings_have_no_labels_to_learn_from():
    task = SimpleNamespace(kind="embedding")
    check_label_loss(task, WidthConfig(), section="width")
    with pytest.raises(UsageError, match="lambda_label: an embedding task has no labels"):
        check_label_loss(task, WidthConfig(lambda_label=1.0), section="width")
