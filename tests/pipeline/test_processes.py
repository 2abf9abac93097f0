"""Runs in several processes: they compute what one computes, share the data, and leave the writing to the first."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.files.weights import read_weights

pytestmark = pytest.mark.full

ROOT = Path(db.__file__).parents[1]
STAGES = ("finetune", "rewire", "width", "depth", "final")
DYNABERT = Path(sys.executable).with_name("dynabert")

# Tells, in a file of its own, what a process other than the first opens to write, makes, renames or removes.
AUDIT_HOOK = """
import os, sys

def audit(event, args):
    changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if (changes or writes) and not isinstance(args[0], int):
        log.write(f"{os.fsdecode(args[0])}\\n")
        log.flush()

log = open(os.environ["CHANGES"] + os.environ["PADDLE_TRAINER_ID"], "w")
sys.addaudithook(audit)
from dynabert_paddle.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def config_file(tiny_data, tmp_path_factory):
    """All stages without dropout, so that what a process draws does not matter; 140 rows make a last batch of few."""
    folder = tmp_path_factory.mktemp("config")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    db.Supernet(make_bert(num_labels=2, **still), tokenizer).save_pretrained(folder / "model")
    # The bias of the keys has no gradient but rounding, which Adam would divide by itself: hence the epsilon.
    (folder / "run.yaml").write_text(
        f"""
        model_name_or_path: {folder / "model"}
        stages: [{", ".join(STAGES)}]
        task: {{data_dir: {tiny_data}, max_seq_length: 16}}
        space: {{width_mult_list: [1.0, 0.5], depth_mult_list: [1.0, 0.5], embedding_rank_mult_list: [1.0, 0.25]}}
        train:
          {{max_steps: 20, save_steps: 7, eval_steps: 10, logging_steps: 1, learning_rate: 1e-4, adam_epsilon: 1e-6}}
        width: {{subnets_per_step: sandwich, num_random_subnets: 1, lambda_label: 0.5, lambda_relation: 1}}
        depth:
          {{subnets_per_step: sandwich, num_random_subnets: 1, random_subnets: per_layer, ema_decay: 0.8,
            gradient_accumulation_steps: 2}}
        final: {{class_weights: {{PlayMusic: 5, RateBook: 0.2}}, focal_gamma: 1, label_smoothing: 0.1}}
        """
    )
    return folder / "run.yaml"


def launch(*words, log_dir, processes=2, **environment):
    """Start a command in several processes."""
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", processes, "--log_dir", log_dir]
    return subprocess.Popen(
        list(map(str, [*command, *words])),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def logs(log_dir):
    return {path.name: path.read_text() for path in log_dir.glob("workerlog.*")}


@pytest.fixture(scope="module")
def alone(config_file, tmp_path_factory):
    """The run in one process, with batches of 26."""
    config = db.load_config(
        config_file,
        ["train.per_device_train_batch_size=26"],
        {"output_dir": str(tmp_path_factory.mktemp("alone") / "out")},
    )
    return Path(config.output_dir), db.run(config)


@pytest.fixture(scope="module")
def together(config_file, tmp_path_factory):
    """The run in two processes, with batches of 13 each."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "watch.py").write_text(AUDIT_HOOK)
    words = ["run", config_file, "--output_dir", folder / "out", "--json", "-o", "train.per_device_train_batch_size=13"]
    process = launch(folder / "watch.py", *words, log_dir=folder / "log", CHANGES=str(folder / "changes."))
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 0, (shown, logs(folder / "log"))
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_the_same_weights_as_one(alone, together, stage):
    one, two = read_weights(alone[0] / stage), read_weights(together / "out" / stage)
    assert {name: values.shape for name, values in two.items()} == {name: values.shape for name, values in one.items()}
    assert max(np.abs(two[name] - one[name]).max() for name in one) < 1e-5
    if stage != "rewire":
        before = read_weights(alone[0] / STAGES[STAGES.index(stage) - 1])
        changed = [name for name in one if stage != "finetune" and np.abs(one[name] - before[name]).max() > 1e-4]
        assert stage == "finetune" or changed, "both would be equal if nothing were trained"


def test_two_processes_score_the_same_as_one(alone, together):
    output, rows = alone
    assert json.loads((together / "out" / "grid.json").read_text())["rows"] == rows
    for stage in STAGES:
        assert read_metadata(together / "out" / stage).metrics == read_metadata(output / stage).metrics
    provenance = read_metadata(together / "out" / "final").provenance
    assert provenance["num_processes"] == 2
    assert provenance["spent"]["examples"] == read_metadata(output / "final").provenance["spent"]["examples"]


def test_the_first_process_alone_writes_and_prints(together):
    out = str(together / "out")
    first, other = ((together / f"changes.{rank}").read_text().splitlines() for rank in (0, 1))
    assert [path for path in first if path.startswith(out)], "the watch sees what is written"
    assert [path for path in other if path.startswith(out)] == []
    printed = logs(together / "log")
    assert "final 20/20 loss" in printed["workerlog.0"]
    assert '"subnet": "w0.50d0.50"' in printed["workerlog.0"]
    for words in ("loss", "subnet", "dynabert"):
        assert words not in printed["workerlog.1"]
    steps = [json.loads(line)["step"] for line in (together / "out" / "width" / "train.jsonl").open()]
    assert steps.count(5) == 1


def test_a_process_that_dies_ends_the_others_with_its_error(config_file, tmp_path):
    fault = tmp_path / "fault.py"
    fault.write_text(
        "import os\n"
        "from dynabert_paddle.training import loop\n"
        "def dies(*args, **options):\n"
        "    raise ValueError('a memory chip has melted')\n"
        "if os.environ['PADDLE_TRAINER_ID'] == '1':\n"
        "    loop.step_batches = dies\n"
        "from dynabert_paddle.cli.main import main\n"
        "main()\n"
    )
    begin = time.monotonic()
    process = launch(fault, "run", config_file, "--output_dir", tmp_path / "out", log_dir=tmp_path / "log")
    shown, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert time.monotonic() - begin < 60
    assert "error: ValueError: a memory chip has melted" in shown
    assert "Traceback" not in shown


def test_a_process_that_is_killed_ends_the_others_in_a_minute(config_file, tmp_path):
    words = ["run", config_file, "--output_dir", tmp_path / "out", "-o", "train.max_steps=100000"]
    process = launch("-m", "dynabert_paddle", *words, log_dir=tmp_path / "log")
    wait_for_steps(tmp_path / "out" / "finetune" / "train.jsonl", process)
    (victim,) = processes_with("PADDLE_TRAINER_ID=1", process)
    os.kill(victim, signal.SIGKILL)
    begin = time.monotonic()
    shown, _ = process.communicate(timeout=90)
    assert process.returncode != 0
    assert time.monotonic() - begin < 60
    assert re.search(r"rank=\[(0, )?1\]", shown), "the launcher may see the other one stop, too"


def test_a_stopped_run_saves_once_and_resumes_to_the_same_result(config_file, together, tmp_path):
    words = ["run", config_file, "--output_dir", tmp_path / "out", "-o", "train.per_device_train_batch_size=13"]
    process = launch(DYNABERT, *words, log_dir=tmp_path / "log")
    wait_for_steps(tmp_path / "out" / "width" / "train.jsonl", process)
    process.terminate()
    process.communicate(timeout=90)
    assert "the same command goes on from there" in logs(tmp_path / "log")["workerlog.0"]
    (checkpoint,) = (tmp_path / "out" / "width").glob("checkpoint-*")
    assert 2 <= int(checkpoint.name.rpartition("-")[2]) <= 20
    process = launch(DYNABERT, *words, log_dir=tmp_path / "log2")
    shown, _ = process.communicate(timeout=200)
    assert process.returncode == 0, (shown, logs(tmp_path / "log2"))
    weights = [path / "out" / "final" / "model.safetensors" for path in (tmp_path, together)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_request_to_stop_while_a_process_waits_for_the_others_is_no_failure(config_file, tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, signal, threading, time\n"
        "from dynabert_paddle.training import processes\n"
        "on_rank_zero = processes.on_rank_zero\n"
        "def slowly(do):\n"
        "    if getattr(do.func, '__name__', '') != 'save_checkpoint':\n"
        "        return on_rank_zero(do)\n"
        "    if os.environ['PADDLE_TRAINER_ID'] == '1':\n"
        "        for n in range(20):\n"
        "            threading.Timer(n / 50, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    on_rank_zero(lambda: (time.sleep(0.6), do()))\n"
        "processes.on_rank_zero = slowly\n"
        "from dynabert_paddle.cli.main import main\n"
        "main()\n"
    )
    process = launch(slow, "run", config_file, "--output_dir", tmp_path / "out", log_dir=tmp_path / "log")
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 143, (shown, logs(tmp_path / "log"))
    assert "finetune: stopped after step 8 of 20" in logs(tmp_path / "log")["workerlog.0"], "it is saved after step 7"


def test_a_verb_that_does_not_support_several_processes_is_refused(together, tmp_path):
    process = launch(DYNABERT, "export", together / "out" / "depth", log_dir=tmp_path / "log")
    shown, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "error: 'export' runs in one process: start it without paddle.distributed.launch" in shown


def test_a_second_run_on_a_folder_is_refused_at_once(config_file, tmp_path):
    def start(*more):
        words = [DYNABERT, "run", config_file, "--output_dir", tmp_path / "out", "-o", "train.max_steps=100000", *more]
        return subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start()
    wait_for_steps(tmp_path / "out" / "finetune" / "train.jsonl", first)
    first.send_signal(signal.SIGSTOP)  # it would train for nothing
    for more in ((), ("--overwrite_output_dir",)):
        second = start(*more)
        _, err = second.communicate(timeout=60)
        assert second.returncode == 2
        assert err.splitlines()[-1] == (
            f"error: {tmp_path / 'out'} is in use by another run: wait until it has ended, or name another --output_dir"
        )
    first.send_signal(signal.SIGCONT)
    assert first.poll() is None
    assert (tmp_path / "out" / "run.yaml").exists()
    first.terminate()
    first.communicate(timeout=60)
    assert first.returncode == 143


def wait_for_steps(log, process, *, steps=2):
    """Wait until a stage has logged some steps."""
    end = time.monotonic() + 120
    while not log.exists() or log.read_text().count("train/loss") < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def processes_with(variable, ancestor):
    """Ids of the processes below one that have a variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if variable in environment and parent == ancestor.pid:
            found.append(int(path.name))
    return found
