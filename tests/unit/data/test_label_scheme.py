"""The scheme of a task's labels: found in the sentences, named by the user, and what it does not allow."""

import json
import logging

import pytest

import dynabert_paddle as db
from dynabert_paddle.data.label_scheme import find_label_scheme
from dynabert_paddle.data.row_checks import describe_rows
from dynabert_paddle.data.token_classification import Sentences
from dynabert_paddle.data.word_settings import WordSettings, bundle_word_settings, parse_label_scheme
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.text.word_labels import LABEL_SCHEMES


def sentences_of(*rows, path="train.conll"):
    labels = [row.split() for row in rows]
    names = tuple(sorted({label for row in labels for label in row}, key=lambda name: (name.upper() != "O", name)))
    return Sentences([["w"] * len(row) for row in labels], labels, names, path)


FOUND = {
    "IOB2": ["O B-P I-P O", "B-P B-P I-P"],
    "IOB2 with an error": ["O B-P I-P O", "B-P B-P I-P", "O I-P", "B-P O B-Q"],
    "IOB2 of single words": ["O B-P O B-Q"],
    "IOB2 of entities of two words alone": ["O B-P I-P", "B-Q I-Q O"],
    "IOB1": ["O I-P I-P O", "I-P B-P I-P", "I-Q O"],
    "IOB1 without neighbours of one type has one position": ["O I-P I-P O", "I-Q I-P"],
    "IOE2": ["O I-P E-P O", "E-P I-P E-P"],
    "IOE2 of single words": ["O E-P O"],
    "IOE1": ["O I-P I-P O I-P", "I-P E-P I-P"],
    "IOBES": ["B-P I-P E-P O S-P", "S-Q"],
    "IOBES without single words": ["B-P I-P E-P O"],
    "IOBES of short entities": ["B-P E-P S-P"],
    "BIOS": ["B-P I-P O S-P", "B-P I-P I-P"],
    "BIOE": ["B-P I-P E-P O", "B-P O", "B-P E-P"],
    "BILOU": ["B-P I-P L-P O U-P"],
    "BMES": ["B-P M-P E-P S-P"],
    "BMEWO": ["B-P M-P E-P W-P"],
    "IOB2 after the type": ["O P-B P-I O P-B"],
    "IOB1 in small letters": ["o i-p i-p b-p o", "i-p o"],
    "IOBES with other signs": ["P_B P_I P_E O P_S"],
    "types": ["O P P O Q"],
    "marks": ["O COMMA O PERIOD QUESTION"],
    "marks as punctuators write them": ["O ,COMMA O .PERIOD ?QUESTIONMARK"],
    "types without words outside": ["NN VB NN"],
}


@pytest.mark.parametrize("name", FOUND)
def test_the_scheme_of_the_sentences_is_found(caplog, name):
    expected = "IO" if name.startswith("IOB1 without") else name.split()[0]
    with caplog.at_level(logging.INFO):
        assert find_label_scheme(sentences_of(*FOUND[name]), None) == expected
    told = {"types": "are types without positions", "marks": "are punctuation marks behind the words"}
    assert told.get(expected, f"are in the scheme {expected}; label_scheme names another") in caplog.text


@pytest.mark.parametrize("name", [name for name in FOUND if " " not in name])
def test_a_named_scheme_counts(name):
    assert find_label_scheme(sentences_of(*FOUND[name]), name) == name
    assert find_label_scheme(sentences_of(*FOUND[name]), "types") == "types"


def test_a_named_scheme_may_forbid_a_few_labels_but_not_many():
    rows = ["O B-P I-P O B-P"] * 40
    assert find_label_scheme(sentences_of(*rows, "O I-P"), "IOB2") == "IOB2"
    with pytest.raises(UsageError, match=r"label_scheme is IOB1, which forbids 80 successive .* IOB2 forbids 0:"):
        find_label_scheme(sentences_of(*rows), "IOB1")
    # Where no other scheme fits better, the errors are those of the labels.
    assert find_label_scheme(sentences_of(*["O I-P E-P S-P O"] * 3), "IOBES") == "IOBES"


@pytest.mark.parametrize(
    "given, expected",
    [
        *((name, name) for name in LABEL_SCHEMES),
        ("iob2", "IOB2"),
        ("BIO", "IOB2"),
        ("BIOES", "IOBES"),
        ("BIEOS", "IOBES"),
        ("BIOUL", "BILOU"),
        ("BMESO", "BMES"),
        ("BMEW", "BMEWO"),
        ("TYPES", "types"),
    ],
)
def test_schemes_have_the_names_that_users_know(given, expected):
    assert parse_label_scheme(given) == expected


@pytest.mark.parametrize("name", ["IOB", "IOE", "IOB3", "", "O", "XYZ"])
def test_names_of_no_scheme_or_of_two_are_refused(name):
    with pytest.raises(UsageError, match=rf"label_scheme is '{name}'; it must be one of IO, IOB2, IOB1, IOE2"):
        parse_label_scheme(name)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


CONLL = (
    "# made by hand\na O\nb I-P\n\nc B-P\nd I-P\ne O\n\nf B-P\ng I-Q\n\nh B-Q\ni O\nj I-P\nk B-P\n\nl I-P\n\nm B-P\n"
)
CONLL += "\nn B-Q\n"


def load(folder, text, *, name="a.conll", **given):
    file = write(folder / name, text)
    return db.load_task("custom", kind="token_classification", train_file=file, dev_file=file, **given)


def test_forbidden_labels_are_told_with_their_lines(tmp_path):
    task = load(tmp_path, CONLL)
    assert task.train.settings == task.dev.settings == WordSettings("IOB2")
    (message,) = [text for text in describe_rows(task) if "stand" in text]
    assert message == (
        f"{tmp_path / 'a.conll'}: 4 labels stand where IOB2 does not allow it, first line 3 (I-P after O), line 10 "
        "(I-Q after B-P), line 14 (I-P after O); correct them, or name another label_scheme; predictions have no such "
        "labels"
    )


def test_forbidden_labels_of_json_lines_and_at_the_end_are_told(tmp_path):
    rows = [["B-P", "E-P", "S-P"], ["B-P", "E-P", "O", "B-P"]]
    text = "\n".join(json.dumps({"tokens": ["w"] * len(row), "labels": row}) for row in rows)
    task = load(tmp_path, text, name="a.jsonl", decode="free")
    (message,) = [text for text in describe_rows(task) if "stand" in text]
    assert message == (
        f"{tmp_path / 'a.jsonl'}: 1 label stands where IOBES does not allow it: line 2 (B-P at the end); correct them, "
        "or name another label_scheme"
    )


def test_labels_that_the_scheme_allows_are_not_told(tmp_path):
    task = load(tmp_path, "a B-P\nb I-P\n\nc B-P\nd O\n")
    assert not [text for text in describe_rows(task) if "stand" in text]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"label_scheme": "BIOUX"}, "label_scheme is 'BIOUX'; it must be one of IO, "),
        ({"decode": "greedy"}, "decode is 'greedy'; it must be one of constrained, free."),
        ({"long_text": "split"}, "long_text is 'split'; it must be one of windows, truncate."),
        ({"doc_stride": 0}, "doc_stride is at least 1, not 0"),
        ({"label_scheme": "BILOU"}, "are not labels of BILOU: leave out label_scheme, or name the scheme of the lab"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, given, message):
    with pytest.raises((UsageError, DataError), match=message):
        load(tmp_path, "a B-P\nb I-P\nc E-P\nd S-P\n", **given)


def test_a_task_is_described_with_its_settings(tmp_path):
    given = {"label_scheme": "iob2", "decode": "free", "doc_stride": 8}
    task = load(tmp_path, "a B-P\nb I-P\nc O\n", **given)
    expected = {"label_scheme": "IOB2", "decode": "free", "long_text": "windows", "doc_stride": 8}
    assert task.to_dict().items() >= expected.items()
    assert task.settings_given == {*given}


def test_words_are_labelled_as_a_model_was_trained_to(tmp_path):
    task = load(tmp_path, "a B-P\nb I-P\nc O\n", decode="constrained")
    # A model from before these settings: it records none of them.
    assert task.with_settings_of({}).dev.settings == WordSettings("IOB2", "constrained", "truncate")
    trained = {"label_scheme": "IOB1", "decode": "free", "long_text": "windows", "doc_stride": 9}
    assert task.with_settings_of(trained).train.settings == WordSettings("IOB1", "constrained", "windows", 9)


def test_what_a_bundle_records():
    lengths = {"max_tokens": 14, "max_seq_length": 16}
    trained = {"label_scheme": "IOB2", "decode": "free", "long_text": "windows"}
    recorded = bundle_word_settings(trained, is_trained=True, **lengths)
    assert recorded == {"label_scheme": "IOB2", "decode": "free", "doc_stride": 7}
    assert bundle_word_settings({}, is_trained=True, **lengths) == {"label_scheme": None, "doc_stride": None}
    assert bundle_word_settings({}, is_trained=False, **lengths) == {"label_scheme": None, "doc_stride": 7}
    named = bundle_word_settings({"label_scheme": "IOB1", "doc_stride": 3}, is_trained=False, **lengths)
    assert named == {"label_scheme": "IOB1", "decode": "constrained", "doc_stride": 3}
    with pytest.raises(UsageError, match="decode constrained needs the scheme of the labels, .* with label_scheme"):
        bundle_word_settings({"decode": "constrained"}, is_trained=True, **lengths)
    with pytest.raises(UsageError, match="doc_stride is 14, and a window of max_seq_length 16 has 14 tokens"):
        bundle_word_settings({"doc_stride": 14}, is_trained=False, **lengths)


def test_the_f1_of_a_type_is_a_metric(tmp_path):
    task = load(tmp_path, "a B-P\nb I-P\nc B-Q\n", metrics=["f1_Q", "entity_f1"])
    assert task.metrics == ("f1_Q", "entity_f1")
    with pytest.raises(UsageError, match=r"metrics has f1_p, and the types of the labels are P, Q\."):
        load(tmp_path, "a B-P\nb I-P\nc B-Q\n", metrics=["f1_p"])
    with pytest.raises(UsageError, match="metric 'f1_a' is not for classification|unknown metric 'f1_a'"):
        db.load_task("snips", metrics=["f1_a"])


@pytest.mark.parametrize("num_words, num_parts", [(99, 1), (100, 2), (1990, 21), (9_000, 20), (20_001, 41)])
def test_one_long_text_is_read_in_parts(tmp_path, num_words, num_parts):
    text = "".join(f"w{index}\t{'PERIOD' if index % 7 == 6 else 'O'}\n" for index in range(num_words))
    task = load(tmp_path, text, name="a.txt")
    assert task.train.settings.label_scheme == "marks"
    assert task.dev.words == task.train.words
    lengths = {len(words) for words in task.train.words}
    assert len(task.train) == num_parts
    assert max(lengths) <= min(lengths) + 3 <= 503
    lines = [
        f"{word}\t{label}"
        for words, labels in zip(task.train.words, task.train.labels, strict=True)
        for word, label in zip(words, labels, strict=True)
    ]
    assert "\n".join([*lines, ""]) == text


def test_parts_of_a_long_text_begin_outside_of_entities(tmp_path):
    text = "".join(
        f"w{index}\t{'B-P' if index % 6 == 0 else 'I-P' if index % 6 < 5 else 'O'}\n" for index in range(1000)
    )
    task = load(tmp_path, text)
    assert len(task.train) == 20
    assert {labels[0] for labels in task.train.labels[1:]} == {"O"}
    assert not [message for message in describe_rows(task) if "stand" in message]
