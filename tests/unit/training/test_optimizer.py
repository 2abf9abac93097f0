"""float16's loss scale, by Paddle's own scaler; it is for GPUs, but its operators run on a CPU, too."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from test_loop import difference, make_stage, make_supernet, run, scale_gradients

from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.training.optimizer import apply_gradients
from dynabert_paddle.training.steps import full_model_step


@pytest.fixture
def gpu(monkeypatch):
    """Paddle's scaler and the loop take this machine for one with a GPU; autocast computes in float32."""
    place = SimpleNamespace(is_gpu_place=lambda: True)
    monkeypatch.setattr("paddle.amp.grad_scaler._dygraph_tracer", lambda: SimpleNamespace(_expected_place=place))
    monkeypatch.setattr("paddle.amp.grad_scaler.amp_global_state", lambda: SimpleNamespace(amp_dtype="float16"))
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")


@pytest.fixture
def weight():
    return paddle.create_parameter([2], "float32", default_initializer=paddle.nn.initializer.Constant(1.0))


def backward(weight, scaler, factor):
    scaler.scale((weight * factor).sum()).backward()


def test_a_step_that_overflows_is_skipped_and_halves_the_scale(gpu, weight, capsys):
    optimizer = paddle.optimizer.AdamW(learning_rate=0.1, parameters=[weight], weight_decay=0.0)
    scaler = paddle.amp.GradScaler(init_loss_scaling=8.0)
    backward(weight, scaler, float("inf"))
    assert apply_gradients(optimizer, scaler) == 4.0
    np.testing.assert_array_equal(weight.numpy(), [1, 1])
    backward(weight, scaler, 1.0)
    assert apply_gradients(optimizer, scaler) is None
    np.testing.assert_allclose(weight.numpy(), [0.9, 0.9], atol=1e-6)  # the first step of Adam is the learning rate
    assert weight.grad is None or not weight.grad.numpy().any()
    assert capsys.readouterr().out == ""


def test_without_a_scale_every_step_counts(weight):
    optimizer = paddle.optimizer.AdamW(learning_rate=0.1, parameters=[weight], weight_decay=0.0)
    scaler = paddle.amp.GradScaler(enable=False)
    backward(weight, scaler, 1.0)
    assert apply_gradients(optimizer, scaler) is None
    np.testing.assert_allclose(weight.numpy(), [0.9, 0.9], atol=1e-6)


def overflowing(supernet, steps):
    """A step whose gradients are infinite in some steps, as float16's are, while its loss is not."""

    def step(model, shard, *, index, state):
        losses = full_model_step(model, shard, index=index, state=state)
        yield from scale_gradients(losses, float("inf") if index in steps else 1.0)

    return make_stage(supernet, step=step)


def test_training_names_the_skipped_step_and_goes_on(gpu, tmp_path, caplog):
    supernet = make_supernet()
    before = to_arrays(supernet.model)
    with caplog.at_level("INFO", logger="dynabert_paddle"):
        run(supernet, tmp_path, stage=overflowing(supernet, {1}), amp="fp16", max_steps=3, learning_rate=1e-3)
    said = [record.getMessage() for record in caplog.records if "overflow" in record.getMessage()]
    assert said == [
        "finetune: gradients overflow float16 at step 2; the step is skipped, the loss scale is 32768 from now on"
    ]
    after = to_arrays(supernet.model)
    assert np.isfinite(difference(before, after)).all()
    assert difference(before, after).any()


def test_gradients_that_overflow_at_any_scale_end_the_run(gpu, tmp_path):
    supernet = make_supernet()
    stage = overflowing(supernet, range(100))
    # From 2^16 down to 1 are 16 halvings; the next one is too much.
    with pytest.raises(DynabertError, match=r"finetune: .* at step 17 at every loss scale.*lower the"):
        run(supernet, tmp_path, stage=stage, amp="fp16", max_steps=100)
    assert all(np.isfinite(value).all() for value in to_arrays(supernet.model).values())
