"""Questions, contexts and answers: reading, windows, scores."""

import json
import logging

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.question_answering import AnswerSettings, iterate_questions, read_questions
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.text.encode import Template
from dynabert_paddle.text.leading import Tokens

CONTEXT = (
    "Our river Rhine rises in Switzerland. It passes Basel, Strasbourg and Cologne, "
    "and reaches the North Sea near Rotterdam after 1,233 kilometres."
)
CHINESE = "长江发源于青海省唐古拉山。全长6300公里。在上海注入东海。"


@pytest.fixture(scope="module")
def tokenizer():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


def asked(id, question, *answers, context=CONTEXT, **more):
    found = [{"text": text, "answer_start": context.find(text)} for text in answers]
    return {"id": id, "question": question, "answers": found, **more}


def squad(tmp_path, *questions, context=CONTEXT, name="dev.json"):
    content = {"version": "1.1", "data": [{"title": "x", "paragraphs": [{"context": context, "qas": list(questions)}]}]}
    path = tmp_path / name
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


PARAGRAPH = '{"data": [{"paragraphs": [{"context": "c", "qas": [%s]}]}]}'

RISES = asked("a", "Where does the Rhine rise?", "Switzerland")
LENGTH = asked("b", "How long is the Rhine?", "1,233 kilometres", "1,233")


def test_squad_and_json_lines_are_equivalent(tmp_path):
    first = read_questions(squad(tmp_path, RISES, LENGTH))
    lines = []
    for row in first.rows:
        texts, starts = zip(*row.answers, strict=True)
        answers = {"text": texts, "answer_start": starts}
        lines.append(json.dumps({"id": row.id, "question": row.question, "context": row.context, "answers": answers}))
    (tmp_path / "dev.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_questions(tmp_path / "dev.jsonl").rows == first.rows
    assert first.rows[1].answers == [("1,233 kilometres", CONTEXT.find("1,233")), ("1,233", CONTEXT.find("1,233"))]


def test_an_answer_that_is_not_in_its_context_is_counted(tmp_path, caplog):
    wrong = {"id": "w", "question": "q?", "answers": [{"text": "Vienna", "answer_start": 3}]}
    moved = {"id": "m", "question": "q?", "answers": [{"text": "Basel", "answer_start": 5}]}
    path = squad(tmp_path, wrong, RISES, moved)
    with caplog.at_level(logging.WARNING, logger="dynabert_paddle"):
        logging.getLogger("dynabert_paddle").propagate = True
        assert [row.id for row in read_questions(path, training=True).rows] == ["a"]
        assert [row.id for row in read_questions(path).rows] == ["w", "a", "m"]
    train, dev = caplog.messages
    assert "2 answers are not in their context" in train and "left out; the first is of question 'w'" in train
    assert "compared by their text only" in dev


@pytest.mark.parametrize(
    "content, message",
    [
        ("[1]", "not in SQuAD's format"),
        ('{"data": 3}', "not in SQuAD's format"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "not in SQuAD's format .KeyError: 'context'"),
        ('{"data": [}', "not in SQuAD's format"),
        ('{"data": []}', "no usable question"),
        (PARAGRAPH % '{"id": "x"}', "question 'x': needs the texts"),
        (PARAGRAPH % '{"id": "y", "question": "q", "answer": []}', "question 'y': needs the texts"),
        (PARAGRAPH % "7", "question 7: needs the texts"),
        (PARAGRAPH % '{"id": 1, "question": "q", "answers": [{"text": 3}]}', "question 1: needs the texts"),
    ],
)
def test_errors_name_the_fault(tmp_path, content, message):
    path = tmp_path / "dev.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_questions(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"unknown file ending '.txt'; question answering reads .json, .jsonl"):
        read_questions(tmp_path / "dev.txt")


@pytest.mark.parametrize("length", [24, 40, 384])
@pytest.mark.parametrize("stride", [3, 10, 500])
def test_windows_cover_the_context_and_contain_the_answer(tmp_path, tokenizer, length, stride):
    settings = AnswerSettings(doc_stride=stride)
    questions = read_questions(squad(tmp_path, RISES, LENGTH), settings=settings)
    features = questions.tokenize(tokenizer, max_seq_length=length)
    context = tokenizer.encode([CONTEXT], max_seq_length=500)[0][0][1:-1]
    held = [0, 0]
    for index, (owner, first, spans) in enumerate(zip(features.owners, features.first, features.spans, strict=True)):
        row = features.collate(np.array([index]), 0)
        ids = row["input_ids"][0]
        assert len(ids) <= length
        assert ids[first : first + len(spans)].tolist() == context[: len(spans)] or index
        assert row["token_type_ids"][0].tolist() == [0] * first + [1] * (len(ids) - first)
        start, end = row["labels"][0]
        if end:
            held[owner] += 1
            text, _ = questions.rows[owner].answers[0]
            assert CONTEXT[spans[start - first][0] : spans[end - first][1]] == text
    seen = {owner: set() for owner in (0, 1)}
    for owner, spans in zip(features.owners, features.spans, strict=True):
        seen[owner] |= set(spans)
    assert len(seen[0]) == len(seen[1]) == len(context)
    if stride <= 3 or length == 384:
        assert min(held) >= 1


def test_too_short_rows_are_refused(tmp_path, tokenizer):
    with pytest.raises(UsageError, match="max_seq_length is 6"):
        read_questions(squad(tmp_path, RISES)).tokenize(tokenizer, max_seq_length=6)


def pointing(features, answers):
    """Logits that select a text in every window that contains it, and otherwise the row's first token."""
    rows = []
    for owner, length, first, spans in zip(
        features.owners, features.lengths, features.first, features.spans, strict=True
    ):
        context, wanted = features.questions.rows[owner].context, answers[owner]
        begin = context.find(wanted) if wanted else -1
        logits = np.zeros((2, length))
        starts = [i for i, (start, _) in enumerate(spans) if start == begin]
        ends = [i for i, (_, end) in enumerate(spans) if end == begin + len(wanted)]
        where = (first + starts[0], first + ends[0]) if starts and ends else (0, 0)
        logits[0, where[0]] = logits[1, where[1]] = 9
        rows.append(logits)
    return rows


@pytest.mark.parametrize("length", [24, 384])
def test_scores_are_the_maximum_over_a_questions_answers(tmp_path, tokenizer, length):
    settings = AnswerSettings(doc_stride=4)
    features = read_questions(squad(tmp_path, RISES, LENGTH), settings=settings).tokenize(
        tokenizer, max_seq_length=length
    )
    metrics = ("f1", "exact_match")
    assert features.score(metrics, pointing(features, ["Switzerland", "1,233"])) == {"f1": 1, "exact_match": 1}
    # "Rotterdam after 1,233" shares one word of three with "1,233", and two of three with neither: F1 is 1/2 for one
    # answer, (1/3, 1/2) -> 2/5 for the other; the better one counts.
    scores = features.score(metrics, pointing(features, ["Switzerland", "Rotterdam after 1,233"]))
    assert scores == pytest.approx({"f1": (1 + 1 / 2) / 2, "exact_match": 1 / 2})


def test_a_question_without_an_answer(tmp_path, tokenizer):
    nothing = asked("c", "Who owns it?", is_impossible=True)
    for may_be_empty, exact in ((True, 1.0), (False, 0.5)):
        settings = AnswerSettings(may_be_empty=may_be_empty)
        features = read_questions(squad(tmp_path, RISES, nothing), settings=settings).tokenize(
            tokenizer, max_seq_length=64
        )
        scores = features.score(("exact_match",), pointing(features, ["Switzerland", ""]))
        assert scores == {"exact_match": exact}


def test_chinese_is_compared_by_character(tmp_path):
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    question = asked("z", "长江在哪里注入东海", "上海", context=CHINESE)
    features = read_questions(squad(tmp_path, question, context=CHINESE)).tokenize(tokenizer, max_seq_length=64)
    scores = features.score(("f1", "exact_match"), pointing(features, ["在上海"]))
    assert scores == pytest.approx({"f1": 2 * (2 / 3) * 1 / (2 / 3 + 1), "exact_match": 0})


MIXED = "公司用Python和TensorFlow 写服务。总部在上海市浦东新区。"


@pytest.mark.parametrize(
    "context, gold, answer, f1",
    [
        # One blank in the context: still by character.
        (CHINESE.replace("。全", "。 全"), "上海", "在上海", 4 / 5),
        (MIXED, "上海市浦东新区", "上海市", 6 / 10),
        ("総武線は 千葉と東京を結ぶ。", "千葉", "千葉と東京", 4 / 7),
        # A blank in the answer: what is behind it counts, too.
        ("他住在北京 大学附近。", "北京 大学", "北京", 2 * (1 / 2) / (1 / 2 + 1)),
        ("他住在北京 大学附近。", "北京 大学", "北京 大学", 1.0),
        # Words with blanks, whatever is between them.
        ("The capital is Beijing (北京) in China.", "Beijing", "capital is Beijing", 1 / 2),
        ("Rotterdam", "Rotterdam", "Rotterdam", 1.0),
        ("서울 시청 앞 광장", "서울 시청", "서울", 2 / 3),
    ],
)
def test_the_script_of_the_text_determines_whether_words_or_characters_are_compared(
    tmp_path, context, gold, answer, f1
):
    class Characters:  # a token each, so that every answer can be pointed at
        def encode_offsets(self, texts, max_tokens=None):
            return [Tokens([1] * len(text), [(i, i + 1) for i in range(len(text))]) for text in texts]

        def template(self, texts):
            return Template(([101], [102], [102]), ([0], [0], [1]), (0, 1))

    path = squad(tmp_path, asked("q", "?", gold, context=context), context=context)
    features = read_questions(path).tokenize(Characters(), max_seq_length=80)
    assert features.score(("f1",), pointing(features, [answer])) == {"f1": pytest.approx(f1)}


@pytest.mark.parametrize("answers", [{}, {"answers": None}, {"answers": "Basel"}, {"is_impossible": False}])
def test_questions_to_predict_need_no_answers(tmp_path, answers):
    path = squad(tmp_path, {"id": "a", "question": "Where?", **answers})
    (found,) = iterate_questions(path, answered=False)
    assert (found.question, found.context, found.answers) == ("Where?", CONTEXT, [])
    with pytest.raises(DataError, match="'answers' with 'text' and 'answer_start'"):
        read_questions(path)


def test_questions_to_predict_need_their_texts(tmp_path):
    with pytest.raises(DataError, match="question 'a': needs the texts 'question' and 'context'.$"):
        list(iterate_questions(squad(tmp_path, {"id": "a"}), answered=False))


def test_an_empty_answer_counts_as_no_answer(tmp_path):
    empty = {"id": "e", "question": "Who?", "answers": [{"text": "", "answer_start": -1}]}
    assert read_questions(squad(tmp_path, empty, RISES), training=True).rows[0].answers == []


def test_held_out_questions_share_no_context_with_the_others(tmp_path):
    paragraphs = [
        {
            "context": f"stone {i} lies here",
            "qas": [asked(f"{i}-{j}", "Which?", "stone", context="stone") for j in range(5)],
        }
        for i in range(40)
    ]
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    questions = read_questions(path)
    kept, held_out = questions.hold_out(23, seed=0)
    assert sorted([*kept, *held_out]) == list(range(200))
    assert len(held_out) == 25
    contexts = [{questions.rows[i].context for i in rows} for rows in (kept, held_out)]
    assert not contexts[0] & contexts[1]
    assert set(questions.hold_out(23, seed=1)[1]) != set(held_out)
    assert len(questions.select(range(5)).hold_out(2, seed=0)[1]) == 2  # of a single context


def test_max_answer_length_limits_the_answer(tmp_path, tokenizer):
    settings = AnswerSettings(max_answer_length=2)
    features = read_questions(squad(tmp_path, RISES), settings=settings).tokenize(tokenizer, max_seq_length=64)
    logits = np.zeros((1, 2, features.lengths[0]))
    logits[0, 0, features.first[0]] = logits[0, 1, features.first[0] + 8] = 5  # nine tokens apart
    logits[0, 0, features.first[0] + 5] = logits[0, 1, features.first[0] + 5] = 3  # Switzerland
    assert features.score(("exact_match",), list(logits)) == {"exact_match": 1.0}
