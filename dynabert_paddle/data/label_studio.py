"""Label Studio's export (JSON): tasks with annotations, as plain records."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from dynabert_paddle.data.data_file import AnyFile

logger = logging.getLogger(__name__)

_LABEL = "label"  # the column of the results where a task has those of one control
_ANNOTATIONS = ("annotations", "completions")  # the latter until version 1.0


def is_task(record: dict[str, Any]) -> bool:
    """Whether an object is a task of Label Studio's export: its texts are in `data`, beside what was annotated."""
    return isinstance(record.get("data"), dict) and any(isinstance(record.get(key), list) for key in _ANNOTATIONS)


def plain_records(records: Iterable[tuple[int, dict[str, Any]]], path: AnyFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Turn tasks into records; others stay as they are.

    A record has the task's `data`, and for each control of its labelling form a column: the list of its choices, or of
    its spans. `label` has those of a form with one control. Tasks without an annotation are left out; of several
    annotations the first one counts, or the one that is marked as the ground truth.

    Args:
        records: lines and objects of the file.
        path: the file, for messages.

    Yields:
        Lines and records.
    """
    counts: Counter[str] = Counter()
    for line, record in records:
        if not is_task(record):
            yield line, record
            continue
        found = [each for key in _ANNOTATIONS for each in record.get(key) or () if isinstance(each, dict)]
        found = [each for each in found if not (each.get("was_cancelled") or each.get("skipped"))]
        if not found:
            counts["without"] += 1
            continue
        counts["several"] += len(found) > 1
        chosen = next((each for each in found if each.get("ground_truth")), found[0])
        yield line, {**record["data"], **_columns(chosen.get("result"))}
    if counts["without"]:
        logger.info("%s: left out %d tasks that nobody has annotated", path, counts["without"])
    if counts["several"]:
        logger.info("%s: %d tasks have several annotations, of which the first one counts", path, counts["several"])


def _columns(results: Any) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for result in results if isinstance(results, list) else ():
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            continue
        own = columns.setdefault(str(result.get("from_name", _LABEL)), [])
        if isinstance(value.get("choices"), list):
            own += value["choices"]
        elif "start" in value and "end" in value:
            own += [{**value, "labels": [kind]} for kind in value.get("labels") or [None]]
    if not columns:  # an annotation that finds nothing
        return {_LABEL: []}
    return columns if len(columns) != 1 else {**columns, _LABEL: next(iter(columns.values()))}
