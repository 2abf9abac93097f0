#!/usr/bin/env python
"""Used by bench/results_embedding.sh: the data, the parts and the tables of the benchmark of sentence embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import Enum
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from guides import markdown, update
from parts import ROOT, Record, add_records, describe_commit, find_records, read_records

MODEL = "minilm-l6"
SEEDS = (1, 2, 3)
MAX_SEQ_LENGTH = 64
NUM_TEXTS = 200  # whose vectors are compared with sentence-transformers'
RESULT_FILE = ROOT / "docs" / "embeddings.json"
KEY = ("part", "model", "seed")
# Columns of texts in GLUE's training files; one without a header is told by its number.
TRAINING = {
    "CoLA": (3,),
    "MRPC": ("#1 String", "#2 String"),
    "RTE": ("sentence1", "sentence2"),
    "SST-2": ("sentence",),
    "STS-B": ("sentence1", "sentence2"),
    "WNLI": ("sentence1", "sentence2"),
}
SHARES = {0.5: "50 %", 0.25: "25 %", 0.125: "12.5 %"}  # of the full model's MACs
BEGIN = "<!-- made by scripts/bench/results_embedding.sh -->"
GUIDES = {
    "embeddings.md": "model|MACs|Spearman, STS-B dev|points lost|recall@10|queries by it, documents by the full model",
    "embeddings_cn.md": "模型|MACs|STS-B 验证集 Spearman|损失的百分点|recall@10|查询用它编码、文档用完整模型编码",
}
BGE_PROMPT = "Represent this sentence for searching relevant passages: "


class Part(str, Enum):
    """The kinds of parts."""

    VECTORS, TRAIN = "vectors", "train"


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    glue_dir: Annotated[Path | None, typer.Option("--glue_dir", help="GLUE's files, a folder for each task.")] = None,
    part: Annotated[Part | None, typer.Option("--part", help="One kind of part.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="One seed.")] = None,
    num_texts: Annotated[int, typer.Option("--num_texts", help="Training texts, drawn at random.")] = 100_000,
    max_steps: Annotated[int | None, typer.Option("--max_steps", help="Steps of a stage, not three epochs.")] = None,
    work_dir: Annotated[Path, typer.Option("--work_dir", help="Data and models.")] = Path("out/embedding"),
    result_file: Annotated[Path, typer.Option("--result_file", help="The results.")] = RESULT_FILE,
    reference_python: Annotated[
        Path | None, typer.Option("--reference_python", help="A Python that has sentence-transformers.")
    ] = None,
    cls_model_dir: Annotated[
        Path | None, typer.Option("--cls_model_dir", help="A folder of BGE, for pooling by the first token.")
    ] = None,
    merge: Annotated[Path | None, typer.Option("--merge", help="The results of another machine.")] = None,
) -> None:
    """Run the parts that the result file lacks, and write the tables."""
    if merge is not None:
        add_records(result_file, read_records(merge), KEY)
    elif glue_dir is None:
        raise typer.BadParameter("--glue_dir is needed: the folder of GLUE's files")
    else:
        if part in (None, Part.VECTORS) and reference_python is not None:
            compare_vectors(glue_dir, result_file, reference_python, cls_model_dir)
        done = {record["seed"] for record in find_records(read_records(result_file), {"part": "train"})}
        for one in (seed,) if seed is not None else SEEDS:
            if part in (None, Part.TRAIN) and one not in done:
                train(glue_dir, work_dir, result_file, one, num_texts, max_steps)
    show(result_file)


def compare_vectors(glue_dir: Path, result_file: Path, python: Path, cls_model_dir: Path | None) -> None:
    """Compare the vectors of the full model, as a bundle computes them, with sentence-transformers' own."""
    import numpy as np

    import dynabert_paddle as db
    from dynabert_paddle.backbone.loading import find_backbone

    texts = [text for pair in read_table(glue_dir / "STS-B" / "dev.tsv", ("sentence1", "sentence2")) for text in pair]
    chosen = list(dict.fromkeys(texts))[:NUM_TEXTS]
    models: list[tuple[str, Path, dict[str, Any]]] = [(MODEL, Path(str(find_backbone(MODEL))), {})]
    if cls_model_dir is not None:
        task = {"pooling": "cls", "normalize": True, "query_prompt": BGE_PROMPT}
        models.append((cls_model_dir.name, cls_model_dir, task))
    for name, folder, task in models:
        with TemporaryDirectory() as scratch:
            bundle = db.export(
                folder, Path(scratch) / "bundle", task={"kind": "embedding", **task}, max_seq_length=MAX_SEQ_LENGTH
            )
            ours = db.Predictor(bundle, role="query")(chosen)
            given, found = Path(scratch) / "texts.json", Path(scratch) / "vectors.npy"
            given.write_text(json.dumps(chosen))
            words = [given, found, task.get("pooling", "mean"), "true", task.get("query_prompt", ""), MAX_SEQ_LENGTH]
            script = ROOT / "scripts/lib/embedding_reference.py"
            subprocess.run([python, script, folder, *map(str, words)], check=True, env={"OMP_NUM_THREADS": "1"})
            theirs = np.load(found)
        record = {"part": "vectors", "model": name, "seed": 0, "texts": len(chosen)}
        record |= {"max_abs_diff": float(np.abs(ours - theirs).max()), "pooling": task.get("pooling", "mean")}
        add_records(result_file, [{**record, "commit": describe_commit()}], KEY)


def train(glue_dir: Path, work_dir: Path, result_file: Path, seed: int, num_texts: int, max_steps: int | None) -> None:
    """Train the sub-networks of one seed, and score them on STS-B and on retrieval, also mixed with the full model."""
    import dynabert_paddle as db
    from dynabert_paddle.config.loading import resolve_config
    from dynabert_paddle.training.evaluate import run_on_dev, score_outputs

    data = write_data(glue_dir, work_dir / "data", num_texts)
    values: dict[str, Any] = {
        "model_name_or_path": MODEL,
        "output_dir": str(work_dir / f"seed{seed}"),
        "stages": ["rewire", "width", "depth"],
        "task": {"name": "custom", "kind": "embedding", "max_seq_length": MAX_SEQ_LENGTH, **data},
        "rewire": {"seed": seed},
        "space": {"depth_mult_list": [1.0, 0.5]},
    }
    for stage in ("width", "depth"):
        values[stage] = {"seed": seed, "learning_rate": 1e-4, "warmup_ratio": 0.1, "max_steps": max_steps}
        values[stage] |= {
            "num_train_epochs": 3.0,
            "eval_steps": 500,
            "logging_steps": 100,
            "subnets_per_step": "sandwich",
        }
    config = resolve_config(db.Config, values)
    db.run(config)
    supernet = db.load_model(work_dir / f"seed{seed}" / "depth")
    task = db.load_task("custom", kind="embedding", **data)
    space = supernet.search_space(depth_mults=(1.0, 0.5))
    outputs = run_on_dev(supernet, task, list(space.grid()))
    judged, full = outputs.features.judged, outputs.logits["w1.00d1.00"]
    records = []
    for row in score_outputs(supernet, outputs):
        mixed = judged.retrieval.score("recall@10", full, outputs.logits[row["subnet"]])
        records.append({**row, "mixed_recall@10": mixed})
    record = {"part": "train", "model": MODEL, "seed": seed, "num_texts": num_texts, "max_steps": max_steps}
    add_records(result_file, [{**record, "rows": records, "commit": describe_commit()}], KEY)


def write_data(glue_dir: Path, folder: Path, num_texts: int) -> dict[str, str]:
    """Write the texts of GLUE's training files, STS-B's dev pairs, and a retrieval folder of QNLI's dev questions."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    texts: dict[str, None] = {}
    for task, columns in TRAINING.items():
        for row in read_table(glue_dir / task / "train.tsv", columns):
            texts.update(dict.fromkeys(text.strip() for text in row if text.strip()))
    chosen = np.random.default_rng(0).permutation(len(texts))[:num_texts]
    everything = list(texts)
    write_lines(folder / "train.txt", [everything[index] for index in sorted(chosen)])
    pairs = read_table(glue_dir / "STS-B" / "dev.tsv", ("sentence1", "sentence2", "score"))
    names = ("sentence1", "sentence2", "score")
    write_lines(folder / "dev.jsonl", [json.dumps(dict(zip(names, row, strict=True))) for row in pairs])
    rows = read_table(glue_dir / "QNLI" / "dev.tsv", ("question", "sentence", "label"))
    documents = list(dict.fromkeys(sentence for _, sentence, _ in rows))
    answered = [(question, sentence) for question, sentence, label in rows if label == "entailment"]
    questions = list(dict.fromkeys(question for question, _ in answered))
    qrels = folder / "qnli" / "qrels"
    qrels.mkdir(parents=True, exist_ok=True)
    for name, some, prefix in (("corpus", documents, "d"), ("queries", questions, "q")):
        lines = [json.dumps({"_id": f"{prefix}{index}", "text": text}) for index, text in enumerate(some)]
        write_lines(folder / "qnli" / f"{name}.jsonl", lines)
    places, numbers = ({text: index for index, text in enumerate(some)} for some in (documents, questions))
    lines = [f"q{numbers[question]}\td{places[sentence]}\t1" for question, sentence in answered]
    write_lines(qrels / "test.tsv", ["query-id\tcorpus-id\tscore", *lines])
    files = {"train_file": folder / "train.txt", "dev_file": folder / "dev.jsonl", "retrieval_dir": folder / "qnli"}
    return {name: str(path.absolute()) for name, path in files.items()}


def read_table(path: Path, columns: tuple[str | int, ...]) -> list[tuple[str, ...]]:
    """Read columns of one of GLUE's files, whose quotes are part of the texts; a number is of a file without header."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines()]
    if not all(isinstance(column, int) for column in columns):
        columns, lines = tuple(lines[0].index(column) for column in columns), lines[1:]
    return [tuple(row[int(column)] for column in columns) for row in lines if len(row) > max(map(int, columns))]


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a file of lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def summarize(records: list[Record]) -> list[list[str]]:
    """For each share of the full model's MACs the sub-network with the highest mean Spearman that has at most it."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for row in record["rows"]:
            rows.setdefault(row["subnet"], []).append(row)
    full = rows["w1.00d1.00"]

    def average(name: str, of: list[dict[str, Any]]) -> float:
        return 100 * mean(row[name] for row in of)

    def line(name: str, share: str, of: list[dict[str, Any]]) -> list[str]:
        lost = average("spearman", full) - average("spearman", of)
        scores = [average(metric, of) for metric in ("recall@10", "mixed_recall@10")]
        return [name, share, f"{average('spearman', of):.2f}", f"{lost:.2f}", *(f"{score:.2f}" for score in scores)]

    lines = [line("w1.00d1.00", "100 %", full)]
    for most, share in SHARES.items():
        some = {name: of for name, of in rows.items() if of[0]["macs"] <= most * full[0]["macs"] * 1.01}
        if some:
            best = max(some, key=lambda name: average("spearman", some[name]))
            lines.append(line(best, share, some[best]))
    return lines


def show(result_file: Path) -> None:
    """Print the results, and write the table into the guides beside the file."""
    records = read_records(result_file)
    for record in find_records(records, {"part": "vectors"}):
        print(
            f"{record['model']} ({record['pooling']}): vectors of {record['texts']} texts differ from "
            f"sentence-transformers' by at most {record['max_abs_diff']:.1e}"
        )
    trained = find_records(records, {"part": "train"})
    if not trained:
        return
    lines = summarize(trained)
    for cells in lines:
        print("\t".join(cells))
    for name, headings in GUIDES.items():
        guide = result_file.with_name(name)
        if guide.is_file() and BEGIN in guide.read_text(encoding="utf-8"):
            update(guide, BEGIN, markdown(headings.split("|"), lines))
            print(f"wrote {guide}", file=sys.stderr)


if __name__ == "__main__":
    app()
