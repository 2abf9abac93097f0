"""Every command takes labels by their names: what it does not depends on the order in which they are given."""

import json

import numpy as np
import paddle
import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.files.weights import write_safetensors

REVERSED = "SearchScreeningEvent SearchCreativeWork RateBook PlayMusic GetWeather BookRestaurant AddToPlaylist"


def test_evaluate_takes_labels_in_any_order(chain, dynabert):
    expected = dynabert("evaluate", chain / "finetune", "--json")
    done = dynabert("evaluate", chain / "finetune", "--json", "--labels", REVERSED)
    assert (done.code, json.loads(done.out)) == (0, json.loads(expected.out))
    assert "the labels are taken in the order of" in done.err


def test_evaluate_refuses_other_labels(chain, dynabert):
    labels = REVERSED.replace("RateBook", "RateFilm")
    done = dynabert("evaluate", chain / "finetune", "--labels", labels)
    assert done.code in (1, 2) and done.err.count("\n") == 1 and "RateBook" in done.err


@pytest.mark.full
def test_the_next_stages_keep_the_models_order(chain, dynabert, tmp_path):
    out = tmp_path / "rewire"
    done = dynabert("rewire", chain / "finetune", "--output_dir", out, "--labels", REVERSED)
    assert done.code == 0, done.err
    first, second = (json.loads((folder / "dynabert.json").read_text()) for folder in (chain / "rewire", out))
    assert first["task"]["labels"] == second["task"]["labels"]
    assert first["importance"] == second["importance"]
    scores = [json.loads(dynabert("evaluate", folder, "--json").out) for folder in (chain / "rewire", out)]
    assert scores[0] == scores[1]


@pytest.mark.full
@pytest.mark.parametrize("format", ["onnx"])
def test_a_bundle_has_the_models_labels(chain, dynabert, tmp_path, format):
    for name, more in (("a", ()), ("b", ("--labels", REVERSED))):
        done = dynabert("export", chain / "finetune", "--output_dir", tmp_path / name, "--format", format, *more)
        assert done.code == 0, done.err
    texts = ["play some jazz", "will it rain", "book a table for two"]
    first, second = (db.Predictor(tmp_path / name) for name in "ab")
    assert first.labels == second.labels and first(texts) == second(texts)
    done = dynabert(
        "export",
        chain / "finetune",
        *("--output_dir", tmp_path / "c", "--format", format, "--labels", REVERSED.replace("RateBook", "RateFilm")),
    )
    assert done.code == 2 and done.err.splitlines()[-1].startswith("error: --labels are not those of the model")
    assert not (tmp_path / "c").exists()


@pytest.mark.full
def test_int8_is_checked_with_the_models_order(chain, dynabert, tmp_path):
    reports = []
    for name, more in (("a", ()), ("b", ("--labels", REVERSED))):
        words = ("--format", "onnx", "--precision", "int8", "--tolerance", "1", *more)
        done = dynabert("export", chain / "finetune", "--output_dir", tmp_path / name, *words)
        assert done.code == 0, done.err
        reports.append(json.loads((tmp_path / name / "bundle.json").read_text())["verification"])
    assert reports[0] == reports[1]


@pytest.fixture
def foreign(tmp_path):
    """A fine-tuned folder as PaddleNLP writes one, without `dynabert.json`, of the labels pos, neg; and its data."""
    model = make_bert(num_labels=2, num_layers=2)
    model.config.architectures = [type(model).__name__]
    model.config.id2label, model.config.label2id = {0: "pos", 1: "neg"}, {"pos": 0, "neg": 1}
    folder = tmp_path / "foreign"
    folder.mkdir()
    db.Tokenizer.from_pretrained(find_backbone("minilm-l6")).save_pretrained(folder)
    model.config.to_json_file(str(folder / "config.json"))
    write_safetensors(folder / "model.safetensors", to_arrays(model), metadata={"format": "np"})
    supernet = db.load_model(folder)
    texts = [
        f"{a} {b} film" for a in ("good", "bad", "fine", "long", "short") for b in ("old", "new", "french", "dull")
    ]
    task_texts = []
    for text in texts:
        ids, types = supernet.tokenizer.encode([text], None, max_seq_length=16)
        logits = supernet(input_ids=paddle.to_tensor(ids), token_type_ids=paddle.to_tensor(types)).logits.numpy()
        task_texts.append((text, ("pos", "neg")[int(logits.argmax())]))
    assert {label for _, label in task_texts} == {"pos", "neg"}
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        rows = "".join(f"{text}\t{label}\n" for text, label in task_texts)
        (data / name).write_text("sentence\tlabel\n" + rows)
    return folder, data


def finetune(dynabert, folder, data, out, *more):
    """One step at learning rate 0, with what `evaluate` says."""
    words = ("--learning_rate", 0, "--max_steps", 1, "--max_seq_length", 16, "--select_on", "dev", *more)
    start = ("finetune", "--model_name_or_path", folder, "--task_name", "custom", "--data_dir", data)
    done = dynabert(*start, "--output_dir", out, *words)
    assert done.code == 0, done.err
    return done, json.loads(dynabert("evaluate", out, "--json").out)


def test_a_classifier_follows_the_names(foreign, dynabert, tmp_path):
    """The model that labelled the data is right on all of it."""
    folder, data = foreign
    _, scores = finetune(dynabert, folder, data, tmp_path / "out")
    assert scores["rows"][0]["accuracy"] == 1.0
    assert db.Supernet.from_pretrained(tmp_path / "out").labels == ("neg", "pos")


@pytest.mark.full
def test_labels_without_names(foreign, dynabert, tmp_path):
    folder, data = foreign
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    (folder / "config.json").write_text(json.dumps(config))
    done, _ = finetune(dynabert, folder, data, tmp_path / "out")
    assert "does not name the labels of its classifier: a new one is trained" in done.err
    done, scores = finetune(dynabert, folder, data, tmp_path / "given", "--labels", "pos neg")
    assert scores["rows"][0]["accuracy"] == 1.0 and "a new one" not in done.err
    done = dynabert("export", folder, "--output_dir", tmp_path / "bundle", "--format", "onnx", "--labels", "pos neg")
    assert done.code == 0, done.err
    rows = [line.split("\t") for line in (data / "dev.tsv").read_text().splitlines()[1:]]
    predictor = db.Predictor(tmp_path / "bundle")
    assert [row.label for row in predictor([text for text, _ in rows])] == [label for _, label in rows]


@pytest.mark.full
def test_a_single_output_is_exported_as_a_value(foreign, dynabert, tmp_path):
    folder, _ = foreign
    model = make_bert(num_labels=1, num_layers=2)
    model.config.architectures = [type(model).__name__]
    model.config.to_json_file(str(folder / "config.json"))
    write_safetensors(folder / "model.safetensors", to_arrays(model), metadata={"format": "np"})
    done = dynabert("export", folder, "--output_dir", tmp_path / "bundle", "--format", "onnx")
    assert done.code == 0, done.err
    predictor = db.Predictor(tmp_path / "bundle")
    values = [row.score for row in predictor(["good film", "bad"])]
    assert predictor.labels == [] and predictor.kind == "regression"
    assert len(set(values)) == 2 and not np.isclose(values, 1).any()


@pytest.mark.full
@pytest.mark.parametrize("named", [True, False])
def test_several_labels_of_a_config_are_exported_as_such(foreign, dynabert, tmp_path, named):
    """Also where only the user says so; the sigmoid of each logit is its label's probability."""
    folder, _ = foreign
    config = json.loads((folder / "config.json").read_text())
    problem = {"problem_type": "multi_label_classification"} if named else {}
    (folder / "config.json").write_text(json.dumps(config | problem))
    words = () if named else ("--task_name", "custom", "--kind", "multi_label")
    done = dynabert("export", folder, "--output_dir", tmp_path / "bundle", "--format", "onnx", *words)
    assert done.code == 0, done.err
    predictor = db.Predictor(tmp_path / "bundle")
    (row,) = predictor(["good film"])
    assert predictor.kind == "multi_label" and set(row.scores) == set(predictor.labels)
    assert sorted(row.labels) == sorted(label for label, score in row.scores.items() if score >= 0.5)
    assert sum(row.scores.values()) != pytest.approx(1)


@pytest.mark.full
def test_the_positive_label_goes_through_all_stages(foreign, dynabert, tmp_path):
    folder, data = foreign
    more = ("--metrics", "f1", "--positive_label", "neg")
    done, scores = finetune(dynabert, folder, data, tmp_path / "out", *more)
    assert scores["positive_label"] == "neg" and "f1 is that of the label 'neg'" in done.err
    done = dynabert("rewire", tmp_path / "out", "--output_dir", tmp_path / "rewire")
    assert done.code == 0, done.err
    done = dynabert("evaluate", tmp_path / "rewire")
    assert "f1 (neg)" in done.out and done.code == 0
