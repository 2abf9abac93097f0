"""A run's folder as its stages, a search and baselines write it; the model is as large as `make_bert`'s."""

import json

import numpy as np
import yaml

from dynabert_paddle.files.array_hash import hash_model
from dynabert_paddle.files.atomic import write_json
from dynabert_paddle.files.metadata import METADATA_FILE, Metadata, write_metadata
from dynabert_paddle.files.search_result import hash_weights
from dynabert_paddle.files.weights import write_safetensors
from dynabert_paddle.search_space import SearchSpace

SPACE = SearchSpace((4,) * 4, (48,) * 4, hidden_size=32, head_dim=8, embedding_params=1_000_000, other_params=1000)
SEARCHED = ("l0h2f16-l2h1f16", "l0h3f32-l1h2f16-l3h3f32", "l0h4f48-l1h3f48-l2h4f32-l3h4f48")
METHODS = ("distilbert", "tinybert", "pruned", "finetuned")


def write_run(folder):
    """Write a finished run: settings, four stages, the grid, a search, and baselines of three seeds."""
    importance = np.sort(np.random.default_rng(0).exponential(size=(4, 52)))[:, ::-1]
    grid = [
        {
            "subnet": name,
            "accuracy": round(0.9 - 0.01 * index, 4),
            "macro_f1": round(0.89 - 0.01 * index, 4),
            "params": SPACE.num_params(cell),
            "params_without_embeddings": SPACE.num_params(cell, embeddings=False),
            "macs": SPACE.num_macs(cell),
        }
        for index, (name, cell) in enumerate(SPACE.grid().items())
    ]
    parent = "minilm-l6"
    for stage in ("finetune", "rewire", "width", "depth"):
        (folder / stage).mkdir(parents=True)
        names = list(SPACE.grid()) if stage == "depth" else ["w1.00d1.00"]
        parent = {"versions": {"paddlepaddle": "3.1.1"}, "settings": {"seed": 42}, "parent": parent}
        (folder / stage / "model.safetensors").write_bytes(stage.encode())
        metadata = Metadata(
            stage=stage,
            task={"name": "snips", "labels": ["a", "b"], "metrics": ["accuracy", "macro_f1"]},
            heads=SPACE.heads,
            neurons=SPACE.neurons,
            importance={"heads": importance[:, :4].tolist(), "neurons": importance[:, 4:].tolist()},
            metrics={"holdout": {name: {"accuracy": 0.8, "macro_f1": 0.7} for name in names}, "steps": 20},
            provenance=parent,
        )
        write_metadata(folder / stage, metadata if stage != "finetune" else metadata.replace(importance={}))
        if stage != "rewire":
            lines = [{"step": step, "train/loss": 2 / step, "train/learning_rate": 1e-4} for step in range(1, 21)]
            lines += [{"step": 20, **{f"eval/accuracy/{name}": 0.8 for name in names}}]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / stage / "train.jsonl").write_text(text, encoding="utf-8")
    settings = {"model_name_or_path": "minilm-l6", "output_dir": str(folder), "task": {"name": "snips"}}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    write_json(folder / "grid.json", {"split": "dev", "model": str(folder / "depth"), "rows": grid})
    write_search(folder / "depth")
    write_baselines(folder)
    return folder


def write_search(model, **changes):
    """Write a search's result beside a supernet."""

    def row(name, score):
        subnet = SPACE.parse(name)
        params, macs = SPACE.num_params(subnet), SPACE.num_macs(subnet)
        latency = 0.5 + macs / 1e6
        return {
            "subnet": name,
            "score": score,
            "params": params,
            "macs": macs,
            "size_mb": params * 4e-6,
            "latency_ms": latency,
        }

    pareto = [row(name, 0.75 + 0.03 * index) for index, name in enumerate(SEARCHED)]
    (model / "search").mkdir()
    result = {
        "format_version": 2,
        "model": str(model),
        "weights": hash_weights(model),
        "task": "snips",
        "metric": "accuracy",
        "score": "metric",
        "split": "holdout",
        "num_examples": 500,
        "setting": {"device": "cpu", "batch_size": 1, "seq_length": 64, "num_threads": 2, "precision": "fp32"},
        "goals": ["latency_ms"],
        "budget": {"latency_ms": pareto[1]["latency_ms"] + 0.1},
        "num_evaluated": 200,
        "full": row("w1.00d1.00", 0.82),
        "grid": [row(name, 0.8 - 0.01 * index) for index, name in enumerate(SPACE.grid())],
        "pareto": pareto,
        "best": {**pareto[1], "measured_latency_ms": 1.0},
        "nearest": None,
        "macs_length": 128,
        **changes,
    }
    write_json(model / "search" / "search.json", result)


def write_baselines(folder):
    """Write fixed-size models as large as half of the layers, of three seeds each."""
    subnet = SPACE.parse("w1.00d0.50")
    for index, method in enumerate(METHODS):
        for seed in (1, 2, 3):
            result = {
                "method": method,
                "subnet": "w1.00d0.50",
                "seed": seed,
                "split": "dev",
                "metrics": {"accuracy": 0.8 + 0.01 * index + 0.001 * seed},
                "params": SPACE.num_params(subnet),
                "macs": SPACE.num_macs(subnet),
                "examples_seen": 100,
                "seconds": 2.5,
            }
            path = folder / "baselines" / f"{method}-{seed}"
            path.mkdir(parents=True)
            write_json(path / "baseline.json", result)


def write_compressed(folder, **changes):
    """Write a model that was compressed with two methods and scored on dev."""
    folder.mkdir(parents=True)
    weights = {"weight": np.full((2, 3), 0.5, np.float32)}
    write_safetensors(folder / "model.safetensors", weights)
    after = {"params": 500_000, "macs": SPACE.num_macs(SPACE.full), "bytes": 2_000_000}
    after |= {"metrics": {"accuracy": 0.85, "macro_f1": 0.84}, "weights": hash_model(weights)}
    records = [{"method": "vocabulary", "after": {}}, {"method": "low_rank", "after": after}]
    task = {"name": "snips", "labels": ["b", "a"], "metrics": ["accuracy", "macro_f1"]}
    metadata = Metadata(stage="depth", task=task, heads=SPACE.heads, neurons=SPACE.neurons, compression=tuple(records))
    write_metadata(folder, metadata.replace(**changes))
    return folder


def edit_json(path, change):
    """Change a JSON file in place."""
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    write_json(path, values)


def edit_metadata(stage, **changes):
    """Change some of a stage's `dynabert.json`."""
    edit_json(stage / METADATA_FILE, lambda values: values.update(changes))
