"""Reads a retrieval folder in BEIR's form: documents, queries, and which documents answer which query."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.data.embedding_metrics import Retrieval
from dynabert_paddle.data.labels import is_number
from dynabert_paddle.data.readers import check_not_empty
from dynabert_paddle.data.records import quote, read_lines, read_objects
from dynabert_paddle.errors import DataError

_CORPUS, _QUERIES, _JUDGEMENTS = "corpus.jsonl", "queries.jsonl", "qrels"
_SPLITS = ("test.tsv", "dev.tsv")
_MAX_SHOWN = 3


def read_retrieval(folder: Path, *, first: int = 0) -> tuple[list[str], Retrieval]:
    """Read a retrieval folder.

    Args:
        folder: has `corpus.jsonl` (`_id`, `text`, and maybe `title`), `queries.jsonl` (`_id`, `text`) and `qrels/`
            with a `.tsv` of query, document and gain: `test.tsv`, else `dev.tsv`, else the only one.
        first: the index that the first of the texts is to have.

    Returns:
        The texts, documents first, and the judgements; queries without an answer are left out, as is a document with
        the query's own id.

    Raises:
        DataError: a file is missing or damaged, or the judgements name ids that the folder lacks.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give one with {setting('task.retrieval_dir')}.")
    documents, queries = _read_texts(folder / _CORPUS), _read_texts(folder / _QUERIES)
    judgements = _read_judgements(_find_judgements(folder))
    _check_ids(folder, "queries", _QUERIES, judgements, queries)
    _check_ids(folder, "documents", _CORPUS, (one for found in judgements.values() for one in found), documents)
    places = {identity: place for place, identity in enumerate(documents)}
    answers = {
        query: {places[identity]: gain for identity, gain in found.items() if gain > 0 and identity != query}
        for query, found in judgements.items()
    }
    answered = {query: relevant for query, relevant in answers.items() if relevant}
    if not answered:
        raise DataError(f"{folder / _JUDGEMENTS}: no query has a document with a gain above 0; add some.")
    retrieval = Retrieval(
        queries=first + len(documents) + np.arange(len(answered)),
        documents=first + np.arange(len(documents)),
        relevant=list(answered.values()),
        same=np.array([places.get(query, -1) for query in answered]),
    )
    return [*documents.values(), *(queries[query] for query in answered)], retrieval


def _read_texts(path: Path) -> dict[str, str]:
    """Read texts by their ids, each behind its title."""
    texts: dict[str, str] = {}
    for line, record in read_objects(path):
        missing = next((key for key in ("_id", "text") if not isinstance(record.get(key), str | int)), None)
        if missing:
            raise DataError(f"{path}:{line}: no {missing!r} that is text; correct or delete the row.")
        identity = str(record["_id"])
        if identity in texts:
            raise DataError(f"{path}:{line}: the id {quote(identity)} occurs twice; keep one of the rows.")
        texts[identity] = f"{record.get('title') or ''} {record['text']}".strip()
        if not texts[identity]:
            raise DataError(f"{path}:{line}: the text is empty; fill it in or delete the row.")
    check_not_empty(path, len(texts))
    return texts


def _find_judgements(folder: Path) -> Path:
    names = sorted(path.name for path in (folder / _JUDGEMENTS).glob("*.tsv"))
    chosen = next((name for name in _SPLITS if name in names), names[0] if len(names) == 1 else None)
    if chosen is None:
        seen = f"contains {', '.join(names)}" if names else "contains no .tsv"
        raise DataError(f"{folder / _JUDGEMENTS}: {seen}; name the file to score on {_SPLITS[0]}.")
    return folder / _JUDGEMENTS / chosen


def _read_judgements(path: Path) -> dict[str, dict[str, float]]:
    """Read the gain of each judged document of each query; a first line without a number names the columns."""
    found: dict[str, dict[str, float]] = {}
    for line, text in read_lines(path):
        fields = [field.strip() for field in text.split("\t")]
        if fields == [""] or (line == 1 and not is_number(fields[-1])):
            continue
        if len(fields) == 4:  # as TREC writes them: query, iteration, document, gain
            fields = [fields[0], *fields[2:]]
        if len(fields) != 3 or not is_number(fields[2]):
            raise DataError(
                f"{path}:{line}: must be an id of a query, one of a document, and a number, separated by TABs, not "
                f"{quote(text)}; correct or delete the row."
            )
        query, document, gain = fields
        found.setdefault(query, {})[document] = float(gain)
    check_not_empty(path, len(found))
    return found


def _check_ids(folder: Path, what: str, name: str, ids: object, known: dict[str, str]) -> None:
    missing = [one for one in dict.fromkeys(ids) if one not in known]  # type: ignore[call-overload]
    if missing:
        shown = ", ".join(map(quote, missing[:_MAX_SHOWN])) + (", ..." if len(missing) > _MAX_SHOWN else "")
        raise DataError(
            f"{folder / _JUDGEMENTS}: {len(missing)} {what} are not in {name}, such as {shown}; add them, or remove "
            "their rows."
        )
