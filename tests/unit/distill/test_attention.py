"""Attention scores, and what TinyBERT makes of them, against Paddle's own attention and NumPy."""

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert
from paddle import nn

from dynabert_paddle.distill.attention import attention_loss, attention_scores, block_ends
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.extract import extract
from dynabert_paddle.supernet.supernet import Supernet, to_tensors


@pytest.mark.parametrize("normalize_before", [False, True])
def test_the_scores_are_those_whose_softmax_paddles_attention_takes(normalize_before):
    paddle.seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 20, dropout=0.0, normalize_before=normalize_before)
    layer.norm1.weight.set_value(paddle.rand([12]) + 0.5)
    layer.self_attn.need_weights = True
    hidden = paddle.randn([2, 5, 12])
    _, weights = layer.self_attn(*[layer.norm1(hidden) if normalize_before else hidden] * 3)
    scores = attention_scores(layer, hidden)
    assert scores.shape == [2, 3, 5, 5]
    np.testing.assert_allclose(nn.functional.softmax(scores).numpy(), weights.numpy(), atol=1e-6)
    # A softmax forgets a row's level: the scores themselves are QK^T / sqrt(e).
    x = (layer.norm1(hidden) if normalize_before else hidden).numpy()
    q, k = (
        (x @ part.weight.numpy() + part.bias.numpy()).reshape([2, 5, 3, 4])
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    np.testing.assert_allclose(scores.numpy(), np.einsum("bqhe,bkhe->bhqk", q, k) / 2, atol=1e-5)


def test_an_extracted_layer_has_the_scores_of_its_heads():
    supernet = Supernet(make_bert(vocab_size=1500))
    supernet.eval()
    small = extract(supernet, supernet.search_space().subnet(width_mult=0.5))
    batch = to_tensors({name: value for name, value in make_batch(vocab_size=1500).items() if name != "labels"})
    hidden = supernet(**batch).hidden_states[1]
    full, half = (attention_scores(model.encoder.layers[1], hidden).numpy() for model in (supernet, small))
    assert half.shape[1] == 2
    np.testing.assert_allclose(half, full[:, :2], atol=1e-5)


def test_only_pairs_of_tokens_are_compared():
    rng = np.random.default_rng(0)
    mask = (np.arange(5) < np.array([[5], [2]])).astype("int64")
    student, teacher = (
        [paddle.to_tensor(rng.normal(0, 2, (2, 3, 5, 5)).astype("float32")) for _ in range(2)] for _ in range(2)
    )
    expected = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        squares = (ours.numpy().astype("float64") - theirs.numpy()) ** 2
        expected += np.concatenate([squares[0].ravel(), squares[1, :, :2, :2].ravel()]).mean()
    assert float(attention_loss(student, teacher, paddle.to_tensor(mask))) == pytest.approx(expected, rel=1e-5)


def test_each_layer_is_averaged_over_its_own_heads():
    """The mean squared errors are 1 and 4, whatever the number of heads."""
    teacher = [paddle.zeros([2, heads, 3, 3]) for heads in (4, 1)]
    student = [paddle.ones([2, 4, 3, 3]), paddle.full([2, 1, 3, 3], 2.0)]
    assert float(attention_loss(student, teacher, paddle.ones([2, 3], dtype="int64"))) == pytest.approx(5)


@pytest.mark.parametrize(
    ("num_layers", "depth_mult", "ends"),
    [
        (6, 0.5, (1, 3, 5)),
        (12, 0.5, (1, 3, 5, 7, 9, 11)),
        (12, 0.75, (0, 1, 3, 4, 5, 7, 8, 9, 11)),
        (4, 1.0, (0, 1, 2, 3)),
    ],
)
def test_a_layer_learns_from_the_end_of_its_block(num_layers, depth_mult, ends):
    space = SearchSpace((4,) * num_layers, (8,) * num_layers, 16, 4)
    assert block_ends(space.subnet(depth_mult=depth_mult), num_layers) == ends


def test_any_layers_make_blocks():
    assert block_ends(Subnet((1, 4), (4, 4), (8, 8)), 6) == (3, 5)
