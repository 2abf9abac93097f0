"""Labels of words and answers to questions through all stages, the export, and a bundle in use."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import paddle
import pytest
from bundles import WITHOUT_PACKAGE
from commands import run_command
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.bundle import manifest
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.data.batches import sequential_batches
from dynabert_paddle.data.word_settings import WORD_SETTINGS
from dynabert_paddle.files.metadata import read_metadata, write_metadata
from dynabert_paddle.training.inputs import match_labels, split_task, tokenize_examples

pytestmark = pytest.mark.full

CITIES = ["paris", "london", "madrid", "tokyo", "berlin"]
PEOPLE = ["maria", "john", "peter", "anna", "george"]
SURNAMES = ["smith", "king", "brown", "young", "green"]
OTHERS = ["the", "a", "house", "river", "went", "to", "with", "stone", "from", "over", "never", ".", ","]
LONG_TEXT = " ".join(["the river with maria smith went in paris ."] * 40)
STAGES = ("finetune", "rewire", "width", "depth", "final")


def write_sentences(path, count, *, seed):
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        for word in rng.choice(OTHERS, rng.integers(2, 6)):
            lines.append(f"{word} O")
        if rng.integers(2):
            lines += [f"{rng.choice(PEOPLE)} B-PER", f"{rng.choice(SURNAMES)} I-PER"]
        if rng.integers(2):
            lines += ["in O", f"{rng.choice(CITIES)} B-LOC"]
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")


def write_questions(path, count, *, seed):
    rng = np.random.default_rng(seed)
    paragraphs = []
    for number in range(count):
        person, city = rng.choice(PEOPLE), rng.choice(CITIES)
        filler = [" ".join(rng.choice(OTHERS, rng.integers(1, 5))) for _ in range(3)]
        context = f"{filler[0]} {person} {filler[1]} {city} {filler[2]}"
        question, answer = [("which person", person), ("which city", city)][rng.integers(2)]
        answers = [{"text": answer, "answer_start": context.find(f" {answer} ") + 1}]
        qas = [{"id": f"{seed}-{number}", "question": question, "answers": answers}]
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}), encoding="utf-8")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small model that has never seen a label."""
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    supernet = db.Supernet(make_bert(num_labels=2, num_layers=2, hidden_size=64), tokenizer)
    return supernet.save_pretrained(tmp_path_factory.mktemp("start") / "model")


@pytest.fixture(scope="module", params=["token_classification", "question_answering"])
def trained(request, start, tmp_path_factory):
    """A task of one kind, and the folder of a run through all stages."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    write, ending = (write_sentences, "conll") if kind == "token_classification" else (write_questions, "json")
    for name, count, seed in (("train", 400, 0), ("dev", 50, 1)):
        write(folder / f"{name}.{ending}", count, seed=seed)
    values = {
        "model_name_or_path": str(start),
        "output_dir": str(folder / "out"),
        "device": "cpu",
        "stages": STAGES,
        "task": {"name": "custom", "kind": kind, "data_dir": str(folder), "max_seq_length": 32, "doc_stride": 8},
        "space": {"width_mult_list": [1.0, 0.5], "depth_mult_list": [1.0, 0.5]},
    }
    for stage, steps, rate in (
        ("finetune", 300, 2e-3),
        ("width", 100, 1e-3),
        ("depth", 100, 1e-3),
        ("final", 20, 2e-4),
    ):
        values[stage] = {"max_steps": steps, "learning_rate": rate, "eval_steps": 1000, "logging_steps": 20}
    if kind == "token_classification":
        values["task"].pop("doc_stride")
        values["final"] |= {"class_weights": "balanced", "focal_gamma": 1.0, "label_smoothing": 0.1}
    rows = db.run(resolve_config(db.Config, values))
    return db.load_task("custom", kind=kind, data_dir=folder), folder, rows


def test_every_sub_network_learns(trained):
    task, _, rows = trained
    assert [row["subnet"] for row in rows] == ["w1.00d1.00", "w0.50d1.00", "w1.00d0.50", "w0.50d0.50"]
    scores = [row[task.metrics[0]] for row in rows]
    assert scores[0] > 0.9, scores
    assert min(scores) > 0.6, scores
    assert set(task.metrics) <= set(rows[0])


def test_a_stage_starts_where_the_last_one_ended(trained):
    task, folder, _ = trained
    before, after = (db.Supernet.from_pretrained(folder / "out" / stage) for stage in ("finetune", "rewire"))
    features = tokenize_examples(task.dev, before)
    batch = features.collate(np.arange(8), before.pad_token_id)
    batch.pop("labels")
    inputs = {name: paddle.to_tensor(value) for name, value in batch.items()}
    before.eval(), after.eval()
    np.testing.assert_allclose(before(**inputs).logits.numpy(), after(**inputs).logits.numpy(), atol=1e-4)
    changed = before.encoder.layers[0].linear1.weight.numpy() != after.encoder.layers[0].linear1.weight.numpy()
    assert changed.any()


def test_held_out_examples_are_whole(trained):
    task, folder, _ = trained
    supernet = db.Supernet.from_pretrained(folder / "out" / "finetune")
    split = split_task(task, supernet, db.FinetuneConfig())
    assert len(split.select) >= 40
    if task.kind == "question_answering":  # a question's windows are on one side
        assert len(set(split.select.owners)) == 40


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    _, folder, _ = trained
    out = tmp_path_factory.mktemp("bundles") / "b"
    return db.export(folder / "out" / "depth", out, subnet="w0.50d1.00")


def test_a_bundle_predicts_the_same_as_the_model(trained, bundle):
    task, folder, _ = trained
    model = db.extract(
        supernet := db.Supernet.from_pretrained(folder / "out" / "depth"), supernet.search_space().parse("w0.50d1.00")
    )
    model.eval()
    features = tokenize_examples(task.dev, model)
    parts = sequential_batches(features.lengths, 16)
    logits = []
    for part in parts:
        batch = features.collate(part, model.pad_token_id)
        batch.pop("labels")
        with paddle.no_grad():
            logits.append(model(**{name: paddle.to_tensor(value) for name, value in batch.items()}).logits.numpy())
    score = features.score(task.metrics, features.restore(parts, logits))
    predictor = db.Predictor(bundle)
    if task.kind == "token_classification":
        found = predictor([" ".join(words) for words in task.dev.words], batch_size=7)
        assert [row.words for row in found] == task.dev.words
        right = sum(
            a == b
            for row, own in zip(found, task.dev.labels, strict=True)
            for a, b in zip(row.labels, own, strict=True)
        )
        assert right / sum(map(len, task.dev.labels)) == pytest.approx(score["token_accuracy"])
    else:
        rows = task.dev.rows
        found = predictor([row.question for row in rows], [row.context for row in rows], batch_size=7)
        exact = np.mean([row.answers[0][0] == answer.answer for row, answer in zip(rows, found, strict=True)])
        assert exact == pytest.approx(score["exact_match"])
        for row, answer in zip(rows, found, strict=True):
            assert row.context[answer.start : answer.end] == answer.answer
            assert 0 < answer.score <= 1


def test_entities_are_parts_of_the_text(trained, bundle):
    task, _, _ = trained
    if task.kind != "token_classification":
        pytest.skip("answers have no entities")
    text = "the river with Maria  Smith, in Paris."
    (found,) = db.Predictor(bundle)([text])
    for entity in found.entities:
        assert text[entity.start : entity.end] == entity.text
    assert ("PER", "Maria  Smith") in {(entity.label, entity.text) for entity in found.entities}
    assert ("LOC", "Paris") in {(entity.label, entity.text) for entity in found.entities}


@pytest.mark.parametrize(
    "format, precision", [("pir", "fp32"), ("onnx", "fp32"), ("paddle", "int8"), ("openvino", "int8"), ("onnx", "int8")]
)
def test_other_formats(trained, tmp_path, format, precision):
    _, folder, _ = trained
    made = db.export(folder / "out" / "finetune", tmp_path / "b", format=format, precision=precision, tolerance=0.05)
    description = manifest.read_bundle(made)
    assert description["verification"]["max_abs_diff"] < (1e-4 if precision == "fp32" else 10)


def test_lite_predicts_the_same(trained, bundle, converter, tmp_path):
    """Under the converter's interpreter, with the tokenizer in plain Python."""
    task, folder, _ = trained
    made = db.export(folder / "out" / "depth", tmp_path / "b", format="lite", subnet="w0.50d1.00")
    if task.kind == "token_classification":
        rows = [["the river with Maria  Smith, in Paris."], ["in Tokyo U.S."], [""], [LONG_TEXT]]
    else:
        rows = [[row.question, row.context] for row in task.dev.rows[:20]]
    (tmp_path / "rows.txt").write_text("\n".join(map("\t".join, rows)) + "\n", encoding="utf-8")
    command = [converter, made / "infer_lite.py", "-i", tmp_path / "rows.txt", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    expected = [asdict(prediction) for prediction in db.Predictor(bundle).stream(rows)]
    for row, other in zip(found, expected, strict=True):
        if task.kind == "token_classification":
            assert (row["words"], row["labels"]) == (other["words"], other["labels"])
        else:
            assert (row["answer"], row["start"], row["end"]) == (other["answer"], other["start"], other["end"])
            assert row["score"] == pytest.approx(other["score"], abs=1e-4)


def test_command_line(capsys, trained, bundle, tmp_path):
    task, folder, _ = trained
    done = run_command(capsys, "evaluate", folder / "out" / "depth", "--grid", "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["rows"]) == 4
    if task.kind == "token_classification":
        (tmp_path / "texts.txt").write_text("the house in Paris\n\n", encoding="utf-8")
        done = run_command(capsys, "predict", bundle, "-i", tmp_path / "texts.txt")
        assert done.out.splitlines()[:2] == ["entities", "LOC: Paris"]
        alone = ["the house in Paris"]
    else:
        row = {"question": "which city", "context": "the river Maria went to Paris over stone"}
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        done = run_command(capsys, "predict", bundle, "-i", tmp_path / "rows.jsonl", "--json")
        assert json.loads(done.out)["answer"] == "Paris", done
        alone = ["which city", row["context"]]
    # The bundle's own script, where this package is not installed.
    command = [sys.executable, "-c", WITHOUT_PACKAGE, str(bundle / "infer.py"), *alone]
    alone = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    assert "Paris" in alone.stdout, alone.stderr


def test_a_bundle_reads_the_tasks_own_files(capsys, trained, bundle):
    task, folder, _ = trained
    file = folder / ("dev.conll" if task.kind == "token_classification" else "dev.json")
    done = run_command(capsys, "predict", bundle, "-i", file, "--json")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) == len(task.dev)
    if task.kind == "token_classification":
        assert [row["words"] for row in rows] == task.dev.words
        given = db.Predictor(bundle)([["U.S.", "in", "Paris"]])[0]
        assert (given.words, len(given.labels)) == (["U.S.", "in", "Paris"], 3)


def run_alone(bundle, folder, *words):
    """The bundle's own script, where this package is not installed."""
    command = [sys.executable, "-c", WITHOUT_PACKAGE, str(bundle / "infer.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": ""})


def test_conll_is_read_by_sentences_under_any_ending(capsys, trained, bundle, tmp_path):
    task, folder, _ = trained
    if task.kind != "token_classification":
        pytest.skip("answers have no sentences")
    content = "# made by hand, for this test\n" + (folder / "dev.conll").read_text(encoding="utf-8")
    for name in ("dev.txt", "dev.tsv", "dev.bio"):
        (tmp_path / name).write_text(content, encoding="utf-8")
        done = run_command(capsys, "predict", bundle, "-i", tmp_path / name, "--json")
        assert done.code == 0, done.err
        assert [json.loads(line)["words"] for line in done.out.splitlines()] == task.dev.words
    alone = run_alone(bundle, tmp_path, "-i", tmp_path / "dev.txt", "--json")
    assert [json.loads(line)["words"] for line in alone.stdout.splitlines()] == task.dev.words, alone.stderr
    (tmp_path / "dev.txt").write_text(content.replace("B-LOC", "B-GPE"), encoding="utf-8")
    done = run_command(capsys, "predict", bundle, "-i", tmp_path / "dev.txt")
    assert done.code == 1
    assert "'B-GPE' is not one of the bundle's labels" in done.err
    alone = run_alone(bundle, tmp_path, "-i", tmp_path / "dev.txt")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "'B-GPE' is not one of the bundle's labels" in alone.stderr


def test_no_word_of_a_long_text_is_cut(capsys, trained, bundle, tmp_path):
    """The small model, which has been trained on single sentences, finds most entities in windows of several."""
    task, _, _ = trained
    if task.kind != "token_classification":
        pytest.skip("contexts have had windows before")
    assert (
        manifest.read_bundle(bundle)["task"].items()
        >= {
            "label_scheme": "IOB2",
            "decode": "constrained",
            "doc_stride": 15,
        }.items()
    )
    text = LONG_TEXT
    (tmp_path / "texts.txt").write_text(f"the house in Paris\n{text}\n", encoding="utf-8")
    done = run_command(capsys, "predict", bundle, "-i", tmp_path / "texts.txt", "--json")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["num_cut"] for row in rows] == [0, 0]
    assert "longer than" not in done.err
    found = [(entity["label"], entity["text"]) for entity in rows[1]["entities"] if entity["start"] > len(text) // 2]
    assert min(found.count(entity) for entity in [("PER", "maria smith"), ("LOC", "paris")]) > 10
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in rows[1]["entities"])
    alone = run_alone(bundle, tmp_path, "-i", tmp_path / "texts.txt", "--json")
    assert [json.loads(line) for line in alone.stdout.splitlines()] == rows, alone.stderr
    adaptive = db.AdaptivePredictor(bundle)(["the house in Paris", text])
    assert [row.labels for row in adaptive] == [row["labels"] for row in rows]


def test_folders_and_bundles_from_before_decode_and_cut_as_they_did(capsys, trained, tmp_path):
    task, folder, _ = trained
    if task.kind != "token_classification":
        pytest.skip("labels of words alone")
    old = tmp_path / "old"
    shutil.copytree(folder / "out" / "depth", old)
    metadata = read_metadata(old)
    earlier = {key: value for key, value in metadata.task.items() if key not in WORD_SETTINGS}
    (old / "dynabert.json").unlink()
    write_metadata(old, metadata.replace(task=earlier))
    supernet = db.Supernet.from_pretrained(old)
    settings = match_labels(supernet, task, old).dev.settings
    assert (settings.decode, settings.long_text) == ("free", "truncate")
    bundle = db.export(old, tmp_path / "b", subnet="w0.50d1.00")
    assert not set(WORD_SETTINGS) & set(manifest.read_bundle(bundle)["task"])
    (found,) = db.Predictor(bundle)(["house " * 40])
    assert found.num_cut == 10  # 32 without [CLS] and [SEP]
    (tmp_path / "texts.txt").write_text("the house in Paris\n" + "house " * 40 + "\n", encoding="utf-8")
    done = run_command(capsys, "predict", bundle, "-i", tmp_path / "texts.txt", "--json")
    message = "1 text is longer than 32 tokens: 10 words at the end were not read and are labelled O"
    assert message in " ".join(done.err.split())
    alone = run_alone(bundle, tmp_path, "-i", tmp_path / "texts.txt")
    assert f"warning: {message}" in alone.stderr
    done = run_command(capsys, "predict", bundle, "-i", tmp_path / "texts.txt", "--decode", "constrained")
    assert done.code == 1
    assert "decode 'constrained' needs the scheme of the labels" in " ".join(done.err.split())


def test_questions_are_predicted_without_their_answers(capsys, trained, bundle, tmp_path):
    task, folder, _ = trained
    if task.kind != "question_answering":
        pytest.skip("labels of words are ignored anyway")
    content = json.loads((folder / "dev.json").read_text(encoding="utf-8"))
    for article in content["data"]:
        for question in article["paragraphs"][0]["qas"]:
            del question["answers"]
    (tmp_path / "test.json").write_text(json.dumps(content), encoding="utf-8")
    found = [
        run_command(capsys, "predict", bundle, "-i", path) for path in (folder / "dev.json", tmp_path / "test.json")
    ]
    assert found[1].code == 0, found[1].err
    assert found[0].out == found[1].out


def write_characters(path, count, *, seed):
    """Chinese sentences of one character a line, with a place and a year."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        lines += [f"{character} O" for character in rng.choice(list("人山水天地中国的"), rng.integers(1, 4))]
        if rng.integers(2):
            lines += ["北 B-LOC", "京 I-LOC"]
        lines += [f"{digit} {label}" for digit, label in zip(str(rng.integers(1000, 3000)), "BIII", strict=True)]
        lines += ["年 O", ""]
    for index, line in enumerate(lines):
        if line[-1:] in ("B", "I"):
            lines[index] = f"{line}-DATE"
    path.write_text("\n".join(lines), encoding="utf-8")


def test_chinese_texts_are_split_as_the_training_data_is(capsys, start, tmp_path):
    for name, count, seed in (("train", 300, 0), ("dev", 40, 1)):
        write_characters(tmp_path / f"{name}.txt", count, seed=seed)
    config = db.FinetuneConfig(max_steps=300, learning_rate=2e-3, eval_steps=1000)
    task = db.load_task("custom", kind="token_classification", data_dir=tmp_path)
    db.finetune(start, task, config=config, output_dir=tmp_path / "model", max_seq_length=32)
    bundle = db.export(tmp_path / "model", tmp_path / "b")
    for file in (tmp_path / "model" / "dynabert.json", bundle / "bundle.json"):
        assert json.loads(file.read_text(encoding="utf-8"))["task"]["word_split"] == "characters"
    text = "人的 北京2010年"
    (found,) = db.Predictor(bundle)([text])
    assert found.words == list(text.replace(" ", ""))
    entities = [(entity.label, entity.text) for entity in found.entities]
    assert entities == [("LOC", "北京"), ("DATE", "2010")]
    assert all(text[entity.start : entity.end] == entity.text for entity in found.entities)
    # The characters of the dev file, and the texts that they form.
    texts = ["".join(words) for words in task.dev.words]
    predictor = db.Predictor(bundle)
    assert [row.labels for row in predictor(texts)] == [row.labels for row in predictor(task.dev.words)]
    alone = run_alone(bundle, tmp_path, text, "--json")
    assert [entity["text"] for entity in json.loads(alone.stdout)["entities"]] == ["北京", "2010"], alone.stderr


def test_an_export_takes_other_settings_and_other_data(trained, start, tmp_path):
    task, folder, _ = trained
    if task.kind == "token_classification":
        pytest.skip("the labels of words have no settings of their own")
    write_questions(tmp_path / "train.json", 12, seed=5)
    write_questions(tmp_path / "dev.json", 7, seed=6)
    settings = {"data_dir": str(tmp_path), "max_answer_length": 3, "doc_stride": 6, "may_be_empty": True}
    made = db.export(folder / "out" / "depth", tmp_path / "b", precision="int8", task=settings, tolerance=1.0)
    description = manifest.read_bundle(made)
    assert description["answers"] == {"doc_stride": 6, "max_answer_length": 3, "may_be_empty": True}
    assert description["verification"]["examples"] == 7  # questions, not windows


@pytest.mark.parametrize("head", ["ForTokenClassification", "ForQuestionAnswering"])
def test_a_model_of_another_library_is_exported_with_its_own_task(start, tmp_path, head):
    supernet = db.Supernet.from_pretrained(start, head=head, num_labels=2)
    found = db.Predictor(db.export(supernet, tmp_path / "b"))
    if head == "ForTokenClassification":
        assert len(found(["the house in Paris"])[0].labels) == 4
    else:
        assert found(["which city"], ["the river"])[0].answer in "the river"


@pytest.mark.parametrize("text", ["", " ", "\x00\x01", "\ud800", "😀" * 300, "x" * 100_000, "שלום עולם"])
def test_any_text_is_answered(trained, bundle, text):
    task, _, _ = trained
    if task.kind == "token_classification":
        (found,) = db.Predictor(bundle)([text])
        assert len(found.words) == len(found.labels)
    else:
        for question, context in ((text, "the river"), ("which city", text), (text, text)):
            (found,) = db.Predictor(bundle)([question], [context])
            assert isinstance(found.answer, str)
