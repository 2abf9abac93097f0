"""Attention relations: against NumPy, of any width, without padding, and in a step of distillation."""

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert
from scipy.special import log_softmax

from dynabert_paddle.config.settings import WidthConfig
from dynabert_paddle.distill.relations import relation_loss, relation_vectors
from dynabert_paddle.errors import UsageError
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training.batches import Shard, cut_shard
from dynabert_paddle.training.steps import distillation_step

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_supernet(**config):
    return Supernet(make_bert(vocab_size=1500, **NO_DROPOUT, **config))


def inputs():
    return {name: value for name, value in make_batch(vocab_size=1500).items() if name != "labels"}


def test_the_loss_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    lengths = [4, 2]
    mask = (np.arange(4) < np.array(lengths)[:, None]).astype("int64")
    student = [rng.normal(size=(2, 4, 6)).astype("float32") for _ in range(3)]
    teacher = [rng.normal(size=(2, 4, 10)).astype("float32") for _ in range(3)]
    expected = []
    for ours, theirs in zip(student, teacher, strict=True):
        for row, length in enumerate(lengths):  # each text alone, without its padding
            a, b = ours[row, :length], theirs[row, :length]
            log_q, log_p = log_softmax(a @ a.T / 6**0.5, axis=-1), log_softmax(b @ b.T / 10**0.5, axis=-1)
            expected += list((np.exp(log_p) * (log_p - log_q)).sum(axis=-1))
    found = relation_loss([*map(paddle.to_tensor, student)], [*map(paddle.to_tensor, teacher)], paddle.to_tensor(mask))
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)
    assert float(relation_loss([paddle.to_tensor(student[0])] * 3, [paddle.to_tensor(student[0])] * 3,
                               paddle.to_tensor(mask))) == pytest.approx(0, abs=1e-6)  # fmt: skip


@pytest.mark.parametrize("width", [0.25, 0.75])
def test_a_sub_network_has_the_vectors_of_its_extracted_model(width):
    supernet = make_supernet()
    supernet.eval()
    subnet = supernet.search_space().subnet(width_mult=width)
    small = extract(supernet, subnet)
    small.eval()
    batch = to_tensors(inputs())
    hidden = supernet(subnet, **batch).hidden_states[-2]
    part = relation_vectors(supernet.encoder.layers[-1], hidden, heads=subnet.heads[-1])
    whole = relation_vectors(small.encoder.layers[-1], small(**batch).hidden_states[-2], heads=small.full.heads[-1])
    for ours, theirs in zip(part, whole, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)


def distil(config, *, student=None, shards=1):
    """One step; returns its losses and gradients."""
    student = student or make_supernet()
    teacher = extract(make_supernet(), student.full)
    step = distillation_step(teacher, student.search_space().grid(), config, kind="classification")
    passes = []
    for index in range(shards):
        shard = cut_shard(inputs(), index, shards) if shards > 1 else Shard(to_tensors(inputs()), None)
        own = []
        for losses in step(student, shard, index=0):
            losses["loss"].backward()
            own.append({name: float(value) for name, value in losses.items()})
        passes.append(own)
    gradients = {name: p.grad.numpy() for name, p in student.model.named_parameters() if p.grad is not None}
    return passes, gradients


def test_a_step_adds_the_relations_of_every_sub_network():
    (plain,), without = distil(WidthConfig())
    (losses,), gradients = distil(WidthConfig(lambda_relation=2.0))
    assert "relation" not in plain[0]
    assert losses[0]["relation"] == pytest.approx(0, abs=1e-5), "the full model is its teacher"
    assert all(row["relation"] > 1e-4 for row in losses[1:])
    for row, before in zip(losses, plain, strict=True):
        assert row["loss"] == pytest.approx(before["loss"] + row["relation"], rel=1e-5)
    changed = np.abs(gradients["bert.encoder.layers.3.self_attn.v_proj.weight"]
                     - without["bert.encoder.layers.3.self_attn.v_proj.weight"]).max()  # fmt: skip
    assert changed > 1e-5


def test_shards_add_up_to_the_whole_batch():
    config = WidthConfig(lambda_relation=2.0, lambda_logit=0.0, lambda_hidden=0.0)
    (whole,), gradients = distil(config)
    parts, summed = distil(config, shards=2)
    for row, *others in zip(whole, *parts, strict=True):
        assert row["relation"] == pytest.approx(sum(other["relation"] for other in others), rel=1e-4, abs=1e-6)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(summed[name], gradient, atol=1e-5, err_msg=name)


def test_a_layer_that_the_teacher_lacks_is_refused():
    with pytest.raises(UsageError, match="relation_layer is 4, the teacher has layers 0 to 3"):
        distil(WidthConfig(lambda_relation=1.0, relation_layer=4))
