"""Several stages on one `Supernet` object, as a notebook runs them: a resumed one must not notice."""

import logging
import os
import signal

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import to_arrays
from dynabert_paddle.errors import Interrupted

SETTINGS = {"max_steps": 4, "per_device_train_batch_size": 16, "logging_steps": 1, "learning_rate": 1e-3}


@pytest.fixture
def stop_after(monkeypatch):
    """Send a signal to this process when a line is logged."""

    class Handler(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith(line):
                os.kill(os.getpid(), signal.SIGTERM)

    line = "depth 2/4 loss"
    logger = logging.getLogger("dynabert_paddle")
    handler, level = Handler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: logger.removeHandler(handler)
    logger.removeHandler(handler)
    logger.setLevel(level)


def prepare(tiny_folder, task, folder):
    """A supernet that has been through the width stage, as an object that has had an optimizer, and as a folder."""
    supernet = db.finetune(tiny_folder, task, output_dir=folder / "teacher", config=db.FinetuneConfig(**SETTINGS))
    teacher = db.Supernet.from_pretrained(folder / "teacher")
    space = supernet.search_space(width_mults=[1.0, 0.5], depth_mults=[1.0, 0.5])
    config = db.WidthConfig(**SETTINGS)
    return db.train_width(supernet, teacher, task, space, output_dir=folder / "width", config=config), space


def depth(supernet, task, space, folder):
    return db.train_depth(supernet, task, space, output_dir=folder, config=db.DepthConfig(**SETTINGS))


@pytest.mark.parametrize("reload", [True, False])
def test_a_second_stage_goes_on_with_the_same_object_and_with_a_new_one(
    tiny_folder, task, tmp_path, stop_after, reload
):
    supernet, space = prepare(tiny_folder, task, tmp_path)
    before = to_arrays(supernet.model)
    with pytest.raises(Interrupted):
        depth(supernet, task, space, tmp_path / "stopped")
    stop_after()
    assert all(np.array_equal(value, before[name]) for name, value in to_arrays(supernet.model).items())
    again = db.Supernet.from_pretrained(tmp_path / "width") if reload else supernet
    resumed = to_arrays(depth(again, task, space, tmp_path / "stopped").model)
    whole = to_arrays(depth(db.Supernet.from_pretrained(tmp_path / "width"), task, space, tmp_path / "whole").model)
    assert all(np.array_equal(value, whole[name]) for name, value in resumed.items())
