"""Task-agnostic supernets: from raw text to a backbone supernet, and from that to tasks."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from conftest import SNIPS, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.config.options import recorded_settings
from dynabert_paddle.data.raw_texts import open_raw_texts
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.hashing import hash_file
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.files.weights import read_weights
from dynabert_paddle.supernet.supernet import load_model
from dynabert_paddle.training import loop
from dynabert_paddle.training.evaluate import trained_space
from dynabert_paddle.training.general import score_hidden
from dynabert_paddle.training.text_stream import tokenize_texts

STEPS = 8


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    """200 texts without labels."""
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    rows = (SNIPS / "train.tsv").read_text(encoding="utf-8").splitlines()[1:201]
    file.write_text("".join(row.split("\t")[0] + "\n" for row in rows), encoding="utf-8")
    return file


def settings_of(model, text_file, output_dir, *words, stages="rewire, general"):
    common = [f"stages=[{stages}]", "task.max_seq_length=16", f"general.max_steps={STEPS}", "general.logging_steps=1"]
    common += ["train.per_device_train_batch_size=16", "train.holdout_size=20", "general.eval_steps=4"]
    common += ["general.learning_rate=1e-3", "space.width_mult_list=[1.0, 0.5]", "space.depth_mult_list=[1.0, 0.5]"]
    flags = {"model_name_or_path": str(model), "general.text_file": str(text_file), "output_dir": str(output_dir)}
    return db.load_config(None, [*common, *words], flags)


@pytest.fixture(scope="module")
def general(make_once, tiny_folder, text_file):
    """The folder of a run without labels."""
    return make_once("general", lambda folder: db.run(settings_of(tiny_folder, text_file, folder)))


def weights_of(folder):
    return {name: hash_file(folder / name) for name in ("model.safetensors",) if (folder / name).is_file()}


def test_the_result_is_a_supernet_without_a_task(general, tiny_folder):
    metadata = read_metadata(general / "general")
    assert (metadata.stage, metadata.task["kind"]) == ("general", "raw_text")
    assert metadata.space == {"width_mults": [1.0, 0.5], "depth_mults": [1.0, 0.5]}
    assert metadata.provenance["parent"]["parent"] == str(tiny_folder)
    grid = json.loads((general / "grid.json").read_text())
    assert grid["split"] == "holdout"
    assert [row["subnet"] for row in grid["rows"]] == ["w1.00d1.00", "w0.50d1.00", "w1.00d0.50", "w0.50d0.50"]
    assert [row["hidden_cosine"] for row in grid["rows"]] == [
        row["hidden_cosine"] for row in metadata.metrics["holdout"].values()
    ]


def test_rewiring_keeps_the_full_model_and_sorts_without_labels(general, tiny_folder):
    before, after = (db.Supernet.from_pretrained(folder) for folder in (tiny_folder, general / "rewire"))
    inputs = db.Supernet.from_pretrained(tiny_folder).tokenizer
    rows = inputs.encode(["play some music", "book a table"], max_seq_length=16)[0]
    for row in rows:
        ids = paddle.to_tensor([row])
        before.eval(), after.eval()
        ours, theirs = (model(input_ids=ids).hidden_states[-1].numpy() for model in (before, after))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    heads = read_metadata(general / "rewire").importance["heads"]
    assert all(list(layer) == sorted(layer, reverse=True) and min(layer) > 0 for layer in heads)


def test_the_smallest_sub_network_learns_what_the_backbone_computes(general, text_file):
    """Its hidden states are nearer to the teacher's than before; the recorded scores are those of the saved weights."""
    teacher, trained = (load_model(general / stage) for stage in ("rewire", "general"))
    with open_raw_texts(text_file, holdout_size=20, seed=42, key="") as texts:
        features = tokenize_texts(texts.held_out, teacher.tokenizer, 16)
    grid = trained_space(trained).grid()
    before, after = (score_hidden(teacher, model, features, grid) for model in (teacher, trained))
    assert before["w1.00d1.00"]["hidden_cosine"] == pytest.approx(1)
    assert all(after[name]["hidden_cosine"] > before[name]["hidden_cosine"] for name in grid if name != "w1.00d1.00")
    for name, scores in read_metadata(general / "general").metrics["holdout"].items():
        assert after[name]["hidden_cosine"] == pytest.approx(scores["hidden_cosine"], abs=1e-6)


@pytest.mark.full
def test_an_interrupted_run_ends_with_the_same_weights(general, tiny_folder, text_file, tmp_path, monkeypatch):
    packed = tmp_path / "texts.txt.gz"
    packed.write_bytes(gzip.compress(text_file.read_bytes()))
    shutil.copytree(general / "rewire", tmp_path / "out" / "rewire")
    config = settings_of(tiny_folder, packed, tmp_path / "out", "general.save_steps=3")
    save = loop.save_checkpoint

    def fail(output_dir, state, *args, **kwargs):
        save(output_dir, state, *args, **kwargs)
        if state.step == 6:
            raise db.DynabertError("stopped here")

    monkeypatch.setattr(loop, "save_checkpoint", fail)
    with pytest.raises(db.DynabertError, match="stopped here"):
        db.run(config)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="holds an unfinished run with another data"):
        other = tmp_path / "other.txt"
        other.write_text(text_file.read_text() + "one more\n")
        db.run(settings_of(tiny_folder, other, tmp_path / "out", f"rewire.text_file={packed}"))
    db.run(config)
    assert weights_of(tmp_path / "out" / "general") == weights_of(general / "general")


@pytest.mark.full
def test_a_finished_run_is_kept_unless_its_texts_change(general, tiny_folder, text_file, tmp_path):
    shutil.copytree(general, tmp_path / "out")
    (tmp_path / "out" / "run.yaml").unlink()
    before = weights_of(tmp_path / "out" / "general")
    db.run(settings_of(tiny_folder, text_file, tmp_path / "out"))
    assert weights_of(tmp_path / "out" / "general") == before
    other = tmp_path / "other.txt"
    other.write_text(text_file.read_text() + "one more\n")
    with pytest.raises(UsageError, match="was made with other training rows"):
        db.run(settings_of(tiny_folder, other, tmp_path / "out"))


@pytest.mark.full
def test_tasks_begin_with_it(general, tiny_data, tmp_path, dynabert):
    """Fine-tuned, all at once, and extracted first: the encoder is the general one, the classifier is new."""
    task = ["--data_dir", tiny_data, "--max_seq_length", "16", "--learning_rate", "0", "--max_steps", "1"]
    done = dynabert("finetune", "--model_name_or_path", general / "general", *task, "--output_dir", tmp_path / "one")
    assert done.code == 0, done.err
    assert "the classifier for task 'snips' is new" in done.err
    done = dynabert("train_final", general / "general", *task, "--task_name", "snips", "--output_dir", tmp_path / "all")
    assert done.code == 0, done.err
    assert "the classifier for task 'snips' is new" in done.err
    metadata = read_metadata(tmp_path / "all")
    assert (metadata.stage, metadata.task["kind"]) == ("final", "classification")
    assert len(metadata.metrics["holdout"]) == 4
    source = to_arrays(db.Supernet.from_pretrained(general / "general").model)
    for folder in ("one", "all"):
        model = db.Supernet.from_pretrained(tmp_path / folder)
        assert model.labels is not None
        for name, value in to_arrays(model.model).items():
            if ".encoder." in name:
                np.testing.assert_array_equal(value, source[name])
    small = tmp_path / "small"
    done = dynabert("extract", general / "general", "w0.50d0.50", "--output_dir", small)
    assert done.code == 0, done.err
    done = dynabert("finetune", "--model_name_or_path", small, *task, "--output_dir", tmp_path / "small_task")
    assert done.code == 0, done.err
    assert len(read_metadata(tmp_path / "small_task").heads) == 2


@pytest.mark.full
def test_a_run_goes_on_to_a_task(general, tiny_folder, text_file, tiny_data, tmp_path):
    shutil.copytree(general, tmp_path / "out")
    (tmp_path / "out" / "run.yaml").unlink()
    words = [f"task.data_dir={tiny_data}", "final.max_steps=2", "finetune.max_steps=2"]
    stages = "rewire, general, finetune, final"
    rows = db.run(settings_of(tiny_folder, text_file, tmp_path / "out", *words, stages=stages))
    assert {"accuracy", "macro_f1"} <= set(rows[0])
    assert len(rows) == 4
    assert read_metadata(tmp_path / "out" / "finetune").task["name"] == "snips"


def test_verbs_say_what_it_is(general, text_file, tiny_folder, tmp_path, dynabert):
    done = dynabert("evaluate", general / "general", "--grid")
    assert done.code == 0, done.err
    assert "hidden_cosine" in done.out
    assert "has learned from raw text alone and has no classifier" in done.err
    for words in (
        ["train_width", general / "general", "--output_dir", tmp_path / "x"],
        ["search", general / "general", "--max_params", "1e9"],
        ["export", general / "general", "--output_dir", tmp_path / "x"],
    ):
        done = dynabert(*words)
        assert done.code == 2, (words, done)
        assert "has learned from raw text alone" in done.err, words
        assert not (tmp_path / "x").exists()
    done = dynabert("report", general, "--output_file", tmp_path / "report.html")
    assert done.code == 0, done.err
    assert "hidden_cosine" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_bad_settings_are_refused_before_anything_is_written(
    general, finetuned, text_file, tiny_folder, tmp_path, dynabert
):
    out = tmp_path / "out"
    for stages, words, message in (
        ("finetune, general", [], "put general before finetune"),
        ("rewire, general", ["general.select_on=dev"], "raw text has no dev set"),
        ("rewire, general", ["rewire.accumulation=huawei"], "reads a dev set: raw text has none"),
        ("rewire, general", ["task.max_seq_length=4096"], "more than the model's 128 positions"),
    ):
        with pytest.raises(UsageError, match=message):
            db.run(settings_of(tiny_folder, text_file, out, *words, stages=stages))
    with pytest.raises(UsageError, match=r"needs raw text: name a file, one text a line, with general\.text_file"):
        db.run(db.load_config(None, ["stages=[rewire, general]"], {"output_dir": str(out)}))
    done = dynabert("train_general", finetuned, "--text_file", text_file, "--output_dir", out)
    assert (done.code, "begins with a pretrained backbone" in done.err) == (2, True)
    done = dynabert("train_general", tiny_folder, "--output_dir", out)
    assert (done.code, "--text_file" in done.err) == (2, True)


@pytest.mark.full
def test_the_verbs_do_what_a_run_does(general, text_file, tiny_folder, tmp_path, dynabert):
    common = ["--text_file", text_file, "--max_seq_length", "16", "--holdout_size", "20"]
    done = dynabert("rewire", tiny_folder, *common, "--output_dir", tmp_path / "rewire")
    assert done.code == 0, done.err
    assert "next: dynabert train_general" in done.err
    assert weights_of(tmp_path / "rewire") == weights_of(general / "rewire")
    words = [
        "--max_steps",
        STEPS,
        "--per_device_train_batch_size",
        "16",
        "--eval_steps",
        "4",
        "--learning_rate",
        "1e-3",
    ]
    words += ["--width_mult_list", "1.0 0.5", "--depth_mult_list", "1.0 0.5"]
    done = dynabert("train_general", tmp_path / "rewire", *common, *words, "--output_dir", tmp_path / "general")
    assert done.code == 0, done.err
    assert weights_of(tmp_path / "general") == weights_of(general / "general")


def test_settings_of_runs_without_it_are_not_recorded(chain):
    assert "general" not in recorded_settings(db.Config())
    # A `train` section sets the stage, too, and run.yaml means the same settings as the config that it was made from.
    general = yaml.safe_load((chain / "run.yaml").read_text())["general"]
    default = recorded_settings(db.Config().general)
    assert {key: value for key, value in general.items() if value != default[key]} == {
        "max_steps": 10,
        "learning_rate": 2e-3,
        "per_device_train_batch_size": 16,
        "logging_steps": 2,
        "eval_steps": 5,
    }
    assert "text_file" not in (chain / "run.yaml").read_text()
    assert "text_file" not in (chain / "rewire" / "dynabert.json").read_text()


@pytest.mark.full
def test_two_processes_train_what_one_trains(text_file, tmp_path):
    """Without dropout, which each process draws on its own; keys' biases have no gradient but rounding: the epsilon."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    db.Supernet(make_bert(num_labels=2, **still), tokenizer).save_pretrained(tmp_path / "model")
    words = ["train_general", tmp_path / "model", "--text_file", text_file, "--max_seq_length", "16"]
    words += [
        "--max_steps",
        "6",
        "--width_mult_list",
        "1.0 0.5",
        "--depth_mult_list",
        "1.0 0.5",
        "--holdout_size",
        "20",
    ]
    words += ["--adam_epsilon", "1e-6"]
    for processes, size in ((1, 16), (2, 8)):
        start = ["-m", "dynabert_paddle"]
        if processes == 2:
            launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", processes, "--log_dir", tmp_path / "log"]
            start = [*launcher, Path(sys.executable).with_name("dynabert")]
        own = ["--per_device_train_batch_size", size, "--output_dir", tmp_path / str(processes)]
        command = [sys.executable, *start, *words, *own]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (read_weights(tmp_path / name) for name in ("1", "2"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
    cosines = [read_metadata(tmp_path / name).metrics["holdout"]["w0.50d0.50"]["hidden_cosine"] for name in ("1", "2")]
    assert cosines[1] == pytest.approx(cosines[0], abs=1e-4)
