"""Class weights in whole stages: what they do to a rare label, what is refused, and that none are recorded unasked."""

import numpy as np
import pytest

import dynabert_paddle as db
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.supernet.supernet import to_tensors
from dynabert_paddle.text.decode import softmax
from dynabert_paddle.training.inputs import tokenize_examples


def test_a_label_that_the_task_lacks_is_refused_before_anything_is_written(tiny_folder, tiny_data, dynabert, tmp_path):
    out = tmp_path / "out"
    words = ["finetune", "--model_name_or_path", tiny_folder, "--data_dir", tiny_data, "--output_dir", out]
    done = dynabert(*words, "--class_weights", "PlayMusik: 2, RateBook: 1")
    assert done.code == 2, done.err
    assert "--class_weights names 'PlayMusik', which is not one of the task's labels" in done.err
    assert "Did you mean 'PlayMusic'?" in done.err
    assert not out.exists()


def test_a_run_refuses_the_weights_of_its_last_stage_before_its_first(tiny_folder, tiny_data, tmp_path):
    flags = {
        "model_name_or_path": str(tiny_folder),
        "task.data_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
    }
    config = db.load_config(None, ["stages=[finetune, final]", "final.class_weights={Nothing: 2}"], flags)
    with pytest.raises(UsageError, match=r"final\.class_weights names 'Nothing'"):
        db.run(config)
    assert not (tmp_path / "out").exists()


def test_a_run_without_these_settings_records_none_of_them(chain):
    names = ("class_weights", "focal_gamma", "label_smoothing", "early_stopping_patience")
    text = (chain / "run.yaml").read_text(encoding="utf-8")
    for stage in ("finetune", "width", "final"):
        text += str(read_metadata(chain / stage).provenance)
    assert [name for name in names if name in text] == []


@pytest.mark.full
def test_balanced_weights_make_a_rare_label_as_likely_as_the_other(tiny_folder, tmp_path):
    """Texts that tell nothing of their label: a model learns how often each label counts, 1 in 10, or 1 in 2."""
    rng = np.random.default_rng(0)
    words = ("red", "green", "blue", "yellow", "black", "white")
    for name, count in (("train", 400), ("dev", 40)):
        texts = [" ".join(rng.choice(words, 5)) for _ in range(count)]
        labels = ["rare" if number % 10 == 0 else "common" for number in range(count)]
        lines = [f"{text}\t{label}\n" for text, label in zip(texts, labels, strict=True)]
        (tmp_path / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")
    task = db.load_task("custom", data_dir=tmp_path)
    found = {}
    for weights in (None, "balanced"):
        config = db.FinetuneConfig(max_steps=24, learning_rate=2e-3, eval_steps=1000, class_weights=weights)
        model = db.finetune(tiny_folder, task, output_dir=tmp_path / str(weights), config=config)
        inputs = to_tensors(tokenize_examples(task.dev, model).collate(np.arange(40), model.pad_token_id))
        inputs.pop("labels")
        model.eval()
        found[weights] = softmax(model(**inputs).logits.numpy())[:, task.labels.index("rare")].mean()
    assert 0.03 < found[None] < 0.25
    assert 0.35 < found["balanced"] < 0.65
