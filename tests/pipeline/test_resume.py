"""Interrupted runs: killed in any stage, or asked to stop, a run goes on and ends as if nothing had happened."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.data import stored_texts
from dynabert_paddle.data.stored_texts import StoredTexts
from dynabert_paddle.errors import Interrupted, UsageError
from dynabert_paddle.files.metadata import read_metadata

pytestmark = pytest.mark.full

STAGES = ("finetune", "rewire", "width", "depth", "final")


@pytest.fixture(scope="module")
def config_file(tiny_folder, tiny_data, tmp_path_factory):
    """A run of all stages with dropout, some seconds long, that evaluates between its checkpoints."""
    file = tmp_path_factory.mktemp("config") / "run.yaml"
    file.write_text(
        f"""
        model_name_or_path: {tiny_folder}
        stages: [{", ".join(STAGES)}]
        task: {{data_dir: {tiny_data}, max_seq_length: 16}}
        space: {{width_mult_list: [1.0, 0.5], depth_mult_list: [1.0, 0.5], embedding_rank_mult_list: [1.0, 0.25]}}
        train:
          max_steps: 14
          save_steps: 2
          eval_steps: 3
          logging_steps: 1
          learning_rate: 1e-3
          per_device_train_batch_size: 16
        width: {{subnets_per_step: sandwich, num_random_subnets: 1, lambda_label: 0.5, lambda_relation: 1}}
        depth:
          {{subnets_per_step: sandwich, num_random_subnets: 1, random_subnets: per_layer, ema_decay: 0.8,
            gradient_accumulation_steps: 2}}
        final: {{class_weights: {{PlayMusic: 3}}, focal_gamma: 1, label_smoothing: 0.1, early_stopping_patience: 3}}
        """
    )
    return file


def start(config_file, output, *overrides):
    words = [sys.executable, "-m", "dynabert_paddle", "run", config_file, "--output_dir", output, "--json"]
    words += [word for override in overrides for word in ("-o", override)]
    return subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process, *, seconds=90):
    """Look at the disk until something is there; false if the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)
    return True


def under_way(folder, *, steps):
    """Whether a stage works: rewiring has begun, or a checkpoint after some steps is there."""
    if folder.name == "rewire":
        return folder.is_dir() or (folder.parent / ".rewire.partial").is_dir()
    return any(int(path.name.rpartition("-")[2]) >= steps for path in folder.glob("checkpoint-*"))


@pytest.fixture(scope="module")
def uninterrupted(config_file, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted") / "out"
    process = start(config_file, output)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return output, out


def results(output):
    """The bytes of what a run is for, by file: weights, scores, logs; provenance names folders of its own."""
    files = ("model.safetensors", "dynabert.safetensors", "config.json", "train.jsonl")
    found = {f"{stage}/{name}": output / stage / name for stage in STAGES for name in files}
    contents = {name: path.read_bytes() for name, path in found.items() if path.exists()}
    for stage in STAGES:
        metadata = read_metadata(output / stage)
        contents[f"{stage}/metrics"] = metadata.metrics
        contents[f"{stage}/importance"] = metadata.importance
    return contents | {"grid.json": json.loads((output / "grid.json").read_text())["rows"]}


def test_a_run_killed_in_every_stage_ends_as_an_uninterrupted_one(config_file, uninterrupted, tmp_path):
    output = tmp_path / "out"
    killed = []
    for stage in STAGES:
        process = start(config_file, output)
        if wait_for(lambda folder=output / stage: under_way(folder, steps=4), process):
            process.kill()
            killed.append(stage)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err
        assert not (output / stage / "dynabert.json").exists(), f"{stage} had ended before it was killed"
    assert killed == list(STAGES)
    process = start(config_file, output)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"{STAGES[-1]}: going on from step " in err
    for stage in STAGES[:-1]:
        assert f"{stage}: finished before" in err
    expected, expected_out = uninterrupted
    found, wanted = results(output), results(expected)
    assert set(found) == set(wanted)
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert out == expected_out
    # Neither checkpoints nor halves of files stay.
    assert not [path for pattern in ("checkpoint-*", "*.partial", "*.tmp") for path in output.rglob(pattern)]


def test_a_finished_run_is_repeated_without_training(config_file, uninterrupted):
    output, expected = uninterrupted
    before = results(output)
    rows = db.run(db.load_config(config_file, (), {"output_dir": str(output)}))
    assert rows == json.loads(expected)["rows"]
    assert results(output) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_and_the_exit_code_that_shells_expect(config_file, tmp_path, number, code):
    output = tmp_path / "out"
    process = start(config_file, output, "stages=[finetune]", "train.max_steps=100000", "train.save_steps=0")
    log = output / "finetune" / "train.jsonl"
    assert wait_for(lambda: log.exists() and log.read_text().count("train/loss") >= 3, process)
    process.send_signal(number)
    begin = time.monotonic()
    out, err = process.communicate()
    assert process.returncode == code, err
    assert time.monotonic() - begin < 20
    assert out == ""
    assert "Traceback" not in err
    (checkpoint,) = (output / "finetune").glob("checkpoint-*")
    step = json.loads((checkpoint / "state.json").read_text())["step"]
    assert checkpoint.name == f"checkpoint-{step}"
    last = err.splitlines()[-1]
    assert f"finetune: stopped after step {step} of 100000; the same command goes on from there" in last
    assert not last.startswith("error"), "to stop where asked to is no error"
    assert json.loads(log.read_text().splitlines()[-1])["step"] <= step
    assert not (output / "finetune" / "dynabert.json").exists()


class SignalOn(logging.Handler):
    """Sends this process a signal when a certain line is logged."""

    def __init__(self, line, number):
        super().__init__(logging.INFO)
        self.line, self.number = line, number

    def emit(self, record):
        if record.getMessage().startswith(self.line):
            os.kill(os.getpid(), self.number)


@pytest.fixture
def signal_on():
    """Arrange for a signal at a log line."""
    logger = logging.getLogger("dynabert_paddle")
    level, before = logger.level, logger.handlers[:]

    def arrange(line, number):
        logger.setLevel(logging.INFO)
        logger.addHandler(SignalOn(line, number))

    yield arrange
    logger.handlers[:] = before
    logger.setLevel(level)


def test_a_signal_in_a_stages_last_step_stops_the_chain(config_file, tmp_path, signal_on):
    """The stage may end, the next one must not begin."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    signal_on("finetune 4/4 loss", signal.SIGTERM)
    overrides = ["train.max_steps=4", "stages=[finetune, rewire, width]"]
    try:
        db.run(db.load_config(config_file, overrides, {"output_dir": str(tmp_path / "out")}))
    except Interrupted:
        heard.append(True)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard
    # A handler like the one above lets a program go on; what matters is that the signal was not swallowed.


@pytest.fixture
def stopped(request, tiny_folder, tiny_data, tmp_path, signal_on, monkeypatch):
    """A fine-tuning that was stopped after step 2 of 4, and what it takes to go on."""
    if getattr(request, "param", "memory") == "disk":
        monkeypatch.setattr(stored_texts, "_LARGE_FILE", 1000)
    task = db.load_task("snips", data_dir=tiny_data)
    config = db.FinetuneConfig(max_steps=4, per_device_train_batch_size=16, logging_steps=1, learning_rate=1e-3)
    options = {"output_dir": tmp_path / "stopped", "config": config, "max_seq_length": 16}
    signal_on("finetune 2/4 loss", signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped after step 2 of 4"):
        db.finetune(tiny_folder, task, **options)
    logging.getLogger("dynabert_paddle").handlers.pop()
    return tiny_folder, task, options


@pytest.mark.parametrize("stopped", ["memory", "disk"], indirect=True)
def test_a_stopped_stage_goes_on(stopped, tmp_path, request):
    model, task, options = stopped
    assert isinstance(task.train.texts, StoredTexts) == ("disk" in request.node.name)
    resumed = db.finetune(model, task, **options)
    whole = db.finetune(model, task, **{**options, "output_dir": tmp_path / "whole"})
    for name, tensor in whole.model.state_dict().items():
        assert (resumed.model.state_dict()[name].numpy() == tensor.numpy()).all(), name
    assert resumed.metadata.metrics == whole.metadata.metrics
    assert (tmp_path / "stopped" / "train.jsonl").read_text() == (tmp_path / "whole" / "train.jsonl").read_text()
    assert not list((tmp_path / "stopped").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("settings", "others"),
    [
        # Between two updates of its zeros, with the optimizer's memory of the gradients as the criterion.
        ({"method": "sparse", "sparsity": 0.5, "criterion": "gradient"}, {"sparsity": 0.6}),
        ({"method": "share_layers", "groups": 2}, {"groups": 1}),
        # With float weights behind the rounded ones, which a checkpoint holds, too.
        ({"method": "quantize_aware", "weight_bits": 4}, {"weight_bits": 2}),
    ],
)
def test_a_compressed_model_goes_on_where_it_was_stopped(finetuned, tiny_data, tmp_path, signal_on, settings, others):
    task = db.load_task("snips", data_dir=tiny_data)
    config = db.CompressConfig(**settings, finetune_steps=10)
    signal_on("compress 5/10 accuracy", signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped after step 5 of 10"):
        db.compress(finetuned, task, output_dir=tmp_path / "stopped", config=config)
    logging.getLogger("dynabert_paddle").handlers.pop()
    with pytest.raises(UsageError, match="unfinished run with"):
        db.compress(finetuned, task, output_dir=tmp_path / "stopped", config=replace(config, **others))
    resumed = db.compress(finetuned, task, output_dir=tmp_path / "stopped", config=config)
    whole = db.compress(finetuned, task, output_dir=tmp_path / "whole", config=config)
    for name, tensor in whole.model.state_dict().items():
        assert (resumed.model.state_dict()[name].numpy() == tensor.numpy()).all(), name
    assert resumed.metadata.compression == whole.metadata.compression


def test_another_backbone_is_not_mistaken_for_the_one_that_was_stopped(stopped, tmp_path):
    """Its own weights would be replaced by the checkpoint's without a word."""
    model, task, options = stopped
    other = db.Supernet(make_bert(num_labels=2, seed=1), db.Supernet.from_pretrained(model).tokenizer)
    with pytest.raises(UsageError, match="unfinished run"):
        db.finetune(other.save_pretrained(tmp_path / "other"), task, **options)


def test_another_teacher_is_not_mistaken_for_the_one_before(stopped, tmp_path, signal_on):
    model, task, options = stopped
    teacher = db.finetune(model, task, **options)
    folder = options["output_dir"]
    config = db.WidthConfig(max_steps=4, per_device_train_batch_size=16, logging_steps=1)
    space = teacher.search_space(width_mults=(1.0, 0.5), depth_mults=(1.0,))

    def train(teaching):
        db.train_width(
            db.Supernet.from_pretrained(folder), teaching, task, space, output_dir=tmp_path / "width", config=config
        )

    signal_on("width 2/4 loss", signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(teacher)
    logging.getLogger("dynabert_paddle").handlers.pop()
    other = db.Supernet(make_bert(num_labels=7, seed=5), teacher.tokenizer)
    with pytest.raises(UsageError, match="unfinished run"):
        train(other)


def test_another_metric_does_not_compare_with_the_best_score_before(stopped, tiny_data):
    """The best accuracy of the first half is no macro F1 that the second half could beat."""
    model, _, options = stopped
    task = db.load_task("snips", data_dir=tiny_data, metrics=["macro_f1"])
    with pytest.raises(UsageError, match="unfinished run"):
        db.finetune(model, task, **options)


def test_other_settings_or_data_are_refused_by_name(stopped, tiny_data, tmp_path):
    model, task, options = stopped
    config = db.FinetuneConfig(max_steps=4, per_device_train_batch_size=8, logging_steps=1, learning_rate=1e-3)
    with pytest.raises(UsageError, match="per_device_train_batch_size = 16, this one has 8.*remove that folder"):
        db.finetune(model, task, **{**options, "config": config})
    data = shutil.copytree(tiny_data, tmp_path / "data")
    lines = (data / "train.tsv").read_text().splitlines(keepends=True)
    (data / "train.tsv").write_text("".join(lines[:-1]))
    with pytest.raises(UsageError, match="unfinished run with another data"):
        db.finetune(model, db.load_task("snips", data_dir=data), **options)


def test_intervals_of_logging_and_saving_may_change(stopped):
    model, task, options = stopped
    config = db.FinetuneConfig(
        max_steps=4, per_device_train_batch_size=16, logging_steps=2, save_steps=1, learning_rate=1e-3
    )
    assert db.finetune(model, task, **{**options, "config": config}).metadata.metrics["steps"] == 4


def test_starting_anew_needs_the_flag(stopped):
    model, task, options = stopped
    config = db.FinetuneConfig(max_steps=3, per_device_train_batch_size=16, learning_rate=2e-3)
    supernet = db.finetune(model, task, **{**options, "config": config, "overwrite": True})
    assert supernet.metadata.metrics["steps"] == 3


def test_a_stage_that_was_killed_while_it_moved_its_files_into_place_is_repeated(config_file, uninterrupted, tmp_path):
    """The marker, dynabert.json, comes last; before it is there, a stage has logs or only some of its files."""
    output = shutil.copytree(uninterrupted[0], tmp_path / "out")
    for stage in STAGES[1:]:
        shutil.rmtree(output / stage)
    for name in ("dynabert.json", "model.safetensors"):
        (output / "finetune" / name).unlink()
    config = db.load_config(config_file, ["stages=[finetune]"], {"output_dir": str(output)})
    db.run(config)
    expected = (uninterrupted[0] / "finetune" / "model.safetensors").read_bytes()
    assert (output / "finetune" / "model.safetensors").read_bytes() == expected


def test_a_refused_run_leaves_the_config_of_the_finished_one(config_file, uninterrupted, tmp_path):
    output = shutil.copytree(uninterrupted[0], tmp_path / "out")
    before = (output / "run.yaml").read_bytes()
    config = db.load_config(config_file, ["width.learning_rate=0.5"], {"output_dir": str(output)})
    with pytest.raises(UsageError, match=r"width was made with learning_rate = 0\.001, this run has 0\.5"):
        db.run(config)
    assert (output / "run.yaml").read_bytes() == before


@pytest.mark.full
def test_a_run_that_was_moved_or_copied_goes_on_in_its_new_place(chain, tmp_path, dynabert):
    """It was trained anew into the old place, without a word."""
    old = tmp_path / "a"
    shutil.copytree(chain, old)
    shutil.rmtree(old / "final")
    before = results(old)
    old.rename(tmp_path / "b")
    done = dynabert("run", tmp_path / "b" / "run.yaml", "-o", "stages=[finetune, rewire, width, depth]")
    assert (done.code, done.err.count("finished before")) == (0, 4), done.err
    assert not old.exists()
    assert {name: content for name, content in results(tmp_path / "b").items() if "grid" not in str(name)} == {
        name: content for name, content in before.items() if "grid" not in str(name)
    }
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    done = dynabert("run", tmp_path / "c" / "run.yaml", "-o", "stages=[finetune, rewire, width, depth]")
    assert (done.code, done.err.count(f"finished before, in {tmp_path / 'c'}")) == (0, 4), done.err
