"""Select and rank the sub-networks of a bundle of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.exporting.manifest import BundleMember
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.search_result import RESULT_FILE, SEARCH_FOLDER, hash_weights
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet

# A search's Pareto front reaches down to sub-networks no better than chance. Under load, a bundle's smallest member
# answers: it may lose at most this share of the best score.
_MAX_SCORE_LOSS = 0.05


def select_members(
    supernet: Supernet,
    folder: Path,
    subnets: str | Sequence[str],
    *,
    task: Mapping[str, Any],
    task_is_given: bool,
    max_seq_length: int,
) -> tuple[list[BundleMember], dict[str, Any]]:
    """Find the sub-networks that the user asks for, and rank them by score, then by MACs.

    Args:
        supernet: the model.
        folder: its folder, which may hold a search result.
        subnets: names, or `pareto:N` for N sub-networks of the search's Pareto front.
        task: settings of `config.TaskConfig` for the dev set that scores sub-networks given by name.
        task_is_given: the user named data, so missing data is an error; otherwise MACs are the score.
        max_seq_length: tokens to which texts are cut.

    Returns:
        The sub-networks, best first, and the score's metric and split.

    Raises:
        UsageError: no names, unknown or repeated names, or an invalid number.
        ModelError: the search result is missing, damaged, or belongs to other weights.
        DataError: the data that the user named cannot be read.
    """
    names = subnets.replace(",", " ").split() if isinstance(subnets, str) else list(map(str, subnets))
    space = supernet.search_space()
    if len(names) == 1 and names[0].startswith("pareto:"):
        scores, ranking = _read_pareto(folder, names[0].partition(":")[2])
        _parse(supernet, list(scores))
    else:
        names = list(_parse(supernet, names))
        try:
            scores, ranking = _score(supernet, names, folder, task, max_seq_length)
        except DynabertError:
            if task_is_given:
                raise
            scores, ranking = {name: space.num_macs(space.parse(name)) for name in names}, {"metric": "macs"}
    members = [
        BundleMember(
            subnet=name,
            num_params=space.num_params(space.parse(name)),
            macs=space.num_macs(space.parse(name)),
            score=score,
        )
        for name, score in scores.items()
    ]
    return sorted(members, key=lambda member: (-member.score, -member.macs)), ranking


def _parse(supernet: Supernet, names: Sequence[str]) -> dict[str, Subnet]:
    """Sub-networks by their names in this model."""
    space = supernet.search_space()
    found: dict[str, Subnet] = {}
    if not names:
        raise UsageError("--subnets names no sub-network: write 'pareto:4', or names such as 'w1.00d1.00 w0.50d0.50'")
    for name in names:
        subnet = space.parse(name)
        if subnet in found.values():
            raise UsageError(f"--subnets names the sub-network '{name}' twice: name each once")
        found[space.name(subnet)] = subnet
    return found


def _read_pareto(folder: Path, number: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores of N members of a search's Pareto front: the best, the cheapest of similar score, and some between."""
    if not (number.isdecimal() and int(number)):
        raise UsageError(f"--subnets pareto:{number}: the number is at least 1, such as pareto:4")
    path = folder / SEARCH_FOLDER / RESULT_FILE
    again = f"run 'dynabert search {folder}' again"
    if not path.is_file():
        raise ModelError(f"{path}: missing: run 'dynabert search {folder}' first, or name sub-networks in --subnets")
    result = read_json(path)
    try:
        cost = result["goals"][0]
        rows = {str(row["subnet"]): (float(row[cost]), float(row["score"])) for row in result["pareto"]}
        ranking = {key: result[key] for key in ("metric", "split", "num_examples")}
        ranking["metric"] = "agreement" if result["score"] == "agreement" else ranking["metric"]
        whole = bool(rows) and np.isfinite(list(rows.values())).all()
    except (KeyError, IndexError, TypeError, ValueError):
        whole = False
    if not whole:
        raise ModelError(f"{path}: damaged: {again}")
    if result.get("weights") != hash_weights(folder):
        raise ModelError(
            f"{path}: of other weights than those in {folder}: run 'dynabert search {folder} --overwrite_output_dir'"
        )
    highest = max(score for _, score in rows.values())
    rows = {name: row for name, row in rows.items() if row[1] >= highest - _MAX_SCORE_LOSS * abs(highest)}
    ends = [max(rows, key=lambda name: (rows[name][1], -rows[name][0])), min(rows, key=lambda name: rows[name])]
    chosen = list(dict.fromkeys(ends))[: int(number)]
    (high, _), (low, _) = (rows[name] for name in ends)
    for target in np.linspace(low, high, int(number))[1:-1]:
        if left := rows.keys() - chosen:
            chosen.append(min(sorted(left), key=lambda name: abs(rows[name][0] - target)))
    return {name: rows[name][1] for name in chosen}, ranking


def _score(
    supernet: Supernet, names: Sequence[str], folder: Path, task: Mapping[str, Any], max_seq_length: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Scores of sub-networks on the dev set, by the task's first metric."""
    from dynabert_paddle.data.described_tasks import load_described_task
    from dynabert_paddle.training.evaluate import evaluate_named
    from dynabert_paddle.training.inputs import check_trained

    if not task.get("name"):
        raise UsageError(f"{folder} does not say what task it was trained for: name it with --task_name")
    loaded = load_described_task(task)
    check_trained(supernet, loaded, folder)
    rows = evaluate_named(supernet, loaded, names, max_seq_length=max_seq_length)
    metric = loaded.metrics[0]
    return {row["subnet"]: row[metric] for row in rows}, {
        "metric": metric,
        "split": "dev",
        "num_examples": len(loaded.dev),
    }
