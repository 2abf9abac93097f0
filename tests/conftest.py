"""What the tests share: small real models, and small real data from the built-in task."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dynabert_paddle.runtime.environment import import_paddle

import_paddle()

import numpy as np  # noqa: E402 - Paddle's environment comes first
import paddle  # noqa: E402
from commands import run_command  # noqa: E402
from filelock import FileLock  # noqa: E402
from forked_jobs import ForkedJobs  # noqa: E402
from paddlenlp.transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification  # noqa: E402

import dynabert_paddle as db  # noqa: E402
from dynabert_paddle.backbone.loading import find_backbone, to_arrays  # noqa: E402
from dynabert_paddle.exporting import lite_converter  # noqa: E402
from dynabert_paddle.files.weights import write_safetensors  # noqa: E402
from dynabert_paddle.runtime import interpreter  # noqa: E402

ROOT = Path(db.__file__).parents[1]

SNIPS = Path(db.__file__).parent / "data" / "snips"

STAGES = ("finetune", "rewire", "width", "depth", "final")

# Line of Paddle -> the formats that it can export to, its default first: what the package's own table must say.
LINES = {
    "2.6": ("paddle", "onnx", "lite"),
    "3.1": ("paddle", "pir", "openvino", "onnx", "lite"),
    "3.3": ("pir", "onnx"),
}
FOLLOW = interpreter._follow  # before the tests replace it

FORMATS = LINES[".".join(paddle.__version__.split(".")[:2])]


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the tests marked full, too")
    parser.addoption("--lines_dir", help="what every line of Paddle has made, for tests/lines; see test_matrix.sh")


def pytest_configure():
    # What starts the tests may ignore these, and the processes that they start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has a background job ignore it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup


def pytest_collection_modifyitems(config, items):
    left_out = {}
    if FORMATS is not LINES["3.1"]:
        left_out["reference"] = "nothing that differs between the lines of Paddle: run on the reference"
    if not config.getoption("--full"):
        markers = ["full", "full_on_reference"] if FORMATS is LINES["3.1"] else ["full"]
        left_out |= dict.fromkeys(markers, "not one of the ten-minute tests: run with --full")
    for item in items:
        for marker, reason in left_out.items():
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def cache_dir(tmp_path_factory):
    """Keep the tests out of the user's cache of tokenized data."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DYNABERT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def forked_jobs(tmp_path_factory):
    """Exports and measurements that a test starts in its own process run in forks, with the reference Paddle."""
    if FORMATS is not LINES["3.1"]:
        yield
        return
    jobs = ForkedJobs(tmp_path_factory.mktemp("jobs") / "sockets")

    def follow(command, environment, report):
        return FOLLOW(jobs.command(command, environment), environment, report)

    patch = pytest.MonkeyPatch()
    patch.setattr(interpreter, "_follow", follow)
    yield
    patch.undo()
    jobs.close()


@pytest.fixture
def fresh_interpreter(monkeypatch):
    """They run in fresh interpreters, as outside the tests."""
    monkeypatch.setattr(interpreter, "_follow", FOLLOW)


def make_bert(*, num_labels=7, num_layers=4, vocab_size=30522, seed=0, **config):
    """A small BERT with random weights everywhere: default LayerNorms and biases hide slicing faults."""
    paddle.seed(seed)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "initializer_range": 0.2}
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=vocab_size,
            num_hidden_layers=num_layers,
            num_labels=num_labels,
            max_position_embeddings=128,
            use_cache=False,
            **{**sizes, **config},
        )
    )
    rng = np.random.default_rng(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            parameter.set_value(parameter + paddle.to_tensor(rng.normal(0, 0.1, parameter.shape).astype("float32")))
    return model


def make_batch(*, batch_size=5, seq_length=9, vocab_size=30522, seed=0, num_labels=7):
    """Token ids with padding at the ends of the rows, and labels."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, seq_length + 1, batch_size)
    lengths[0] = seq_length
    mask = (np.arange(seq_length) < lengths[:, None]).astype("int64")
    return {
        "input_ids": rng.integers(1000, vocab_size, (batch_size, seq_length)) * mask,
        "token_type_ids": (np.arange(seq_length) >= 4).astype("int64") * mask,
        "attention_mask": mask,
        "labels": rng.integers(0, num_labels, batch_size),
    }


def backward(step):
    """Call backward for each loss that a step yields; returns the means of the losses and their parts."""
    passes = []
    for losses in step:
        losses["loss"].backward()
        passes.append({name: float(value) for name, value in losses.items()})
    return {name: sum(losses[name] for losses in passes) / len(passes) for name in passes[0]}


@pytest.fixture
def dynabert(capsys):
    """The `dynabert` command as a function of its words."""
    return lambda *words: run_command(capsys, *words)


@pytest.fixture
def bert():
    return make_bert()


@pytest.fixture
def batch():
    """Inputs as tensors, without labels."""
    return {name: paddle.to_tensor(value) for name, value in make_batch().items() if name != "labels"}


@pytest.fixture(scope="session")
def shared_dir(tmp_path_factory):
    """A folder that all workers of pytest-xdist share."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def make_once(shared_dir):
    """A function that lets one worker make a folder, and the others wait for it."""

    def make_folder(name, make):
        folder, done = shared_dir / name, shared_dir / f"{name}.done"
        with FileLock(shared_dir / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return make_folder


@pytest.fixture(scope="session")
def tiny_folder(make_once):
    """A folder with a small random BERT and the built-in backbone's tokenizer."""

    def make(folder):
        tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
        db.Supernet(make_bert(num_labels=2), tokenizer).save_pretrained(folder)

    return make_once("tiny", make)


def save_masked_lm(folder, model, tokenizer):
    """Write a PaddleNLP masked LM as a folder."""
    model.config.architectures = [type(model).__name__]
    tokenizer.save_pretrained(folder)
    model.config.to_json_file(str(folder / "config.json"))
    write_safetensors(folder / "model.safetensors", to_arrays(model), metadata={"format": "np"})
    return folder


@pytest.fixture(scope="session")
def masked_lm(tmp_path_factory):
    """A folder with a small random masked LM and the built-in backbone's tokenizer."""
    paddle.seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
    model = BertForMaskedLM(BertConfig(max_position_embeddings=128, initializer_range=0.2, **sizes))
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    return save_masked_lm(tmp_path_factory.mktemp("models") / "masked_lm", model, tokenizer)


@pytest.fixture(scope="session")
def tiny_data(make_once):
    """A data folder with 140 training and 42 dev rows of snips."""

    def make(folder):
        folder.mkdir()
        for name, rows in (("train", 140), ("dev", 42)):
            lines = (SNIPS / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
            (folder / f"{name}.tsv").write_text("\n".join(lines[: rows + 1]) + "\n", encoding="utf-8")

    return make_once("data", make)


@pytest.fixture(scope="session")
def task(tiny_data):
    """The task snips with these rows."""
    return db.load_task("snips", data_dir=tiny_data)


@pytest.fixture(scope="session")
def chain(make_once, tiny_folder, tiny_data):
    """The folder of a short run of all stages. Tests only read it; one that changes it takes a copy."""

    def make(folder):
        words = [f"stages=[{', '.join(STAGES)}]", "task.max_seq_length=16", "train.max_steps=10"]
        words += ["train.learning_rate=2e-3", "train.per_device_train_batch_size=16"]
        words += ["train.logging_steps=2", "train.eval_steps=5"]
        flags = {"model_name_or_path": str(tiny_folder), "task.data_dir": str(tiny_data)}
        db.run(db.load_config(None, words, {**flags, "output_dir": str(folder)}))

    return make_once("chain", make)


@pytest.fixture(scope="session")
def finetuned(chain):
    """The fine-tuned model of the short run."""
    return chain / "finetune"


@pytest.fixture(scope="session")
def quickstart(make_once):
    """The folder of a quick start, which takes minutes: its run in `out`, and `printed.json`. Tests only read it."""

    def make(folder):
        folder.mkdir()
        command = [sys.executable, "-m", "dynabert_paddle", "quickstart", "--output_dir", folder / "out", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (folder / "printed.json").write_text(done.stdout, encoding="utf-8")

    return make_once("quickstart", make)


@pytest.fixture(scope="session")
def converter(shared_dir):
    """Paddle Lite's interpreter, made where it is missing; skipped only where there is no Python to make it from."""
    script = ["bash", ROOT / "scripts/setup_lite.sh"]
    with FileLock(shared_dir / "converter.lock"):
        done = subprocess.run(script, capture_output=True, text=True, check=False)
    if "no Python 3.10 or 3.7 found" in done.stderr and "DYNABERT_LITE_PYTHON" not in os.environ:
        pytest.skip(done.stderr.strip())
    try:
        return lite_converter.find_converter()
    except db.DynabertError as error:
        pytest.fail(f"{error}\n{done.stderr}")


@pytest.fixture(scope="session")
def browser(shared_dir):
    """Headless Chromium, installed where it is missing; skipped only where only an administrator could."""
    script = ["bash", ROOT / "scripts/setup_browser.sh"]
    with FileLock(shared_dir / "browser.lock"):
        done = subprocess.run(script, capture_output=True, text=True, check=False)
    if "missing: " in done.stderr and "CHROMIUM" not in os.environ:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return os.environ.get("CHROMIUM", "chromium")
