"""The thresholds of sub-networks: recorded by stages, kept by small models, chosen for others, and used by scores."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.label_set_metrics import choose_thresholds
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.metadata import Metadata, read_metadata, write_metadata
from dynabert_paddle.searching.scoring import Scorer, label_with_predictions
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.evaluate import evaluate_named
from dynabert_paddle.training.held_out import unseen_rows
from dynabert_paddle.training.inputs import hold_out, match_task, tokenize_examples
from dynabert_paddle.training.predict import predict_logits
from dynabert_paddle.training.thresholds import choose_anew, measure_thresholds

LABELS = ("x", "y", "z")
FULL, HALF = "w1.00d1.00", "w0.50d1.00"
WORDS = ("good", "bad", "film", "fine", "old")
STAGE = {"settings": {"select_on": "holdout", "holdout_size": 20, "seed": 42}, "parent": "backbone"}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, count in (("train", 240), ("dev", 30)):
        rows = []
        for _ in range(count):
            labels = [label for label, share in zip(LABELS, (0.6, 0.3, 0.1), strict=True) if rng.random() < share]
            rows.append(json.dumps({"text": " ".join(rng.choice(WORDS, 4)), "labels": labels}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(rows))
    return db.load_task("custom", kind="multi_label", data_dir=folder)


@pytest.fixture
def model(task):
    described = {**task.to_dict(), "max_seq_length": 16}
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    metadata = Metadata(stage="finetune", task=described, provenance=STAGE)
    return Supernet(make_bert(num_labels=3, num_layers=2), tokenizer, metadata)


def with_thresholds(model, **thresholds):
    model.metadata = model.metadata.replace(thresholds=thresholds)
    return model


def probabilities_of(model, features, name):
    (logits,) = predict_logits(model, features, [model.search_space().parse(name)])
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def micro_f1(predicted, labels):
    return 2 * (predicted & labels).sum() / (predicted.sum() + labels.sum())


def test_a_score_has_the_recorded_thresholds(model, task):
    thresholds = {"z": 0.2, "x": 0.3, "y": 0.6}  # by name, in any order
    with_thresholds(model, **{FULL: thresholds, HALF: dict.fromkeys(LABELS, 0.5)})
    rows = evaluate_named(model, task, [HALF, FULL])
    features = tokenize_examples(task.dev, model)
    for row, values in zip(rows, ([0.5] * 3, [0.3, 0.6, 0.2]), strict=True):
        predicted = probabilities_of(model, features, row["subnet"]) >= values
        assert row["micro_f1"] == pytest.approx(micro_f1(predicted, task.dev.labels))
    assert {"macro_f1", "subset_accuracy", "lrap"} < set(rows[0])


def test_thresholds_of_other_sub_networks_are_chosen_on_unseen_rows(model, task, caplog):
    unseen = unseen_rows(task, model.metadata)
    np.testing.assert_array_equal(unseen, hold_out(task.train, 20, seed=42)[1])
    held_out = task.train.select(unseen)
    wanted = choose_thresholds(probabilities_of(model, tokenize_examples(held_out, model), HALF), held_out.labels)
    with caplog.at_level("INFO"):
        (row,) = evaluate_named(with_thresholds(model, **{FULL: dict.fromkeys(LABELS, 0.5)}), task, [HALF])
    assert "choosing thresholds for w0.50d1.00 on 20 held-out rows" in caplog.text
    predicted = probabilities_of(model, tokenize_examples(task.dev, model), HALF) >= wanted
    assert row["micro_f1"] == pytest.approx(micro_f1(predicted, task.dev.labels))


def test_without_unseen_rows_the_threshold_is_one_half(model, task, caplog):
    alone = replace(task, train=task.dev)  # a training file that is gone
    (row,) = evaluate_named(model, alone, [HALF])
    assert "no row is known that no stage has trained on, to choose thresholds for w0.50d1.00" in caplog.text
    predicted = probabilities_of(model, tokenize_examples(task.dev, model), HALF) >= 0.5
    assert row["micro_f1"] == pytest.approx(micro_f1(predicted, task.dev.labels))


def test_stages_that_select_on_dev_choose_there(model, task):
    settings = {**STAGE["settings"], "select_on": "dev"}
    model.metadata = model.metadata.replace(provenance={**STAGE, "settings": settings})
    features = tokenize_examples(task.dev, model)
    expected = measure_thresholds(model, task, features, {HALF: model.search_space().parse(HALF)})
    assert choose_anew(model, task, {HALF: model.search_space().parse(HALF)}) == expected


def test_a_small_model_keeps_its_own_thresholds(model):
    own = {"x": 0.1, "y": 0.2, "z": 0.3}
    with_thresholds(model, **{FULL: dict.fromkeys(LABELS, 0.5), HALF: own})
    space = model.search_space()
    assert extract(model, space.parse(HALF)).metadata.thresholds == {FULL: own}
    assert extract(model, model.full).metadata.thresholds == {FULL: dict.fromkeys(LABELS, 0.5)}
    assert extract(model, space.parse("w0.25d1.00")).metadata.thresholds == {}


@pytest.mark.parametrize("thresholds", [{"x": 0.1, "y": 0.2}, {"x": 0.1, "y": 0.2, "z": 1.0}])
def test_damaged_thresholds_are_refused(model, task, thresholds):
    with pytest.raises(ModelError, match="the thresholds in dynabert.json are not one for each label"):
        evaluate_named(with_thresholds(model, **{FULL: thresholds}), task, [FULL])


def test_a_folder_keeps_thresholds_and_says_so_to_others(model, tmp_path):
    folder = with_thresholds(model, **{FULL: {"x": 0.1, "y": 0.2, "z": 0.3}}).save_pretrained(tmp_path / "model")
    assert read_metadata(folder).thresholds == model.metadata.thresholds
    assert json.loads((folder / "config.json").read_text())["problem_type"] == "multi_label_classification"
    write_metadata(tmp_path, Metadata(stage="finetune"))
    assert "thresholds" not in json.loads((tmp_path / "dynabert.json").read_text())


def test_a_search_scores_with_thresholds_of_each_candidate(model, task):
    examples = task.train.select(unseen_rows(task, model.metadata))
    features = tokenize_examples(examples, model)
    subnets = [model.search_space().parse(name) for name in (FULL, HALF)]
    scores = Scorer(model, features, "micro_f1", 16, 0)(subnets, [float("-inf")] * 2)
    for name, score in zip((FULL, HALF), scores, strict=True):
        probabilities = probabilities_of(model, features, name)
        best = choose_thresholds(probabilities, examples.labels)
        assert score.value == pytest.approx(micro_f1(probabilities >= best, examples.labels))


def test_agreement_is_that_of_label_sets(model, task):
    thresholds = {"x": 0.4, "y": 0.6, "z": 0.5}
    features = tokenize_examples(task.dev, with_thresholds(model, **{FULL: thresholds}))
    labelled, metric = label_with_predictions(model, features, batch_size=16)
    assert metric == "subset_accuracy"
    predicted = probabilities_of(model, features, FULL) >= [0.4, 0.6, 0.5]
    np.testing.assert_array_equal(labelled.labels, predicted)
    subnets = [model.full, model.search_space().parse(HALF)]
    full, half = Scorer(model, labelled, metric, 16, 0)(subnets, [float("-inf")] * 2)
    assert full.value == 1.0 > half.value


def test_kinds_are_not_mixed(model, task, tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\na b\tx\nb c\ty\nc d\tz\nd e\tz\n")
    classes = db.load_task("custom", data_dir=tmp_path)
    message = "was fine-tuned for multi_label, and task 'custom' is classification"
    for call in (match_task, lambda *arguments: evaluate_named(model, classes, [FULL])):
        with pytest.raises(UsageError, match=message):
            call(model, classes, "it")
    model.metadata = model.metadata.replace(task={**classes.to_dict(), "max_seq_length": 16})
    with pytest.raises(UsageError, match="was fine-tuned for classification, and task 'custom' is multi_label"):
        match_task(model, task, "it")
