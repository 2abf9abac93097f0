"""Select and rank the sub-networks for a bundle of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_paddle.config.names import setting
from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.exporting.manifest import BundleMember
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.search_result import RESULT_FILE, SEARCH_FOLDER, hash_weights
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import Supernet

# A Pareto front includes sub-networks that are no better than chance. Under load, a bundle answers with its smallest
# member, so that one may lose at most this share of the best score.
_MAX_SCORE_LOSS = 0.05


def select_members(
    supernet: Supernet,
    folder: Path,
    subnets: str | Sequence[str],
    *,
    task: Mapping[str, Any],
    task_is_given: bool,
    max_seq_length: int,
    weights: str | None = None,
) -> tuple[list[BundleMember], dict[str, Any]]:
    """Select the requested sub-networks, and rank them by what chose them or by score, then by MACs.

    Args:
        supernet: the model.
        folder: the model's folder, which may hold a search result.
        subnets: names, or `pareto:N` for N sub-networks of the search's Pareto front.
        task: settings of `config.TaskConfig` for the dev set that scores sub-networks given by name.
        task_is_given: whether the user named data; if not, and there is none, the score is the number of MACs.
        max_seq_length: tokens to which texts are cut.
        weights: hash of the weights as loaded; by default of those in the folder.

    Returns:
        The sub-networks, best first, and the score's metric and data.

    Raises:
        UsageError: no name, an unknown or repeated name, or an invalid N.
        ModelError: the search result is missing, damaged, or belongs to other weights.
        DataError: the data that the user named cannot be read.
    """
    names = subnets.replace(",", " ").split() if isinstance(subnets, str) else list(map(str, subnets))
    space = supernet.search_space()
    if len(names) == 1 and names[0].startswith("pareto:"):
        scores, ranks, ranking = _read_pareto(folder, names[0].partition(":")[2], weights)
        _parse_names(supernet, list(scores))  # refuses those of another model
    else:
        names = list(_parse_names(supernet, names))
        try:
            scores, ranking = _evaluate(supernet, names, folder, task, max_seq_length)
        except DynabertError:
            if task_is_given:
                raise
            scores, ranking = {name: space.num_macs(space.parse(name)) for name in names}, {"metric": "macs"}
        ranks = scores
    members = [
        BundleMember(
            subnet=name,
            num_params=space.num_params(space.parse(name)),
            macs=space.num_macs(space.parse(name)),
            score=score,
        )
        for name, score in scores.items()
    ]
    return sorted(members, key=lambda member: (-ranks[member.subnet], -member.macs)), ranking


def _parse_names(supernet: Supernet, names: Sequence[str]) -> dict[str, Subnet]:
    """Return the sub-networks by their normalized names."""
    space = supernet.search_space()
    subnets: dict[str, Subnet] = {}
    if not names:
        raise UsageError(
            f"{setting('subnets')} names no sub-network: write 'pareto:4', or names such as 'w1.00d1.00 w0.50d0.50'"
        )
    for name in names:
        subnet = space.parse(name)
        if subnet in subnets.values():
            raise UsageError(f"{setting('subnets')} names the sub-network '{name}' twice: name each once")
        subnets[space.name(subnet)] = subnet
    return subnets


def _read_pareto(
    folder: Path, number: str, weights: str | None
) -> tuple[dict[str, float], dict[str, float], dict[str, Any]]:
    """Choose N members of a search's Pareto front: the best, the cheapest with a similar score, and some between.

    Returns by name their scores and by what they rank, and the score's metric and data. Where the divergence chose,
    they rank by that, because it has less noise than the score of a few hundred examples.
    """
    if not (number.isdecimal() and int(number)):
        raise UsageError(f"{setting('subnets')} pareto:{number}: the number is at least 1, such as pareto:4")
    path = folder / SEARCH_FOLDER / RESULT_FILE
    if not path.is_file():
        raise ModelError(
            f"{path}: missing: run 'dynabert search {folder}' first, or name sub-networks in {setting('subnets')}"
        )
    result = read_json(path)
    try:
        cost = result["goals"][0]
        rows = {str(row["subnet"]): (float(row[cost]), float(row["score"])) for row in result["pareto"]}
        ranking = {key: result[key] for key in ("metric", "split", "num_examples")}
        ranking["metric"] = "agreement" if result["score"] == "agreement" else ranking["metric"]
        ranks = {name: score for name, (_, score) in rows.items()}
        if result["score"] == "divergence":
            ranks = {str(row["subnet"]): -float(row["divergence"]) for row in result["pareto"]}
        is_valid = bool(rows) and np.isfinite([*rows.values()]).all() and np.isfinite([*ranks.values()]).all()
    except (KeyError, IndexError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise ModelError(f"{path}: damaged: run 'dynabert search {folder}' again")
    if result.get("weights") != (weights or hash_weights(folder)):
        raise ModelError(
            f"{path}: belongs to other weights than those in {folder}: "
            f"run 'dynabert search {folder} --overwrite_output_dir'"
        )
    highest = max(score for _, score in rows.values())
    rows = {name: row for name, row in rows.items() if row[1] >= highest - _MAX_SCORE_LOSS * abs(highest)}
    best = max(rows, key=lambda name: (ranks[name], -rows[name][0]))
    cheapest = min(rows, key=lambda name: rows[name])
    chosen = list(dict.fromkeys((best, cheapest)))[: int(number)]
    for target in np.linspace(rows[cheapest][0], rows[best][0], int(number))[1:-1]:
        if left := rows.keys() - chosen:
            chosen.append(min(sorted(left), key=lambda name: abs(rows[name][0] - target)))
    return {name: rows[name][1] for name in chosen}, ranks, ranking


def _evaluate(
    supernet: Supernet, names: Sequence[str], folder: Path, task: Mapping[str, Any], max_seq_length: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the sub-networks' scores on the dev set by the task's first metric, and that metric and data."""
    from dynabert_paddle.data.described_tasks import load_described_task
    from dynabert_paddle.training.evaluate import evaluate_named
    from dynabert_paddle.training.inputs import match_task

    if not task.get("name"):
        raise UsageError(f"{folder} does not record the task it was trained for: name it with {setting('task.name')}")
    loaded = load_described_task(task)
    loaded = match_task(supernet, loaded, folder)
    rows = evaluate_named(supernet, loaded, names, max_seq_length=max_seq_length)
    metric = loaded.metrics[0]
    return {row["subnet"]: row[metric] for row in rows}, {
        "metric": metric,
        "split": "dev",
        "num_examples": len(loaded.dev),
    }
