"""Replicas of a model: the gradients of their shares are the whole batch's, and two at a time are no different."""

import ctypes
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import backward, make_batch, make_bert

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.config.settings import WidthConfig
from dynabert_paddle.runtime import threads as threads_module
from dynabert_paddle.runtime.threads import num_threads
from dynabert_paddle.supernet.calls import PassState
from dynabert_paddle.supernet.cpu_operations import random_bits
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.slices import SliceCache
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.batches import cut_shard
from dynabert_paddle.training.replicas import Replicas, count_replicas
from dynabert_paddle.training.steps import distillation_step

# The ids of `make_batch` begin at 1,000.
SMALL = {"vocab_size": 1100, "num_layers": 2}
NO_DROPOUT = {**SMALL, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_passes(supernet):
    """The passes of all replicas over a batch whose rows have several lengths."""
    teacher = extract(supernet, supernet.full)
    step = distillation_step(teacher, supernet.search_space().grid(), WidthConfig(), kind="classification")
    batch = make_batch(vocab_size=1100)

    def passes(replicas, seed=0):
        def run(model, number):
            shard = cut_shard(batch, number, len(replicas))
            return backward(step(model, shard, index=0, state=states[number]))["loss"]

        states = [PassState(SliceCache(2**25), random_bits(seed + number)) for number in range(len(replicas))]
        losses = replicas.map(run)
        replicas.sum_gradients([state.slices for state in states])
        return sum(losses)

    return passes


def take_gradients(supernet):
    gradients = {name: p.grad.numpy() for name, p in supernet.model.named_parameters() if p.grad is not None}
    supernet.clear_gradients()
    return gradients


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_gradients_of_the_shares_are_those_of_the_batch(count):
    supernet = Supernet(make_bert(**NO_DROPOUT))
    passes = make_passes(supernet)
    with Replicas(supernet, 1) as alone:
        loss, expected = passes(alone), take_gradients(supernet)
    with Replicas(supernet, count) as replicas:
        for _ in range(2):  # a second time nothing is left of the first
            assert passes(replicas) == pytest.approx(loss, rel=1e-5)
            seen = take_gradients(supernet)
            assert seen.keys() == expected.keys()
            size = max(np.abs(gradient).max() for gradient in expected.values())
            for name, gradient in expected.items():
                np.testing.assert_allclose(seen[name], gradient, rtol=0, atol=1e-5 * size, err_msg=name)


def test_replicas_follow_every_change_of_the_weights():
    supernet = Supernet(make_bert(**NO_DROPOUT))
    optimizer = paddle.optimizer.AdamW(1e-2, parameters=supernet.model.parameters())
    passes = make_passes(supernet)

    def weights(model, number):
        return to_arrays(model.model)

    with Replicas(supernet, 2) as replicas:
        before = to_arrays(supernet.model)
        passes(replicas)
        optimizer.step()
        ours, theirs = replicas.map(weights)
    assert any((ours[name] != before[name]).any() for name in ours)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_parallel_and_sequential_replicas_compute_the_same():
    """With dropout, many times: whatever threads shared would show."""
    results = []
    for together in (True, False):
        supernet = Supernet(make_bert(seed=3, **SMALL))
        optimizer = paddle.optimizer.AdamW(1e-3, parameters=supernet.model.parameters())
        passes = make_passes(supernet)
        with Replicas(supernet, 3) as replicas:
            if not together:
                at_once = replicas.map

                def in_turn(do, at_once=at_once):
                    return [at_once(lambda m, n, k=k: do(m, n) if n == k else None)[k] for k in range(3)]

                replicas.map = in_turn
            losses = []
            for step in range(8):
                losses.append(passes(replicas, seed=10 * step))
                optimizer.step()
                optimizer.clear_grad()
        results.append((losses, to_arrays(supernet.model)))
    (losses, ours), (in_turn_losses, theirs) = results
    assert losses == in_turn_losses
    assert len(set(losses)) == len(losses)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_an_error_in_a_replica_is_raised():
    def fail(model, number):
        if number == 1:
            raise ZeroDivisionError

    with Replicas(Supernet(make_bert(**SMALL)), 2) as replicas, pytest.raises(ZeroDivisionError):
        replicas.map(fail)


def test_a_cpu_has_a_replica_for_each_of_a_few_threads(monkeypatch):
    for threads, expected in ((1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 3), (7, 3), (8, 4), (10, 2), (64, 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        assert count_replicas() == expected
    monkeypatch.setattr(threads_module, "_THREAD_LIBRARIES", {"libmissing.so": "set"})
    assert count_replicas() == 1


def test_a_gpu_has_one_replica(monkeypatch):
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    assert count_replicas() == 1


def test_a_limit_of_threads_holds_for_its_thread_alone():
    openmp = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libiomp5.so"))
    before = openmp.omp_get_max_threads()
    with Replicas(Supernet(make_bert(**SMALL)), 2) as replicas:
        inside = replicas.map(lambda model, number: openmp.omp_get_max_threads())
    assert inside == [max(1, num_threads() // 2)] * 2
    assert openmp.omp_get_max_threads() == before
