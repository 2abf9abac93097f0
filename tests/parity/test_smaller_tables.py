"""Every backbone family with fewer rows of its embeddings computes what it did, bit for bit."""

import numpy as np
import paddle
import pytest
import zoo

from dynabert_paddle.backbone.structure import num_positions
from dynabert_paddle.compressing.vocabulary import keep_positions, keep_rows

FAMILIES = [
    f"{name}ForSequenceClassification"
    for name in (
        "Bert",
        "Roberta",
        "Ernie",
        "ErnieM",
        "ErnieGram",
        "Electra",
        "DistilBert",
        "TinyBert",
        "PPMiniLM",
        "Skep",
    )
]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_logits_are_the_same_bit_for_bit(name, tmp_path):
    model = zoo.build(name, tmp_path)
    inputs = zoo.make_inputs(model)
    pad = model.config.pad_token_id
    kept = np.unique([pad, *inputs["input_ids"].numpy().ravel()])
    assert len(kept) < zoo.VOCAB
    before = model(**inputs)
    keep_rows(model, kept.tolist())
    small = {**inputs, "input_ids": paddle.to_tensor(np.searchsorted(kept, inputs["input_ids"].numpy()))}
    np.testing.assert_array_equal(model(**small).numpy(), before.numpy())
    keep_positions(model, 12)  # the largest position id is 10
    np.testing.assert_array_equal(model(**small).numpy(), before.numpy())
    assert model.config.vocab_size == len(kept)
    assert kept[model.config.pad_token_id] == pad
    assert num_positions(model.config) == 12
