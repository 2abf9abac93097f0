"""The model that the methods are tried on, and its logits."""

import paddle
from conftest import make_batch, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.supernet.supernet import to_tensors


def make_supernet():
    """A small random BERT with a real tokenizer."""
    model = db.Supernet(make_bert(), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))
    model.metadata = model.metadata.replace(task={"max_seq_length": 16})
    return model


def inputs():
    """A batch as tensors, without labels."""
    return to_tensors({name: value for name, value in make_batch().items() if name != "labels"})


def logits(model, subnet=None):
    """A model's logits for that batch, or those of one of its sub-networks."""
    model.eval()
    with paddle.no_grad():
        return model(subnet, **inputs()).logits.numpy()
