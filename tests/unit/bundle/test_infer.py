"""`infer.py` without a runtime: truncation, templates, padding, verification of the bundle, flags."""

import ast
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.bundle import engines, infer, infer_lite, manifest, rows
from dynabert_paddle.files.hashing import hash_file, hash_json
from dynabert_paddle.runtime import streams
from dynabert_paddle.text import decode, encode, leading

LENGTHS = st.integers(0, 12)


def truncate_one_by_one(texts, max_tokens):
    """PaddleNLP's longest_first as documented: remove a token from the longer text, from the second at a tie."""
    texts = [list(text) for text in texts]
    while sum(map(len, texts)) > max_tokens:
        longest = max(reversed(texts), key=len)
        longest.pop()
    return texts


@given(first=LENGTHS, second=LENGTHS, max_tokens=st.integers(0, 30))
def test_truncation_is_longest_first(first, second, max_tokens):
    pair = [list(range(first)), list(range(100, 100 + second))]
    assert encode.truncate(pair, max_tokens) == truncate_one_by_one(pair, max_tokens)
    assert encode.truncate(pair[:1], max_tokens) == [pair[0][:max_tokens]]


@pytest.fixture(scope="module")
def backend():
    backend = tokenizers.Tokenizer.from_file(str(find_backbone("minilm-l6") / "tokenizer.json"))
    backend.no_padding()
    backend.no_truncation()
    return backend


BERT = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
)
# RoBERTa has two separators between the texts; XLNet its special tokens at the end.
ROBERTA = processors.RobertaProcessing(("[SEP]", 102), ("[CLS]", 101), add_prefix_space=False)
XLNET = processors.TemplateProcessing(
    single="$A [SEP] [CLS]:2",
    pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2",
    special_tokens=[("[CLS]", 101), ("[SEP]", 102)],
)


@pytest.mark.parametrize("processor", [BERT, ROBERTA, XLNET], ids=["bert", "roberta", "xlnet"])
def test_a_template_wraps_as_the_library_does(backend, processor):
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    copy.post_processor = processor
    templates = encode.find_templates(copy)
    texts = ("play some jazz", "stop it now please")
    for count, template in enumerate(templates, start=1):
        expected = copy.encode(*texts[:count])
        bare = [copy.encode(text, add_special_tokens=False).ids for text in texts[:count]]
        assert template.wrap(*bare) == (expected.ids, expected.type_ids)
        assert template.num_special_tokens == len(expected.ids) - sum(map(len, bare))


def test_a_tokenizer_without_vocabulary_has_no_template():
    assert encode.find_templates(tokenizers.Tokenizer(tokenizers.models.BPE())) is None


def test_convert_errors_converts_a_rust_panic_but_not_ctrl_c(backend):
    broken = json.loads(backend.to_str())
    broken["post_processor"]["special_tokens"] = {}
    broken = tokenizers.Tokenizer.from_str(json.dumps(broken))

    def make_error(error):
        return ValueError(f"seen: {error}")

    with pytest.raises(ValueError, match="seen: no entry found"), encode.convert_errors(make_error):
        broken.encode("a")
    with pytest.raises(KeyboardInterrupt), encode.convert_errors(make_error):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("\x00\x07", "\x00\x07"),
        ("\ud83d\ude00", "\U0001f600"),
        ("a\ud83db", "a\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\U0001f600\ud800", "\U0001f600\ufffd"),
    ],
)
def test_surrogates_are_joined_or_replaced(text, safe):
    assert encode.safe_text(text) == safe


@given(st.text(st.characters(exclude_categories=())))
def test_a_safe_text_can_be_encoded(text):
    safe = encode.safe_text(text)
    assert safe.encode() is not None
    assert encode.safe_text(safe) == safe


def test_batches_are_padded_at_the_end():
    batch = engines.collate([([5, 6, 7], [0, 0, 1]), ([8], [0])], 4, {"pad_token_id": 9})
    assert list(batch) == ["input_ids", "token_type_ids", "attention_mask"]
    np.testing.assert_array_equal(batch["input_ids"], [[5, 6, 7, 9], [8, 9, 9, 9]])
    np.testing.assert_array_equal(batch["token_type_ids"], [[0, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(batch["attention_mask"], [[1, 1, 1, 0], [1, 0, 0, 0]])
    assert {array.dtype for array in batch.values()} == {np.dtype("int64")}


def write(folder, description):
    """Write `bundle.json` with a valid checksum."""
    content = {**description, "checksum": hash_json(description)}
    (folder / "bundle.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def bundle(tmp_path):
    """A minimal bundle for `read_bundle`: one file and its checksum."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"weights")
    entry = {"bytes": 7, "sha256": hash_file(folder / "model.bin")}
    numbers = {"format_version": 1, "max_seq_length": 16, "vocab_size": 30522, "pad_token_id": 0}
    words = {"format": "paddle", "precision": "fp32", "task": {}, "labels": [], "pair": False, "subnet": "full"}
    write(folder, {**numbers, **words, "files": {"model.bin": entry}})
    return folder


def assert_refused(folder, part):
    with pytest.raises(manifest.BundleError) as caught:
        manifest.read_bundle(folder)
    message = str(caught.value)
    assert part in message
    assert "\n" not in message


def test_a_valid_bundle_is_read(bundle):
    description = manifest.read_bundle(bundle)
    assert description["format"] == "paddle"
    assert "checksum" not in description


UNKNOWN = tokenizers.models.WordPiece({"a": 0}, unk_token="[UNK]")


@pytest.mark.parametrize(("model", "seen"), [(tokenizers.models.BPE(), "has no letter"), (UNKNOWN, r"Missing \[UNK\]")])
def test_a_tokenizer_that_cannot_encode_is_named(bundle, model, seen):
    tokenizers.Tokenizer(model).save(str(bundle / "tokenizer.json"))
    with pytest.raises(manifest.BundleError, match=rf"tokenizer\.json: tokenizers .* cannot use it: .*{seen}"):
        infer.Bundle(bundle)


def test_a_moved_bundle_with_an_added_file_is_valid(bundle, tmp_path):
    moved = shutil.move(bundle, tmp_path / "moved")
    (moved / "notes.txt").write_text("mine")
    assert manifest.read_bundle(moved)["format_version"] == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"[1]", b"1", b"null", b'"text"', b"{}", b"\xff\xfe", bytes(50), b"[" * 100_000]
)
def test_damaged_bundle_json_is_refused(bundle, content):
    (bundle / "bundle.json").write_bytes(content)
    assert_refused(bundle, "bundle.json: damaged: copy the bundle again, or export it again")


FILES = {
    "a number": 3,
    "a list": ["model.bin"],
    "null": None,
    "a file that is a number": {"model.bin": 3},
    "a file that is null": {"model.bin": None},
    "a file without a size": {"model.bin": {}},
    "a path outside": {"../model.bin": {"bytes": 7, "sha256": ""}},
    "an absolute path": {"/etc/hostname": {"bytes": 7, "sha256": ""}},
    "a path below": {"sub/model.bin": {"bytes": 7, "sha256": ""}},
    "the folder": {"..": {"bytes": 7, "sha256": ""}},
    "no name": {"": {"bytes": 7, "sha256": ""}},
    "a name that is too long": {"x" * 5000: {"bytes": 7, "sha256": ""}},
}


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_invalid_lists_of_files_are_refused(bundle, files):
    """Even with a valid checksum."""
    write(bundle, {"format_version": 1, "format": "paddle", "files": files})
    assert_refused(bundle, str(bundle))


def member(*, parameters):
    return {"members": [{"subnet": "w1.00d1.00", "graph": "model.bin", "parameters": parameters}]}


ANSWERS = {"doc_stride": 128, "max_answer_length": 30, "may_be_empty": False}
INVALID = {
    "no sub-network": {"members": []},
    "no name": {"subnet": None},
    "no parameters": member(parameters=None),
    "parameters without shapes": member(parameters=[0, 1]),
    "parameters of words": member(parameters=[["a", [1]]]),
    "sizes of words": member(parameters=[[0, ["a"]]]),
    "negative sizes": member(parameters=[[0, [-1]]]),
    "too many dimensions": member(parameters=[[0, [1] * 9]]),
    "negative padding token": {"pad_token_id": -1},
    "padding token outside of the vocabulary": {"pad_token_id": 30522},
    "too large vocabulary": {"vocab_size": 10**30},
    "questions without contexts": {"task": {"kind": "question_answering"}, "answers": ANSWERS},
    "no settings of answers": {"task": {"kind": "question_answering"}, "pair": True},
    "an unknown split of words": {"task": {"kind": "token_classification", "word_split": "lines"}},
    "a split of words that is no text": {"task": {"kind": "token_classification", "word_split": ["words"]}},
    "an unknown scheme of labels": {"task": {"kind": "token_classification", "label_scheme": "BIO"}},
    "a scheme of labels that is no text": {"task": {"kind": "token_classification", "label_scheme": ["IOB2"]}},
    "an unknown way to decode": {"task": {"kind": "token_classification", "decode": "greedy"}},
    "a stride of words that is no number": {"task": {"kind": "token_classification", "doc_stride": "8"}},
    "a stride of words of zero": {"task": {"kind": "token_classification", "doc_stride": 0}},
    "a stride of zero": {
        "task": {"kind": "question_answering"},
        "pair": True,
        "answers": {**ANSWERS, "doc_stride": 0},
    },
}


@pytest.mark.parametrize("values", INVALID.values(), ids=INVALID)
def test_invalid_values_are_refused(bundle, values):
    """Even with a valid checksum."""
    write(bundle, {**manifest.read_bundle(bundle), **values})
    with pytest.raises(manifest.BundleError, match=r"bundle\.json: (damaged: copy|\w+ is -?\d+, allowed are) [^\n]+$"):
        manifest.read_bundle(bundle)


@pytest.mark.parametrize(
    "values",
    [
        member(parameters=[[0, [3, 4]], [1, []]]),
        {"task": {"kind": "question_answering"}, "pair": True, "answers": ANSWERS},
        {"task": {"kind": "token_classification", "word_split": "characters"}},
        {"task": {"kind": "token_classification", "label_scheme": "IOB2", "decode": "constrained", "doc_stride": 8}},
    ],
)
def test_valid_values_are_accepted(bundle, values):
    write(bundle, {**manifest.read_bundle(bundle), **values})
    assert manifest.read_bundle(bundle).items() >= values.items()


def test_a_bundle_without_files_is_refused(bundle):
    write(bundle, {"format_version": 1, "format": "paddle"})
    assert_refused(bundle, "bundle.json: damaged")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_format_versions_are_refused(bundle, version):
    write(bundle, {"format_version": version, "files": {}})
    assert_refused(bundle, "bundle.json: not format version 1: written by another version of dynabert_paddle")


def test_an_edited_value_is_refused(bundle):
    path = bundle / "bundle.json"
    path.write_text(path.read_text().replace('"paddle"', '"onnx"'))
    assert_refused(bundle, "bundle.json: altered since the export")


def test_a_missing_bundle_or_a_file_in_its_place_is_refused(bundle):
    assert_refused(bundle / "model.bin", f"model.bin is a file: name the folder of a bundle, {bundle}")
    assert_refused(bundle / "missing", "no such folder: name one that 'dynabert export' created")


def test_a_folder_in_place_of_a_file_is_refused(bundle):
    (bundle / "model.bin").unlink()
    (bundle / "model.bin").mkdir()
    assert_refused(bundle, "model.bin: missing")


@pytest.mark.parametrize("format", ["paddle", "pir", "openvino", "onnx"])
@pytest.mark.parametrize("device", ["", "cuda", "GPU", "gpu:", "gpu:x", "gpu:-1", "cpu:0", "npu"])
def test_unknown_devices_are_refused(tmp_path, format, device):
    with pytest.raises(manifest.BundleError, match=f"device '{device}' is not one of cpu, gpu, gpu:N"):
        engines.open_engine(tmp_path, {"format": format, "precision": "fp32"}, device=device)


def test_quiet_in_two_threads_restores_the_output():
    before, (entered, both, left) = os.fstat(1), (threading.Event() for _ in range(3))

    def enter_first():
        with streams.quiet():
            entered.set()
            both.wait(0.2)
        left.set()

    def enter_later():
        entered.wait(60)
        with streams.quiet():
            both.set()
            left.wait(60)

    threads = [threading.Thread(target=work) for work in (enter_first, enter_later)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert os.path.samestat(os.fstat(1), before)


def test_quiet_without_stdout():
    code = "import os, sys; from dynabert_paddle.runtime.streams import quiet; os.close(1); sys.stdout = None"
    command = [sys.executable, "-c", f"{code}\nwith quiet(): os.write(2, b'hidden')\nos.write(2, b'shown')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "shown")


@pytest.mark.parametrize("num_threads", [0, -1])
def test_num_threads_below_1_is_refused(tmp_path, num_threads):
    with pytest.raises(manifest.BundleError, match=f"num_threads is at least 1, not {num_threads}"):
        engines.open_engine(tmp_path, {"format": "paddle", "precision": "fp32"}, num_threads=num_threads)


def test_a_lite_bundle_names_its_own_script(tmp_path):
    with pytest.raises(manifest.BundleError, match=r"a Paddle Lite bundle: run it with 'python .*infer_lite\.py'"):
        engines.open_engine(tmp_path, {"format": "lite", "precision": "fp32"})


@pytest.mark.parametrize(
    "words", [[], ["text", "-i", "file"], ["--json"], ["--num_threads", "x", "text"], ["--num_threads", "0", "a"]]
)
def test_wrong_flags_exit_2(words):
    with pytest.raises(SystemExit) as caught:
        infer.main(words)
    assert caught.value.code == 2


def test_the_script_outside_of_a_bundle(capsys):
    """Such as the copy in the package."""
    assert infer.main(["text"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "no bundle.json in it" in err


@pytest.mark.parametrize(("given", "threads"), [(None, 3), ("", 3), ("0", 3), ("2", 2), ("4,1", 4)])
def test_a_valid_omp_num_threads_of_the_user_is_kept(monkeypatch, given, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert engines._set_process_threads(3) == threads
    assert int(os.environ["OMP_NUM_THREADS"][0]) == threads


@pytest.mark.parametrize("script", [(engines, infer), (infer_lite,)])
def test_modules_of_a_script_define_no_name_twice(script):
    """They are joined to one file, where a second definition would replace the first."""
    defined = []
    for module in (manifest, decode, encode, rows, *script):
        for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            defined += [getattr(target, "id", getattr(target, "name", None)) for target in targets]
    names = [name for name in defined if name]
    assert len(names) > 30
    assert len(set(names)) == len(names)


def test_a_single_output_is_a_value(backend):
    """Earlier exports named it as the only class, of probability 1."""
    description = {"task": {}, "labels": ["LABEL_0"], "pair": False, "max_seq_length": 16}
    encoder = rows.RowEncoder(description, encode.find_templates(backend)[0])
    assert (encoder.kind, encoder.labels) == ("regression", [])
    encoded = encoder.encode(rows.Row(["a"], None), [leading.Tokens([5], [(0, 1)])])
    prediction = encoded.decode([np.array([-2.5], dtype=np.float32)], "w1.00d1.00")
    assert (prediction.label, prediction.score, prediction.cells) == (None, -2.5, ["-2.5000"])
