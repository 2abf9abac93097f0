"""The losses of DistilBERT and TinyBERT as their steps compute them, against their formulas written in NumPy."""

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert
from paddlenlp.transformers import BertForTokenClassification
from test_steps import NO_DROPOUT, gradients, log_softmax, make_supernet, take_step, tensors

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.config.settings import BaselineConfig
from dynabert_paddle.distill.attention import attention_loss, attention_scores
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.baseline_steps import distilbert_step, tinybert_step

DEPTH = 0.5  # of four layers, 0 and 2 for the blocks 0-1 and 2-3


def make_pair(**config):
    """A teacher, a student that differs from it in its weights, too, and the student's shape."""
    teacher, other = make_supernet(**config), Supernet(make_bert(vocab_size=1500, seed=1, **NO_DROPOUT, **config))
    subnet = teacher.search_space().subnet(depth_mult=DEPTH)
    return extract(other, subnet), teacher, subnet


def outputs(student, teacher, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return [model(**inputs) for model in (student, teacher)]


def soft_cross_entropy(student, teacher, temperature):
    student, teacher = (x.numpy().astype("float64") / temperature for x in (student, teacher))
    return -(np.exp(log_softmax(teacher)) * log_softmax(student)).sum(-1) * temperature**2


def hidden_error(ours, theirs, mask):
    return ((ours.numpy().astype("float64") - theirs.numpy()) ** 2)[mask].mean()


def test_the_defaults_are_those_of_distilberts_commands():
    config = BaselineConfig()
    assert (config.lambda_logit, config.lambda_label, config.lambda_cosine, config.temperature) == (5, 2, 1, 2)


@pytest.mark.parametrize(
    "values", [{}, {"temperature": 3.0, "lambda_logit": 0.5, "lambda_label": 1.5, "lambda_cosine": 4}]
)
def test_distilberts_loss(values):
    student, teacher, subnet = make_pair()
    config, batch = BaselineConfig(**values), tensors()
    ours, theirs = outputs(student, teacher, batch)
    labels, mask = batch["labels"].numpy(), batch["attention_mask"].numpy().astype(bool)
    assert not mask.all()
    h_s, h_t = (output.hidden_states[-1].numpy().astype("float64")[mask] for output in (ours, theirs))
    cosines = (h_s * h_t).sum(-1) / np.linalg.norm(h_s, axis=-1) / np.linalg.norm(h_t, axis=-1)
    expected = {
        "logit": config.lambda_logit * soft_cross_entropy(ours.logits, theirs.logits, config.temperature).mean(),
        "label": config.lambda_label * -log_softmax(ours.logits.numpy())[np.arange(5), labels].mean(),
        "cosine": config.lambda_cosine * (1 - cosines).mean(),
    }
    parts = take_step(distilbert_step(teacher, subnet, config, kind="classification"), student, batch)
    assert parts == pytest.approx({"loss": sum(expected.values()), **expected}, rel=1e-5)


def test_distilbert_learns_values_by_their_squared_error():
    student, teacher, subnet = make_pair(num_labels=1)
    config, batch = BaselineConfig(), tensors()
    batch["labels"] = batch["labels"].astype("float32")
    ours, theirs = outputs(student, teacher, batch)
    z, target, y = ours.logits.numpy(), theirs.logits.numpy(), batch["labels"].numpy()
    parts = take_step(distilbert_step(teacher, subnet, config, kind="regression"), student, batch)
    assert parts["logit"] == pytest.approx(5 * ((z - target) ** 2).mean(), rel=1e-5)
    assert parts["label"] == pytest.approx(2 * ((z[:, 0] - y) ** 2).mean(), rel=1e-5)


def label_words(model):
    """The same model with a head for its tokens."""
    words = BertForTokenClassification(model.config)
    words.bert.set_state_dict(model.bert.state_dict())
    words.classifier.weight.set_value(model.classifier.weight)
    return Supernet(words)


@pytest.mark.parametrize("method", ["distilbert", "tinybert"])
def test_the_labels_of_padding_are_not_distilled(method):
    teacher, other = (label_words(make_bert(vocab_size=1500, seed=seed, **NO_DROPOUT)) for seed in (0, 1))
    subnet = teacher.search_space().subnet(depth_mult=DEPTH)
    student, batch = extract(other, subnet), tensors()
    mask = batch["attention_mask"].numpy().astype(bool)
    batch["labels"] = paddle.where(batch["attention_mask"] == 1, paddle.ones_like(batch["attention_mask"]), -100)
    ours, theirs = outputs(student, teacher, batch)
    temperature, weight = (2.0, 5.0) if method == "distilbert" else (1.0, 1.0)
    if method == "distilbert":
        step = distilbert_step(teacher, subnet, BaselineConfig(), kind="token_classification")
    else:
        step = tinybert_step(teacher, subnet, layer_steps=0, kind="token_classification")
    expected = weight * soft_cross_entropy(ours.logits, theirs.logits, temperature)[mask].mean()
    assert take_step(step, student, batch)["logit"] == pytest.approx(expected, rel=1e-5)


def test_tinybert_first_learns_the_layers():
    student, teacher, subnet = make_pair()
    batch = tensors()
    ours, theirs = outputs(student, teacher, batch)
    mask = batch["attention_mask"].numpy().astype(bool)
    # Embedding, layer 0 after the block 0-1, layer 1 after the block 2-3.
    pairs = zip(ours.hidden_states, [theirs.hidden_states[index] for index in (0, 2, 4)], strict=True)
    hidden = sum(hidden_error(*pair, mask) for pair in pairs)
    scores = [attention_scores(student.encoder.layers[index], ours.hidden_states[index]) for index in (0, 1)]
    wanted = [attention_scores(teacher.encoder.layers[index], theirs.hidden_states[index]) for index in (1, 3)]
    attention = float(attention_loss(scores, wanted, batch["attention_mask"]))
    step = tinybert_step(teacher, subnet, layer_steps=3, kind="classification")
    parts = take_step(step, student, batch, index=2)
    assert parts == pytest.approx({"loss": hidden + attention, "hidden": hidden, "attention": attention}, rel=1e-5)
    learning = set(gradients(student))
    assert "bert.encoder.layers.1.self_attn.k_proj.weight" in learning
    assert not {
        name for name in learning if name.startswith(("classifier", "bert.pooler")) and gradients(student)[name].any()
    }


def test_tinyberts_embedding_learns_from_the_embedding_whichever_layers_are_kept():
    teacher = make_supernet()
    subnet = teacher.search_space().parse("l1h4f48-l3h4f48")
    student = extract(teacher, subnet)  # the same embedding
    batch = tensors()
    ours, theirs = outputs(student, teacher, batch)
    mask = batch["attention_mask"].numpy().astype(bool)
    pairs = zip(ours.hidden_states, [theirs.hidden_states[index] for index in (0, 3, 4)], strict=True)
    errors = [hidden_error(*pair, mask) for pair in pairs]
    assert errors[0] == pytest.approx(0, abs=1e-12) and errors[1] > 0.01
    step = tinybert_step(teacher, subnet, layer_steps=1, kind="classification")
    assert take_step(step, student, batch)["hidden"] == pytest.approx(sum(errors), rel=1e-5)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_tinybert_then_learns_the_prediction_alone(kind):
    student, teacher, subnet = make_pair(num_labels=1 if kind == "regression" else 7)
    batch = tensors()
    ours, theirs = outputs(student, teacher, batch)
    if kind == "regression":
        expected = ((ours.logits.numpy() - theirs.logits.numpy()) ** 2).mean()
    else:
        expected = soft_cross_entropy(ours.logits, theirs.logits, 1.0).mean()
    step = tinybert_step(teacher, subnet, layer_steps=3, kind=kind)
    parts = take_step(step, student, batch, index=3)
    assert parts == pytest.approx({"loss": expected, "logit": expected}, rel=1e-5)
    assert gradients(student)["classifier.weight"].any()


def test_the_teachers_own_layers_have_nothing_to_learn():
    teacher = make_supernet()
    student = extract(teacher, teacher.full)
    parts = take_step(tinybert_step(teacher, teacher.full, layer_steps=1, kind="classification"), student, tensors())
    assert parts["loss"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", ["distilbert", "tinybert"])
def test_the_teacher_runs_without_dropout_or_gradients(method):
    student, _, subnet = make_pair()
    teacher = Supernet(make_bert(vocab_size=1500))  # with dropout
    before = to_arrays(teacher.model)
    if method == "distilbert":
        step = distilbert_step(teacher, subnet, BaselineConfig(), kind="classification")
    else:
        step = tinybert_step(teacher, subnet, layer_steps=1, kind="classification")
    assert take_step(step, student, tensors()) == take_step(step, student, tensors())
    assert not gradients(teacher)
    assert all(np.array_equal(array, before[name]) for name, array in to_arrays(teacher.model).items())


def test_tinybert_needs_no_labels():
    student, teacher, subnet = make_pair()
    step = tinybert_step(teacher, subnet, layer_steps=0, kind="classification")
    batch = {name: paddle.to_tensor(value) for name, value in make_batch(vocab_size=1500).items() if name != "labels"}
    assert take_step(step, student, batch) == take_step(step, student, tensors())
