"""The elastic word embedding: its rank slice, the model cut from it, and the folders of both."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import paddle
import pytest
from conftest import backward, make_batch, make_bert
from test_supernet import random_subnets

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.compressing.vocabulary import keep_rows
from dynabert_paddle.config.settings import FinalConfig, WidthConfig
from dynabert_paddle.distill.losses import DistillationLoss, token_rows
from dynabert_paddle.errors import ModelError, UsageError
from dynabert_paddle.files.metadata import write_metadata
from dynabert_paddle.files.search_result import hash_weights
from dynabert_paddle.rewiring.components import principal_components, sort_embedding
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.elastic_embedding import elastic_embedding, make_embedding_elastic
from dynabert_paddle.supernet.supernet import to_tensors
from dynabert_paddle.training.batches import Shard
from dynabert_paddle.training.label_loss import label_loss
from dynabert_paddle.training.replicas import Replicas
from dynabert_paddle.training.steps import distillation_step, label_step
from dynabert_paddle.training.subnet_choice import choose_subnets

VOCAB, SIZE = 30522, 32
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Some dozen products of values of about 1, each rounded at 6e-8, in another order.
SAME = {"rtol": 0, "atol": 2e-6}


def make_elastic(**config):
    """A supernet whose matrices are no longer each other's inverse, as after training."""
    supernet = db.Supernet(
        make_bert(vocab_size=VOCAB, **config), db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    )
    sort_embedding(supernet, [make_batch(vocab_size=VOCAB, seed=seed) for seed in range(3)])
    rng = np.random.default_rng(1)
    for matrix in elastic_embedding(supernet.model).matrices:
        noise = rng.normal(0, 0.1, matrix.shape).astype("float32")
        matrix.set_value(matrix + paddle.to_tensor(noise))
    return supernet


def tensors(**options):
    return to_tensors(make_batch(vocab_size=VOCAB, **options))


@pytest.fixture(scope="module")
def supernet():
    model = make_elastic()
    model.eval()
    return model


@pytest.fixture
def batch():
    inputs = tensors()
    del inputs["labels"]
    return inputs


def logits(model, batch, subnet=None):
    return model(subnet, **batch).logits.numpy()


def test_components_are_the_eigenvectors_of_the_weighted_table():
    """NumPy's singular values of the scaled table are the reference; the explained variance is in order."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(90, 8)).astype("float32") * np.arange(1, 9, dtype="float32")
    weights = rng.integers(1, 50, 90)
    components = principal_components(table, weights)
    np.testing.assert_allclose(components @ components.T, np.eye(8), atol=1e-12)
    _, sizes, directions = np.linalg.svd(np.sqrt(weights)[:, None] * table.astype("float64"), full_matrices=False)
    np.testing.assert_allclose(np.abs(components @ directions.T), np.eye(8), atol=1e-8)
    energies = (((table.astype("float64") @ components.T) ** 2) * weights[:, None]).sum(axis=0)
    np.testing.assert_allclose(energies, sizes**2, rtol=1e-9)


def test_making_the_embedding_elastic_leaves_the_whole_model_bit_for_bit_and_its_product_to_rounding(batch):
    supernet = db.Supernet(make_bert(vocab_size=VOCAB))
    supernet.eval()
    before = logits(supernet, batch)
    sort_embedding(supernet, [make_batch(vocab_size=VOCAB)])
    np.testing.assert_array_equal(logits(supernet, batch), before)
    embedding = elastic_embedding(supernet.model)
    product = embedding.weight @ embedding.down @ embedding.up
    np.testing.assert_allclose(product.numpy(), embedding.weight.numpy(), atol=1e-5)
    almost = replace(supernet.full, embedding_rank=SIZE - 1)
    assert 1e-4 < np.abs(logits(supernet, batch, almost) - before).max() < 10


def test_tokens_that_occur_often_are_approximated_best():
    supernet = db.Supernet(make_bert(vocab_size=1500))
    batches = [make_batch(vocab_size=1020, seq_length=60, seed=seed) for seed in range(20)]
    sort_embedding(supernet, batches)
    embedding = elastic_embedding(supernet.model)
    approximated = embedding.weight @ embedding.down[:, :16] @ embedding.up[:16]
    errors = ((approximated - embedding.weight) ** 2).sum(axis=1).numpy()
    assert errors[1000:1020].mean() < 0.5 * errors[1020:].mean()


@pytest.mark.parametrize("rank", [1, 5, 16, 31, SIZE, None])
def test_an_extracted_rank_is_the_slice_also_when_saved_and_has_its_exact_size(supernet, batch, tmp_path, rank):
    space = supernet.search_space()
    for index, subnet in enumerate([supernet.full, *random_subnets(3, space, seed=rank or 0)]):
        subnet = replace(subnet, embedding_rank=rank)
        expected = logits(supernet, batch, subnet)
        small = db.extract(supernet, subnet)
        np.testing.assert_allclose(logits(small, batch), expected, **SAME)
        parameters = dict(small.model.named_parameters())
        assert space.num_params(subnet) == sum(parameter.size for parameter in parameters.values())
        own = small.search_space(width_mults=[1.0], depth_mults=[1.0])
        assert own.num_params(small.full) == space.num_params(subnet)
        assert own.num_macs(small.full) == space.num_macs(subnet)
        columns = SIZE if rank is None else rank
        assert parameters["bert.embeddings.word_embeddings.weight"].shape == [VOCAB, columns]
        again = db.Supernet.from_pretrained(small.save_pretrained(tmp_path / str(index)))
        again.eval()
        np.testing.assert_array_equal(logits(again, batch), logits(small, batch))
        assert (again.full, again.max_rank) == (small.full, None if columns == SIZE else rank)


def test_a_part_of_a_part_is_the_part(supernet, batch):
    small = db.extract(supernet, replace(supernet.full, embedding_rank=20))
    part = Subnet((1, 3), (2, 4), (7, 48), 9)
    expected = logits(supernet, batch, part)
    np.testing.assert_allclose(logits(small, batch, part), expected, **SAME)
    np.testing.assert_allclose(logits(db.extract(small, part), batch), expected, **SAME)
    assert small.search_space().name(small.full) == "w1.00d1.00"
    assert small.search_space().parse("w1.00d1.00r0.25").embedding_rank == 5
    with pytest.raises(UsageError, match="wants rank 21 of the embedding, which has 20"):
        small(replace(small.full, embedding_rank=21), **batch)


def test_neighbouring_ranks_differ(supernet, batch):
    outputs = [logits(supernet, batch, replace(supernet.full, embedding_rank=rank)) for rank in range(1, SIZE)]
    assert min(np.abs(a - b).max() for a, b in pairwise(outputs)) > 1e-4


@pytest.mark.parametrize("rank", [4, None])
def test_a_rank_needs_an_elastic_embedding(batch, rank):
    stock = db.Supernet(make_bert(vocab_size=VOCAB))
    subnet = replace(stock.full, embedding_rank=rank)
    if rank is None:
        assert stock(subnet, **batch).logits.shape == [5, 7]
        return
    for call in (lambda: stock(subnet, **batch), lambda: db.extract(stock, subnet)):
        with pytest.raises(UsageError, match="this model's embedding is not elastic: leave the rank out"):
            call()


def test_a_supernets_folder_is_the_stock_model_and_its_matrices_lie_apart(supernet, batch, tmp_path):
    folder = supernet.save_pretrained(tmp_path / "supernet")
    again = db.Supernet.from_pretrained(folder)
    again.eval()
    subnet = Subnet((0, 2), (3, 1), (40, 9), 7)
    np.testing.assert_array_equal(logits(again, batch, subnet), logits(supernet, batch, subnet))
    from paddlenlp.transformers import BertForSequenceClassification

    stock = BertForSequenceClassification.from_pretrained(str(folder))
    stock.eval()
    stored = {name: value for name, value in to_arrays(supernet.model).items() if not name.endswith((".up", ".down"))}
    assert stored.keys() == to_arrays(stock).keys()
    for name, value in to_arrays(stock).items():
        np.testing.assert_array_equal(value, stored[name], err_msg=name)


def test_stock_paddlenlp_finds_no_weights_of_a_small_model_with_a_rank(supernet, tmp_path):
    from paddlenlp.transformers import BertForSequenceClassification

    folder = db.extract(supernet, replace(supernet.full, embedding_rank=8)).save_pretrained(tmp_path / "small")
    assert (folder / "dynabert.safetensors").is_file()
    with pytest.raises(Exception):  # noqa: B017 - of PaddleNLP's own, it differs between versions
        BertForSequenceClassification.from_pretrained(str(folder))


def test_saving_over_a_model_of_another_kind_leaves_none_of_its_weights(supernet, batch, tmp_path):
    small = db.extract(supernet, replace(supernet.full, embedding_rank=8))
    plain = db.extract(supernet, supernet.full)
    hashes = set()
    for model in (plain, supernet, small, supernet, plain):
        folder = model.save_pretrained(tmp_path / "model")
        again = db.Supernet.from_pretrained(folder)
        again.eval()
        np.testing.assert_array_equal(logits(again, batch), logits(model, batch))
        assert again.max_rank == model.max_rank
        hashes.add(hash_weights(folder))
    assert len(hashes) == 3


@pytest.mark.parametrize("rank", [0, 33, 400])
def test_a_folder_with_an_impossible_rank_is_damaged(supernet, tmp_path, rank):
    folder = db.extract(supernet, replace(supernet.full, embedding_rank=8)).save_pretrained(tmp_path / "small")
    (folder / "dynabert.json").unlink()
    write_metadata(folder, supernet.metadata.replace(embedding_rank=rank))
    with pytest.raises(ModelError, match=f"embedding_rank is {rank}, and config.json describes an embedding of 32"):
        db.Supernet.from_pretrained(folder)


def test_rewiring_a_small_model_with_ranks_again_is_refused(supernet):
    small = db.extract(supernet, replace(supernet.full, embedding_rank=8))
    with pytest.raises(UsageError, match="has 8 components of its word embedding left, already in their order"):
        sort_embedding(small, [make_batch(vocab_size=VOCAB)])


def rank_grid(supernet):
    return supernet.search_space(width_mults=[1, 0.5], depth_mults=[1, 0.5], rank_mults=[1, 0.5, 0.25]).grid()


def test_a_step_trains_each_cell_once_with_a_rank_that_follows_from_seed_and_step(supernet):
    grid = rank_grid(supernet)
    steps = [choose_subnets(grid, WidthConfig(), step) for step in range(60)]
    assert steps == [choose_subnets(grid, WidthConfig(), step) for step in range(60)]
    for chosen in steps:
        assert [replace(subnet, embedding_rank=None) for subnet in chosen] == [
            subnet for subnet in grid.values() if subnet.embedding_rank is None
        ]
        assert (chosen[0].embedding_rank, chosen[-1].embedding_rank) == (None, 8)
    assert {subnet.embedding_rank for chosen in steps for subnet in chosen[1:-1]} == {None, 16, 8}
    sandwich = WidthConfig(subnets_per_step="sandwich", num_random_subnets=1)
    assert {len(choose_subnets(grid, sandwich, step)) for step in range(20)} == {3}
    single = dict(list(grid.items())[:3])
    assert choose_subnets(single, WidthConfig(), 0) == [grid["w1.00d1.00"], grid["w1.00d1.00r0.25"]]


def gradients(model):
    return {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(actual, expected):
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=max(1e-6, 2e-5 * scale), err_msg=name)


def test_a_step_sums_the_gradients_of_its_sub_networks_also_those_of_the_shared_table():
    """The reference runs each sub-network alone, and takes all gradients with `paddle.grad`."""
    supernet, teacher = make_elastic(**NO_DROPOUT), make_elastic(seed=3, **NO_DROPOUT)
    grid = rank_grid(supernet)
    inputs = tensors()
    del inputs["labels"]
    step = distillation_step(teacher, grid, WidthConfig(), kind="classification")
    backward(step(supernet, Shard(inputs), index=2))
    reference = make_elastic(**NO_DROPOUT)
    loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=WidthConfig().lambda_hidden)
    with paddle.no_grad():
        target = teacher(**inputs)
    rows, parameters = token_rows(inputs["attention_mask"]), dict(reference.model.named_parameters())
    total = sum(
        loss(reference(subnet, **inputs), target, subnet, rows=rows)["loss"]
        for subnet in choose_subnets(grid, WidthConfig(), 2)
    )
    found = paddle.grad(total, list(parameters.values()), allow_unused=True)
    expected = {name: g.numpy() for name, g in zip(parameters, found, strict=True) if g is not None}
    assert_same_gradients(gradients(supernet.model), expected)
    for name in ("weight", "up", "down"):
        assert np.abs(expected[f"bert.embeddings.word_embeddings.{name}"]).max() > 1e-5


def test_a_small_model_with_a_rank_trains_all_of_its_ranks():
    small = db.extract(make_elastic(**NO_DROPOUT), Subnet((0, 2, 3), (4, 4, 4), (48, 48, 48), 16))
    small.train()
    reference = db.extract(small, small.full)
    grid = small.search_space(width_mults=[1, 0.5], depth_mults=[1], rank_mults=[1, 0.5]).grid()
    assert [subnet.embedding_rank for subnet in grid.values()] == [None, 8, None, 8]
    batch = tensors()
    labels = batch.pop("labels")
    backward(label_step(grid, FinalConfig())(small, Shard(dict(batch), labels), index=0))
    for subnet in choose_subnets(grid, FinalConfig(), 0):
        label_loss(reference(subnet, **batch).logits, labels).backward()
    assert_same_gradients(gradients(small.model), gradients(reference.model))


def test_the_ranks_of_a_step_share_one_dropout():
    supernet = make_elastic(hidden_dropout_prob=0.5)
    supernet.train()
    batch = tensors()
    del batch["labels"]
    subnets = [replace(supernet.full, embedding_rank=rank) for rank in (None, 16, 4)]
    embeddings = [embedding.numpy() for embedding in supernet.embed_ranks(subnets, **batch).values()]
    dropped = [embedding == 0 for embedding in embeddings]
    assert 0.4 < dropped[0].mean() < 0.6
    np.testing.assert_array_equal(dropped[0], dropped[1])
    np.testing.assert_array_equal(dropped[0], dropped[2])
    assert np.abs(embeddings[0] - embeddings[2]).max() > 0.01
    again = supernet.embed_ranks(subnets, **batch)[None].numpy() == 0
    assert (again != dropped[0]).any()


def test_replicas_share_the_matrices_and_add_up_their_gradients():
    supernet = make_elastic(**NO_DROPOUT)
    rank = replace(supernet.full, embedding_rank=8)
    batch = tensors()
    labels = batch.pop("labels")
    label_loss(supernet(rank, **batch).logits, labels).backward()
    expected = {name: 2 * gradient for name, gradient in gradients(supernet.model).items()}
    supernet.clear_gradients()
    with Replicas(supernet, 2) as replicas:
        replicas.map(lambda replica, number: label_loss(replica(rank, **batch).logits, labels).backward())
        replicas.sum_gradients([None, None])
    assert_same_gradients(gradients(supernet.model), expected)


def test_a_table_has_one_row_for_each_token_of_another_basis_too(batch):
    """An elastic embedding that is made again gets other components, and the whole model stays."""
    supernet = db.Supernet(make_bert(vocab_size=VOCAB))
    supernet.eval()
    before = logits(supernet, batch)
    for seed in (0, 1):
        basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))
        make_embedding_elastic(supernet.model, basis)
        np.testing.assert_array_equal(logits(supernet, batch), before)
        np.testing.assert_allclose(elastic_embedding(supernet.model).up.numpy(), basis, atol=1e-6)


@pytest.mark.parametrize("rank", [None, 8])
def test_fewer_pieces_keep_the_components(supernet, batch, rank):
    """The rows of some ids alone, in another order, with the same logits bit for bit."""
    kept = np.concatenate([[0], np.unique(batch["input_ids"].numpy())[:0:-1], [17, 29]])
    ids = paddle.to_tensor(np.argsort(kept)[np.searchsorted(np.sort(kept), batch["input_ids"].numpy())])
    subnet = replace(supernet.full, embedding_rank=rank)
    for model in (db.extract(supernet, subnet), supernet):
        own = None if model is not supernet else subnet
        fewer = deepcopy(model.model)
        keep_rows(fewer, kept.tolist())
        cut = db.Supernet(fewer)
        cut.eval()
        found = logits(cut, {**batch, "input_ids": ids}, own)
        np.testing.assert_array_equal(found, logits(model, batch, own))
        space = cut.search_space()
        assert space.vocab_size == len(kept)
        small = db.extract(cut, subnet if own else cut.full)
        assert space.num_params(own or cut.full) == sum(parameter.size for parameter in small.model.parameters())
