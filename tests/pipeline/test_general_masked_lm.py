"""A backbone that predicts masked words keeps its head, and its sub-networks learn DistilBERT's full loss."""

import itertools
import json

import numpy as np
import paddle
import pytest
from conftest import SNIPS, save_masked_lm
from paddlenlp.transformers import BertConfig, BertForMaskedLM

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.raw_texts import open_raw_texts
from dynabert_paddle.distill.masked_lm import masked_word_loss
from dynabert_paddle.files.metadata import read_metadata
from dynabert_paddle.supernet.supernet import Supernet, load_model, to_tensors
from dynabert_paddle.training.masked_lm import load_masked_lm
from dynabert_paddle.training.masking import Masking
from dynabert_paddle.training.text_stream import TextStream

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    rows = (SNIPS / "train.tsv").read_text(encoding="utf-8").splitlines()[1:201]
    file.write_text("".join(row.split("\t")[0] + "\n" for row in rows), encoding="utf-8")
    return file


def batches_of(text_file, tokenizer, count):
    with open_raw_texts(text_file, holdout_size=10, seed=42, key="") as texts:
        stream = TextStream(texts, tokenizer, 16, Masking.of(tokenizer, 30522, 0.3))
        epochs = (stream.batches(8, seed=1, epoch=epoch) for epoch in itertools.count())
        for batch in itertools.islice(itertools.chain.from_iterable(epochs), count):
            yield to_tensors(stream.collate(batch, 0))


def word_loss(supernet, subnet, batches):
    """The cross-entropy of masked words."""
    supernet.eval()
    losses = []
    with paddle.no_grad():
        for batch in batches:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            losses.append(float(masked_word_loss(supernet(subnet, **inputs).logits, batch["labels"])))
    return float(np.mean(losses))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, text_file):
    """A small masked LM that was trained here: it has learned which words are frequent, and some contexts."""
    paddle.seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 4}
    model = BertForMaskedLM(BertConfig(max_position_embeddings=128, **sizes))
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    supernet = Supernet(model, tokenizer)
    optimizer = paddle.optimizer.AdamW(1e-2, parameters=model.parameters())
    supernet.train()
    for batch in batches_of(text_file, tokenizer, 30):
        labels = batch.pop("labels")
        masked_word_loss(supernet(**batch).logits, labels).backward()
        optimizer.step()
        optimizer.clear_grad()
    return save_masked_lm(tmp_path_factory.mktemp("models") / "backbone", model, tokenizer)


@pytest.fixture(scope="module")
def run(backbone, text_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    words = ["stages=[rewire, general]", "task.max_seq_length=16", "general.max_steps=40", "general.learning_rate=2e-3"]
    words += ["train.per_device_train_batch_size=8", "train.holdout_size=10", "general.logging_steps=3"]
    words += ["space.width_mult_list=[1.0, 0.5]", "space.depth_mult_list=[1.0, 0.5]"]
    flags = {"model_name_or_path": str(backbone), "general.text_file": str(text_file), "output_dir": str(out)}
    db.run(db.load_config(None, words, flags))
    return out


def test_the_head_is_kept_and_sub_networks_learn_masked_words(run, backbone, text_file):
    before, after = (load_model(run / name) for name in ("rewire", "general"))
    assert type(before.model).__name__ == type(after.model).__name__ == "BertForMaskedLM"
    batches = list(batches_of(text_file, after.tokenizer, 4))
    original = Supernet(load_masked_lm(backbone), after.tokenizer)
    assert word_loss(original, None, batches) == pytest.approx(word_loss(before, None, batches), rel=1e-4)
    lines = [json.loads(line) for line in (run / "general" / "train.jsonl").read_text().splitlines()]
    names = {name.rpartition("/")[2] for line in lines for name in line}
    assert {"logit", "mlm", "cosine", "hidden", "relation"} <= names
    word_losses = [line["train/mlm"] for line in lines if "train/mlm" in line]  # over all sub-networks
    assert word_losses[-1] < 0.95 * word_losses[0]


def test_a_small_model_keeps_the_head_until_it_gets_a_task(run, tiny_data, tmp_path):
    supernet = load_model(run / "general")
    small = db.extract(supernet, supernet.search_space(depth_mults=(0.5,), width_mults=(0.5,)).grid()["w0.50d0.50"])
    small.save_pretrained(tmp_path / "small")
    assert type(load_model(tmp_path / "small").model).__name__ == "BertForMaskedLM"
    task = db.load_task("snips", data_dir=tiny_data)
    config = db.FinetuneConfig(max_steps=1, learning_rate=0.0)
    db.finetune(tmp_path / "small", task, output_dir=tmp_path / "task", config=config, max_seq_length=16)
    metadata = read_metadata(tmp_path / "task")
    assert (metadata.stage, metadata.task["kind"], len(metadata.heads)) == ("finetune", "classification", 2)
    assert type(load_model(tmp_path / "task").model).__name__ == "BertForSequenceClassification"


def test_ranks_of_a_tied_embedding_are_refused(backbone, text_file, tmp_path):
    words = ["stages=[rewire, general]", "space.embedding_rank_mult_list=[1.0, 0.5]"]
    flags = {
        "model_name_or_path": str(backbone),
        "general.text_file": str(text_file),
        "output_dir": str(tmp_path / "o"),
    }
    with pytest.raises(db.DynabertError, match="is tied to the head that predicts masked words, and has no ranks"):
        db.run(db.load_config(None, words, flags))
