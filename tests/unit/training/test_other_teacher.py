"""A teacher other than the model itself, of other sizes: which losses it gives, and what is recorded of it."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.compressing.distil import _settings
from dynabert_paddle.config.command_settings import CompressConfig
from dynabert_paddle.config.loading import load_config
from dynabert_paddle.config.options import lasting_settings
from dynabert_paddle.config.settings import DepthConfig, WidthConfig
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.array_hash import hash_model
from dynabert_paddle.supernet.supernet import Supernet, to_tensors
from dynabert_paddle.training.batches import Shard
from dynabert_paddle.training.steps import distillation_step

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_teacher(**options):
    return Supernet(make_bert(num_layers=2, hidden_size=48, seed=3, **NO_DROPOUT, **options))


def losses_of(config, teacher):
    student = Supernet(make_bert(**NO_DROPOUT))
    batch = to_tensors({name: value for name, value in make_batch().items() if name != "labels"})
    step = distillation_step(teacher, student.search_space().grid(), config, kind="classification")
    full = next(iter(step(student, Shard(batch, None), index=0)))
    teacher.eval()
    return full, student(**batch).logits, teacher(**batch).logits


def test_logits_and_relations_of_another_size_are_compared():
    full, ours, theirs = losses_of(WidthConfig(lambda_hidden=0.0, lambda_relation=1.0), make_teacher())
    target = paddle.nn.functional.softmax(theirs)
    expected = -(target * paddle.nn.functional.log_softmax(ours)).sum(axis=-1).mean()
    assert float(full["logit"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(full["relation"]) > 1e-4
    assert float(full["hidden"]) == 0


def test_hidden_states_of_another_size_are_refused():
    with pytest.raises(ModelError, match="set train.lambda_hidden to 0|set lambda_hidden to 0"):
        losses_of(WidthConfig(), Supernet(make_bert(hidden_size=48, **NO_DROPOUT)))


def test_the_stage_records_its_teacher_and_resumes_with_the_same_alone(task, tmp_path):
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    config = DepthConfig(max_steps=2, lambda_hidden=0.0, per_device_train_batch_size=8, eval_steps=9)

    def train(folder, teacher):
        student = Supernet(make_bert(num_labels=7, **NO_DROPOUT), tokenizer)
        student.metadata = student.metadata.replace(task={"max_seq_length": 8})
        space = student.search_space(width_mults=(1.0, 0.5), depth_mults=(1.0,))
        return db.train_depth(student, task, space, output_dir=tmp_path / folder, teacher=teacher, config=config)

    teacher = make_teacher(num_labels=7)
    teacher.tokenizer = tokenizer
    taught, alone = train("taught", teacher), train("alone", None)
    assert taught.metadata.provenance["made_of"]["teacher"] == hash_model(to_arrays(teacher.model))
    assert "teacher" not in alone.metadata.provenance["made_of"]
    ours, theirs = to_arrays(taught.model), to_arrays(alone.model)
    assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) > 1e-6


def test_a_teacher_may_be_named_for_each_stage(tmp_path):
    config = load_config(None, ["train.teacher_name_or_path=big"], {"depth.teacher_name_or_path": "other"})
    assert (config.width.teacher_name_or_path, config.depth.teacher_name_or_path) == ("big", "other")
    with pytest.raises(UsageError, match="unknown key 'finetune.teacher_name_or_path'"):
        load_config(None, ["finetune.teacher_name_or_path=big"])


def test_a_compression_keeps_no_option_of_the_stage_that_needs_its_teacher_or_its_files():
    """The teacher of a compression has no layers of the encoder to compare, and its matrices may be products."""
    last = DepthConfig(lambda_relation=1.0, ema_decay=0.9, teacher_name_or_path="x", unlabelled_files=("/a",))
    model = SimpleNamespace(metadata=SimpleNamespace(provenance={"settings": lasting_settings(last)}))
    kept = _settings(model, CompressConfig(finetune_steps=3))
    assert lasting_settings(kept) == lasting_settings(WidthConfig(max_steps=3, lambda_hidden=last.lambda_hidden))
