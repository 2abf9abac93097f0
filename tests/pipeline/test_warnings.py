"""What is said before a user finds out: defects of data, stages that end below their start, answers that vary."""

import json
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from commands import Done

import dynabert_paddle as db

DEFECTS = (
    "have the same text as a training row",
    "with different labels in",
    "no row has the label 'x'",
    "are longer than max_seq_length 8",
    "of the tokens are not in the model's vocabulary",
    "contain the text of a special token",
    "have an empty text",
)


def sentences(number, seed):
    """Sentences of two classes, which a word tells apart."""
    rng = random.Random(seed)
    for index in range(number):
        words = [rng.choice(["red", "blue", "some", "more"]) for _ in range(3)]
        yield " ".join(["play", "book"][index % 2 : index % 2 + 1] + words), "ab"[index % 2]


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")


@pytest.fixture
def words_of_run(tmp_path, tiny_folder):
    """The words of a `run` on the test's own data."""
    (tmp_path / "run.yaml").write_text(
        json.dumps(
            {
                "model_name_or_path": str(tiny_folder),
                "stages": ["finetune", "rewire", "width"],
                "task": {"name": "custom", "data_dir": str(tmp_path / "data"), "max_seq_length": 8},
                "train": {"max_steps": 20, "learning_rate": 2e-3, "eval_steps": 20, "logging_steps": 20},
            }
        )
    )
    return ["run", tmp_path / "run.yaml", "--output_dir", tmp_path / "out"]


def test_a_run_warns_of_each_data_defect_once(tmp_path, words_of_run, dynabert):
    good = [(f"{text} {number}", label) for number, (text, label) in enumerate(sentences(200, 0))]
    bad = [
        ("play [SEP] it", "a"),
        ("什么 请问 您 什么 请问", "b"),
        ("", "a"),
        (good[0][0], "b"),
        ("x y", "x"),
        ("y z", "x"),
    ]
    write(tmp_path / "data" / "train.tsv", good + bad * 30)
    write(tmp_path / "data" / "dev.tsv", [good[1], good[2], *sentences(20, 1)])
    done = dynabert(*words_of_run, "-o", "train.max_steps=1")
    assert done.code == 0, done.err
    assert {defect: done.err.count(defect) for defect in DEFECTS} == dict.fromkeys(DEFECTS, 1), done.err
    again = dynabert("evaluate", tmp_path / "out" / "width")
    assert again.code == 0, again.err
    assert not [defect for defect in DEFECTS if defect in again.err]  # its dev rows have none of these


@pytest.fixture(scope="module")
def defective(tmp_path_factory, tiny_data):
    """The tests' data with a row of dev in train, a text with two labels, and rows of more than 16 tokens."""
    folder = tmp_path_factory.mktemp("defective")
    train, dev = ((tiny_data / name).read_text(encoding="utf-8") for name in ("train.tsv", "dev.tsv"))
    text, label = dev.splitlines()[1].split("\t")
    long = f"{text} {text} {text} {text}"
    (folder / "train.tsv").write_text(f"{train}{text}\t{label}\n{long}\tPlayMusic\n{long}\tGetWeather\n")
    (folder / "dev.tsv").write_text(f"{dev}a {long}\t{label}\n")
    return folder


@pytest.mark.parametrize(
    "stage, words",
    [
        ("finetune", ("rewire", "{}")),
        ("depth", ("compress", "low_rank", "{}", "--rank_share", 0.25)),
        ("finetune", ("export", "{}", "--format", "onnx", "--precision", "int8", "--tolerance", 1)),
        pytest.param(
            *("depth", ("compress", "vocabulary", "{}", "--vocab_size", 2000, "--finetune_steps", 1)),
            marks=pytest.mark.full,
        ),
        pytest.param("depth", ("search", "{}", "--max_macs", 1e12, "--num_evaluations", 12), marks=pytest.mark.full),
        pytest.param(
            *("finetune", ("export", "{}", "--precision", "int8", "--tolerance", 1)),
            marks=[pytest.mark.full, pytest.mark.reference],
        ),
    ],
)
def test_verbs_that_only_read_data_warn_of_each_defect_once(chain, defective, tmp_path, dynabert, stage, words):
    words = [str(word).format(chain / stage) for word in words]
    done = dynabert(*words, "--data_dir", defective, "--output_dir", tmp_path / "out")
    assert done.code == 0, done.err
    for said in (
        f"{defective}/dev.tsv: 1 of 43 rows (2.3%) have the same text as a training row",
        f"{defective}/train.tsv: 1 text with different labels in 2 of 143 rows",
        f"{defective}/train.tsv: 23 of 143 rows (16.1%) are longer than max_seq_length 16",
        f"{defective}/dev.tsv: 8 of 43 rows (18.6%) are longer than max_seq_length 16",
    ):
        assert done.err.count(said) == 1, done.err


def test_a_stage_that_ends_below_its_start_is_warned_about(tmp_path, words_of_run, dynabert):
    write(tmp_path / "data" / "train.tsv", sentences(600, 0))
    write(tmp_path / "data" / "dev.tsv", sentences(40, 1))
    done = dynabert(*words_of_run, "-o", "width.learning_rate=0.5")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "the model that the stage began with" in line]
    assert line.startswith("width: the full model has accuracy 0.")
    assert re.search(r"on holdout, and the model that the stage began with (0\.9\d+|1\.0+): ", line)
    assert line.endswith("or with a lower -o width.learning_rate than 0.5")


@pytest.mark.parametrize("precision, depends", [pytest.param("fp32", False, marks=pytest.mark.full), ("int8", True)])
def test_onnx_int8_states_that_predictions_depend_on_the_batch(tmp_path, finetuned, dynabert, precision, depends):
    bundle = db.export(finetuned, tmp_path / "bundle", format="onnx", precision=precision, tolerance=1.0)
    assert json.loads((bundle / "bundle.json").read_text())["depends_on_batch"] is depends
    (row,) = [line for line in (bundle / "README.md").read_text().splitlines() if "depends on the batch" in line]
    assert ("| yes:" in row) is depends
    words = ("bench", bundle, "--batch_size", 1, "--seq_length", 8, "--rounds", 1)
    assert [row["depends_on_batch"] for row in json.loads(dynabert(*words, "--json").out)["rows"]] == [depends]
    assert ("depends on the other texts of its batch" in dynabert(*words).out) is depends
    # And so it is.
    predictor, texts = db.Predictor(bundle), db.load_task("snips").dev.texts[:32]
    alone = [list(predictor([text])[0].scores.values()) for text in texts]
    together = [list(prediction.scores.values()) for prediction in predictor(texts, batch_size=32)]
    assert bool(np.abs(np.subtract(alone, together)).max() > 1e-4) == depends


SPECIAL = ("play [SEP] it", "[MASK]", "a[CLS]b")


def with_blanks(text):
    """The same characters, which no tokenizer takes for a special token."""
    return text.replace("[", " [ ").replace("]", " ] ")


def predictions(predict, texts):
    return np.array([list(prediction.scores.values()) for prediction in predict(list(texts))])


def run_script(bundle, *words):
    words = [sys.executable, bundle / "infer.py", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("in_text", [pytest.param(True, marks=pytest.mark.full), False])
def test_special_tokens_in_texts_are_read_alike_everywhere(tmp_path, tiny_folder, tiny_data, dynabert, in_text):
    words = ("--model_name_or_path", tiny_folder, "--task_name", "custom", "--data_dir", tiny_data)
    words = (*words, "--max_steps", 1, "--learning_rate", 2e-3, "--max_seq_length", 32)
    model, bundle = tmp_path / "model", tmp_path / "bundle"
    flags = () if in_text else ("--no_special_tokens_in_text",)
    done = dynabert("finetune", *words, *flags, "--output_dir", model)
    assert done.code == 0, done.err
    assert json.loads((model / "dynabert.json").read_text())["task"]["special_tokens_in_text"] is in_text
    for verb in ("rewire", "train_width"):  # both read the setting from the folder
        done = dynabert(verb, model, "--output_dir", tmp_path / verb, *(["--max_steps", 1] if verb != "rewire" else []))
        assert done.code == 0, done.err
        model = tmp_path / verb
    supernet = db.Supernet.from_pretrained(model)
    assert supernet.tokenizer.special_tokens_in_text is in_text
    same = supernet.tokenizer.encode(SPECIAL, max_seq_length=32) == supernet.tokenizer.encode(
        [with_blanks(text) for text in SPECIAL], max_seq_length=32
    )
    assert same is not in_text
    done = dynabert("export", model, "--subnets", "w1.00d1.00 w0.50d1.00", "--output_dir", bundle)
    assert done.code == 0, done.err
    assert json.loads((bundle / "bundle.json").read_text())["special_tokens_in_text"] is in_text
    blanks = [with_blanks(text) for text in SPECIAL]
    for predict in (db.Predictor(bundle), db.AdaptivePredictor(bundle)):
        difference = np.abs(predictions(predict, SPECIAL) - predictions(predict, blanks)).max(axis=1)
        assert (difference < 1e-6).all() is np.bool_(not in_text), difference
    (tmp_path / "texts.txt").write_text("\n".join([*SPECIAL, "什么 什么 " * 20]), encoding="utf-8")
    script = run_script(bundle, "-i", tmp_path / "texts.txt", "--json")
    for done in (dynabert("predict", bundle, "-i", tmp_path / "texts.txt"), script):
        assert done.code == 0, done.err
        assert ("3 texts contain the text of a special token" in done.err) is in_text
        assert "of the tokens are not in the model's vocabulary" in done.err
        assert "1 text is longer than 32 tokens" in done.err
    expected = db.Predictor(bundle)(list(SPECIAL))
    for line, prediction in zip(script.out.splitlines()[: len(SPECIAL)], expected, strict=True):
        assert json.loads(line)["scores"] == pytest.approx(prediction.scores, abs=1e-6)
    refused = dynabert("search", model, "--special_tokens_in_text" if not in_text else "--no_special_tokens_in_text")
    assert refused.code == 2
    assert f"was trained with special_tokens_in_text = {in_text}" in refused.err
