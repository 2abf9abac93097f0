"""Annotation files, each written as its tool writes it: words with labels, or texts with labels, are read from them."""

import gzip
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynabert_paddle.data.readers import Columns, read_rows
from dynabert_paddle.data.spans import Span, SpanReader, parse_span
from dynabert_paddle.data.tasks import load_task
from dynabert_paddle.data.token_classification import find_word_labels, iterate_sentences
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.text.encode import split_words

pytestmark = pytest.mark.reference

TEXT = "Ann Lee sings in New York."
WORDS = ["Ann", "Lee", "sings", "in", "New", "York", "."]
LABELS = ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O"]
SPANS = [[0, 7, "PER"], [17, 25, "LOC"]]


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def sentences(path, **options):
    return [(sentence.words, sentence.labels) for sentence in iterate_sentences(path, **options)]


def studio(text, *results, **more):
    """A task of Label Studio's JSON export."""
    result = [{"id": "a", "from_name": name, "to_name": "text", "type": kind, "value": v} for name, kind, v in results]
    return {
        "id": 1,
        "annotations": [{"id": 2, "result": result, "was_cancelled": False}],
        "data": {"text": text},
        **more,
    }


def studio_span(start, end, kind, text=TEXT, **more):
    return ("ner", "labels", {"start": start, "end": end, "text": text[start:end], "labels": [kind], **more})


DOCCANO = [
    {"id": 1, "text": TEXT, "label": SPANS, "Comments": []},
    {
        "id": 1,
        "text": TEXT,
        "entities": [{"id": 3, "label": k, "start_offset": a, "end_offset": b} for a, b, k in SPANS],
    },
]


@pytest.mark.parametrize("record", DOCCANO, ids=["label", "entities"])
def test_doccanos_spans(tmp_path, record):
    path = write_lines(tmp_path / "x.jsonl", record, {**record, "text": "Ann", "label": [], "entities": []})
    assert sentences(path) == [(WORDS, LABELS), (["Ann"], ["O"])]
    packed = tmp_path / "y.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert sentences(packed) == sentences(path)


def test_label_studios_spans(tmp_path):
    tasks = [
        studio(TEXT, studio_span(0, 7, "PER"), studio_span(17, 25, "LOC")),
        {"id": 2, "annotations": [], "data": {"text": "nobody has read this"}},
        {"id": 3, "annotations": [{"was_cancelled": True, "result": []}], "data": {"text": "skipped"}},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks, indent=1))
    assert sentences(path) == [(WORDS, LABELS)]
    path = write_lines(
        tmp_path / "min.jsonl", {"text": TEXT, "id": 1, "label": [v for _, _, v in [studio_span(0, 7, "PER")]]}
    )
    assert sentences(path) == [(WORDS, [*LABELS[:2], *["O"] * 5])]


def test_of_several_annotations_the_ground_truth_counts(tmp_path, caplog):
    task = studio(TEXT, studio_span(0, 7, "PER"))
    other = {"result": [], "was_cancelled": False}
    truth = {**task["annotations"][0], "ground_truth": True}
    path = write_lines(
        tmp_path / "x.jsonl", {**task, "annotations": [other, truth]}, {**task, "annotations": [other, other]}
    )
    with caplog.at_level(logging.INFO):
        assert [labels for _, labels in sentences(path)] == [[*LABELS[:2], *["O"] * 5], ["O"] * 7]
    assert "2 tasks have several annotations, of which the first one counts" in caplog.text


def test_choices_and_lists_of_one_label_are_classes(tmp_path):
    choice = ("mood", "choices", {"choices": ["good"]})
    path = write_lines(tmp_path / "s.jsonl", studio("fine", choice))
    for label in ("label", "mood"):
        assert [row[1:4] for row in read_rows(path, Columns("text", label=label))] == [("fine", None, "good")]
    path = write_lines(tmp_path / "d.jsonl", {"text": "a", "label": ["x"]}, {"text": "b", "label": [2]})
    assert [row.label for row in read_rows(path, Columns("text", label="label"))] == ["x", "2"]
    path = write_lines(tmp_path / "m.jsonl", studio("fine", choice, studio_span(0, 4, "X", "fine")))
    assert [row.label for row in read_rows(path, Columns("text", label="mood"))] == ["good"]
    with pytest.raises(DataError, match="no column 'label'; the columns here are 'text', 'mood', 'ner'"):
        list(read_rows(path, Columns("text", label="label")))


@pytest.mark.parametrize("label", [[], ["x", "y"], [[0, 1, "PER"]], [["x"]], [None]])
def test_other_lists_are_no_class(tmp_path, label):
    path = write_lines(tmp_path / "x.jsonl", {"text": "a", "label": label})
    with pytest.raises(DataError, match="x.jsonl:1: 'label' is"):
        list(read_rows(path, Columns("text", label="label")))


TAGGED = {"tokens": ["Ann", "sings"], "ner_tags": [1, 0]}
NAMES = ["O", "B-PER", "I-PER"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "O\nB-PER\nI-PER\n"),
        ("dataset_info.json", {"features": {"ner_tags": {"feature": {"names": NAMES, "_type": "ClassLabel"}}}}),
        ("dataset_infos.json", {"default": {"features": {"ner_tags": {"feature": {"names": NAMES}}}}}),
        ("dataset_info.json", {"features": {"ner_tags": [{"names": {"0": "O", "1": "B-PER", "2": "I-PER"}}]}}),
    ],
)
def test_integer_tags_have_their_names_beside_the_data(tmp_path, name, content):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    path = write_lines(tmp_path / "train.jsonl", TAGGED)
    assert sentences(path) == [(["Ann", "sings"], ["B-PER", "O"])]
    assert find_word_labels(path, text_column="tokens", label_column="labels") == ("O", "B-PER")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "O\nB-PER\nI-PER\n"),
        ("n.json", NAMES),
        ("n.json", {"names": NAMES}),
        ("n.json", {"0": "O", "1": "B-PER", "2": "I-PER"}),
        ("n.json", {"O": 0, "B-PER": 1, "I-PER": 2}),
        (None, None),
    ],
)
def test_integer_tags_have_the_names_that_the_user_lists(tmp_path, name, content):
    """In a list, or in a file that the setting names."""
    path = write_lines(tmp_path / "x.jsonl", TAGGED, TAGGED)
    if name:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    labels = [str(tmp_path / name)] if name else NAMES
    task = load_task("custom", train_file=path, dev_file=path, kind="token_classification", labels=labels)
    assert task.labels == tuple(NAMES)
    assert task.train.labels[0] == ["B-PER", "O"]


def test_integers_without_names_are_refused(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", TAGGED)
    with pytest.raises(DataError, match="x.jsonl:1: 'ner_tags' has integers, and nothing tells their names: list them"):
        sentences(path)
    with pytest.raises(DataError, match="x.jsonl:1: the label 1 has no name; there are 1, "):
        sentences(path, given_names=["O"])
    (tmp_path / "labels.txt").write_text("O\n")
    with pytest.raises(DataError, match="x.jsonl:1: the label 1 has no name"):
        sentences(path, given_names=NAMES)  # a file beside the data is what its writer meant
    (tmp_path / "n.json").write_text('{"a": {}}')
    with pytest.raises(DataError, match="n.json: lists no labels"):
        load_task(
            "custom", train_file=path, dev_file=path, kind="token_classification", labels=[str(tmp_path / "n.json")]
        )
    with pytest.raises(UsageError, match="at least two labels"):
        load_task("custom", train_file=path, dev_file=path, kind="token_classification", labels=["gone.txt"])


def write_parquet(path, columns, features=None):
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def test_parquet_has_the_rows_and_the_names_of_hugging_face(tmp_path):
    features = {"ner_tags": {"feature": {"names": NAMES, "_type": "ClassLabel"}, "_type": "Sequence"}}
    path = write_parquet(tmp_path / "x.parquet", {"tokens": [["Ann", "sings"]], "ner_tags": [[1, 0]]}, features)
    assert sentences(path) == [(["Ann", "sings"], ["B-PER", "O"])]
    features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
    path = write_parquet(tmp_path / "y.parquet", {"text": ["a", "b"], "label": [1, 0]}, features)
    assert [(row.line, row.text, row.label) for row in read_rows(path, Columns("text", label="label"))] == [
        (1, "a", "pos"),
        (2, "b", "neg"),
    ]
    path = write_parquet(tmp_path / "z.parquet", {"text": ["a", None], "label": [1, 0]})
    with pytest.raises(DataError, match="z.parquet:2: 'text' is null"):
        list(read_rows(path, Columns("text", label="label")))
    (tmp_path / "d").mkdir()
    for name in ("train", "dev"):
        write_parquet(tmp_path / "d" / f"{name}.parquet", {"text": ["a", "b"], "label": [1, 0]}, features)
    assert load_task("custom", data_dir=tmp_path / "d").labels == ("neg", "pos")


def test_damaged_parquet_files(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", {"text": ["a"] * 100})
    content = path.read_bytes()
    for damaged in (content[:-20], b"", b"PAR1", content[:50] + bytes(40) + content[90:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="x.parquet"):
            list(read_rows(path, Columns("text")))
    with pytest.raises(DataError, match="gone.parquet: no such file"):
        list(read_rows(tmp_path / "gone.parquet", Columns("text")))


SEPARATED = "\n".join("\t".join(("\x02".join(words), "\x02".join(labels))) for words, labels in (
    (["海", "钓"], ["B-LOC", "O"]), (["我"], ["O"]), (["a", " ", "b"], ["O", "O", "B-X"]),
)) + "\n"  # fmt: skip


@pytest.mark.parametrize("header", ["", "text_a\tlabel\n"])
@pytest.mark.parametrize("ending", ["tsv", "txt"])
def test_paddlenlps_form(tmp_path, header, ending):
    path = tmp_path / f"x.{ending}"
    path.write_text(header + SEPARATED)
    assert sentences(path) == [(["海", "钓"], ["B-LOC", "O"]), (["我"], ["O"]), (["a", "b"], ["O", "B-X"])]
    assert [words for words, _ in sentences(path, label_column=None)] == [["海", "钓"], ["我"], ["a", "b"]]
    path.write_text(header + SEPARATED + "海\x02钓\tO\n")
    with pytest.raises(DataError, match=r"2 words and 1 labels, all separated by \\x02; give each word one label"):
        sentences(path)


CONLLU = """# newdoc
# sent_id = 1
# text = Ann isn't here
1\tAnn\tAnn\tPROPN\tNNP\t_\t2\tnsubj\t_\tSpaceAfter=No
2-3\tisn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tis\tbe\tAUX\tVBZ\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgone\t_\t_\t_\t_\t_\t_\t_\t_
4\there\there\tADV\tRB\t_\t2\tadvmod\t_\t_

# sent_id = 2
1\tGo\tgo\tVERB\tVB\t_\t0\troot\t_\t_
"""


@pytest.mark.parametrize(
    ("column", "labels"), [("UPOS", ["PROPN", "AUX", "PART", "ADV"]), ("5", ["NNP", "VBZ", "RB", "RB"])]
)
def test_conllu(tmp_path, column, labels):
    path = tmp_path / "x.conllu"
    path.write_text(CONLLU)
    assert sentences(path, label_column=column)[0] == (["Ann", "is", "n't", "here"], labels)
    assert [words for words, _ in sentences(path, label_column=None)] == [["Ann", "is", "n't", "here"], ["Go"]]
    with pytest.raises(DataError, match="several columns can be the label's; choose one of LEMMA, UPOS, XPOS"):
        sentences(path)
    with pytest.raises(DataError, match="no column 'POS'; choose one of LEMMA, UPOS"):
        sentences(path, label_column="POS")


@pytest.mark.parametrize(
    "content",
    [
        "# sent_id = a-1\n# text = Ann Lee sings\n1\tAnn\tB-PER\t-\t-\n2\tLee\tI-PER\t-\t-\n3\tsings\tO\t-\t-\n",
        "# global.columns = ID FORM UPOS X:NER MISC\n1\tAnn\tN\tB-PER\t_\n2\tLee\tN\tI-PER\t_\n3\tsings\tV\tO\t_\n",
        "# id 7e2 domain=en\nAnn _ _ B-PER\nLee _ _ I-PER\nsings _ _ O\n",
        "# text = Ann\nAnn N x B-PER\nLee N x I-PER\nsings V x O\n",
    ],
    ids=["Universal NER", "CoNLL-U Plus", "MultiCoNER", "comment of as many columns"],
)
def test_files_like_conllu(tmp_path, content):
    path = tmp_path / "x.conll"
    path.write_text(f"{content}\n{content.rpartition('# global')[0] or content}")
    assert {tuple(map(tuple, pair)) for pair in sentences(path)} == {
        (("Ann", "Lee", "sings"), ("B-PER", "I-PER", "O")),
    }


def test_numbers_that_are_words_are_no_numbers_of_words(tmp_path):
    path = tmp_path / "x.conll"
    for content in ("1\tCD\tO\n2\tCD\tO\n\n", "1\tO\n2\tO\n3\tB-X\n\n", "1\tCD\tO\n3\tCD\tO\nof\tIN\tO\n\n"):
        path.write_text(content)
        assert sentences(path)[0][0][0] == "1"
    path.write_text("# # O\n# - O\n")
    assert [words for words, _ in sentences(path)] == [["#", "#"]]


# Spans that do not fit.


def read_spans(text, *spans, word_split="words"):
    reader = SpanReader("x.jsonl", word_split)
    words, labels = reader.read(text, [Span(*span) for span in spans], 3)
    return dict(zip(words, labels, strict=True)), [message.partition("spans ")[2] for message in reader.check()]


@pytest.mark.parametrize(
    ("spans", "labels", "message"),
    [
        (
            [(1, 6, "PER")],
            {"Ann": "B-PER", "Lee": "I-PER"},
            "begin or end inside of a word, and were moved to the ends",
        ),
        ([(17, 99, "LOC")], {"New": "B-LOC", "York": "I-LOC", ".": "I-LOC"}, "end outside of their text, and were cut"),
        ([(30, 40, "LOC")], {}, "are outside of their text, and were left out"),
        ([(-3, 4, "LOC")], {}, "are outside of their text, and were left out"),
        ([(5, 5, "PER")], {}, "do not end after they begin, and were left out"),
        ([(7, 0, "PER")], {}, "do not end after they begin, and were left out"),
        ([(3, 4, "PER")], {}, "have no word, and were left out"),
        ([(0, 3, "A"), (0, 7, "B")], {"Ann": "B-B", "Lee": "I-B"}, "overlap another span, the longest of which stays"),
        ([(0, 4, "A"), (4, 8, "B")], {"Ann": "B-A", "Lee": "B-B"}, None),  # with the blank behind it
        ([(0, 3, "A"), (0, 3, "A")], {"Ann": "B-A"}, None),
        ([(0, 3, "A", "Ann")], {"Ann": "B-A"}, None),
        ([(1, 5, "A", "sings")], {"sings": "B-A"}, "annotate a text that is not at their offsets, and were moved"),
        ([(0, 3, "A", "Bob")], {}, "annotate a text that is not at their offsets, and were left out"),
    ],
)
def test_a_span_that_does_not_fit_is_moved_or_left_out_and_counted(spans, labels, message):
    found, messages = read_spans(TEXT, *spans)
    assert {word: label for word, label in found.items() if label != "O"} == labels
    if message is None:
        assert messages == []
    else:
        (only,) = messages
        assert only.startswith(message)
        assert only.endswith("the first is of line 3")


def test_many_spans_that_do_not_fit_are_refused():
    with pytest.raises(DataError) as caught:
        read_spans(TEXT, (1, 3, "A"), (5, 7, "A"), (9, 12, "A"), (14, 16, "A"))
    assert "x.jsonl:3: 3 of 4 spans do not fit their texts (3 begin or end inside of a word)" in str(caught.value)
    assert "set word_split to characters" in str(caught.value)
    labels, messages = read_spans("今天天气", (0, 2, "T"), (2, 4, "W"), word_split="characters")
    assert (labels, messages) == ({"今": "B-T", "天": "B-W", "气": "I-W"}, [])


UNITS = {
    "UTF-16 units": lambda text: len(text.encode("utf-16-le")) // 2,
    "bytes of UTF-8": lambda text: len(text.encode()),
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("with_text", [True, False])
def test_offsets_in_other_units_are_converted_where_the_text_tells_and_else_refused(unit, with_text):
    text = "😀 Ann Lee 😀😀 sings in Zürich 😀 today"
    words = split_words(text)
    spans, expected = [], {}
    for name, kind in (("Ann Lee", "PER"), ("Zürich", "LOC"), ("today", "T")):
        start = text.index(name)
        counted = [UNITS[unit](text[:place]) for place in (start, start + len(name))]
        spans.append((*counted, kind, name) if with_text else (*counted, kind))
        inside = [word for word in words if start <= word[0] < start + len(name)]
        expected |= {text[a:b]: f"{'B' if i == 0 else 'I'}-{kind}" for i, (a, b) in enumerate(inside)}
    if with_text:
        found, (message,) = read_spans(text, *spans)
        assert {word: label for word, label in found.items() if label != "O"} == expected
        assert message.startswith(f"are counted in {unit}")
    else:
        with pytest.raises(DataError, match=f"the offsets of its spans seem to count {unit}"):
            read_spans(text, *spans)


def test_offsets_of_bytes_in_chinese_are_refused():
    text = "今天天气很好"
    with pytest.raises(DataError, match="seem to count bytes of UTF-8, .* of 2 spans that this moves, all then begin"):
        read_spans(text, (0, 6, "T"), (6, 12, "W"))
    assert read_spans(text, (0, 2, "T"), (2, 4, "W"))[1] == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        "PER",
        [],
        [0, 1],
        [0, 1, "A", 2],
        ["0", 1, "A"],
        [0, 1, ""],
        [0, 1.5, "A"],
        [True, 2, "A"],
        {"start": 0},
        {"start": 0, "end": 1, "labels": ["A", "B"]},
    ],
)
def test_what_is_no_span(tmp_path, value):
    assert parse_span(value) is None
    path = write_lines(tmp_path / "x.jsonl", {"text": TEXT, "labels": [value]})
    with pytest.raises(
        DataError, match="x.jsonl:1: ('labels' has .* which is no span: expected|no 'tokens'; the keys here are)"
    ):
        sentences(path)


@pytest.mark.parametrize(
    ("record", "seen"),
    [
        (
            {"text": TEXT, "spans": [{"start": 0, "end": 3, "label": "PER"}]},
            "no 'tokens'; the keys here are 'text', 'spans'",
        ),
        ({"sentence": TEXT, "annotations": {"entities": []}}, "no 'tokens'; the keys here are"),
        ({"text": TEXT, "label": "PER"}, "no 'tokens'"),
        ({"tokens": [{"text": "Ann"}], "labels": []}, "it must be a list of strings"),
    ],
)
def test_a_file_of_another_tool_is_refused_with_its_keys(tmp_path, record, seen):
    path = write_lines(tmp_path / "x.jsonl", record)
    with pytest.raises(DataError) as caught:
        sentences(path)
    assert seen in str(caught.value)


def test_a_column_of_spans_may_be_named(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", {"body": TEXT, "spans": [{"start": 0, "end": 7, "label": "PER"}]})
    assert sentences(path, text_column="body", label_column="spans") == [(WORDS, [*LABELS[:2], *["O"] * 5])]


def test_a_task_of_spans_has_both_labels_of_a_type_and_warns_once(tmp_path, caplog):
    """Its dev file may have the one that the training file lacks."""
    train = write_lines(
        tmp_path / "train.jsonl", {"text": "Ann sings", "label": [[0, 3, "PER"], [5, 9, "ACT"], [3, 4, "X"]]}
    )
    dev = write_lines(tmp_path / "dev.jsonl", DOCCANO[0] | {"label": SPANS[:1]})
    task = load_task("custom", train_file=train, dev_file=dev, kind="token_classification")
    assert task.labels == ("O", "B-ACT", "B-PER", "I-ACT", "I-PER")
    assert task.dev.labels == [[*LABELS[:2], *["O"] * 5]]
    assert [record.message.partition(": ")[2] for record in caplog.records if "spans" in record.message] == [
        "1 of 3 spans begin or end inside of a word, and were moved to the ends of the word; the first is of line 1",
        "1 of 3 spans have no word, and were left out; the first is of line 1",
    ]
