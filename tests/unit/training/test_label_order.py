"""A task's classes are brought into the order of the model's logits by their names, or refused."""

import numpy as np
import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.config.settings import DepthConfig, FinalConfig, RewireConfig, WidthConfig
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.exporting.bundle import describe
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training import stages
from dynabert_paddle.training.evaluate import evaluate_named
from dynabert_paddle.training.inputs import match_task

MODEL_ORDER = ("pos", "neg", "neutral")
FULL = "w1.00d1.00"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("train", "dev"):
        rows = [(" ".join(rng.choice(["good", "bad", "film", "fine"], 4)), rng.choice(MODEL_ORDER)) for _ in range(40)]
        content = "sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
        (folder / f"{name}.tsv").write_text(content)
    return folder


def make_model(labels=MODEL_ORDER, *, named_in=("config", "metadata"), seed=0, **config):
    model = make_bert(num_labels=len(labels), num_layers=2, seed=seed, **config)
    if "config" in named_in:
        model.config.id2label = dict(enumerate(labels))
    task = {"name": "custom", "kind": "classification", "max_seq_length": 16}
    if "metadata" in named_in:
        task["labels"] = list(labels)
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    return Supernet(model, tokenizer, Metadata(stage="finetune", task=task))


@pytest.fixture(scope="module")
def model():
    return make_model()


def score(model, task):
    return evaluate_named(model, task, [FULL])[0]["accuracy"]


@pytest.mark.parametrize("named_in", [("config",), ("metadata",), ("config", "metadata")])
def test_scores_do_not_depend_on_the_order_of_the_labels_option(folder, named_in):
    model = make_model(named_in=named_in)
    expected = score(model, db.load_task("custom", data_dir=folder, labels=MODEL_ORDER))
    assert 0 < expected < 1
    for labels in (None, ["neg", "neutral", "pos"], ["neutral", "pos", "neg"]):
        task = db.load_task("custom", data_dir=folder, labels=labels)
        assert score(model, task) == expected
        matched = match_task(model, task, "model")
        assert matched.labels == MODEL_ORDER
        for ours, theirs in ((matched.train, task.train), (matched.dev, task.dev)):
            assert [matched.labels[i] for i in ours.labels] == [task.labels[i] for i in theirs.labels]


def test_a_model_that_names_no_labels_has_the_tasks_order(folder):
    model = make_model(named_in=())
    task = db.load_task("custom", data_dir=folder, labels=MODEL_ORDER)
    assert match_task(model, task, "model") is task


def test_numbers_are_compared_by_value(tmp_path):
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text("".join(f'{{"sentence": "s", "label": {label}.0}}\n' for label in (0, 1, 2)))
    task = db.load_task("custom", data_dir=tmp_path)
    assert task.labels == ("0", "1", "2")
    matched = match_task(make_model(("2.0", "0.0", "1.0")), task, "model")
    assert matched.labels == ("2.0", "0.0", "1.0")
    assert matched.dev.labels.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("labels", "seen"),
    [
        (("pos", "neg", "other"), "'other' is missing, 'neutral' is new"),
        (("1", "2", "3"), "'1', '2', '3' are missing, 'neg', 'neutral', 'pos' are new"),
    ],
)
def test_other_labels_are_refused_by_every_function(folder, tmp_path, labels, seen):
    model, task = make_model(labels), db.load_task("custom", data_dir=folder)
    space, out = model.search_space(width_mults=(1.0,), depth_mults=(1.0,)), tmp_path / "out"
    calls = {
        "evaluate": lambda: score(model, task),
        "match": lambda: match_task(model, task, "model"),
        "rewire": lambda: stages.rewire(model, task, config=RewireConfig(holdout_size=4)),
        "width": lambda: stages.train_width(model, make_model(), task, space, output_dir=out, config=WidthConfig()),
        "depth": lambda: stages.train_depth(model, task, space, output_dir=out, config=DepthConfig()),
        "final": lambda: stages.train_final(model, task, space, output_dir=out, config=FinalConfig()),
    }
    for name, call in calls.items():
        with pytest.raises(UsageError) as caught:
            call()
        assert seen in str(caught.value), name
        assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_teacher_of_another_order_is_refused(folder, tmp_path, model):
    task, teacher = db.load_task("custom", data_dir=folder), make_model(("neg", "neutral", "pos"), seed=1)
    space = model.search_space(width_mults=(1.0,), depth_mults=(1.0,))
    with pytest.raises(UsageError, match="the teacher has the model's labels in another order: neg, neutral, pos"):
        stages.train_width(model, teacher, task, space, output_dir=tmp_path / "out")
    with pytest.raises(UsageError, match="not those of the teacher"):
        stages.train_width(model, make_model(("a", "b", "c")), task, space, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_whose_files_name_labels_in_two_orders_is_refused(folder):
    """An earlier version wrote such folders, where a stage was given --labels in another order."""
    model = make_model()
    model.model.config.id2label = {0: "neg", 1: "neutral", 2: "pos"}
    task = db.load_task("custom", data_dir=folder)
    for call in (
        lambda: score(model, task),
        lambda: describe(model, format="paddle", precision="fp32", max_seq_length=9),
    ):
        with pytest.raises(ModelError, match="differ between 'id2label' in config.json and 'labels' in dynabert.json"):
            call()


def test_word_labels_are_ordered_too(tmp_path):
    for name in ("train.conll", "dev.conll"):
        (tmp_path / name).write_text("good O\nfilm B-PER\n\nbad I-PER\n")
    task = db.load_task("custom", data_dir=tmp_path, kind="token_classification")
    ordered = task.with_labels(("I-PER", "B-PER", "O"))
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    for labels, examples in ((task.labels, task.dev), (ordered.labels, ordered.dev)):
        features = examples.tokenize(tokenizer, max_seq_length=16)
        assert [labels[i] for i in features.token_labels if i >= 0] == ["O", "B-PER", "I-PER"]
    assert task.with_labels(("I-PER", "B-PER", "O", "B-LOC")) is None


def bundle_of(model, **options):
    return describe(model, format="paddle", precision="fp32", max_seq_length=16, **options)


def plain(model):
    """As a folder of PaddleNLP or Hugging Face loads."""
    model.metadata = Metadata()
    return model


@pytest.mark.parametrize("given", [None, MODEL_ORDER, ("neg", "neutral", "pos")])
@pytest.mark.parametrize("named_in", [("config",), ("metadata",), ("config", "metadata")])
def test_a_bundle_has_the_models_order(given, named_in):
    model = make_model(named_in=named_in)
    assert tuple(bundle_of(model, given_labels=given).labels) == MODEL_ORDER
    assert tuple(bundle_of(extract(model, model.full), given_labels=given).labels) == MODEL_ORDER


def test_a_bundle_of_unnamed_labels_takes_the_users_names():
    model = plain(make_model(named_in=()))
    assert bundle_of(model).labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert bundle_of(model, given_labels=["b", "a", "c"]).labels == ["b", "a", "c"]
    for wrong in (["a", "a", "b"], ["a"]):
        with pytest.raises(UsageError, match="at least two labels, each once"):
            bundle_of(model, given_labels=wrong)
    with pytest.raises(ModelError, match="3 outputs and 2 labels"):
        bundle_of(model, given_labels=["a", "b"])


def test_a_bundle_refuses_other_labels():
    with pytest.raises(UsageError, match="not those of the model .'neutral' is missing, 'other' is new."):
        bundle_of(make_model(), given_labels=["pos", "neg", "other"])


@pytest.mark.parametrize("problem", [None, "regression", "single_label_classification"])
def test_a_single_output_is_a_value(problem):
    model = plain(make_model(("LABEL_0",), named_in=()))
    model.model.config.problem_type = problem
    manifest = bundle_of(model)
    assert (manifest.task["kind"], manifest.labels) == ("regression", [])
    with pytest.raises(UsageError, match="the model predicts no labels: leave out labels"):
        bundle_of(model, given_labels=["a", "b"])


@pytest.mark.parametrize("labels", [MODEL_ORDER, ("a",)])
def test_several_labels_a_text_are_what_the_config_says(labels):
    model = plain(make_model(labels, named_in=("config",)))
    model.model.config.problem_type = "multi_label_classification"
    manifest = bundle_of(model)
    assert (manifest.task["kind"], tuple(manifest.labels)) == ("multi_label", labels)


def test_several_values_a_text_are_refused():
    model = plain(make_model(named_in=("config",)))
    model.model.config.problem_type = "regression"
    with pytest.raises(ModelError, match="problem_type in config.json is 'regression'"):
        bundle_of(model)
