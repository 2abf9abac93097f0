"""Numbers at the edge: stages, search, export and predictors end in the right result or in a clear message."""

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import run_command
from conftest import make_bert
from paddlenlp.transformers import RobertaConfig, RobertaForSequenceClassification

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.config.loading import resolve_config
from dynabert_paddle.errors import DataError, DynabertError, ModelError, UsageError
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.training.evaluate import evaluate_grid, predict_logits
from dynabert_paddle.training.inputs import tokenize_examples

pytestmark = pytest.mark.full

STAGES = ("finetune", "rewire", "width", "depth", "final")
TEXTS = ["play some jazz", "book a table for two", "", "rain", "add this song to my list", ""]
DROPPED = "\u200b"  # a word that the tokenizer makes no token of
KINDS = ("classification", "regression", "token_classification", "question_answering")


@pytest.fixture(scope="module")
def tokenizer():
    return db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))


@pytest.fixture(scope="module")
def start(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers") / "start"
    return db.Supernet(make_bert(num_layers=2), tokenizer).save_pretrained(folder)


def write_table(path, texts, labels):
    lines = ["sentence\tlabel", *(f"{text}\t{label}" for text, label in zip(texts, labels, strict=True))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_data(folder, kind, count=22):
    """Rows, some without any token of their own."""
    texts = [TEXTS[i % len(TEXTS)] for i in range(count)]
    for name in ("train", "dev"):
        if kind in ("classification", "regression"):
            write_table(folder / f"{name}.tsv", texts, [i % 2 for i in range(count)])
            continue
        rows = [
            {"tokens": text.split() or [DROPPED], "labels": ["B-X"] + ["O"] * max(0, len(text.split()) - 1)}
            if kind == "token_classification"
            else {
                "id": str(i),
                "question": text,
                "context": f"{i} {text}" if text else "",
                "answers": [{"text": str(i), "answer_start": 0}] if text else [],
            }
            for i, text in enumerate(texts)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(folder, start, *, task, stages=STAGES, **train):
    """All stages of a small model, two steps each."""
    train = {"max_steps": 2, "learning_rate": 1e-3, "per_device_train_batch_size": 4, "logging_steps": 1} | train
    values = {
        "model_name_or_path": str(start),
        "output_dir": str(folder / "out"),
        "device": "cpu",
        "stages": stages,
        "task": {"name": "custom", "max_seq_length": 16, "data_dir": str(folder), **task},
        "space": {"width_mult_list": [1.0, 0.5], "depth_mult_list": [1.0, 0.5]},
        **{name: train for name in stages if name != "rewire"},
    }
    return db.run(resolve_config(db.Config, values))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_one_and_texts_without_a_token(start, tmp_path, kind):
    """Of a question the sequence of nothing else has two [SEP]."""
    write_data(tmp_path, kind)
    batches = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1}
    rows = run(tmp_path, start, task={"kind": kind}, **batches)
    task = db.load_task("custom", kind=kind, data_dir=tmp_path)
    assert len(rows) == 4
    assert all(np.isfinite(row[metric]) for row in rows for metric in task.metrics)
    model = db.load_model(tmp_path / "out" / "final")
    features = tokenize_examples(task.dev, model)
    assert min(features.lengths) <= 3  # [CLS] and [SEP], of a question one more
    alone, together = (predict_logits(model, features, [model.full], batch_size=size)[0] for size in (1, 21))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)

    texts = ["", "play"]
    columns = [texts, texts[::-1]] if kind == "question_answering" else [texts]
    for precision, tolerance in (("fp32", None), ("int8", 100)):
        bundle = db.export(tmp_path / "out" / "final", tmp_path / precision, precision=precision, tolerance=tolerance)
        found = db.Predictor(bundle)(*columns)
        assert [db.Predictor(bundle)(*([text] for text in row))[0] for row in zip(*columns, strict=True)] == found
        assert list(db.AdaptivePredictor(bundle)(*columns)) == pytest.approx(found) or precision == "fp32"


@pytest.mark.parametrize(("kind", "method"), zip(KINDS, ["distilbert", "tinybert"] * 2, strict=True))
def test_baselines_of_batches_of_one(start, tmp_path, kind, method):
    write_data(tmp_path, kind)
    run(tmp_path, start, task={"kind": kind}, stages=("finetune",))
    config = db.BaselineConfig(method=method, max_steps=4, per_device_train_batch_size=1, learning_rate=1e-3)
    task = db.load_task("custom", kind=kind, data_dir=tmp_path)
    db.baseline(tmp_path / "out" / "finetune", task, output_dir=tmp_path / "small", config=config)
    metrics = json.loads((tmp_path / "small" / "baseline.json").read_text())["metrics"]
    assert np.isfinite(list(metrics.values())).all()


def test_a_learning_rate_of_zero_changes_nothing_and_the_first_step_is_the_best(start, tmp_path):
    write_data(tmp_path, "classification")
    run(tmp_path, start, task={}, learning_rate=0, max_steps=3, eval_steps=1, weight_decay=0.1)
    before, *after = (db.Supernet.from_pretrained(tmp_path / "out" / stage) for stage in STAGES[1:])
    for model in after:
        assert model.metadata.metrics["best_step"] == 1
        for name, value in to_arrays(model.model).items():
            np.testing.assert_array_equal(value, to_arrays(before.model)[name], err_msg=name)


@pytest.fixture
def few(tmp_path):
    """A task with one training example a class."""
    write_table(tmp_path / "train.tsv", ["play some jazz", "book a table", "rain"], "abc")
    write_table(tmp_path / "dev.tsv", ["play", "a table", "rain"], "abc")
    return db.load_task("custom", data_dir=tmp_path)


def test_one_example_a_class_leaves_none_to_hold_out(start, few, tmp_path):
    config = db.FinetuneConfig(max_steps=2)
    remedy = (
        "every class must keep one; add training rows, or .* set select_on to dev, and rewire.accumulation to huawei"
    )
    with pytest.raises(DataError, match=f"none of 3 training examples can be held out, as {remedy}"):
        db.finetune(start, few, output_dir=tmp_path / "out", config=config, max_seq_length=16)
    assert not (tmp_path / "out").exists()
    config = replace(config, select_on="dev")
    model = db.finetune(start, few, output_dir=tmp_path / "finetune", config=config, max_seq_length=16)
    with pytest.raises(DataError, match="rows, or read the development file: set rewire.accumulation to huawei$"):
        db.rewire(model, few)
    db.rewire(model, few, config=db.RewireConfig(accumulation="huawei")).save_pretrained(tmp_path / "rewire")
    space = model.search_space(width_mults=(1.0, 0.5), depth_mults=(1.0, 0.5))
    last = {"max_steps": 2, "select_on": "dev"}
    teacher = db.Supernet.from_pretrained(tmp_path / "finetune")
    db.train_width(model, teacher, few, space, output_dir=tmp_path / "width", config=db.WidthConfig(**last))
    db.train_depth(model, few, space, output_dir=tmp_path / "depth", config=db.DepthConfig(**last))
    small = {"num_evaluations": 6, "population_size": 2, "seq_length": 8}
    with pytest.raises(UsageError, match="training held out no examples .*: set score_on to dev"):
        db.search(tmp_path / "depth", config=db.SearchConfig(**small))
    found = db.search(tmp_path / "depth", config=db.SearchConfig(**small, score_on="dev", finetune_steps=1))
    assert (found.num_examples, found.num_chosen_on) == (2, 2)  # of 3 dev rows, and of 3 training texts
    bundle = db.export(tmp_path / "depth", tmp_path / "bundle", precision="int8", tolerance=1)
    assert db.Predictor(bundle).labels == ["a", "b", "c"]


def test_a_hundred_classes(capsys, start, tmp_path):
    names = [f"class {i:03}" for i in range(100)]
    rng = np.random.default_rng(0)
    for part, count in (("train", 300), ("dev", 120)):
        labels = [names[i % 100] for i in range(count)]
        write_table(
            tmp_path / f"{part}.tsv", [" ".join(rng.choice(["jazz", "rain", "table"], 3)) for _ in labels], labels
        )
    rows = run(tmp_path, start, task={"metrics": ["macro_f1", "accuracy", "matthews"]}, stages=STAGES[:4])
    assert all(0 <= row["macro_f1"] <= 1 for row in rows)
    with pytest.raises(
        UsageError, match="metric 'f1' is for two classes and the task has 100; set metrics to macro_f1"
    ):
        db.load_task("custom", data_dir=tmp_path, metrics=["f1"])
    db.search(tmp_path / "out" / "depth", config=db.SearchConfig(num_evaluations=4, population_size=2, seq_length=8))
    assert run_command(capsys, "report", tmp_path / "out").code == 0
    bundle = db.export(tmp_path / "out" / "depth", tmp_path / "bundle", subnets="w1.00d1.00 w0.50d0.50", tolerance=1e-3)
    (found,) = db.Predictor(bundle)(["jazz"])
    assert list(found.scores) == names
    assert sum(found.scores.values()) == pytest.approx(1)
    assert run_command(capsys, "evaluate", tmp_path / "out" / "depth", "--grid").code == 0


def test_lengths_above_the_positions_of_a_model_that_counts_from_its_padding(capsys, tokenizer, few, tmp_path):
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
    config = RobertaConfig(vocab_size=30522, max_position_embeddings=20, type_vocab_size=2, pad_token_id=0, **sizes)
    start = db.Supernet(RobertaForSequenceClassification(config), tokenizer).save_pretrained(tmp_path / "roberta")
    few = replace(
        few,
        train=replace(few.train, texts=["jazz " * 40] * 3),
        dev=replace(few.dev, texts=["jazz " * 40] * 3),
    )
    config = db.FinetuneConfig(max_steps=1, select_on="dev")
    with pytest.raises(UsageError, match="max_seq_length is 20, more than the model's 19 positions: pass"):
        db.finetune(start, few, output_dir=tmp_path / "out", config=config, max_seq_length=20)
    model = db.finetune(start, few, output_dir=tmp_path / "out", config=config, max_seq_length=19)
    huawei = db.RewireConfig(accumulation="huawei")
    on_dev = db.BaselineConfig(select_on="dev", max_steps=1)
    longer = model.metadata.replace(task={**model.metadata.task, "max_seq_length": 20})
    for verb in (
        lambda: evaluate_grid(model, few, max_seq_length=20),
        lambda: db.rewire(db.Supernet(model.model, tokenizer, longer), few, config=huawei),
        lambda: db.export(tmp_path / "out", tmp_path / "bundle", max_seq_length=20),
        lambda: db.search(tmp_path / "out", few, config=db.SearchConfig(seq_length=20, max_latency_ms=9), force=True),
        lambda: db.baseline(tmp_path / "out", few, output_dir=tmp_path / "small", config=on_dev, max_seq_length=20),
    ):
        with pytest.raises(UsageError, match=r"length (is )?20.* 19"):
            verb()
    bundle = db.export(tmp_path / "out", tmp_path / "bundle")
    (found,) = db.Predictor(bundle)(["jazz " * 500])
    assert 0 < found.score <= 1


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_data(folder, "classification")
    run(folder, start, task={}, stages=STAGES[:4])
    return folder


def damage(trained, tmp_path, stage, change):
    """A copy of a model whose weights are changed."""
    model = db.Supernet.from_pretrained(trained / "out" / stage)
    change(model)
    return model.save_pretrained(tmp_path / "damaged")


def test_weights_that_are_not_finite_are_named_when_they_are_loaded(capsys, trained, tmp_path):
    def change(model):
        weight = model.encoder.layers[1].linear1.weight
        weight.set_value(np.where(np.arange(48) == 5, np.inf, weight.numpy()).astype("float32"))

    source = damage(trained, tmp_path, "depth", change)
    message = f"{source}: 'bert.encoder.layers.1.linear1.weight' has values that are not finite: train or copy"
    for words in (
        ("finetune", "--model_name_or_path", source, "--task_name", "custom", "--data_dir", trained),
        ("train_final", source),
        ("search", source),
        ("export", source),
    ):
        done = run_command(capsys, *words, "--output_dir", tmp_path / "out")
        assert done.code == 1, (words, done.err)
        assert message in done.err.splitlines()[-1], words
        assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="not finite"):
        db.load_model(source)


def test_logits_that_overflow_are_no_score(trained):
    model = db.load_model(trained / "out" / "depth")
    model.model.classifier.weight.set_value(np.full([32, 2], 3e38, "float32"))
    task = db.load_task("custom", data_dir=trained)
    with pytest.raises(DynabertError, match="computes logits that are not finite: train it with a lower learning rate"):
        evaluate_grid(model, task)


def test_an_importance_of_zero_is_an_error_and_that_of_one_layer_keeps_its_order(capsys, trained, tmp_path):
    source = damage(
        trained,
        tmp_path,
        "finetune",
        lambda model: model.model.classifier.weight.set_value(np.zeros([32, 2], "float32")),
    )
    done = run_command(capsys, "rewire", source, "--output_dir", tmp_path / "out")
    assert done.code == 1
    assert "the importance of all heads and neurons is 0" in done.err
    assert "or leave rewiring out, and they keep their order" in done.err
    assert not (tmp_path / "out").exists()

    def silence(model):
        for part in (model.encoder.layers[0].self_attn.out_proj, model.encoder.layers[0].linear2):
            part.weight.set_value(np.zeros(part.weight.shape, "float32"))

    source = damage(trained, tmp_path, "finetune", silence)
    assert run_command(capsys, "rewire", source, "--output_dir", tmp_path / "out").code == 0
    importance = read_metadata(tmp_path / "out").importance
    assert not np.any(importance["heads"][0]) and not np.any(importance["neurons"][0])
    assert np.all(importance["heads"][1])
    before, after = (to_arrays(db.Supernet.from_pretrained(folder).model) for folder in (source, tmp_path / "out"))
    same = {name: np.array_equal(value, after[name]) for name, value in before.items()}
    assert all(equal for name, equal in same.items() if ".layers.0." in name)
    assert not all(same.values())
    config = db.SearchConfig(num_evaluations=20, population_size=4, seq_length=8)
    found = db.search(tmp_path / "out", config=config, force=True)
    assert found.num_evaluated == 20


def test_values_that_are_all_equal_are_nothing_to_learn(tmp_path):
    write_table(tmp_path / "train.tsv", TEXTS, [2.5] * 6)
    write_table(tmp_path / "dev.tsv", TEXTS, range(6))
    with pytest.raises(DataError, match=r"train.tsv: every row has the score 2.5; a regression needs at least two"):
        db.load_task("custom", kind="regression", data_dir=tmp_path)


def test_a_correlation_that_is_undefined_is_zero_and_the_first_such_step_is_kept(start, tmp_path):
    write_table(tmp_path / "train.tsv", TEXTS, range(6))
    write_table(tmp_path / "dev.tsv", TEXTS, [1] * 6)
    (row, *_) = run(tmp_path, start, task={"kind": "regression"}, stages=("finetune",), select_on="dev", eval_steps=1)
    assert (row["pearson"], row["spearman"]) == (0, 0)
    assert read_metadata(tmp_path / "out" / "finetune").metrics["best_step"] == 1


def test_values_so_large_that_the_loss_is_infinite(capsys, start, tmp_path):
    write_table(tmp_path / "train.tsv", TEXTS * 2, [*range(11), 3e38])
    write_table(tmp_path / "dev.tsv", TEXTS, range(6))
    words = ("--task_name", "custom", "--kind", "regression", "--data_dir", tmp_path, "--max_seq_length", "16")
    words += ("--output_dir", tmp_path / "out", "--max_steps", "3", "--per_device_train_batch_size", "12")
    done = run_command(capsys, "finetune", "--model_name_or_path", start, *words)
    assert done.code == 1
    assert "error: finetune: the loss is inf at step 1; " in done.err.splitlines()[-1]
