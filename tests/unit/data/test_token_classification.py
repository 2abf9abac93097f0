"""Sentences with labelled words: reading, tokenizing, batches, scores."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.data.token_classification import (
    find_word_labels,
    has_sentences,
    iterate_sentences,
    read_sentences,
)
from dynabert_paddle.data.word_settings import WordSettings
from dynabert_paddle.errors import DataError, UsageError

COLUMNS = {"text_column": "tokens", "label_column": "labels"}
NAMES = ("O", "B-LOC", "B-PER", "I-PER")
CONLL = """\
-DOCSTART- -X- -X- O

Angela NNP B-NP B-PER
Merkel NNP I-NP I-PER
visited VBD B-VP O
Paris NNP B-NP B-LOC
. . O O

Unbelievably RB B-ADVP O
quiet JJ B-ADJP O
"""


@pytest.fixture(scope="module")
def tokenizer():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".conll", ".txt", ".bio", ".tsv"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_conll_reads_the_first_and_last_column(tmp_path, ending, separator):
    path = write(tmp_path / f"train{ending}", CONLL.replace(" ", separator))
    first, second = iterate_sentences(path, **COLUMNS)
    assert first.words == ["Angela", "Merkel", "visited", "Paris", "."]
    assert first.labels == ["B-PER", "I-PER", "O", "B-LOC", "O"]
    assert (first.line, second.line) == (3, 9)
    assert second.words == ["Unbelievably", "quiet"]  # the end of the file ends a sentence too


def test_comments_are_not_read_as_words(tmp_path):
    path = write(tmp_path / "a.conll", f"# id 7 domain=en x\n{CONLL}\n# the end\n")
    assert [sentence.line for sentence in iterate_sentences(path, **COLUMNS)] == [4, 10]
    assert find_word_labels(path, **COLUMNS) == NAMES


def test_a_comment_with_the_columns_of_a_word_is_warned_about(tmp_path):
    path = write(tmp_path / "a.conll", "# id 7 english\na _ _ O\nb _ _ B-PER\n\n# id 8 english\nc _ _ O\n")
    with pytest.raises(DataError, match=r":1: begins with #, has as many columns .* 'english', which no other line"):
        find_word_labels(path, **COLUMNS)
    write(path, "# id 7 domain=en\na _ _ O\nb _ _ B-PER\n\n# id 8 domain=en\nc _ _ O\n")
    assert find_word_labels(path, **COLUMNS) == ("O", "B-PER")
    assert find_word_labels(write(path, "# O\na B-PER\n#b O\n"), **COLUMNS) == ("O", "B-PER")
    assert find_word_labels(write(path, "#1 X\na B-PER\n"), **COLUMNS) == ("B-PER", "X")


@pytest.mark.parametrize(
    "name, content, column, expected",
    [
        ("a.conll", "a\nb\n", None, True),
        ("a.txt", "a O\nb B-PER\n", None, True),
        ("a.txt", "a\nin Paris\n", None, False),
        ("a.tsv", "a\tO\nb\tB-PER\n", None, True),
        ("a.tsv", "text\tlabel\na b\tO\nc\tO\n", None, False),
        ("a.tsv", "words\tlabel\na\tO\nb\tO\n", "words", False),
        ("a.tsv", "tokens\tid\na\t1\nb\t2\n", "tokens", False),
        ("a.csv", "tokens,id\na b,1\n", "tokens", False),
        ("a.txt", "a O\nb B-PER\n", "tokens", True),
        ("a.jsonl", '{"tokens": "a b"}\n', "tokens", False),
        ("a.csv", "text,label\na b,O\n", None, False),
        ("a.jsonl", '{"tokens": ["a", "b"]}\n', "tokens", True),
        ("a.jsonl", '{"words": ["a", "b"]}\n', "words", True),
        ("a.jsonl", '{"text": "a b"}\n', None, False),
        ("a.jsonl", '{"words": "a b"}\n', "words", False),
    ],
)
def test_which_files_have_sentences_of_words(tmp_path, name, content, column, expected):
    assert has_sentences(write(tmp_path / name, content), column, NAMES) is expected


def test_a_label_unknown_to_the_bundle_is_named(tmp_path):
    path = write(tmp_path / "a.txt", "a O\nb B-PER\n\nc PER\n")
    with pytest.raises(DataError, match=r"a\.txt:4: 'PER' is not one of the bundle's labels"):
        has_sentences(path, None, NAMES)


def test_json_lines(tmp_path):
    rows = [{"tokens": ["去", "北", "京"], "ner": ["O", "B-LOC", "I-LOC"]}, {"tokens": [], "ner": []}]
    path = write(tmp_path / "train.jsonl", "\n".join(json.dumps(row) for row in rows))
    (sentence,) = iterate_sentences(path, text_column="tokens", label_column="ner")
    assert sentence.words == ["去", "北", "京"]
    assert sentence.labels == ["O", "B-LOC", "I-LOC"]


@pytest.mark.parametrize("name, content", [("a.conll", "Angela\nMerkel\n\nParis\n"), ("a.jsonl", '{"tokens": ["x"]}')])
def test_words_without_labels(tmp_path, name, content):
    sentences = list(iterate_sentences(write(tmp_path / name, content), label_column=None))
    assert [sentence.labels for sentence in sentences] == [None] * len(sentences)
    assert sentences[0].words == (["Angela", "Merkel"] if name == "a.conll" else ["x"])


def test_found_labels_begin_with_o(tmp_path):
    assert find_word_labels(write(tmp_path / "a.conll", CONLL), **COLUMNS) == NAMES


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.jsonl", '{"tokens": ["a", "b"], "labels": ["O"]}', r":1: 2 tokens and 1 labels; give each token one"),
        ("a.jsonl", '{"tokens": "a b", "labels": ["O"]}', r":1: 'tokens' is 'a b'; it must be a list of strings"),
        (
            "a.jsonl",
            '{"token": ["a"], "labels": ["O"]}',
            r":1: no 'tokens'; the keys here are 'token', 'labels'.*text",
        ),
        ("a.jsonl", '{"tokens": ["a b"], "labels": ["O"]}', r":1: a word is empty or contains white space"),
        ("a.jsonl", '{"tokens": [""], "labels": ["O"]}', r":1: a word is empty or contains white space"),
        ("a.conll", "a O\nb\n", r":2: 1 columns, expected 2"),
        ("a.conll", "a X O\nb O\n", r":2: 2 columns, expected 3"),
        ("a.conll", "alone\n", r":1: 1 columns, expected 2"),
        ("a.conll", "\n\n", r":1: the file has no sentences"),
        (
            "a.json5",
            "",
            r"unknown file ending '.json5'; the endings of token classification are .*Did you mean '.json'",
        ),
        (
            "a.conll",
            "a O\nb B-PRE\n",
            r":1: the sentence has the label 'B-PRE', which is not one .*Did you mean 'B-PER'",
        ),
    ],
)
def test_errors_name_the_line(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_sentences(write(tmp_path / name, content), NAMES)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_single_label_is_refused(tmp_path):
    with pytest.raises(DataError, match="every word has the label 'O'"):
        find_word_labels(write(tmp_path / "a.conll", "a O\nb O\n"), **COLUMNS)


def test_a_words_label_is_on_its_first_token(tmp_path, tokenizer):
    sentences = read_sentences(write(tmp_path / "a.conll", CONLL), NAMES)
    features = sentences.tokenize(tokenizer, max_seq_length=32)
    batch = features.collate(np.arange(2), pad_token_id=0)
    ids, labels = batch["input_ids"], batch["labels"]
    plain, _ = tokenizer.encode([" ".join(words) for words in sentences.words], max_seq_length=32)
    for row, expected in zip(ids, plain, strict=True):
        assert row[: len(expected)].tolist() == expected
    for row, row_labels, words, own in zip(ids, labels, sentences.words, sentences.labels, strict=True):
        pieces = [tokenizer.encode([word], max_seq_length=32)[0][0][1:-1] for word in words]
        starts = 1 + np.cumsum([0, *map(len, pieces)])[:-1]
        for start, piece, label in zip(starts, pieces, own, strict=True):
            assert row[start] == piece[0]
            assert row_labels[start] == NAMES.index(label)
        assert (row_labels != -100).sum() == len(words)
    assert len(pieces[0]) > 1  # "Unbelievably" is split, so that the last assertion could fail
    assert (labels[batch["attention_mask"] == 0] == -100).all()


def test_selected_sentences_keep_their_labels(tmp_path, tokenizer):
    sentences = read_sentences(write(tmp_path / "a.conll", CONLL), NAMES)
    whole = sentences.tokenize(tokenizer, max_seq_length=32)
    batch = sentences.select([1]).tokenize(tokenizer, max_seq_length=32).collate(np.array([0]), 0)
    for name, values in whole.collate(np.array([1]), 0).items():
        np.testing.assert_array_equal(batch[name], values)


def one_hot(features, labels):
    """Logits that predict these labels for the words, and any label for other tokens."""
    rows = []
    for windows, words in zip(features.windows, labels, strict=True):
        for window in windows:
            logits = np.random.default_rng(len(rows)).normal(size=(features.lengths[len(rows)], len(features.names)))
            for word, token in zip(window.words, window.tokens, strict=True):
                logits[features.before + token, features.names.index(words[word])] = 9
            rows.append(logits)
    return rows


def test_scores_count_whole_entities(tmp_path, tokenizer):
    features = read_sentences(write(tmp_path / "a.conll", CONLL), NAMES).tokenize(tokenizer, max_seq_length=32)
    metrics = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")
    perfect = features.score(metrics, one_hot(features, features.word_labels))
    assert perfect == dict.fromkeys(metrics, 1.0)
    # One of two entities found, no false one: precision 1, recall 1/2; one of seven words wrong.
    missed = [["B-PER", "I-PER", "O", "O", "O"], ["O", "O"]]
    scores = features.score(metrics, one_hot(features, missed))
    assert scores == pytest.approx(
        {"entity_f1": 2 / 3, "entity_precision": 1, "entity_recall": 1 / 2, "token_accuracy": 6 / 7}
    )
    # Half an entity does not count.
    broken = [["B-PER", "O", "O", "B-LOC", "O"], ["O", "O"]]
    assert features.score(("entity_recall",), one_hot(features, broken)) == {"entity_recall": 0.5}


def labelled(path, labels):
    return write(path, "\n".join(f"w{index} {label}" for index, label in enumerate(labels)))


@pytest.mark.parametrize(
    "names, labels, predicted, f1",
    [
        # Of two entities one is found whole, and of the other the first word alone.
        (NAMES, ["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "O", "B-LOC"], 1 / 2),
        (("O", "T-B", "T-I", "P-B"), ["T-B", "T-I", "O", "P-B"], ["T-B", "O", "O", "P-B"], 1 / 2),
        (("O", "B-T", "M-T", "E-T"), ["B-T", "M-T", "E-T", "O"], ["B-T", "M-T", "M-T", "O"], 1.0),
        (("O", "B-T", "L-T", "U-T"), ["B-T", "L-T", "U-T", "O"], ["B-T", "L-T", "O", "O"], 2 / 3),
        (("O", "ORG", "LOC"), ["ORG", "ORG", "O", "LOC"], ["O", "ORG", "O", "LOC"], 1 / 2),
        (("O", "ORG", "OBJ"), ["ORG", "O", "OBJ", "OBJ"], ["O", "O", "O", "O"], 0.0),
    ],
)
def test_scores_are_of_the_entities_that_are_shown(tmp_path, tokenizer, names, labels, predicted, f1):
    features = read_sentences(labelled(tmp_path / "a.conll", labels), names).tokenize(tokenizer, max_seq_length=32)
    assert features.score(("entity_f1",), one_hot(features, [predicted])) == {"entity_f1": pytest.approx(f1)}


@pytest.mark.parametrize("given", [None, ["O", "B-PER", "I-PER", "MISC"]])
def test_labels_of_no_known_scheme_are_refused(tmp_path, given):
    file = labelled(tmp_path / "a.conll", ["O", "B-PER", "I-PER", "MISC"])
    with pytest.raises(DataError, match=r"'I-PER' begin with a position, 'MISC' do not\. Write") as caught:
        db.load_task("custom", kind="token_classification", train_file=file, dev_file=file, labels=given)
    assert str(caught.value).startswith(f"{file}: " if given is None else "labels: ")
    assert "\n" not in str(caught.value)


def read_cut(path):
    return replace(read_sentences(path, NAMES), settings=WordSettings(long_text="truncate"))


def test_a_truncated_word_counts_as_o(tmp_path, tokenizer):
    path = write(tmp_path / "a.conll", CONLL)
    features = read_cut(path).tokenize(tokenizer, max_seq_length=6)  # "mer ##kel" is two tokens
    assert features.lengths.max() == 6
    assert features.windows[0][0].tokens.tolist() == [0, 1, 3]
    scores = features.score(("entity_recall",), one_hot(features, features.word_labels))
    assert scores == {"entity_recall": 0.5}  # Paris is lost


def test_word_labels_in_two_forms_of_unicode_are_named(tmp_path, caplog):
    path = write(tmp_path / "a.conll", "a B-caf\u00e9\nb B-cafe\u0301\nc O\n")
    assert len(find_word_labels(path, **COLUMNS)) == 3
    (record,) = caplog.records
    assert r"'B-cafe\u0301' and 'B-caf\xe9' are the same characters in two forms of Unicode" in record.getMessage()


def test_truncated_words_are_counted(tmp_path, tokenizer):
    sentences = read_cut(write(tmp_path / "a.conll", CONLL))
    assert sentences.tokenize(tokenizer, max_seq_length=32).num_cut.tolist() == [0, 0]
    features = sentences.tokenize(tokenizer, max_seq_length=6)
    assert features.num_cut.tolist() == [2, 1]  # quiet, the last word, is left out, too


def load(folder, sentences, **given):
    lines = "\n\n".join("\n".join(f"{word} {label}" for word, label in words) for words in sentences)
    file = write(folder / "a.conll", lines + "\n\nx B-LOC\ny O\n")
    return db.load_task("custom", kind="token_classification", train_file=file, dev_file=file, **given)


def outside(words):
    return [(word, "O") for word in words]


SPLITS = {
    "characters": outside("去北京2010"),
    "Chinese alone": outside("去北京"),
    "characters, and a few longer words": outside([*"去北京2010年12月", "&amp;"]),
    "characters with accents": outside(["n", "a", "i\u0308", "v", "e"]),
}
WORDS = {
    "numbers as words": outside(["去", "北", "京", "2010", "年"]),
    "English": outside(["a", "I", "house", "in", "Paris", "."]),
}


@pytest.mark.parametrize("name", [*SPLITS, *WORDS])
def test_the_split_of_the_training_words_is_found(tmp_path, caplog, name):
    task = load(tmp_path, [{**SPLITS, **WORDS}[name]])
    expected = "characters" if name in SPLITS else "words"
    assert task.word_split == task.to_dict()["word_split"] == expected
    assert load_described_task(task.to_dict()).word_split == expected
    assert not caplog.records


def test_the_word_split_option_has_priority(tmp_path):
    assert load(tmp_path, [outside("去北京")], word_split="words").word_split == "words"
    with pytest.raises(UsageError, match="word_split is 'lines'; it must be one of words, characters"):
        load(tmp_path, [outside("去北京")], word_split="lines")
    with pytest.raises(UsageError, match="word_split is for token_classification, this task is classification"):
        db.load_task("snips", word_split="words")


@pytest.mark.parametrize("words", [["我", "喜欢", "北京", "大学"], ["Paris.", "London,", "(Rome)", "house"]])
def test_words_that_no_text_is_split_into_are_warned_about(tmp_path, caplog, words):
    assert load(tmp_path, [outside(words)]).word_split == "words"
    assert f"3 of 6 words, such as {words[0 if words[0] != '我' else 1]!r}, are not those that a text" in caplog.text


@pytest.mark.parametrize(
    "words",
    [
        ["भाषा", "है", "।"],
        ["cafe\u0301", ",", "co\u00adop", "."],
        ["👍🏽", "ok", "❤\ufe0f", "!"],
        ["我", "爱", "New", "York", "\uff0c", "\uff21\uff22\uff23", "\uff12\uff10\uff11\uff10", "年"],
        ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u060c", "New\u200bYork"],
    ],
)
def test_these_words_are_found_again_in_a_text(tmp_path, caplog, words):
    assert load(tmp_path, [outside(words)] * 9).word_split == "words"
    assert "are not those that a text is split into" not in caplog.text


def test_restore_puts_batches_in_order(tmp_path, tokenizer):
    words = ["stone", "river", "cloud"]
    content = "\n\n".join("\n".join(f"{words[k % 3]} O" for k in range(n)) + "\nx B-LOC" for n in (3, 9, 1, 6))
    features = read_sentences(write(tmp_path / "a.conll", content), NAMES).tokenize(tokenizer, max_seq_length=32)
    batches = [np.array([3, 1]), np.array([0, 2])]
    logits = [
        np.random.default_rng(i).normal(size=(2, features.lengths[rows].max(), 4)) for i, rows in enumerate(batches)
    ]
    restored = features.restore(batches, logits)
    assert [len(row) for row in restored] == features.lengths.tolist()
    np.testing.assert_array_equal(restored[3], logits[0][0][: features.lengths[3]])
    np.testing.assert_array_equal(restored[2], logits[1][1][: features.lengths[2]])


def test_every_word_of_random_sentences_has_one_token(tmp_path, tokenizer):
    random.seed(0)
    alphabet = "abc.,'-$§é中文😀\u200b\u0301"
    rows = []
    for _ in range(200):
        words = ["".join(random.choices(alphabet, k=random.randint(1, 6))) for _ in range(random.randint(1, 12))]
        rows.append(json.dumps({"tokens": words, "labels": ["O"] * len(words)}))
    sentences = read_sentences(write(tmp_path / "a.jsonl", "\n".join(rows)), NAMES)
    features = sentences.tokenize(tokenizer, max_seq_length=128)
    dropped = 0
    for words, (window,) in zip(sentences.words, features.windows, strict=True):
        assert (np.diff(window.tokens) > 0).all()
        for index, word in enumerate(words):
            alone = tokenizer.encode([word], max_seq_length=128)[0][0]
            is_dropped = index not in window.words
            assert is_dropped == (len(alone) == 2)  # the tokenizer drops words that consist of marks only
            dropped += is_dropped
    assert dropped


def test_labels_in_json_are_their_text(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"tokens": ["a", "b"], "labels": ["O", " B-PER "]}\n{"tokens": ["c"], "labels": ["B-PER"]}\n')
    assert find_word_labels(path, text_column="tokens", label_column="labels") == ("O", "B-PER")
    path.write_text('{"tokens": ["a", "b"], "labels": ["O", " "]}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:1: a label is empty; give each token one label"):
        find_word_labels(path, text_column="tokens", label_column="labels")


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.conll", "\u5317 B-LOC\n\u3000 I-LOC\n\u4eac I-LOC\n\n\u3000 O\n"),
        ("a.jsonl", json.dumps({"tokens": list("\u5317 \u4eac"), "labels": ["B-LOC", "O", "I-LOC"]})),
    ],
)
def test_blanks_of_a_text_whose_characters_are_words_are_left_out(tmp_path, name, content):
    (sentence,) = iterate_sentences(write(tmp_path / name, content))
    assert (sentence.words, sentence.labels) == (["\u5317", "\u4eac"], ["B-LOC", "I-LOC"])
