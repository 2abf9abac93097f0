"""Scores of sub-networks, and the table of a grid."""

import numpy as np
import paddle
import pytest
from conftest import make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.data.features import Features
from dynabert_paddle.errors import UsageError
from dynabert_paddle.supernet.supernet import Supernet
from dynabert_paddle.training.evaluate import (
    evaluate_grid,
    evaluate_named,
    evaluate_subnets,
    predict_logits,
    trained_space,
)
from dynabert_paddle.training.inputs import tokenize_examples


@pytest.fixture(scope="module")
def supernet():
    """With dropout, which an evaluation must not use."""
    return Supernet(make_bert(), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))


@pytest.fixture(scope="module")
def features(task, supernet):
    return tokenize_examples(task.dev, supernet, max_seq_length=32)


def alone(supernet, features, index, subnet):
    """Logits of one example, unpadded and unbatched."""
    row = {name: paddle.to_tensor(value) for name, value in features.collate(np.array([index]), 0).items()}
    row.pop("labels")
    supernet.eval()
    with paddle.no_grad():
        return supernet(subnet, **row).logits.numpy()[0]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_logits_are_each_examples_own_in_the_examples_order(supernet, features, batch_size):
    grid = supernet.search_space().grid()
    subnets = [grid["w1.00d1.00"], grid["w0.25d0.50"]]
    logits = predict_logits(supernet, features, subnets, batch_size=batch_size)
    assert len(set(features.lengths)) > 5  # or the order of the batches would be the examples'
    for subnet, rows in zip(subnets, logits, strict=True):
        expected = np.stack([alone(supernet, features, index, subnet) for index in range(len(features))])
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_leaves_the_mode_as_it_was_and_draws_no_dropout(supernet, features, training):
    supernet.train() if training else supernet.eval()
    first, second = (predict_logits(supernet, features, [supernet.full])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert supernet.training is supernet.model.training is training


def test_examples_need_no_labels_for_their_logits(supernet, features):
    bare = Features(features.input_ids, features.token_type_ids, features.offsets, None)
    expected = predict_logits(supernet, features, [supernet.full])[0]
    np.testing.assert_array_equal(predict_logits(supernet, bare, [supernet.full])[0], expected)


def test_scores_belong_to_their_sub_networks(supernet, features):
    grid = supernet.search_space().grid()
    # Labelled with what one sub-network predicts, the data is solved by that one alone.
    winner = predict_logits(supernet, features, [grid["w0.50d0.75"]])[0].argmax(axis=1)
    labelled = Features(features.input_ids, features.token_type_ids, features.offsets, winner)
    scores = evaluate_subnets(supernet, labelled, grid, metrics=("accuracy", "macro_f1"))
    assert list(scores) == list(grid)
    assert {name for name, row in scores.items() if row["accuracy"] == 1.0} == {"w0.50d0.75"}
    assert scores["w0.50d0.75"] == {"accuracy": 1.0, "macro_f1": 1.0}


def test_a_grid_has_every_cell_with_its_metrics_and_costs(supernet, task, features):
    space = supernet.search_space(width_mults=(1.0, 0.5), depth_mults=(1.0, 0.5))
    rows = evaluate_grid(supernet, task, space, max_seq_length=32)
    assert [row["subnet"] for row in rows] == ["w1.00d1.00", "w0.50d1.00", "w1.00d0.50", "w0.50d0.50"]
    expected = evaluate_subnets(supernet, features, space.grid(), metrics=task.metrics)
    for row in rows:
        assert {name: row[name] for name in task.metrics} == expected[row["subnet"]]
        small = db.extract(supernet, space.parse(row["subnet"]))
        sizes = {name: parameter.size for name, parameter in small.model.named_parameters()}
        assert row["params"] == sum(sizes.values())
        outside = sum(size for name, size in sizes.items() if ".embeddings." not in name)
        assert row["params_without_embeddings"] == outside
    # One layer at 128 tokens and hidden size 32: 4 projections, 2 of the FFN, and the two products of attention.
    layer = 128 * (4 * 32 * 32 + 2 * 32 * 48) + 2 * 128 * 128 * 32
    half = 128 * (4 * 32 * 16 + 2 * 32 * 24) + 2 * 128 * 128 * 16
    assert [row["macs"] for row in rows] == [4 * layer, 4 * half, 2 * layer, 2 * half]


def test_the_default_grid_is_the_trained_one(supernet, task):
    whole = Supernet(supernet.model, supernet.tokenizer)
    assert list(trained_space(whole).grid()) == ["w1.00d1.00"]
    whole.metadata = whole.metadata.replace(space={"width_mults": [1.0, 0.5], "depth_mults": [1.0]})
    assert [row["subnet"] for row in evaluate_grid(whole, task)] == ["w1.00d1.00", "w0.50d1.00"]


def test_named_sub_networks_may_lie_outside_of_the_grid(supernet, task):
    names = ["w0.75d0.50", "l0h1f7-l3h4f48"]
    rows = evaluate_named(supernet, task, names)
    assert [row["subnet"] for row in rows] == names
    assert rows[1]["macs"] < rows[0]["macs"]


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("half", "'half' is no subnet: write a grid cell such as 'w0.50d0.75'"),
        ("w0.5", "'w0.5' is no subnet"),
        ("", "'' is no subnet"),
        ("w2.00d1.00", r"width multiplier lies in \(0, 1\], not 2.0"),
        ("w0.00d1.00", r"width multiplier lies in \(0, 1\], not 0.0"),
        ("w0.10d1.00", "width_mult 0.1 leaves no head of 4: use at least 0.125"),
        ("l9h1f1", "keeps layer 9; this supernet has layers 0 to 3"),
        ("l0h5f1", "wants 5 heads and 1 neurons of layer 0, which has 4 and 48"),
        ("l1h1f1-l0h1f1", "ascending"),
        ("l0h0f1", "at least one head"),
    ],
)
def test_unknown_sub_networks_are_refused_before_anything_runs(supernet, task, name, seen):
    with pytest.raises(UsageError, match=seen):
        evaluate_named(supernet, task, ["w1.00d1.00", name])


def test_text_needs_a_tokenizer_and_positions(supernet, task):
    with pytest.raises(UsageError, match="needs its tokenizer"):
        evaluate_grid(Supernet(supernet.model), task)
    with pytest.raises(UsageError, match="max_seq_length is 129, more than the model's 128 positions"):
        evaluate_grid(supernet, task, max_seq_length=129)
