"""The body of `POST /predict`: its JSON, and the rows in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dynabert_paddle.errors import did_you_mean
from dynabert_paddle.files.json_text import RepeatedKeyError, parse_json
from dynabert_paddle.serving.http.problems import Problem
from dynabert_paddle.serving.http.settings import Limits

Row = tuple[Any, ...]  # a text, or a list of words; two texts of a pair
Body = TypeVar("Body", bound=BaseModel)

_INPUTS = ("texts", "pairs", "question", "tokens")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[str], BeforeValidator(_as_list)]


class Options(BaseModel):
    """How to answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    deadline_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Milliseconds from the arrival of the request until the answer is due."
    )
    subnet: str | None = Field(
        default=None, description="Sub-network that answers; by default the best that is in time."
    )
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Also list the K most probable classes."
    )
    role: Literal["document", "query"] | None = Field(
        default=None, description="Embeddings: what the texts are; each has its prompt. By default documents."
    )


class PredictRequest(Options):
    """Texts in one of four forms, as the bundle's task has them, and how to answer."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"example": {"texts": ["play some jazz"], "deadline_ms": 50}}
    )

    model: str | None = Field(default=None, description="Name of the bundle; needed where several are served.")
    texts: Texts | None = Field(default=None, description="Single texts, or one of them.")
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = Field(
        default=None, description="Pairs of texts."
    )
    question: Texts | None = Field(default=None, description="Questions, one for each context.")
    context: Texts | None = Field(default=None, description="The texts in which the answers are.")
    tokens: list[list[str]] | None = Field(default=None, description="Words of each text, for labels of words.")


def parse(model: type[Body], body: bytes) -> Body:
    """Parse JSON.

    Args:
        model: what the body should be.
        body: its bytes.

    Returns:
        The checked content.

    Raises:
        Problem: it is not JSON in UTF-8, or has other fields, types or values.
    """
    try:
        parsed = model.model_validate_json(body)
        parse_json(body)  # whose other parser refuses a key that is there twice
        return parsed
    except RepeatedKeyError as error:
        raise Problem(400, "invalid_json", f"{error}: keep one of them") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    except (ValueError, RecursionError):  # numbers of thousands of digits
        raise Problem(400, "invalid_json", "the body holds a number or a nesting that is too large") from None
    if first["type"] == "json_invalid":
        raise Problem(400, "invalid_json", f"the body is not JSON in UTF-8: {first['msg'].partition(': ')[2]}")
    where = ".".join(map(str, first["loc"]))[:100] or "the body"
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(first["loc"][-1]), model.model_fields)
        raise Problem(422, "unknown_field", f"'{where}' is no field of the request.{hint or ' See /docs.'}")
    raise Problem(422, "invalid_value", f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}")


def rows_of(request: PredictRequest, kind: str, *, takes_pairs: bool, limits: Limits) -> list[Row]:
    """Take the rows out of a request.

    Args:
        request: the request.
        kind: of the bundle's task.
        takes_pairs: whether the task has pairs of texts.
        limits: how many, and how long.

    Returns:
        One or more rows.

    Raises:
        Problem: none or several forms of input, one that is of another kind of task, no rows, or too many.
    """
    given = [name for name in _INPUTS if getattr(request, name) is not None]
    if request.context is not None and "question" not in given:
        raise Problem(422, "missing_input", "'context' needs 'question': give both")
    wanted = _wanted(kind, takes_pairs=takes_pairs)
    if len(given) != 1:
        found = f"both '{given[0]}' and '{given[1]}'" if given else "no texts"
        raise Problem(422, "missing_input", f"the request has {found}: give {_or(wanted)} alone")
    form = given[0]
    if form not in wanted:
        raise Problem(422, "wrong_kind", f"this bundle's task is {kind}, so it takes {_or(wanted)}, not '{form}'")
    rows: list[Row]
    if form == "question":
        rows = list(zip(*_columns(request), strict=True))
    elif form == "pairs":
        rows = [tuple(pair) for pair in request.pairs or ()]
    else:
        rows = [(text,) for text in getattr(request, form)]
    check_rows(rows, limits)
    return rows


def check_rows(rows: Sequence[Row], limits: Limits) -> None:
    """Check the number of rows and their length.

    Args:
        rows: of texts or lists of words.
        limits: how many, and how long.

    Raises:
        Problem: none, too many, a row without words, or one that is too long.
    """
    if not rows:
        raise Problem(422, "no_texts", "the list of texts is empty: give one or more")
    if len(rows) > limits.max_texts:
        raise Problem(
            422, "too_many_texts", f"{len(rows)} texts, at most {limits.max_texts} a request: send several requests"
        )
    for number, row in enumerate(rows, start=1):
        for text in row:
            if isinstance(text, list) and not text:
                raise Problem(422, "no_texts", f"row {number} has no words: give one or more")
            length = len(text) if isinstance(text, str) else sum(map(len, text)) + len(text)
            if length > limits.max_characters:
                raise Problem(
                    422,
                    "text_too_long",
                    f"row {number} has {length} characters, at most {limits.max_characters} a text: split it",
                )


def _columns(request: PredictRequest) -> tuple[list[str], list[str]]:
    questions, contexts = request.question or [], request.context
    if contexts is None:
        raise Problem(422, "missing_input", "'question' needs 'context': give both")
    if len(questions) != len(contexts):
        raise Problem(
            422, "invalid_value", f"{len(questions)} questions and {len(contexts)} contexts: give one for each"
        )
    return questions, contexts


def _wanted(kind: str, *, takes_pairs: bool) -> list[str]:
    """The forms of input of a kind of task."""
    if kind == "question_answering":
        return ["question", "pairs"]
    if kind == "token_classification":
        return ["texts", "tokens"]
    return ["pairs"] if takes_pairs else ["texts"]


def _or(names: Sequence[str]) -> str:
    quoted = ["'question' and 'context'" if name == "question" else f"'{name}'" for name in names]
    return " or ".join(quoted)
