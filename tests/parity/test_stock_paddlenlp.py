"""A supernet's full model against plain PaddleNLP, folders of either library, and Paddle's classes left alone."""

import json
import re
import subprocess
import sys

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert
from paddlenlp.transformers import BertForSequenceClassification
from safetensors.numpy import load_file, save_file
from torch_file import write_torch

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import build_model, find_backbone, load_weights
from dynabert_paddle.backbone.structure import find_encoder
from dynabert_paddle.errors import ModelError

MINILM = find_backbone("minilm-l6")
TINY = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "vocab_size": 60,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "max_position_embeddings": 16,
    "use_cache": True,  # as Hugging Face writes it
}
# PaddleNLP's name of a part of a layer -> Hugging Face's.
LAYER_NAMES = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}


@pytest.fixture
def tokenizer():
    return db.Tokenizer.from_pretrained(MINILM)


def tensors(**options):
    return {name: paddle.to_tensor(value) for name, value in make_batch(**options).items() if name != "labels"}


def stock_outputs(model, inputs):
    model.eval()
    output = model(**inputs, output_hidden_states=True, return_dict=True)
    return output.logits.numpy(), [state.numpy() for state in output.hidden_states]


def assert_same_outputs(supernet, inputs, logits, hidden_states):
    supernet.eval()
    for output in (supernet(**inputs), supernet(supernet.full, **inputs)):
        np.testing.assert_array_equal(output.logits.numpy(), logits)
        assert len(output.hidden_states) == len(hidden_states)
        for state, expected in zip(output.hidden_states, hidden_states, strict=True):
            np.testing.assert_array_equal(state.numpy(), expected)


@pytest.mark.parametrize("options", [{}, {"hidden_act": "relu", "num_layers": 1, "num_labels": 1}])
@pytest.mark.parametrize("leave_out", [(), ("token_type_ids",), ("attention_mask",)])
def test_the_full_subnet_equals_the_stock_model_bit_for_bit(options, leave_out):
    model = make_bert(**options)
    inputs = {name: value for name, value in tensors().items() if name not in leave_out}
    logits, hidden_states = stock_outputs(model, inputs)
    assert_same_outputs(db.Supernet(model), inputs, logits, hidden_states)


def test_the_wrapped_model_has_the_stock_models_outputs(batch):
    model = make_bert()
    logits, hidden_states = stock_outputs(model, batch)
    db.Supernet(model)
    np.testing.assert_array_equal(model(**batch).numpy(), logits)
    wrapped_logits, wrapped_states = stock_outputs(model, batch)
    np.testing.assert_array_equal(wrapped_logits, logits)
    for state, expected in zip(wrapped_states, hidden_states, strict=True):
        np.testing.assert_array_equal(state, expected)


def test_training_with_dropout_equals_the_stock_model_bit_for_bit(batch):
    stock, supernet = make_bert(), db.Supernet(make_bert())
    labels = paddle.to_tensor(make_batch()["labels"])
    losses = []
    for model, run in ((stock, lambda: stock(**batch)), (supernet, lambda: supernet(**batch).logits)):
        model.train()
        paddle.seed(1)
        losses.append(paddle.nn.functional.cross_entropy(run(), labels))
        losses[-1].backward()
    assert float(losses[0]) == float(losses[1])
    for (name, expected), (_, parameter) in zip(
        stock.named_parameters(), supernet.model.named_parameters(), strict=True
    ):
        if expected.grad is not None:
            np.testing.assert_array_equal(parameter.grad.numpy(), expected.grad.numpy(), err_msg=name)


def test_parameter_names_and_order_are_paddlenlps():
    stock = make_bert()
    names = {name: parameter.shape for name, parameter in stock.named_parameters()}
    state = list(stock.state_dict())
    supernet = db.Supernet(make_bert())
    assert {name: parameter.shape for name, parameter in supernet.model.named_parameters()} == names
    assert list(supernet.model.state_dict()) == state


def test_a_saved_supernet_is_a_plain_paddlenlp_folder(tmp_path, tokenizer, batch):
    model = make_bert()
    logits, hidden_states = stock_outputs(model, batch)
    db.Supernet(model, tokenizer).save_pretrained(tmp_path / "saved")
    plain = BertForSequenceClassification.from_pretrained(str(tmp_path / "saved"))
    assert type(plain.bert.encoder) is paddle.nn.TransformerEncoder
    plain_logits, plain_states = stock_outputs(plain, batch)
    np.testing.assert_array_equal(plain_logits, logits)
    for state, expected in zip(plain_states, hidden_states, strict=True):
        np.testing.assert_array_equal(state, expected)
    assert_same_outputs(db.Supernet.from_pretrained(tmp_path / "saved"), batch, logits, hidden_states)


def test_a_folder_that_paddlenlp_saved_loads(tmp_path, tokenizer, batch):
    model = make_bert()
    logits, hidden_states = stock_outputs(model, batch)
    for safe in (True, False):
        folder = tmp_path / str(safe)
        model.save_pretrained(str(folder), safe_serialization=safe)
        tokenizer.save_pretrained(folder)
        assert (folder / "model_state.pdparams").exists() != safe
        assert_same_outputs(db.Supernet.from_pretrained(folder), batch, logits, hidden_states)


FUNCTIONS = """
import inspect, json, sys
import paddle, paddlenlp.transformers

def functions():
    classes = [value for value in vars(paddle.nn).values() if inspect.isclass(value)]
    found = {}
    for owner in [paddle, paddle.Tensor, paddle.nn, paddle.nn.functional, *classes]:
        for name, value in list(vars(owner).items()):
            if callable(value) or isinstance(value, property):
                code = getattr(value, "__code__", None)
                where = [code.co_filename, code.co_firstlineno] if code else []
                what = [type(value).__name__, getattr(value, "__qualname__", ""), *where]
                found[f"{owner.__name__}.{name}"] = (id(value), what)
    return found

before = functions()
"""
USE_ALL = """
import importlib, pkgutil
import dynabert_paddle
from dynabert_paddle.distill.losses import DistillationLoss
for module in pkgutil.walk_packages(dynabert_paddle.__path__, "dynabert_paddle."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
config = paddlenlp.transformers.BertConfig(
    vocab_size=50, hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=2, use_cache=False
)
supernet = dynabert_paddle.Supernet(paddlenlp.transformers.BertForSequenceClassification(config))
inputs = {"input_ids": paddle.to_tensor([[1, 2, 3]])}
subnet = supernet.search_space().subnet(width_mult=0.5, depth_mult=0.5)
loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=1.0)
loss(supernet(subnet, **inputs), supernet(**inputs), subnet)["loss"].backward()
dynabert_paddle.extract(supernet, subnet)
assert "paddleslim.dygraph.dist.losses" in sys.modules
"""
REPORT = """
after = functions()
changed = [name for name in {*before, *after} if before.get(name, [0])[0] != after.get(name, [0])[0]]
print("REPORT" + json.dumps({"changed": changed, "before": {name: what for name, (_, what) in before.items()}}))
"""


def run_script(*parts):
    result = subprocess.run([sys.executable, "-c", "\n".join(parts)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.partition("REPORT")[2])


def test_using_the_package_leaves_every_paddle_class_as_it_was():
    """PaddleSlim's NLP utilities replace `MultiHeadAttention.forward` for the whole process when they are imported."""
    plain = run_script(FUNCTIONS, "paddle.nn.MultiHeadAttention.forward = lambda self, query: query", REPORT)
    assert plain["changed"] == ["MultiHeadAttention.forward"]  # a patch would be seen
    assert {"TransformerEncoder.forward", "TransformerEncoderLayer.forward", "Layer.__call__"} < set(plain["before"])
    # Importing through the package, and all that it does from then on.
    ours = run_script(
        "from dynabert_paddle.runtime.environment import import_paddle; import_paddle(models_only=True)",
        *(FUNCTIONS, USE_ALL, REPORT),
    )
    assert ours["before"] == plain["before"]
    assert ours["changed"] == []


def to_hugging_face(state, *, prefix="bert.", old_norms=False):
    """Hugging Face's names and layout for PaddleNLP's weights, written by hand."""
    named = {}
    for name, value in state.items():
        part, _, kind = name.removeprefix("bert.").rpartition(".")
        if part.startswith("encoder.layers."):
            _, _, index, inner = part.split(".", 3)
            part = f"encoder.layer.{index}.{LAYER_NAMES[inner]}"
        part = part.replace("embeddings.layer_norm", "embeddings.LayerNorm")
        is_linear = value.ndim == 2 and "embeddings" not in part
        if old_norms and part.endswith("LayerNorm"):
            kind = {"weight": "gamma", "bias": "beta"}[kind]
        outer = "" if part.startswith("classifier") else prefix
        named[f"{outer}{part}.{kind}"] = np.ascontiguousarray(value.T if is_linear else value)
    return named


@pytest.mark.parametrize("old_norms", [False, True])
@pytest.mark.parametrize("prefix", ["bert.", ""])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_hugging_face_folders_load_with_every_way_of_naming(tmp_path, tokenizer, batch, file, prefix, old_norms):
    model = make_bert()
    logits, hidden_states = stock_outputs(model, batch)
    weights = to_hugging_face(
        {name: value.numpy() for name, value in model.state_dict().items()}, prefix=prefix, old_norms=old_norms
    )
    # Buffers and heads of pre-training, which a classifier has no place for.
    weights[f"{prefix}embeddings.position_ids"] = np.arange(128, dtype="float32")[None]
    weights["cls.seq_relationship.weight"] = np.zeros((2, 32), "float32")
    if file == "model.safetensors":
        save_file(weights, tmp_path / file, metadata={"format": "pt"})
    else:
        write_torch(tmp_path / file, weights)
    config = {**TINY, "vocab_size": 30522, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    config |= {
        "num_hidden_layers": 4,
        "max_position_embeddings": 128,
        "architectures": ["BertForSequenceClassification"],
    }
    config |= {"id2label": {str(i): f"LABEL_{i}" for i in range(7)}, "label2id": {f"LABEL_{i}": i for i in range(7)}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer.save_pretrained(tmp_path)
    assert_same_outputs(db.Supernet.from_pretrained(tmp_path), batch, logits, hidden_states)


def listing(folder):
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_the_built_in_hugging_face_folder_loads_and_is_not_written_to():
    before = listing(MINILM)
    supernet = db.Supernet.from_pretrained(MINILM, num_labels=5)
    assert listing(MINILM) == before
    source = load_file(MINILM / "model.safetensors")
    source.pop("embeddings.position_ids", None)
    state = {name: value.numpy() for name, value in supernet.model.state_dict().items()}
    head = {"classifier.weight", "classifier.bias"}
    assert state["classifier.weight"].shape == (384, 5)
    # Some by hand ...
    query = source["encoder.layer.3.attention.self.query.weight"]
    np.testing.assert_array_equal(state["bert.encoder.layers.3.self_attn.q_proj.weight"], query.T)
    assert not np.array_equal(query, query.T)
    np.testing.assert_array_equal(
        state["bert.encoder.layers.5.linear2.weight"], source["encoder.layer.5.output.dense.weight"].T
    )
    np.testing.assert_array_equal(state["bert.embeddings.layer_norm.bias"], source["embeddings.LayerNorm.bias"])
    np.testing.assert_array_equal(
        state["bert.embeddings.word_embeddings.weight"], source["embeddings.word_embeddings.weight"]
    )
    # ... and all by the table above: every tensor of the source has its place.
    mapped = to_hugging_face({name: value for name, value in state.items() if name not in head}, prefix="")
    assert set(mapped) == set(source)
    for name, value in mapped.items():
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    assert supernet.model.bert.encoder.layers[0].norm1._epsilon == 1e-12  # as its config.json says


def folder_of(tmp_path, config=TINY, *, weights=None):
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    if weights is not None:
        save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


def tiny_weights():
    options = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 60}
    model = make_bert(num_layers=2, num_labels=2, **options)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    position = "bert.embeddings.position_embeddings.weight"
    return {**weights, position: weights[position][:16]}


@pytest.mark.parametrize("values", [{}, {"architectures": ["BertModel"]}, {"architectures": ["BertForMaskedLM"]}])
def test_the_architecture_is_found_by_its_name_or_model_type(tmp_path, values):
    model = build_model(folder_of(tmp_path, {**TINY, **values}))
    assert type(model) is BertForSequenceClassification
    assert find_encoder(model) == "bert.encoder"
    config = {name: value for name, value in TINY.items() if name != "architectures"}
    assert type(build_model(folder_of(tmp_path, config))) is BertForSequenceClassification


@pytest.mark.parametrize("architectures", [None, [], [""], [None]])
def test_a_config_that_names_no_architecture_is_known_by_its_model_type(tmp_path, architectures):
    """Hugging Face writes null where a model was saved without an architecture."""
    config = {**TINY, "architectures": architectures}
    assert type(build_model(folder_of(tmp_path, config))) is BertForSequenceClassification


def test_a_model_returns_its_logits_without_a_cache(tmp_path):
    """Before its encoder is elastic, too: a saved supernet's config is one that plain PaddleNLP reads."""
    model = build_model(folder_of(tmp_path))
    assert model(paddle.to_tensor([[1, 2, 3]])).shape == [1, 2]


def test_labels_make_a_classifier_of_their_number(tmp_path):
    folder = folder_of(tmp_path)
    model = build_model(folder, labels=("a", "b", "c"), num_labels=3)
    assert model.classifier.weight.shape == [8, 3]
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert build_model(folder, num_labels=4).classifier.weight.shape == [8, 4]
    assert build_model(folder).classifier.weight.shape == [8, 2]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "not JSON: the file is damaged or cut off"),
        ("", "not JSON: the file is damaged or cut off"),
        ("[" * 100_000, "not JSON: the file is damaged or cut off"),
        ("[]", "holds no JSON object"),
        ("{}", "names no architecture and no model_type, which is not supported; supported: BERT, RoBERTa, ERNIE"),
        ({**TINY, "architectures": ["FooModel"], "model_type": "foo"}, "names architecture 'FooModel', which is not"),
        ({**TINY, "architectures": ["T5Model"], "model_type": "t5"}, "supported: BERT, RoBERTa, ERNIE"),
        ({**TINY, "architectures": ["AlbertModel"], "embedding_size": 8}, "AlbertForSequenceClassification has no enc"),
        ({**TINY, "architectures": ["GPTModel"]}, "supported: BERT, RoBERTa, ERNIE"),
        ({**TINY, "position_embedding_type": "relative_key"}, "is 'relative_key': allowed is absolute"),
        ({**TINY, "hidden_size": 9}, "cannot be built from it: embed_dim must be divisible by num_heads"),
        ({**TINY, "hidden_size": "eight"}, "BertForSequenceClassification cannot be built from it"),
        ({**TINY, "hidden_act": "swoosh"}, "hidden_act is 'swoosh', which Paddle does not have"),
        ({**TINY, "num_hidden_layers": 0}, "has no encoder that can be made elastic; supported: BERT"),
        ({**TINY, "architectures": 3, "model_type": "foo"}, "which is not supported; supported: BERT"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(tmp_path, config, words):
    with pytest.raises(ModelError) as error:
        build_model(folder_of(tmp_path, config))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json: missing: a model folder needs it"):
        build_model(tmp_path)


def test_several_encoders_are_refused(tmp_path):
    class Two(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.first, self.second = (build_model(folder_of(tmp_path)) for _ in range(2))

    with pytest.raises(ModelError, match="Two has 2 encoders that can be made elastic"):
        db.Supernet(Two())


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    weights = tiny_weights()
    folder = folder_of(tmp_path, weights=weights)
    model = build_model(folder)
    assert load_weights(model, folder) == []
    # The head may be a new one, but not a half of it.
    for name in ("bert.encoder.layers.1.linear1.bias", "bert.pooler.dense.bias", "classifier.weight"):
        rest = {other: value for other, value in weights.items() if other != name}
        with pytest.raises(ModelError, match=f"its weights lack '{re.escape(name)}'"):
            load_weights(model, folder_of(tmp_path, weights=rest))


def test_weights_of_another_shape_are_refused(tmp_path):
    weights = tiny_weights()
    weights["bert.encoder.layers.0.linear1.weight"] = np.zeros((8, 13), "float32")
    folder = folder_of(tmp_path, weights=weights)
    words = r"'bert\.encoder\.layers\.0\.linear1\.weight' has shape \[8, 13\] and config\.json asks for \[8, 12\]"
    with pytest.raises(ModelError, match=words):
        load_weights(build_model(folder), folder)


def test_a_missing_or_other_head_stays_new_and_is_named(tmp_path):
    weights = tiny_weights()
    weights["classifier.weight"] = np.zeros((8, 9), "float32")
    for name in ("classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"):
        del weights[name]
    folder = folder_of(tmp_path, weights=weights)
    model = build_model(folder)
    initial = model.classifier.weight.numpy()
    fresh = load_weights(model, folder)
    head = ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight"]
    assert sorted(fresh) == head
    np.testing.assert_array_equal(model.classifier.weight.numpy(), initial)


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent", "minilm-l6/absent"])
def test_a_path_that_is_no_folder_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm-l6").mkdir()
    with pytest.raises(ModelError, match="no such model folder"):
        find_backbone(name)


def test_names_paths_and_hub_names_are_told_apart(tmp_path):
    assert (MINILM / "config.json").is_file()
    assert find_backbone(tmp_path) == find_backbone(str(tmp_path)) == tmp_path
    assert find_backbone("bert-base-uncased") is None
    assert find_backbone("hfl/rbt3") is None
