"""Sentence embeddings, through the stages, the export, and every runtime in use."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
from bundles import WITHOUT_PACKAGE
from commands import run_command
from conftest import FORMATS, SNIPS, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.bundle import manifest
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.data.described_tasks import load_described_task
from dynabert_paddle.data.embedding_metrics import mean_cosine
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.class_weights import check_label_loss
from dynabert_paddle.training.inputs import tokenize_examples
from dynabert_paddle.training.predict import predict_logits

GRID = ["w1.00d1.00", "w0.50d1.00", "w1.00d0.50", "w0.50d0.50"]
HALF = "w0.50d0.50"
SIZE = 32


def snips_texts(count, *, start=0):
    lines = (SNIPS / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split("\t")[0] for line in lines[start : start + count]]


def write_texts(path, texts):
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def write_pairs(path, count):
    """Pairs of texts, the more words they share the higher their score."""
    texts = snips_texts(2 * count, start=400)
    rows = ["sentence1\tsentence2\tscore"]
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        shared = len(set(first.split()) & set(second.split())) / len(set(first.split()) | set(second.split()))
        rows.append(f"{first}\t{second}\t{5 * shared:.3f}")
    return write_texts(path, rows)


def write_retrieval(folder, count):
    """Documents, and queries that are their first words."""
    documents = snips_texts(count, start=600)
    (folder / "qrels").mkdir(parents=True)
    write_texts(folder / "corpus.jsonl", [json.dumps({"_id": f"d{i}", "text": t}) for i, t in enumerate(documents)])
    queries = [json.dumps({"_id": f"q{i}", "text": " ".join(t.split()[:4])}) for i, t in enumerate(documents[:20])]
    write_texts(folder / "queries.jsonl", queries)
    write_texts(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i in range(20))])
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run through the stages of a task without labels, and its grid."""
    folder = tmp_path_factory.mktemp("embedding")
    write_texts(folder / "train.txt", snips_texts(200))
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    db.Supernet(make_bert(num_labels=2, num_layers=2, hidden_size=SIZE), tokenizer).save_pretrained(folder / "start")
    (folder / "start" / "dynabert.json").unlink()  # a pretrained model of another library
    values = {
        "model_name_or_path": str(folder / "start"),
        "output_dir": str(folder / "out"),
        "device": "cpu",
        "task": {
            "name": "custom",
            "kind": "embedding",
            "train_file": str(folder / "train.txt"),
            "normalize": True,
            "dev_file": str(write_pairs(folder / "pairs.tsv", 40)),
            "query_prompt": "find: ",
            "retrieval_dir": str(write_retrieval(folder / "beir", 50)),
            "max_seq_length": 24,
        },
        "space": {"width_mult_list": [1.0, 0.5], "depth_mult_list": [1.0, 0.5]},
    }
    for stage in ("width", "depth"):
        values[stage] = {"max_steps": 12, "learning_rate": 1e-3, "eval_steps": 6, "logging_steps": 4}
    return folder, db.run(resolve_config(db.Config, values))


def vectors_of(supernet, texts, name=GRID[0], *, is_query=None):
    """What the model itself computes, behind the prompts of its task."""
    task = load_described_task(supernet.metadata.task)
    is_query = np.zeros(len(texts), dtype=bool) if is_query is None else is_query
    features = tokenize_examples(replace(task.dev, texts=list(texts), is_query=is_query), supernet)
    (found,) = predict_logits(supernet, features, [supernet.search_space().parse(name)])
    return np.asarray(found)


def test_a_run_distils_a_pretrained_model_into_sub_networks_without_labels(trained):
    folder, rows = trained
    assert [row["subnet"] for row in rows] == GRID
    assert list(rows[0])[1:6] == ["spearman", "recall@10", "mrr@10", "ndcg@10", "cosine"]
    assert rows[0]["cosine"] > 0.9 and -1 < rows[0]["spearman"] < 1 and 0.3 < rows[0]["recall@10"] <= 1
    assert json.loads((folder / "out" / "grid.json").read_text(encoding="utf-8"))["rows"] == rows
    depth = read_metadata(folder / "out" / "depth")
    assert depth.task["pooling"] == "mean" and depth.task["normalize"] is True
    assert depth.provenance["parent"]["parent"]["parent"] == str(folder / "start")
    # Selected by the cosine to the teacher, on held-out training texts.
    assert set(depth.metrics["holdout"]) == set(GRID) and set(depth.metrics["holdout"][GRID[0]]) == {"cosine"}


def test_rewiring_leaves_the_vectors_as_they_are(trained):
    folder, _ = trained
    texts = snips_texts(20, start=300)
    rewired = db.load_model(folder / "out" / "rewire")
    start = Supernet.from_pretrained(folder / "start", head="ForTextEmbedding")
    start.model.settings, start.metadata = rewired.model.settings, rewired.metadata
    before, after = vectors_of(start, texts), vectors_of(rewired, texts)
    np.testing.assert_allclose(after, before, atol=1e-5)
    importance = rewired.metadata.importance
    assert all(values == sorted(values, reverse=True) and values[-1] > 0 for values in importance["heads"])
    moved = any((to_arrays(start.model)[n] != array).any() for n, array in to_arrays(rewired.model).items())
    assert moved  # heads and neurons have another order


def test_a_finished_run_is_found_finished_and_other_settings_are_refused(trained, caplog):
    folder, rows = trained
    config = db.load_config(folder / "out" / "run.yaml")
    assert db.run(config) == rows
    other = replace(config, task=replace(config.task, query_prompt="other: "))
    with pytest.raises(db.DynabertError, match="query_prompt = find: , this "):
        db.run(other)
    texts = replace(config.width, unlabelled_files=(str(folder / "train.txt"),))
    with pytest.raises(db.DynabertError, match="an embedding task trains on texts without labels: add them to"):
        db.run(replace(config, width=texts, output_dir=str(folder / "others")))
    wrong = replace(config.width, lambda_label=1.0)
    with pytest.raises(db.DynabertError, match="an embedding task has no labels"):
        db.run(replace(config, width=wrong, output_dir=str(folder / "others")))
    contrast = replace(config.width, lambda_contrastive=1.0)
    with pytest.raises(db.DynabertError, match="lambda_contrastive is for embedding, this task is classification"):
        check_label_loss(db.load_task("snips"), contrast, section="width")
    with pytest.raises(db.DynabertError, match="no labels for the stage final"):
        db.run(replace(config, stages=("rewire", "final")))
    with pytest.raises(db.DynabertError, match="no labels to fine-tune on: begin with rewire"):
        db.finetune(
            folder / "start", db.load_task("custom", kind="embedding", train_file=folder / "train.txt"), output_dir="x"
        )


@pytest.fixture(scope="module")
def bundle(trained):
    folder, _ = trained
    return db.export(folder / "out" / "depth", folder / "bundle", subnet=HALF)


@pytest.mark.full
def test_a_bundle_has_the_vectors_of_its_sub_network(trained, bundle):
    folder, _ = trained
    texts = snips_texts(20, start=300)
    supernet = db.load_model(folder / "out" / "depth")
    predictor = db.Predictor(bundle)
    vectors = predictor(texts)
    assert vectors.shape == (20, SIZE) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, vectors_of(supernet, texts, HALF), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    queries = predictor(texts, role="query")
    np.testing.assert_allclose(queries, vectors_of(supernet, texts, HALF, is_query=np.ones(20, bool)), atol=1e-5)
    assert np.abs(queries - vectors).max() > 1e-3  # the prompt counts
    np.testing.assert_array_equal(db.Predictor(bundle, role="query")(texts), queries)
    assert predictor([]).shape == (0, SIZE)
    with pytest.raises(db.DynabertError, match="role is 'title'; it must be one of document, query"):
        predictor(texts, role="title")


@pytest.mark.full
def test_the_bundles_own_script(bundle, tmp_path):
    texts = write_texts(tmp_path / "texts.txt", snips_texts(5, start=300))
    command = [sys.executable, "-c", WITHOUT_PACKAGE, str(bundle / "infer.py"), "-i", str(texts)]
    for words, role in (([], None), (["--role", "query"], "query")):
        done = subprocess.run(
            [*command, "--json", *words], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
        )
        assert done.returncode == 0, done.stderr
        found = np.array([json.loads(line)["vector"] for line in done.stdout.splitlines()], dtype=np.float32)
        np.testing.assert_allclose(found, db.Predictor(bundle)(snips_texts(5, start=300), role=role), atol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize(
    ("format", "precision", "pooling"),
    [
        ("pir", "fp32", "mean"),
        ("openvino", "fp32", "mean"),
        *(("onnx", "fp32", pooling) for pooling in ("mean", "cls", "max")),
        ("onnx", "int8", "mean"),
        ("onnx", "int8", "max"),
    ],
)
def test_other_formats_and_poolings(trained, tmp_path, format, precision, pooling):
    """Of the pretrained folder, which is exported as it is."""
    folder, _ = trained
    task = {"kind": "embedding", "pooling": pooling, "name": "custom", "train_file": str(folder / "train.txt")}
    task |= {"dev_file": str(folder / "pairs.tsv")} if pooling != "max" else {}
    made = db.export(
        folder / "start",
        tmp_path / "b",
        format=format,
        precision=precision,
        task=task,
        tolerance=0.02 if precision == "int8" else None,
    )
    texts = snips_texts(20, start=300)
    supernet = Supernet.from_pretrained(folder / "start", head="ForTextEmbedding")
    supernet.model.settings = replace(supernet.model.settings, pooling=pooling, normalize=False)
    supernet.metadata = supernet.metadata.replace(task={**task, "max_seq_length": 128})
    expected, found = vectors_of(supernet, texts), db.Predictor(made)(texts)
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, atol=2e-5)
        return
    check = manifest.read_bundle(made)["verification"]
    assert (check["metric"], check["examples"]) == (("cosine", 20) if pooling == "max" else ("spearman", 40))
    assert check["source"] == pytest.approx(1) or pooling != "max"  # a pretrained model is its own teacher
    assert mean_cosine(found, expected) > 0.97


@pytest.mark.full
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_lite_computes_the_same_vectors(trained, converter, tmp_path, pooling):
    """Under the converter's interpreter, with the tokenizer in plain Python."""
    folder, _ = trained
    task = {"kind": "embedding", "pooling": pooling, "normalize": True, "query_prompt": "find: "}
    made = db.export(folder / "start", tmp_path / "lite", format="lite", task=task)
    other = db.export(folder / "start", tmp_path / "paddle", task=task)
    texts = write_texts(tmp_path / "texts.txt", snips_texts(8, start=300))
    command = [converter, made / "infer_lite.py", "-i", texts, "--json", "--role", "query"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = np.array([json.loads(line)["vector"] for line in done.stdout.splitlines() if line.startswith("{")])
    np.testing.assert_allclose(found, db.Predictor(other, role="query")(snips_texts(8, start=300)), atol=1e-4)


@pytest.mark.full
def test_sub_networks_of_a_bundle_answer_in_time(trained, tmp_path):
    folder, _ = trained
    made = db.export(folder / "out" / "depth", tmp_path / "b", subnets=" ".join(GRID[:2]))
    ranked = manifest.read_bundle(made)["ranked_by"]
    assert ranked["metric"] == "spearman"
    adaptive, texts = db.AdaptivePredictor(made), snips_texts(20, start=300)
    found = adaptive(texts, role="query")
    np.testing.assert_allclose(found.vectors, db.Predictor(made, subnet=found.subnet)(texts, role="query"), atol=1e-5)
    small = db.Predictor(made, subnet=GRID[1])(texts)
    assert mean_cosine(small, db.Predictor(made, subnet=GRID[0])(texts)) > 0.7  # both are near the teacher's


@pytest.mark.full
def test_command_line(capsys, trained, bundle, tmp_path):
    folder, rows = trained
    done = run_command(capsys, "evaluate", folder / "out" / "depth", "--grid", "--json")
    assert json.loads(done.out)["rows"] == rows, done.err
    words = ["--kind", "embedding", "--dev_file", folder / "pairs.tsv", "--json"]
    done = run_command(capsys, "data", folder / "train.txt", *words)
    assert done.code == 0, done.err
    assert [file["target"] for file in json.loads(done.out)["files"]] == [
        {"texts": 200},
        {"texts": 80, "pairs with a score": 40},
    ]
    texts = write_texts(tmp_path / "texts.txt", snips_texts(9, start=300))
    done = run_command(capsys, "predict", bundle, "-i", texts, "-o", tmp_path / "v.npy", "--role", "query")
    assert done.code == 0, done.err
    found, expected = np.load(tmp_path / "v.npy"), db.Predictor(bundle)(snips_texts(9, start=300), role="query")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    done = run_command(capsys, "predict", bundle, "-i", folder / "pairs.tsv", "--text_column", "sentence1", "--columns")
    assert done.code == 0, done.err
    words = ["--text_column", "sentence1", "--columns", "-o", tmp_path / "v.parquet"]
    done = run_command(capsys, "predict", bundle, "-i", folder / "pairs.tsv", *words)
    assert done.code == 0, done.err
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pydict()
    assert list(table) == ["sentence1", "sentence2", "score", "vector"] and len(table["score"]) == 40
    np.testing.assert_array_equal(np.array(table["vector"], np.float32), db.Predictor(bundle)(table["sentence1"]))
    done = run_command(capsys, "predict", bundle, "-i", texts)
    header, first, *_ = done.out.splitlines()
    np.testing.assert_allclose(json.loads(first), db.Predictor(bundle)(snips_texts(1, start=300))[0], atol=1e-6)
    assert header == "vector"
    for words, seen in (
        (("--output_format", "npy"), "is not written to a terminal or a pipe: name a file"),
        (("-o", tmp_path / "v.npy.gz"), "npy is not compressed by gzip here"),
        (("--threshold", "0.5"), "threshold is for bundles of several labels"),
    ):
        done = run_command(capsys, "predict", bundle, "-i", texts, *words)
        assert done.code in (1, 2) and seen in done.err, done.err
    done = run_command(capsys, "bench", bundle, "--batch_size", "1", "--seq_length", "16", "--rounds", "1", "--json")
    assert done.code == 0, done.err
    done = run_command(capsys, "extract", folder / "out" / "depth", HALF, "--output_dir", tmp_path / "half")
    assert done.code == 0, done.err
    done = run_command(capsys, "evaluate", tmp_path / "half", "--json")
    (row,) = json.loads(done.out)["rows"]
    assert {key: row[key] for key in list(row)[1:6]} == pytest.approx(
        {key: rows[3][key] for key in list(row)[1:6]}, abs=1e-5
    )
    done = run_command(
        capsys,
        "finetune",
        "--model_name_or_path",
        folder / "out" / "depth",
        "--max_steps",
        "1",
        "--output_dir",
        tmp_path / "labelled",
    )
    assert done.code == 0, done.err  # snips, from the folder of an embedding model
    assert read_metadata(tmp_path / "labelled").task["kind"] == "classification"


@pytest.mark.full
def test_search_and_report(capsys, trained, tmp_path):
    folder, _ = trained
    words = ["--max_params", "1e9", "--num_evaluations", 6, "--population_size", 3, "--json"]
    for more, metric in ((("--score_on", "dev"), "spearman"), ((), "cosine"), (("--score", "metric"), "cosine")):
        done = run_command(
            capsys, "search", folder / "out" / "depth", *words, *more, "--output_dir", tmp_path / "_".join(["s", *more])
        )
        assert done.code == 0, done.err
        assert json.loads(done.out)["metric"] == metric
    done = run_command(
        capsys, "search", folder / "out" / "depth", *words, "--score", "agreement", "--output_dir", tmp_path / "a"
    )
    assert done.code == 2 and "not values, vectors or answers" in done.err
    done = run_command(capsys, "report", folder / "out", "--output_file", tmp_path / "report.html")
    assert done.code == 0, done.err
    assert "spearman" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.full
def test_compression_keeps_the_vectors_near_the_teachers(capsys, trained, tmp_path):
    folder, _ = trained
    words = (("low_rank", "--rank_share", "0.45"), ("sparse", "--sparsity", "0.2", "--criterion", "gradient"))
    for method, *options in words:
        done = run_command(
            capsys, "compress", method, folder / "out" / "depth", *options, "--output_dir", tmp_path / method
        )
        assert done.code == 0, done.err
        after = read_metadata(tmp_path / method).compression[-1]["after"]["metrics"]
        assert after["cosine"] > 0.5, (method, after)
    done = run_command(
        capsys,
        *("compress", "vocabulary", folder / "out" / "depth", "--vocab_size", "2000"),
        *("--finetune_steps", "2", "--output_dir", tmp_path / "v"),
    )
    assert done.code == 0, done.err  # the teacher reads the same texts with its own pieces
    assert read_metadata(tmp_path / "v").compression[-1]["after"]["metrics"]["cosine"] > 0.7
    done = run_command(capsys, "baseline", "distilbert", folder / "out" / "depth", "--output_dir", tmp_path / "b")
    assert done.code == 2 and "baselines are trained on labels" in done.err


@pytest.mark.full
def test_vectors_that_can_be_cut_are_rotated_first(trained, tmp_path):
    folder, _ = trained
    task = {"name": "custom", "kind": "embedding", "train_file": str(folder / "train.txt"), "normalize": True}
    task |= {"dev_file": str(folder / "pairs.tsv"), "max_seq_length": 24, "output_dims": [16, 8]}
    values = {"model_name_or_path": str(folder / "start"), "output_dir": str(tmp_path / "out"), "task": task}
    values |= {"stages": ["rewire", "width"], "space": {"width_mult_list": [1.0, 0.5]}, "device": "cpu"}
    values["width"] = {"max_steps": 6, "learning_rate": 1e-3}
    rows = db.run(resolve_config(db.Config, values))
    assert list(rows[0])[1:5] == ["spearman", "cosine", "spearman_16d", "spearman_8d"]
    texts = snips_texts(20, start=300)
    plain, rotated = (db.load_model(path) for path in (folder / "out" / "rewire", tmp_path / "out" / "rewire"))
    before, after = vectors_of(plain, texts), vectors_of(rotated, texts)
    assert np.abs(before - after).max() > 1e-2
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-5)  # the cosines
    # What is cut off is less than of the vectors as they were.
    assert np.linalg.norm(after[:, :8], axis=1).mean() > np.linalg.norm(before[:, :8], axis=1).mean() + 0.05
    # No stage turns the rotation, and a cut vector is the first dimensions of a whole one.
    width = db.load_model(tmp_path / "out" / "width")
    np.testing.assert_array_equal(width.model.dense.weight.numpy(), rotated.model.dense.weight.numpy())
    for format in FORMATS[:2]:
        made = db.export(tmp_path / "out" / "width", tmp_path / format, format=format, subnet="w0.50d1.00")
        whole, cut = db.Predictor(made)(texts), db.Predictor(made, output_dim=8)(texts)
        np.testing.assert_allclose(whole, vectors_of(width, texts, "w0.50d1.00"), atol=1e-5)
        assert cut.shape == (20, 8)
        np.testing.assert_allclose(cut, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(db.DynabertError, match="output_dim is 9, and the model was trained for 16, 8, 32"):
        db.Predictor(made, output_dim=9)
    for sizes, message in (([64], "has 64, and the vectors of .* have 32 values"), ([8, 8], r"is \[8, 8\]: give")):
        values["task"]["output_dims"] = sizes
        with pytest.raises(db.DynabertError, match=message):
            db.run(resolve_config(db.Config, {**values, "output_dir": str(tmp_path / "other")}))


@pytest.mark.full
def test_queries_are_contrasted_with_the_texts_of_their_batch(trained, tmp_path):
    folder, _ = trained
    texts = snips_texts(120)
    rows = [json.dumps({"query": " ".join(text.split()[:4]), "positive": text}) for text in texts]
    path = write_texts(tmp_path / "train.jsonl", rows)
    values = {"model_name_or_path": str(folder / "start"), "device": "cpu", "stages": ["rewire", "width"]}
    values["task"] = {"name": "custom", "kind": "embedding", "train_file": str(path), "max_seq_length": 24}
    values["task"]["retrieval_dir"] = str(folder / "beir")
    values["space"] = {"width_mult_list": [1.0, 0.5]}
    scores = {}
    for weight in (0.0, 3.0):
        values["output_dir"] = str(tmp_path / f"out{weight}")
        values["width"] = {"max_steps": 20, "learning_rate": 2e-3, "lambda_contrastive": weight, "logging_steps": 5}
        scores[weight] = db.run(resolve_config(db.Config, values))[0]["mrr@10"]
    assert scores[3.0] > scores[0.0]
    log = (tmp_path / "out3.0" / "width" / "train.jsonl").read_text(encoding="utf-8")
    assert "contrastive" in log and "contrastive" not in (tmp_path / "out0.0" / "width" / "train.jsonl").read_text()
    assert "lambda_contrastive" not in read_metadata(tmp_path / "out0.0" / "width").provenance["settings"]
    values["task"]["train_file"], values["output_dir"] = str(folder / "train.txt"), str(tmp_path / "other")
    with pytest.raises(db.DynabertError, match="lambda_contrastive needs training texts that belong together"):
        db.run(resolve_config(db.Config, values))
