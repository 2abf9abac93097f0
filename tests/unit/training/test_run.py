"""What a run checks before its first stage, and what a stage must have in common with the one that it goes on with."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dynabert_paddle.config.settings import Config, FinetuneConfig, WidthConfig
from dynabert_paddle.errors import DataError, UsageError
from dynabert_paddle.files.claim import claim
from dynabert_paddle.files.metadata import Metadata
from dynabert_paddle.training.inputs import check_apart
from dynabert_paddle.training.made_of import check_data
from dynabert_paddle.training.run import _prepare
from dynabert_paddle.training.stage import resume_settings


@pytest.mark.parametrize(
    ("augmented", "error", "words"),
    [
        ("gone.tsv", DataError, "gone.tsv: no such file; make it with 'dynabert augment'"),
        # A stage writes files of this name, too.
        ("out/width/train.jsonl", UsageError, r"width holds .*train.jsonl, which is read here"),
    ],
)
def test_a_run_that_is_refused_removes_nothing_of_the_one_before(tmp_path, augmented, error, words):
    out = tmp_path / "out"
    for name, maker in (("", "run"), ("width", "width")):
        (out / name).mkdir()
        (out / name / ".dynabert").write_text(f"{maker}\n")
    (out / "grid.json").touch()
    (out / "width" / "train.jsonl").touch()
    width = WidthConfig(augmented_file=str(tmp_path / augmented))
    config = Config(output_dir=str(out), stages=("width",), width=width)
    before = sorted(out.rglob("*"))
    with claim(out, "run") as claimed, pytest.raises(error, match=words):
        _prepare(claimed, config, SimpleNamespace(files={}), overwrite=True)
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize(("source", "output"), [("~/model", "{}/model"), ("{}/out/model", "~/out")])
def test_a_tilde_does_not_hide_that_the_model_would_be_replaced(tmp_path, monkeypatch, source, output):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="holds the model to start from"):
        check_apart(source.format(tmp_path), output.format(tmp_path))


def test_how_answers_are_found_must_be_the_same():
    """The best checkpoint depends on it."""
    answers = {"doc_stride": 128, "max_answer_length": 30, "may_be_empty": False}
    task = SimpleNamespace(
        labels=(),
        metrics=("f1",),
        positive_label=None,
        word_split=None,
        settings_given=frozenset(),
        to_dict=lambda: {"name": "custom", **answers},
    )
    features = SimpleNamespace(content=())
    stage = SimpleNamespace(
        name="finetune",
        config=FinetuneConfig(),
        task=task,
        subnets={},
        teacher=None,
        pruning=None,
        write_results=None,
    )
    settings = resume_settings(stage, SimpleNamespace(train=features, select=features), {})
    assert answers.items() <= settings.items()
    before = Metadata(task={**answers, "max_answer_length": 8})
    with pytest.raises(UsageError, match="finetune was made with max_answer_length = 8, this run has 30"):
        check_data(Path("finetune"), before, task, {}, max_seq_length=128)
    check_data(Path("finetune"), Metadata(task=answers), task, {}, max_seq_length=128)
    check_data(Path("finetune"), Metadata(), task, {}, max_seq_length=128)


@pytest.mark.parametrize("recorded, now", [({}, False), ({"special_tokens_in_text": False}, True)])
def test_special_tokens_must_be_read_in_the_same_way(recorded, now):
    """A folder that does not say was made with the default."""
    task = SimpleNamespace(
        labels=(), metrics=("f1",), positive_label=None, word_split=None, settings_given=frozenset(), to_dict=dict
    )
    before = Metadata(task=recorded)
    assert before.special_tokens_in_text is not now
    with pytest.raises(UsageError, match=f"was made with special_tokens_in_text = {not now}, this run has {now}"):
        check_data(Path("width"), before, task, {}, max_seq_length=128, special_tokens_in_text=now)
    check_data(Path("width"), before, task, {}, max_seq_length=128, special_tokens_in_text=not now)
