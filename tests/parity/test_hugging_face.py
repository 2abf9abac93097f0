"""Hugging Face's folders of four architectures against their published definitions, written in NumPy.

Weights are made here under Hugging Face's names, in its layout `[outputs, inputs]`. Shapes: b batch, s sequence,
d hidden size, e embedding size, f FFN neurons.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf
from torch_file import write_torch

import dynabert_paddle as db
from dynabert_paddle.config.settings import TaskConfig
from dynabert_paddle.data.described_tasks import load_task_config
from dynabert_paddle.supernet.supernet import to_tensors
from dynabert_paddle.training.evaluate import evaluate_grid

LAYERS, HIDDEN, HEADS, NEURONS, VOCAB, POSITIONS, LABELS = 3, 32, 4, 48, 60, 40, 3
BERT_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}
DISTILBERT_PARTS = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "out": "attention.out_lin",
    "norm1": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm2": "output_layer_norm",
}
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "torch_dtype": "float32",
    "transformers_version": "4.40.0",
    "position_embedding_type": "absolute",
    "use_cache": True,
}
DISTILBERT_CONFIG = {
    "activation": "gelu",
    "attention_dropout": 0.1,
    "dim": HIDDEN,
    "dropout": 0.1,
    "hidden_dim": NEURONS,
    "max_position_embeddings": POSITIONS,
    "n_heads": HEADS,
    "n_layers": LAYERS,
    "pad_token_id": 0,
    "qa_dropout": 0.1,
    "seq_classif_dropout": 0.2,
    "sinusoidal_pos_embds": False,
    "tie_weights_": True,
    "vocab_size": VOCAB,
}
CONFIGS = {
    "bert": SIZES,
    "roberta": SIZES | {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0},
    "electra": SIZES | {"embedding_size": 16, "summary_activation": "gelu", "summary_type": "first"},
    "distilbert": DISTILBERT_CONFIG,
}
CLASSES = {"bert": "Bert", "roberta": "Roberta", "electra": "Electra", "distilbert": "DistilBert"}
# Linear layers of each head, in their order, and what stands between them; BERT's first one is its pooler.
HEAD_PARTS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "electra": ("classifier.dense", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "classifier"),
}


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


ACTIVATIONS = {"bert": np.tanh, "roberta": np.tanh, "electra": gelu, "distilbert": lambda x: np.maximum(x, 0)}


def parts_of(kind):
    if kind == "distilbert":
        return "distilbert.transformer.layer", DISTILBERT_PARTS
    return f"{kind}.encoder.layer", BERT_PARTS


def make_weights(kind, seed=0):
    rng, weights = np.random.default_rng(seed), {}
    width = CONFIGS[kind].get("embedding_size", HIDDEN)

    def embedding(name, rows):
        weights[f"{kind}.embeddings.{name}.weight"] = rng.normal(0, 0.4, (rows, width))

    def linear(name, inputs, outputs):
        weights[f"{name}.weight"] = rng.normal(0, 0.3, (outputs, inputs))
        weights[f"{name}.bias"] = rng.normal(0, 0.2, outputs)

    def norm(name, size):
        weights[f"{name}.weight"] = rng.normal(1, 0.2, size)
        weights[f"{name}.bias"] = rng.normal(0, 0.2, size)

    embedding("word_embeddings", VOCAB)
    embedding("position_embeddings", POSITIONS)
    if kind != "distilbert":
        embedding("token_type_embeddings", CONFIGS[kind]["type_vocab_size"])
    norm(f"{kind}.embeddings.LayerNorm", width)
    if width != HIDDEN:
        linear(f"{kind}.embeddings_project", width, HIDDEN)
    stack, parts = parts_of(kind)
    sizes = {"up": (HIDDEN, NEURONS), "down": (NEURONS, HIDDEN)}
    for layer in range(LAYERS):
        for part, name in parts.items():
            if part.startswith("norm"):
                norm(f"{stack}.{layer}.{name}", HIDDEN)
            else:
                linear(f"{stack}.{layer}.{name}", *sizes.get(part, (HIDDEN, HIDDEN)))
    first, last = HEAD_PARTS[kind]
    linear(first, HIDDEN, HIDDEN)
    linear(last, HIDDEN, LABELS)
    return {name: value.astype("float32") for name, value in weights.items()}


def make_batch(kind):
    rng = np.random.default_rng(1)
    mask = (np.arange(9) < np.array([[9], [4], [6]])).astype("int64")
    ids = np.where(mask, rng.integers(2, VOCAB, mask.shape), CONFIGS[kind]["pad_token_id"])
    return {"input_ids": ids, "token_type_ids": (np.arange(9) >= 3) * mask, "attention_mask": mask}


def run_numpy(weights, kind, batch):
    """Last hidden states `[b, s, d]` and logits `[b, c]`, in double precision."""
    epsilon = CONFIGS[kind].get("layer_norm_eps", 1e-12)
    ids, mask = batch["input_ids"], batch["attention_mask"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].astype("float64").T + weights[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def table(name):
        return weights[f"{kind}.embeddings.{name}.weight"].astype("float64")

    positions = np.arange(ids.shape[1])
    if kind == "roberta":  # counted from the one after the padding's own
        positions = CONFIGS[kind]["pad_token_id"] + np.cumsum(mask, axis=1) * mask
    x = table("word_embeddings")[ids] + table("position_embeddings")[positions]
    if kind != "distilbert":
        x = x + table("token_type_embeddings")[batch["token_type_ids"] if kind != "roberta" else 0 * ids]
    x = norm(x, f"{kind}.embeddings.LayerNorm")
    if kind == "electra":
        x = linear(x, "electra.embeddings_project")

    def split(x):
        return x.reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    stack, parts = parts_of(kind)
    for layer in range(LAYERS):
        name = {part: f"{stack}.{layer}.{inner}" for part, inner in parts.items()}
        q, k, v = (split(linear(x, name[part])) for part in ("query", "key", "value"))
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(HIDDEN / HEADS) + np.where(mask, 0, -np.inf)[:, None, None]
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        context = shares / shares.sum(-1, keepdims=True) @ v
        x = norm(x + linear(context.transpose(0, 2, 1, 3).reshape(x.shape), name["out"]), name["norm1"])
        x = norm(x + linear(gelu(linear(x, name["up"])), name["down"]), name["norm2"])
    first, last = HEAD_PARTS[kind]
    return x, linear(ACTIVATIONS[kind](linear(x[:, 0], first)), last)


def write_folder(folder, kind, weights, *, config, file="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if kind == "roberta":
        words = ["<s>", "<pad>", "</s>", "<unk>", "a", "b", "<mask>"]
        (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
    else:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    if file == "model.safetensors":
        save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, folder / file)
    else:
        write_torch(folder / file, weights)
    return folder


def full_config(kind, architecture, **changes):
    labels = {str(index): f"LABEL_{index}" for index in range(LABELS)}
    names = {"model_type": kind, "architectures": [CLASSES[kind] + architecture]}
    return {**CONFIGS[kind], **names, "id2label": labels, "label2id": {v: int(k) for k, v in labels.items()}, **changes}


def load(folder):
    supernet = db.Supernet.from_pretrained(folder)
    supernet.eval()
    return supernet


# Single precision through three layers, against double; RoBERTa's epsilon alone is worth more than 1e-4.
TOLERANCE = {"rtol": 0, "atol": 2e-5}


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_sequence_classifier_equals_its_definition(tmp_path, kind, file):
    weights = make_weights(kind)
    config = full_config(kind, "ForSequenceClassification")
    supernet = load(write_folder(tmp_path / kind, kind, weights, config=config, file=file))
    hidden, logits = run_numpy(weights, kind, make_batch(kind))
    output = supernet(**to_tensors(make_batch(kind)))
    np.testing.assert_allclose(output.logits.numpy(), logits, **TOLERANCE)
    keep = make_batch(kind)["attention_mask"].astype(bool)  # what stands at padding is nobody's business
    np.testing.assert_allclose(output.hidden_states[-1].numpy()[keep], hidden[keep], **TOLERANCE)
    assert type(supernet.model).__name__ == f"{CLASSES[kind]}ForSequenceClassification"


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_rows_of_a_classifier_follow_the_names_of_its_labels(tmp_path, kind):
    names = {"0": "pos", "1": "neg", "2": "neutral"}
    config = full_config(
        kind, "ForSequenceClassification", id2label=names, label2id={v: int(k) for k, v in names.items()}
    )
    folder = write_folder(tmp_path / kind, kind, make_weights(kind), config=config)
    inputs = to_tensors(make_batch(kind))
    expected = load(folder)(**inputs).logits.numpy()
    supernet = db.Supernet.from_pretrained(folder, labels=("neg", "neutral", "pos"), num_labels=3)
    supernet.eval()
    np.testing.assert_array_equal(supernet(**inputs).logits.numpy(), expected[:, [1, 2, 0]])
    assert supernet.labels == ("neg", "neutral", "pos")
    other = db.Supernet.from_pretrained(folder, labels=("neg", "pos", "positive"), num_labels=3)
    assert np.abs(other(**inputs).logits.numpy()[:, 1] - expected[:, 0]).min() > 1e-3


@pytest.mark.parametrize("prefix", ["", "with"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_of_a_base_model_the_encoder_is_used_and_the_head_is_new(tmp_path, kind, prefix, caplog):
    weights = make_weights(kind)
    heads = tuple(name for name in weights if not name.startswith(f"{kind}."))
    base = {name if prefix else name.removeprefix(f"{kind}."): weights[name] for name in weights if name not in heads}
    base["cls.predictions.bias"] = np.zeros(VOCAB, "float32")  # of pre-training
    architecture = "ForMaskedLM" if prefix else "Model"
    with caplog.at_level("DEBUG", logger="dynabert_paddle"):
        supernet = load(write_folder(tmp_path / kind, kind, base, config=full_config(kind, architecture)))
    states = supernet(**to_tensors(make_batch(kind))).hidden_states[-1].numpy()
    keep = make_batch(kind)["attention_mask"].astype(bool)
    np.testing.assert_allclose(states[keep], run_numpy(weights, kind, make_batch(kind))[0][keep], **TOLERANCE)
    fresh = next(record.getMessage() for record in caplog.records if "new weights for" in record.getMessage())
    assert all(name in fresh for name in heads)
    assert ".encoder." not in fresh


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_answering_head_has_its_place(tmp_path, kind):
    """Hugging Face calls it qa_outputs: starts, then ends."""
    weights = make_weights(kind)
    rng = np.random.default_rng(2)
    weights = {name: value for name, value in weights.items() if name.startswith(f"{kind}.")}
    weights["qa_outputs.weight"] = rng.normal(0, 0.3, (2, HIDDEN)).astype("float32")
    weights["qa_outputs.bias"] = rng.normal(0, 0.3, 2).astype("float32")
    config = full_config(kind, "ForQuestionAnswering")
    supernet = load(write_folder(tmp_path / kind, kind, weights, config=config))
    hidden, _ = run_numpy(make_weights(kind), kind, make_batch(kind))
    logits = hidden @ weights["qa_outputs.weight"].T + weights["qa_outputs.bias"]  # [b, s, 2]
    keep = make_batch(kind)["attention_mask"].astype(bool)
    found = supernet(**to_tensors(make_batch(kind))).logits.numpy()
    np.testing.assert_allclose(found.transpose(0, 2, 1)[keep], logits[keep], **TOLERANCE)


def test_distilberts_dropout_has_its_rates(tmp_path):
    config = full_config("distilbert", "ForSequenceClassification", dropout=0.11, attention_dropout=0.12)
    model = load(write_folder(tmp_path / "d", "distilbert", make_weights("distilbert"), config=config)).model
    layer = model.distilbert.encoder.layers[0]
    rates = (layer.dropout1.p, layer.self_attn.dropout, model.distilbert.embeddings.dropout.p, model.dropout.p)
    assert rates == (0.11, 0.12, 0.11, 0.2)


# What transformers 2.1 wrote for a fine-tuned model, with what the DynaBERT authors' script sets.
CONFIG_OF_2019 = {
    "attention_probs_dropout_prob": 0.1,
    "finetuning_task": "sst-2",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": NEURONS,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_labels": LABELS,
    "output_attentions": True,
    "output_hidden_states": True,
    "output_intermediate": True,
    "pruned_heads": {},
    "torchscript": False,
    "use_bfloat16": False,
    "vocab_size": VOCAB,
}
SIZES_OF_2019 = {
    "bert": {"layer_norm_eps": 1e-12, "type_vocab_size": 2},
    "roberta": {"layer_norm_eps": 1e-5, "type_vocab_size": 1},  # and no pad_token_id
}


@pytest.mark.parametrize("old_norms", [False, True])
@pytest.mark.parametrize("kind", SIZES_OF_2019)
def test_a_folder_of_dynaberts_authors_is_a_supernet(tmp_path, kind, old_norms):
    """Its config names neither the architecture nor the model type: the weights' names do."""
    weights = make_weights(kind)
    old = {}
    for name, value in weights.items():
        if old_norms:
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old[name] = value
    config = CONFIG_OF_2019 | SIZES_OF_2019[kind]
    folder = write_folder(tmp_path / "authors", kind, old, config=config, file="pytorch_model.bin")
    supernet, batch = load(folder), to_tensors(make_batch(kind))
    np.testing.assert_allclose(
        supernet(**batch).logits.numpy(), run_numpy(weights, kind, make_batch(kind))[1], **TOLERANCE
    )
    grid = supernet.search_space().grid()
    assert len(grid) == 12
    for subnet in grid.values():
        logits = supernet(subnet, **batch).logits.numpy()
        np.testing.assert_allclose(db.extract(supernet, subnet)(**batch).logits.numpy(), logits, rtol=0, atol=1e-6)
    rows = "".join(f"{text}\t{label}\n" for text, label in (("good", "x"), ("bad film", "y"), ("a", "z")) * 4)
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text(f"text\tlabel\n{rows}")
    task = load_task_config(TaskConfig(name="custom", data_dir=str(tmp_path), metrics=("accuracy",)))
    scores = evaluate_grid(supernet, task, supernet.search_space(), max_seq_length=16)
    assert [row["subnet"] for row in scores] == list(grid)
    assert all(row["accuracy"] * 12 % 4 == 0 for row in scores)  # each text is there four times
    again = load(supernet.save_pretrained(tmp_path / "saved"))
    np.testing.assert_array_equal(again(**batch).logits.numpy(), supernet(**batch).logits.numpy())


def test_weights_that_name_no_architecture_either_are_refused(tmp_path):
    weights = {f"own.{name}": value for name, value in make_weights("bert").items()}
    folder = write_folder(tmp_path / "own", "bert", weights, config=CONFIG_OF_2019)
    with pytest.raises(db.DynabertError, match="names no architecture and no model_type"):
        db.Supernet.from_pretrained(folder)
