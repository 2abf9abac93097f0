"""Warnings about a task's data are given once for a task, by the first process, and for each of its files."""

import logging

import pytest

import dynabert_paddle as db
from dynabert_paddle.config.settings import FinetuneConfig, WidthConfig
from dynabert_paddle.training.data_warnings import warn_about_training
from dynabert_paddle.training.inputs import split_task


@pytest.fixture
def supernet(tiny_folder):
    supernet = db.Supernet.from_pretrained(tiny_folder)
    supernet.metadata = supernet.metadata.replace(task={"max_seq_length": 8})
    return supernet


@pytest.fixture
def task(tmp_path):
    long = "\n".join(f"one two three four five six seven eight {number}\t{'ab'[number % 2]}" for number in range(40))
    (tmp_path / "train.tsv").write_text(f"sentence\tlabel\n{long}\n")
    (tmp_path / "dev.tsv").write_text(f"sentence\tlabel\n{long}\n")
    return db.load_task("custom", data_dir=tmp_path)


def warn(task, supernet, caplog, config):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_about_training(task, split_task(task, supernet, config), supernet, config)
    return [record.getMessage().partition("/")[2].rpartition("/")[2] for record in caplog.records]


def test_each_warning_is_given_once_for_a_task(task, supernet, caplog):
    first = warn(task, supernet, caplog, FinetuneConfig())
    assert len(first) == 2
    assert first[0].startswith("dev.tsv: 40 of 40 rows (100.0%) have the same text")
    assert first[1].startswith("train.tsv: all 40 rows are longer")  # the 36 to train on, and the four held out
    assert warn(task, supernet, caplog, FinetuneConfig(seed=7)) == []
    (dev,) = warn(task, supernet, caplog, FinetuneConfig(select_on="dev"))
    assert dev.startswith("dev.tsv: all 40 rows are longer")


def test_augmented_texts_are_a_file_of_their_own(task, supernet, caplog, tmp_path):
    warn(task, supernet, caplog, FinetuneConfig())
    rows = "".join(f"{text}\t{number}\n" * 2 for number, text in enumerate(task.train.texts))
    (tmp_path / "augmented.tsv").write_text(f"sentence\tsource_row\n{rows}")
    (message,) = warn(task, supernet, caplog, WidthConfig(augmented_file=str(tmp_path / "augmented.tsv")))
    assert message.startswith("augmented.tsv: all 72 rows are longer")  # without those of the four held out


def test_other_processes_are_silent(task, supernet, caplog, monkeypatch):
    monkeypatch.setattr("dynabert_paddle.training.data_warnings.is_rank_zero", lambda: False)
    assert warn(task, supernet, caplog, FinetuneConfig()) == []
