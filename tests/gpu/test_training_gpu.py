"""Training on a GPU: no needless synchronisation, and runs that end as if nothing had happened, on one GPU or two."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import make_bert
from devices import NEEDED, NUM_GPUS, use_device  # noqa: F401 - a fixture

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.config.settings import FinetuneConfig, WidthConfig
from dynabert_paddle.errors import Interrupted
from dynabert_paddle.files.weights import read_weights
from dynabert_paddle.training import loop

pytestmark = NEEDED

ROOT = Path(db.__file__).parents[1]
# What copies a tensor to the host, and waits for all that was queued before it.
SYNCHRONISING = ("numpy", "item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__array__")
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def still_folder(tmp_path_factory):
    """A model without dropout, so that what a process draws does not matter."""
    folder = tmp_path_factory.mktemp("still") / "model"
    db.Supernet(
        make_bert(num_labels=2, **STILL), db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    ).save_pretrained(folder)
    return folder


def finetune(folder, task, output, **settings):
    config = FinetuneConfig(**{"max_steps": 6, "learning_rate": 1e-3, "per_device_train_batch_size": 16, **settings})
    return db.finetune(folder, task, config=config, output_dir=output)


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_step_waits_for_the_gpu_only_to_read_its_losses(device, task, tiny_folder, tmp_path, monkeypatch, amp):
    teacher = finetune(tiny_folder, task, tmp_path / "finetune", max_steps=2)
    calls, inside = [], []
    for name in SYNCHRONISING:
        original = getattr(paddle.Tensor, name)

        def counted(tensor, *words, _name=name, _original=original, **options):
            calls.extend([_name] * len(inside))
            return _original(tensor, *words, **options)

        monkeypatch.setattr(paddle.Tensor, name, counted)
    step = loop._optimizer_step

    def watched(*words, **options):
        inside.append(True)
        try:
            losses = step(*words, **options)
        finally:
            inside.pop()
        steps.append((len(losses), len(calls)))
        calls.clear()
        return losses

    steps = []
    monkeypatch.setattr(loop, "_optimizer_step", watched)
    config = WidthConfig(max_steps=3, per_device_train_batch_size=16, amp=amp)
    student = db.load_model(tmp_path / "finetune")
    db.rewire(student, task)
    space = student.search_space(width_mults=[1, 0.5], depth_mults=[1])
    db.train_width(student, teacher, task, space, config=config, output_dir=tmp_path / "width")
    assert len(steps) == 3
    if device != "cpu":  # there dropout takes its random bits from NumPy, and shards have losses of their own
        assert all(num_calls <= num_losses for num_losses, num_calls in steps), steps


def test_a_run_that_was_interrupted_ends_as_if_nothing_had_happened(device, task, tiny_folder, tmp_path, monkeypatch):
    finetune(tiny_folder, task, tmp_path / "whole")
    step = loop._optimizer_step

    def interrupts(*words, index, **options):
        if index == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*words, index=index, **options)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "_optimizer_step", interrupts)
        finetune(tiny_folder, task, tmp_path / "resumed")
    finetune(tiny_folder, task, tmp_path / "resumed")
    whole, resumed = read_weights(tmp_path / "whole"), read_weights(tmp_path / "resumed")
    assert max(np.abs(resumed[name] - whole[name]).max() for name in whole) < 1e-5


@pytest.mark.skipif(NUM_GPUS < 2, reason="no two GPUs")
def test_two_gpus_train_the_same_weights_as_one(device, still_folder, tiny_data, tmp_path):
    words = ["run", "-o", f"task.data_dir={tiny_data}", "-o", "task.name=snips", "-o", "task.max_seq_length=16"]
    words += ["-o", "stages=[finetune, rewire, width]", "-o", "train.max_steps=10", "-o", "train.adam_epsilon=1e-6"]
    words += ["--model_name_or_path", still_folder, "--device", "gpu"]
    launch = ["-m", "paddle.distributed.launch", "--gpus", "0,1", "--log_dir", tmp_path / "log"]
    script = tmp_path / "run.py"
    script.write_text("from dynabert_paddle.cli.main import main\nmain()\n")
    for folder, start, size in (("one", [], 26), ("two", launch, 13)):
        command = [sys.executable, *start, script, *words, "-o", f"train.per_device_train_batch_size={size}"]
        command += ["--output_dir", tmp_path / folder]
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, (done.stderr, json.dumps([p.read_text() for p in tmp_path.glob("log/*")]))
    for stage in ("finetune", "rewire", "width"):
        one, two = read_weights(tmp_path / "one" / stage), read_weights(tmp_path / "two" / stage)
        assert max(np.abs(two[name] - one[name]).max() for name in one) < 1e-5
