"""Candidates without a masked LM: the nearest words of the backbone's embedding."""

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.data.augment import is_replaceable
from dynabert_paddle.errors import UsageError
from dynabert_paddle.training.masked_lm import list_words, open_backend
from dynabert_paddle.training.nearest_words import NearestWords

TEXT = "Play the music of Iheart now, music!"


@pytest.fixture(scope="module")
def nearest(tiny_folder):
    return NearestWords.from_pretrained(tiny_folder)


def find(nearest, text=TEXT, *, count=3, length=64, neighbours=lambda word: ()):
    (words,) = nearest.find_words([text], num_candidates=count, max_seq_length=length, neighbours=neighbours)
    return {text[word.start : word.end]: list(word.candidates) for word in words}


def test_candidates_are_the_nearest_words_by_cosine(nearest, tiny_folder):
    supernet = db.Supernet.from_pretrained(tiny_folder)
    table = supernet.model.bert.embeddings.word_embeddings.weight.numpy()
    words = list_words(open_backend(supernet.tokenizer), len(table))
    table = table / np.linalg.norm(table, axis=1, keepdims=True)
    scores = table @ table[words.index("music")]
    order = [words[index] for index in np.argsort(-scores) if is_replaceable(words[index]) and words[index] != "music"]
    found = find(nearest)
    assert found["music"] == order[:3]
    assert all(word.istitle() for word in found["Play"])
    assert "the" not in found, "stop words stay"
    assert "Iheart" not in found, "it has several tokens, and so no embedding of its own"


def test_word_vectors_come_first(nearest):
    found = find(nearest, neighbours=lambda word: {"Iheart": ["radio"], "music": ["jazz"]}.get(word, ()))
    assert (found["Iheart"], found["music"]) == (["radio"], ["jazz"])
    assert len(found["Play"]) == 3


def test_words_beyond_the_longest_text_stay(nearest):
    assert "Play" in find(nearest, length=4)
    assert "music" not in find(nearest, length=4)


def test_a_task_is_augmented_without_a_masked_lm(tiny_folder, tiny_data, tmp_path):
    def augment(name, **settings):
        config = db.AugmentConfig(num_copies=2, num_candidates=5, **settings)
        task = {"name": "snips", "data_dir": str(tiny_data), "max_seq_length": 16}
        done = db.augment(None, tmp_path / name, task=task, config=config, model_name_or_path=tiny_folder)
        return done, (tmp_path / name).read_text(encoding="utf-8").splitlines()

    done, lines = augment("a.tsv")
    assert done[:2] == (140, 420)
    assert done.words_replaced > 140
    assert len({*lines}) > 300
    assert augment("b.tsv", batch_size=3)[1] == lines
    assert augment("c.tsv", word_dropout=0.2)[1] != lines


def test_something_must_give_the_candidates(tiny_data, tmp_path):
    with pytest.raises(UsageError, match="name a masked_lm that predicts words, or a model_name_or_path"):
        db.augment(None, tmp_path / "a.tsv", task={"name": "snips", "data_dir": str(tiny_data)})
