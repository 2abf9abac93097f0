"""`dynabert baseline` as a user meets it: every method, every kind of task, and the comparison's table."""

import json
import re

import numpy as np
import pytest
from commands import run_command
from conftest import make_bert
from test_kinds import write_questions, write_sentences
from test_multi_label import write_label_sets
from test_stages import texts, write_rows

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.metadata import read_metadata

pytestmark = pytest.mark.full

METHODS = ("distilbert", "tinybert", "pruned", "finetuned")
KINDS = ("classification", "regression", "multi_label", "token_classification", "question_answering")
# Classes are learnt, the others are gone through: what their losses are, the unit tests say.
STEPS = dict.fromkeys(KINDS, 4) | {"classification": 80}


def write_classes(path, count, *, seed):
    """Two classes, told apart by one word."""
    rng = np.random.default_rng(seed)
    words = [("bad", "no"), ("good", "yes")]
    rows = [(f"{text} {words[i % 2][0]}", words[i % 2][1]) for i, text in enumerate(texts(rng, count))]
    write_rows(path, ("sentence", "label"), rows)


def write_scores(path, count, *, seed):
    """How many of three words a sentence has, as a score."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 4, count)
    rows = [
        (f"{text} {' '.join(['good'] * n)}", f"{n / 2:.1f}") for text, n in zip(texts(rng, count), numbers, strict=True)
    ]
    write_rows(path, ("sentence", "label"), rows)


WRITERS = {
    "classification": (write_classes, "tsv"),
    "regression": (write_scores, "tsv"),
    "multi_label": (write_label_sets, "jsonl"),
    "token_classification": (write_sentences, "conll"),
    "question_answering": (write_questions, "json"),
}


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    """The kind of a task, its data, and folders with a backbone, the fine-tuned model and the rewired one."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    write, ending = WRITERS[kind]
    for name, count, seed in (("train", 400, 0), ("dev", 50, 1)):
        write(folder / f"{name}.{ending}", count, seed=seed)
    task = db.load_task("custom", kind=kind, data_dir=folder)
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    start = db.Supernet(make_bert(num_labels=2, num_layers=2, hidden_size=64), tokenizer)
    start.save_pretrained(folder / "backbone")
    config = db.FinetuneConfig(max_steps=STEPS[kind], learning_rate=2e-3, eval_steps=1000)
    model = db.finetune(folder / "backbone", task, output_dir=folder / "finetune", config=config, max_seq_length=32)
    db.rewire(model, task).save_pretrained(folder / "rewire")
    return kind, folder


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_every_kind_of_task(trained, capsys, tmp_path, method):
    kind, folder = trained
    source = {"pruned": "rewire"}.get(method, "finetune")
    words = ["--data_dir", folder, "--output_dir", tmp_path / "out", "--eval_steps", 1000, "--learning_rate", 1e-3]
    done = run_command(capsys, "baseline", method, folder / source, *words, "--max_steps", STEPS[kind], "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result == read_json(tmp_path / "out" / "baseline.json")
    metric, value = next(iter(result["metrics"].items()))
    assert value > 0.8 or kind != "classification", (metric, value)
    assert done.err.splitlines()[-2:] == [
        f"wrote {tmp_path / 'out'}",
        f"next: dynabert export {tmp_path / 'out'} --output_dir BUNDLE_DIR",
    ]
    done = run_command(capsys, "evaluate", tmp_path / "out", "--data_dir", folder)
    assert f"{value:.4f}" in done.out


def test_the_table_equals_the_file(capsys, finetuned, tiny_data, tmp_path):
    words = ["--data_dir", tiny_data, "--output_dir", tmp_path / "out", "--max_steps", 1]
    done = run_command(capsys, "baseline", "distilbert", finetuned, *words, "--subnet", "w0.50d0.50")
    assert done.code == 0, done.err
    result = read_json(tmp_path / "out" / "baseline.json")
    heading, line = (
        next(x.split() for x in done.out.splitlines() if x.split()[:1] == [word]) for word in ("method", "distilbert")
    )
    assert heading == ["method", "shape", "accuracy", "macro_f1", "params", "MACs", "examples", "seconds"]
    assert line[:3] == ["distilbert", "w0.50d0.50", f"{result['metrics']['accuracy']:.4f}"]
    assert str(result["examples_seen"]) in line


def test_a_backbone_is_its_own_starting_point(capsys, tiny_folder, tiny_data, tmp_path):
    words = ["--data_dir", tiny_data, "--output_dir", tmp_path / "out", "--max_steps", 1, "--max_seq_length", 16]
    done = run_command(capsys, "baseline", "finetuned", tiny_folder, *words)
    assert done.code == 0, done.err
    assert read_metadata(tmp_path / "out").provenance["parent"] == str(tiny_folder)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("distilbrt", "DIR"), 2, "method: 'distilbrt' is not allowed: .* Did you mean 'distilbert'?"),
        (("distilbert", "DIR/gone"), 1, "gone: no such model folder"),
        (("distilbert", "BACKBONE"), 2, "is not a model that 'dynabert finetune' has made: begin with that"),
        (("pruned", "DIR"), 2, "pruned starts from a rewired model, .*: run 'dynabert rewire' on the fine-tuned model"),
        (("tinybert", "DIR", "--subnet", "w0.50d1.00"), 2, "keeps 2 heads of layer 0, .*: keep all heads"),
        (("distilbert", "DIR", "--subnet", "w0.50"), 2, "'w0.50' is no subnet"),
        # Fine-tuning had 10 steps of 16 examples: 8 for all 126, the last of them with 14, and 2 more with 16 each.
        (("distilbert", "DIR", "--num_examples", "189"), 2, "has seen 158, and one step sees 32: pass at least 190"),
        (("finetuned", "BACKBONE", "--layer_share", "2"), 2, "--layer_share is at most 1, not 2.0"),
        (("distilbert", "DIR", "--output_dir", ""), 2, "--output_dir is empty"),
        (("distilbert", "DIR", "--output_dir", "DIR", "--overwrite_output_dir"), 2, "holds the model to start from"),
    ],
)
def test_invalid_options_are_refused(capsys, finetuned, tiny_folder, tiny_data, tmp_path, words, code, message):
    words = [word.replace("DIR", str(finetuned)).replace("BACKBONE", str(tiny_folder)) for word in words]
    words = ["--output_dir", tmp_path / "out", "--data_dir", tiny_data, *words]
    done = run_command(capsys, "baseline", *words)
    assert done.code == code, done.err
    (error,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert re.search(message.replace("?", r"\?"), error), error
    assert not done.out
    assert not (tmp_path / "out").exists()
    assert (finetuned / "dynabert.json").exists()


def test_an_existing_output_folder_is_kept(capsys, finetuned, tiny_data, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    words = ["--output_dir", tmp_path / "out", "--data_dir", tiny_data, "--max_steps", 1]
    done = run_command(capsys, "baseline", "distilbert", finetuned, *words)
    assert done.code == 2
    assert "--overwrite_output_dir" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
