"""The body of a request, as far as no bundle is needed: forms of input by kind of task, and the names of bundles."""

import json

import pytest

from dynabert_paddle.errors import UsageError
from dynabert_paddle.serving.http.problems import Problem
from dynabert_paddle.serving.http.requests import PredictRequest, parse, rows_of
from dynabert_paddle.serving.http.settings import Limits, ServeSettings, name_bundles, read_keys

INPUTS = {
    "texts": {"texts": ["a", "b"]},
    "text": {"texts": "a"},
    "pairs": {"pairs": [["a", "b"]]},
    "questions": {"question": ["a", "b"], "context": ["c", "d"]},
    "question": {"question": "a", "context": "c"},
    "tokens": {"tokens": [["a", "b"], ["c"]]},
}
ROWS = {
    ("classification", False): {"texts": [("a",), ("b",)], "text": [("a",)]},
    ("classification", True): {"pairs": [("a", "b")]},
    ("regression", False): {"texts": [("a",), ("b",)], "text": [("a",)]},
    ("regression", True): {"pairs": [("a", "b")]},
    ("token_classification", False): {
        "texts": [("a",), ("b",)],
        "text": [("a",)],
        "tokens": [(["a", "b"],), (["c"],)],
    },
    ("question_answering", True): {
        "pairs": [("a", "b")],
        "questions": [("a", "c"), ("b", "d")],
        "question": [("a", "c")],
    },
}


def rows(content, kind="classification", *, takes_pairs=False, **limits):
    request = parse(PredictRequest, json.dumps(content).encode())
    return rows_of(request, kind, takes_pairs=takes_pairs, limits=Limits(**limits))


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind[0] + ("_pairs" if kind[1] else ""))
@pytest.mark.parametrize("form", INPUTS)
def test_a_kind_of_task_takes_its_own_forms_of_input_alone(kind, form):
    expected = ROWS[kind].get(form)
    if expected is not None:
        assert rows(INPUTS[form], kind[0], takes_pairs=kind[1]) == expected
        return
    with pytest.raises(Problem) as caught:
        rows(INPUTS[form], kind[0], takes_pairs=kind[1])
    assert (caught.value.status, caught.value.code) == (422, "wrong_kind")


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        ({"question": ["a"]}, "question_answering", "missing_input"),
        ({"question": ["a", "b"], "context": ["c"]}, "question_answering", "invalid_value"),
        ({"question": [], "context": []}, "question_answering", "no_texts"),
        ({"pairs": []}, "question_answering", "no_texts"),
        ({"pairs": [["a"]]}, "question_answering", "invalid_value"),
        ({"pairs": [["a", "b", "c"]]}, "question_answering", "invalid_value"),
        ({"tokens": [[]]}, "token_classification", "no_texts"),
        ({"tokens": [["a"], []]}, "token_classification", "no_texts"),
        ({"tokens": ["a"]}, "token_classification", "invalid_value"),
        ({"tokens": [["a" * 60, "b" * 60]]}, "token_classification", "text_too_long"),
        ({"question": "a", "context": "c" * 101}, "question_answering", "text_too_long"),
    ],
)
def test_inputs_that_do_not_fit_together_are_refused(content, kind, code):
    with pytest.raises(Problem) as caught:
        rows(content, kind, takes_pairs=kind == "question_answering", max_characters=100)
    assert (caught.value.status, caught.value.code) == (422, code)


def test_a_misspelt_field_is_named_with_the_nearest_one():
    with pytest.raises(Problem, match=r"'dedline_ms' is no field of the request. Did you mean 'deadline_ms'\?"):
        rows({"texts": ["a"], "dedline_ms": 5})


def test_settings_travel_as_json():
    settings = ServeSettings((("a", "/b"),), workers=3, limits=Limits(deadline_ms=2.5))
    assert ServeSettings.from_json(settings.to_json()) == settings


def test_bundles_are_called_as_their_folders_or_as_they_are_named(tmp_path):
    (tmp_path / "a=b").mkdir()
    assert name_bundles([str(tmp_path / "x"), "y=z"]) == (("x", str(tmp_path / "x")), ("y", str(tmp_path.cwd() / "z")))
    assert name_bundles([str(tmp_path / "a=b")]) == (("a=b", str(tmp_path / "a=b")),)
    for words in (["x", "other/x"], ["y=x", "y=z"], ["=x"], ["x="], ["/"]):
        with pytest.raises(UsageError):
            name_bundles(words)


def test_keys_are_lines_and_a_key_is_what_a_header_can_carry(tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(b"one\r\n\n two \n")
    assert read_keys(path) == [b"one", b"two"]
    for content in (b"", b"\n \n", b"a b\n", "ключ".encode()):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            read_keys(path)
