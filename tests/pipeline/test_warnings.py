"""A run says once what is wrong with its data, and which stage ends below where it began."""

import json
import random

import pytest

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


def test_a_run_says_each_defect_of_its_data_once(tmp_path, words_of_run, dynabert):
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


def test_a_stage_that_ends_below_its_start_is_named(tmp_path, words_of_run, dynabert):
    write(tmp_path / "data" / "train.tsv", sentences(600, 0))
    write(tmp_path / "data" / "dev.tsv", sentences(40, 1))
    done = dynabert(*words_of_run, "-o", "width.learning_rate=0.5")
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "the model that the stage began with" in line]
    assert line.startswith("width: the full model has accuracy 0.")
    assert "on holdout, and the model that the stage began with 0.98" in line
    assert "lower learning_rate than 0.5" in line
