"""Damaged bundles and impossible exports: one line that names the file and the remedy, and nothing left behind."""

import json
import math
import re
import runpy
import shutil
import sys

import onnx
import paddle
import pytest
from bundles import make_bundle, make_model
from commands import run_command
from conftest import make_bert
from onnx.external_data_helper import set_external_data
from paddle.base.proto import framework_pb2

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.bundle import engines
from dynabert_paddle.errors import DynabertError
from dynabert_paddle.files.hashing import hash_file, hash_json
from dynabert_paddle.runtime import paddle_versions

pytestmark = pytest.mark.full

FILES = {
    "paddle": ["model.pdiparams", "model.pdmodel"],
    "onnx": ["model.onnx"],
}
for names in FILES.values():
    names += ["README.md", "infer.py", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    names += ["vocab.txt"]


@pytest.fixture(scope="module")
def get_bundle(make_once):
    return lambda format: make_bundle(make_once, "snips", format)


@pytest.fixture
def copy_bundle(get_bundle, tmp_path):
    """Copies a bundle, for a test to damage."""
    return lambda format="paddle": shutil.copytree(get_bundle(format), tmp_path / "bundle")


@pytest.fixture
def refused(capsys, tmp_path):
    """All four ways to use a bundle refuse it with the same line, which is returned."""

    def run(folder, *, script=True):
        (tmp_path / "texts.txt").write_text("play some jazz\n")
        with pytest.raises(DynabertError) as caught:
            db.Predictor(folder)
        message = str(caught.value)
        assert "\n" not in message
        for words in (("predict", folder, "-i", tmp_path / "texts.txt"), ("bench", folder)):
            done = run_command(capsys, *words)
            assert (done.code, done.out, done.err) == (1, "", f"error: {message}\n")
        if script:
            code, out, err = run_script(capsys, folder, "play some jazz")
            assert (code, out, err) == (1, "", f"error: {message}\n")
        return message

    return run


def run_script(capsys, folder, *words):
    """Run the script of a bundle in this process."""
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["infer.py", *words])
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(folder / "infer.py"), run_name="__main__")
    finally:
        patch.undo()
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def remove(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\n")


def flip(path):
    """One bit, in a place where the script, too, still runs: its first line."""
    content = bytearray(path.read_bytes())
    content[8] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("format", FILES)
def test_every_file_of_a_bundle_is_under_its_checksum(get_bundle, format):
    files = json.loads((get_bundle(format) / "bundle.json").read_text())["files"]
    assert sorted(files) == sorted(FILES[format])
    there = {path.name for path in get_bundle(format).iterdir()}
    assert there - set(files) == {"bundle.json", ".dynabert"}  # an empty mark that says who made the folder


@pytest.mark.parametrize("damage", [remove, cut, empty, lengthen, flip])
@pytest.mark.parametrize(("format", "name"), [*(("paddle", name) for name in FILES["paddle"]), ("onnx", "model.onnx")])
def test_a_damaged_file_is_named(copy_bundle, refused, format, name, damage):
    folder = copy_bundle(format)
    damage(folder / name)
    seen = {remove: "missing", flip: "altered since the export"}.get(damage, "truncated or altered since the export")
    # What is left of the script itself cannot check anything.
    script = name != "infer.py" or damage in (lengthen, flip)
    assert refused(folder, script=script) == f"{folder / name}: {seen}: copy the bundle again, or export it again"


def change(**values):
    return lambda content: content | values


def change_files(**values):
    return lambda content: content | {"files": content["files"] | values}


def drop(key):
    return lambda content: {name: value for name, value in content.items() if name != key}


SIZED = {"bytes": 3, "sha256": "0" * 64}
DESCRIPTIONS = {
    "edited labels": (change(labels=["a"] * 7), "altered since the export"),
    "edited length": (change(max_seq_length=64), "altered since the export"),
    "added key": (change(note="mine"), "altered since the export"),
    "no labels": (drop("labels"), "altered since the export"),
    "no files": (drop("files"), "altered since the export"),
    "no checksum": (drop("checksum"), "damaged"),
    "other checksum": (change(checksum="0" * 64), "altered since the export"),
    "checksum of null": (change(checksum=None), "altered since the export"),
    "later version": (change(format_version=2), "not format version 1: written by another version of dynabert_paddle"),
    "no version": (drop("format_version"), "not format version 1"),
    "path outside": (change_files(**{"../x": SIZED}), "altered since the export"),
    "file of a number": (change_files(**{"vocab.txt": 3}), "altered since the export"),
}


@pytest.mark.parametrize("fault", DESCRIPTIONS)
def test_an_edited_description_is_refused(copy_bundle, refused, fault):
    edit, seen = DESCRIPTIONS[fault]
    path = copy_bundle() / "bundle.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    assert refused(path.parent).startswith(f"{path}: {seen}")


@pytest.mark.parametrize("damage", [cut, empty])
def test_a_description_cut_off_is_refused(copy_bundle, refused, damage):
    path = copy_bundle() / "bundle.json"
    damage(path)
    assert refused(path.parent) == f"{path}: damaged: copy the bundle again, or export it again"


@pytest.mark.parametrize("content", [b"[]", b"3", b"not JSON", b"\xff\xfe{}"])
def test_a_description_that_is_something_else_is_refused(copy_bundle, refused, content):
    path = copy_bundle() / "bundle.json"
    path.write_bytes(content)
    assert refused(path.parent) == f"{path}: damaged: copy the bundle again, or export it again"


def test_a_bundle_without_its_description_is_none(copy_bundle, refused):
    folder = copy_bundle()
    (folder / "bundle.json").unlink()
    assert refused(folder) == f"{folder}: no bundle.json in it: name a folder that 'dynabert export' created"


def seal(folder, edit=lambda content: content):
    """Compute the checksums anew, as nobody does by mistake."""
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    for name, entry in content["files"].items():
        entry.update(bytes=(folder / name).stat().st_size, sha256=hash_file(folder / name))
    content = edit(content)
    path.write_text(json.dumps({**content, "checksum": hash_json(content)}))


def test_sealing_again_reproduces_the_exporters_file(copy_bundle):
    folder = copy_bundle()
    before = json.loads((folder / "bundle.json").read_text())
    seal(folder)
    assert json.loads((folder / "bundle.json").read_text()) == before


@pytest.mark.parametrize(
    ("edit", "seen"),
    [
        (change_files(**{"../x": SIZED}), "names '../x', which is outside the bundle"),
        (change_files(**{"/etc/passwd": SIZED}), "names '/etc/passwd', which is outside the bundle"),
        (change_files(**{"vocab.txt": 3}), "damaged"),
        (change(files=["vocab.txt"]), "damaged"),
        (drop("files"), "damaged"),
    ],
)
def test_a_forged_description_is_refused(copy_bundle, refused, edit, seen):
    folder = copy_bundle()
    (folder.parent / "x").write_text("abc")
    seal(folder, edit)
    assert refused(folder).startswith(f"{folder / 'bundle.json'}: {seen}")


@pytest.mark.parametrize("damage", [cut, empty])
@pytest.mark.parametrize(
    ("format", "name", "seen"),
    [
        ("paddle", "model.pdmodel", "cannot load it"),
        ("paddle", "model.pdiparams", "cannot load it"),
        ("onnx", "model.onnx", "cannot load it"),
        ("paddle", "tokenizer.json", "tokenizer.json: tokenizers"),
    ],
)
def test_a_file_that_a_runtime_cannot_load_is_one_line(copy_bundle, format, name, seen, damage):
    """As a bundle of a later runtime in front of an earlier one."""
    folder = copy_bundle(format)
    damage(folder / name)
    seal(folder)
    with pytest.raises(DynabertError) as caught:
        db.Predictor(folder)
    message = str(caught.value)
    assert seen in message
    assert "\n" not in message
    assert str(folder) in message


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd"])
def test_onnx_weights_outside_of_the_bundle_are_not_read(copy_bundle, path):
    folder = copy_bundle("onnx")
    (folder.parent / "secret").write_bytes(bytes(1 << 20))
    graph = onnx.load(folder / "model.onnx")
    weight = min(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data) or math.inf)
    set_external_data(weight, path, length=len(weight.raw_data))
    weight.ClearField("raw_data")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    seal(folder)
    with pytest.raises(DynabertError) as caught:
        db.Predictor(folder)
    said = "keeps weights outside of the bundle: export it again"
    assert str(caught.value) == f"{folder / 'model.onnx'}: {said}"


def add_to_program(folder, operator):
    """In a block of its own, which another operator would name."""
    program = framework_pb2.ProgramDesc.FromString((folder / "model.pdmodel").read_bytes())
    program.blocks.add(idx=1, parent_idx=0).ops.add(type=operator)
    (folder / "model.pdmodel").write_bytes(program.SerializeToString())


def write_pir(folder, operator):
    """What comes before the operators is as Paddle writes it."""
    inner = {"regions": [{"#": "region_1", "blocks": [{"#": "block_0", "ops": [{"#": f"1.{operator}_", "A": []}]}]}]}
    operators = [{"#": "p", "A": [0, 1, 1, "linear_19.b_0"]}, {"#": "1.while", **inner}]
    program = {"regions": [{"#": "region_0", "blocks": [{"#": "block_0", "args": [], "ops": operators}]}]}
    content = {"base_code": {"magic": "pir", "trainable": True, "version": 2}, "program": program}
    (folder / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize("operator", ["save_combine", "load", "py_func", "run_program", "send_v2", "read_file"])
@pytest.mark.parametrize(("format", "forge"), [("paddle", add_to_program), ("pir", write_pir)])
def test_operators_that_reach_outside_of_a_bundle_are_not_loaded(copy_bundle, format, forge, operator):
    folder = copy_bundle()
    forge(folder, operator)
    seal(folder, change(format=format))
    with pytest.raises(DynabertError, match=f"operator '{operator}' reaches outside of the bundle: export it again"):
        db.Predictor(folder)


def test_all_such_operators_are_known():
    """By the words in the names of those that this Paddle has; the others only look like them."""
    words = {"save", "load", "read", "reader", "py", "pylayer", "program", "print", "engine", "ap", "init", "gen"}
    words |= {"send", "recv", "push", "pull", "listen"}
    names = {name for name in paddle.base.core.get_all_op_names() if words & set(name.split("_"))}
    passed = {name for name in names if not engines._UNSAFE_OPERATORS.fullmatch(name) and not name.endswith("_grad")}
    assert passed <= {
        "distributed_fused_lamb_init",
        "graph_send_recv",
        "graph_send_ue_recv",
        "graph_send_uv",
        "read_from_array",
    }


def test_labels_that_the_model_does_not_have(copy_bundle):
    folder = copy_bundle()
    seal(folder, change(labels=["a", "b"]))
    with pytest.raises(DynabertError) as caught:
        db.Predictor(folder)("play some jazz")
    assert str(caught.value) == f"{folder}: the model's logits are (1, 7), not (1, 2): export it again"


@pytest.mark.parametrize(
    ("numbers", "seen"),
    [
        ({"max_seq_length": 2**31 - 1}, "max_seq_length is 2147483647, allowed are 3 to "),
        ({"max_seq_length": 2**31 - 1, "max_positions": 2**31 - 1}, "max_positions is 2147483647, allowed are 3 to "),
        ({"vocab_size": 2**31 - 1}, "vocab_size is 2147483647, allowed are 1 to "),
        ({"pad_token_id": -1}, "pad_token_id is -1, allowed are 0 to "),
        ({"max_seq_length": math.nan}, "damaged"),
        ({"max_seq_length": True}, "damaged"),
    ],
)
def test_numbers_that_would_cause_endless_work_are_refused_at_once(copy_bundle, refused, numbers, seen):
    folder = copy_bundle()
    seal(folder, change(**numbers))
    assert refused(folder).startswith(f"{folder / 'bundle.json'}: {seen}")
    with pytest.raises(DynabertError, match=re.escape(seen)):
        db.AdaptivePredictor(folder)


def test_more_positions_than_the_graph_has_are_found_when_they_are_calibrated(copy_bundle):
    folder = copy_bundle()
    seal(folder, change(max_seq_length=10**6, max_positions=10**6))
    with pytest.raises(DynabertError, match="cannot run it: ") as caught:
        db.AdaptivePredictor(folder)
    assert "\n" not in str(caught.value)


def test_ids_that_the_vocabulary_lacks_reach_no_runtime(copy_bundle):
    folder = copy_bundle()
    seal(folder, change(vocab_size=1000))
    with pytest.raises(DynabertError, match=r"bundle: a token has the id \d+, the model has a vocabulary of 1000"):
        db.Predictor(folder)("play some jazz")


@pytest.mark.parametrize("format", FILES)
def test_a_graph_that_a_runtime_cannot_run_is_one_line(copy_bundle, format):
    """Padding that the tokenizer has, and the graph's table of words does not."""
    folder = copy_bundle(format)
    seal(folder, change(vocab_size=2**22, pad_token_id=2**21))
    with pytest.raises(DynabertError, match=r"bundle: (Paddle|ONNX Runtime) \S+ cannot run it: ") as caught:
        db.Predictor(folder)("play some jazz")
    assert "\n" not in str(caught.value)


# Exports that cannot be.


@pytest.fixture
def source(make_once):
    return lambda kind: make_model(make_once, kind)


@pytest.fixture
def no_export(capsys, tmp_path):
    """Run an export that must fail in one line and leave no folder, whole or partial; returns the line."""

    def run(model, *words, code, output=tmp_path / "out"):
        before = sorted(tmp_path.rglob("*"))
        done = run_command(capsys, "export", model, "--output_dir", output, *words)
        assert done.code == code, done.err
        assert done.out == ""
        assert "Traceback" not in done.err
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.err
        assert done.err.splitlines()[-1] == errors[0], "the reason comes last"
        assert sorted(tmp_path.rglob("*")) == before, "something was left behind or removed"
        return errors[0].removeprefix("error: ")

    return run


REQUESTS = {
    "misspelt format": (
        ("--format", "padle"),
        2,
        "format 'padle' is not one of paddle, pir, openvino, onnx, lite. Did you mean",
    ),
    "unknown format": (("--format", "tflite"), 2, "format 'tflite' is not one of paddle, pir, openvino, onnx, lite"),
    "precision of another": (("--precision", "int16"), 2, "format paddle has the precisions fp32, bf16, int8, not"),
    "lite has it": (("--precision", "int16"), 2, "int16 is available for lite"),
    "onnx without bf16": (("--format", "onnx", "--precision", "bf16"), 2, "bf16 is available for paddle, pir"),
    "misspelt precision": (("--precision", "fp23"), 2, "Did you mean 'fp32'?"),
    "no examples": (("--num_calibration_examples", "0"), 2, "num_calibration_examples is at least 1, not 0"),
    "negative tolerance": (("--tolerance", "-1"), 2, "tolerance is at least 0, not -1.0"),
    "tolerance of nan": (("--tolerance", "nan"), 2, "tolerance is at least 0, not nan"),
    "length of words": (("--max_seq_length", "long"), 2, "'long' is not a valid integer"),
    "misspelt flag": (("--precison", "fp32"), 2, "--precision"),
}


@pytest.mark.parametrize("request_", REQUESTS)
def test_an_impossible_request_fails_at_once(no_export, source, request_):
    words, code, seen = REQUESTS[request_]
    assert seen in no_export(source("plain"), *words, code=code)


def test_lite_without_its_converter(no_export, source, monkeypatch):
    monkeypatch.setenv("DYNABERT_LITE_PYTHON", "/nonexistent")
    message = no_export(source("plain"), "--format", "lite", code=1)
    assert message.startswith("DYNABERT_LITE_PYTHON=/nonexistent: ")
    assert "run 'bash scripts/setup_lite.sh' in the checkout" in message


@pytest.mark.parametrize("version", ["3.2.0", "3.3.1", "4.0.0"])
@pytest.mark.parametrize(
    ("words", "what", "instead"),
    [
        (("--format", "paddle"), "format paddle (model.pdmodel)", "pir"),
        (("--format", "paddle", "--precision", "bf16"), "format paddle (model.pdmodel)", "pir"),
        (("--format", "paddle", "--precision", "int8"), "int8 in format paddle (model.pdmodel)", "onnx"),
        (("--format", "lite"), "format lite", "onnx"),
    ],
)
def test_a_paddle_that_cannot_write_the_legacy_format(no_export, source, monkeypatch, version, words, what, instead):
    monkeypatch.setattr(paddle_versions, "paddle_version", lambda: version)
    message = no_export(source("plain"), *words, code=1)
    remedy = f"use --format {instead}, or install requirements/paddle-3.1.txt"
    assert message == f"{what} needs Paddle 3.1 or older, this is {version}: {remedy}"


def test_pir_before_paddle_3(no_export, source, monkeypatch):
    monkeypatch.setattr(paddle_versions, "paddle_version", lambda: "2.6.2")
    message = no_export(source("plain"), "--format", "pir", code=1)
    remedy = "use --format paddle, or install requirements/paddle-3.1.txt"
    assert message == f"format pir (model.json) needs Paddle 3.0 or later, this is 2.6.2: {remedy}"


def test_a_bundle_is_replaced_only_with_overwrite(no_export, source, get_bundle, tmp_path):
    output = shutil.copytree(get_bundle("paddle"), tmp_path / "out")
    message = no_export(source("snips"), code=2)
    assert message == f"{output} exists: pass --overwrite_output_dir to replace it, or name another --output_dir"


def test_a_folder_of_the_users_is_never_replaced(no_export, source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    message = no_export(source("snips"), "--overwrite_output_dir", code=2)
    assert "was not created by dynabert, and is not removed" in message


def test_a_file_in_place_of_the_output(no_export, source, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "out is a file: name another --output_dir" in no_export(source("snips"), code=2)


def test_the_model_is_not_replaced_by_its_bundle(no_export, source, tmp_path):
    run = tmp_path / "run"
    model = shutil.copytree(source("snips"), run / "final")
    (run / ".dynabert").touch()
    for output in (model, run):
        assert "exists" in no_export(model, code=2, output=output)
        message = no_export(model, "--overwrite_output_dir", code=2, output=output)
        assert message == f"{output} holds the model to export: name another --output_dir"
    link = tmp_path / "link"
    link.symlink_to(model)
    no_export(model, "--overwrite_output_dir", code=2, output=link)


def test_an_output_without_a_name_is_not_the_working_folder(no_export, source, tmp_path, monkeypatch):
    """As a shell passes it where a variable is not set: --output_dir "$OUT"."""
    monkeypatch.chdir(tmp_path)
    assert "--output_dir" in no_export(source("plain"), code=2, output="")


def test_a_missing_model(no_export, source, tmp_path):
    shutil.copytree(source("plain"), tmp_path / "plain")
    message = no_export(tmp_path / "plian", code=1)
    assert message == f"{tmp_path / 'plian'}: no such model folder. Did you mean '{tmp_path / 'plain'}'?"


@pytest.mark.parametrize(
    "length",
    ["129", "2", "0"],
)
def test_lengths_that_the_model_does_not_take(no_export, source, length):
    message = no_export(source("plain"), "--max_seq_length", length, code=2)
    assert message == f"--max_seq_length is {length}: allowed are 3 to 128, the model's positions"


def test_a_sub_network_that_the_model_does_not_have(no_export, source):
    assert "l9h4f48" in no_export(source("plain"), "--subnet", "l9h4f48", code=2)


def test_no_tolerance_leaves_nothing_behind(no_export, source):
    """No graph computes the model's logits to the last bit; that is found out when the bundle is all but done."""
    message = no_export(source("plain"), "--tolerance", "0", code=1)
    assert "more than 0.0e+00: nothing was written; --tolerance allows more" in message


def test_a_failed_export_keeps_the_old_bundle(no_export, source, get_bundle, tmp_path):
    output = shutil.copytree(get_bundle("paddle"), tmp_path / "out")
    no_export(source("plain"), "--tolerance", "0", "--overwrite_output_dir", code=1)
    assert db.Predictor(output)("play")[0].label


def test_int8_of_a_model_without_a_task(no_export, source):
    message = no_export(source("plain"), "--precision", "int8", code=2)
    assert "this model was not fine-tuned: run 'dynabert finetune' first" in message


@pytest.mark.parametrize("rows", ["", "sentence\tlabel\n"])
def test_int8_without_texts_to_calibrate_on(no_export, source, tiny_data, tmp_path, rows):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "train.tsv").write_text(rows)
    message = no_export(source("snips"), "--precision", "int8", "--data_dir", data, code=1)
    assert "train.tsv:1: the file" in message


def test_a_model_without_a_rust_tokenizer(no_export, tmp_path):
    model = db.Supernet(make_bert(num_layers=2)).save_pretrained(tmp_path / "model")
    message = no_export(model, code=1)
    assert "tokenizer.json" in message


def test_a_model_whose_labels_do_not_fit(no_export, tmp_path):
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    supernet = db.Supernet(make_bert(num_labels=2, num_layers=2), tokenizer)
    task = {"name": "custom", "kind": "classification", "labels": ["a", "b", "c"]}
    supernet.metadata = supernet.metadata.replace(stage="finetune", task=task)
    message = no_export(supernet.save_pretrained(tmp_path / "model"), code=1)
    assert message == "the model has 2 outputs and 3 labels: fine-tune it again"
