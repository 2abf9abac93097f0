"""`Supernet` and `extract`: a slice, its extracted model and its saved copy agree, and a call leaves nothing behind."""

import threading

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import backward, make_batch, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone, to_arrays
from dynabert_paddle.config.settings import FinalConfig, WidthConfig
from dynabert_paddle.distill.losses import DistillationLoss, token_rows
from dynabert_paddle.errors import UsageError
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.slices import ELASTIC_AXES
from dynabert_paddle.training.batches import Shard
from dynabert_paddle.training.steps import distillation_step, label_step
from dynabert_paddle.training.subnet_choice import choose_subnets

# Extracted models hold the same numbers as the slices; only the order of summation in a product may differ, and
# each of some dozen products of values of about 1 rounds at 6e-8.
SAME = {"rtol": 0, "atol": 1e-6}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
GRID = sorted(db.SearchSpace((4,) * 4, (48,) * 4, 32, 8).grid())


@pytest.fixture(scope="module")
def supernet():
    model = db.Supernet(make_bert(), db.Tokenizer.from_pretrained(find_backbone("minilm-l6")))
    model.eval()
    return model


def random_subnet(rng, space):
    layers = sorted(rng.choice(space.num_layers, size=rng.integers(1, space.num_layers + 1), replace=False).tolist())
    return Subnet(
        tuple(layers),
        tuple(int(rng.integers(1, space.heads[layer] + 1)) for layer in layers),
        tuple(int(rng.integers(1, space.neurons[layer] + 1)) for layer in layers),
    )


def random_subnets(count, space, *, seed=0):
    rng = np.random.default_rng(seed)
    return [random_subnet(rng, space) for _ in range(count)]


def assert_same_output(output, expected, message=""):
    np.testing.assert_allclose(output.logits.numpy(), expected.logits.numpy(), **SAME, err_msg=message)
    for state, target in zip(output.hidden_states, expected.hidden_states, strict=True):
        np.testing.assert_allclose(state.numpy(), target.numpy(), **SAME, err_msg=message)


def check_extracted(supernet, subnet, batch):
    """The slice, the extracted model, its exact size, and that all of it is copied."""
    space = supernet.search_space()
    small = db.extract(supernet, subnet)
    assert not small.training
    expected = supernet(subnet, **batch)
    assert_same_output(small(**batch), expected, str(subnet))
    assert small.full == Subnet(tuple(range(len(subnet.layers))), subnet.heads, subnet.neurons)
    assert tuple(layer.self_attn.num_heads for layer in small.encoder.layers) == subnet.heads
    assert space.num_params(subnet) == sum(parameter.size for parameter in small.model.parameters())
    embeddings = sum(parameter.size for parameter in small.model.bert.embeddings.parameters())
    assert space.num_params(subnet, embeddings=False) == space.num_params(subnet) - embeddings
    own_space = small.search_space(width_mults=[1.0], depth_mults=[1.0])
    assert own_space.num_params(small.full) == space.num_params(subnet)
    return small


@pytest.mark.parametrize("name", GRID)
def test_an_extracted_grid_cell_is_the_slice(supernet, batch, name):
    check_extracted(supernet, supernet.search_space().parse(name), batch)


@pytest.mark.parametrize("index", range(20))
def test_an_extracted_heterogeneous_subnet_is_the_slice(supernet, batch, index):
    check_extracted(supernet, random_subnets(20, supernet.search_space())[index], batch)


@pytest.mark.full
def test_many_extracted_subnets_are_their_slices_also_when_saved(supernet, batch, tmp_path):
    for index, subnet in enumerate(random_subnets(40, supernet.search_space(), seed=1)):
        small = check_extracted(supernet, subnet, batch)
        again = db.Supernet.from_pretrained(small.save_pretrained(tmp_path / str(index)))
        again.eval()
        assert_same_output(again(**batch), small(**batch), str(subnet))


@pytest.mark.parametrize(
    ("subnet", "part"),
    [
        (Subnet((0, 2, 3), (3, 4, 2), (40, 48, 9)), Subnet((0, 2), (2, 1), (40, 3))),
        (Subnet((1, 2, 3), (2, 2, 3), (48, 20, 30)), Subnet((1,), (2,), (11,))),
        (Subnet((0, 1, 2, 3), (4, 4, 4, 4), (48, 48, 48, 48)), Subnet((1, 2, 3), (3, 4, 1), (7, 48, 1))),
        (Subnet((1, 3), (2, 4), (48, 2)), Subnet((1,), (3,), (1,))),
    ],
)
def test_an_extract_of_an_extract_is_the_slice_of_a_slice(supernet, batch, subnet, part):
    small = db.extract(supernet, subnet)
    logits = small(**batch).logits.numpy()
    smaller = check_extracted(small, part, batch)
    whole = Subnet(tuple(subnet.layers[layer] for layer in part.layers), part.heads, part.neurons)
    assert_same_output(smaller(**batch), supernet(whole, **batch))
    np.testing.assert_array_equal(small(**batch).logits.numpy(), logits)


def test_a_model_of_one_head_a_layer_has_a_search_space_and_subnets(supernet, batch):
    """The default grid has a width of a quarter, which is no head of one; that is no reason to refuse the model."""
    small = db.extract(supernet, Subnet((0, 2), (1, 1), (40, 30)))
    part = small.search_space().parse("l1h1f7")
    assert_same_output(db.extract(small, part)(**batch), supernet(Subnet((2,), (1,), (7,)), **batch))


@pytest.mark.parametrize("subnet", [Subnet((1, 3), (3, 2), (17, 48)), Subnet((0, 1, 2), (4, 4, 4), (48, 48, 48))])
def test_an_extracted_model_is_the_same_when_saved_and_reloaded(supernet, batch, tmp_path, subnet):
    small = db.extract(supernet, subnet)
    again = db.Supernet.from_pretrained(small.save_pretrained(tmp_path / "small"))
    assert again.full == small.full
    again.eval()
    np.testing.assert_array_equal(again(**batch).logits.numpy(), small(**batch).logits.numpy())
    part = Subnet((1,), (1,), (40,))
    np.testing.assert_array_equal(again(part, **batch).logits.numpy(), small(part, **batch).logits.numpy())
    twice = db.Supernet.from_pretrained(db.extract(again, part).save_pretrained(tmp_path / "smaller"))
    twice.eval()
    assert_same_output(twice(**batch), small(part, **batch))


def test_an_extracted_model_is_trainable_and_shares_no_memory_with_its_supernet(supernet):
    subnet = Subnet((0, 2), (2, 3), (5, 48))
    before = to_arrays(supernet.model)
    small = db.extract(supernet, subnet)
    for parameter in small.model.parameters():
        assert not parameter.stop_gradient
        parameter.set_value(parameter + 1.0)
    for name, value in to_arrays(supernet.model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_extraction_leaves_the_random_numbers_of_a_run_as_they_were(supernet):
    draws = []
    for subnet in (None, Subnet((1,), (2,), (7,)), Subnet((0, 1, 2, 3), (4,) * 4, (48,) * 4)):
        paddle.seed(5)
        np.random.seed(5)
        if subnet:
            db.extract(supernet, subnet)
        draws.append([*paddle.rand([4]).tolist(), *np.random.rand(2)])
    assert draws[1] == draws[0]
    assert draws[2] == draws[0]


def test_extraction_leaves_the_supernet_as_it_was(supernet, batch):
    before, full = to_arrays(supernet.model), supernet.full
    config = supernet.model.config.to_dict()
    db.extract(supernet, Subnet((1,), (2,), (7,)))
    assert supernet.full == full
    assert supernet.model.config.to_dict() == config
    for name, value in to_arrays(supernet.model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


@pytest.mark.parametrize("subnet", [Subnet((4,), (1,), (1,)), Subnet((0,), (5,), (1,)), Subnet((0,), (1,), (49,))])
def test_a_subnet_that_the_supernet_lacks_is_not_extracted(supernet, subnet):
    with pytest.raises(
        UsageError, match=r"keeps layer 4|wants \d+ heads and \d+ neurons of layer 0, which has 4 and 48"
    ):
        db.extract(supernet, subnet)


@pytest.mark.parametrize("subnet", [Subnet((4,), (1,), (1,)), Subnet((0,), (5,), (1,)), Subnet((0,), (1,), (49,))])
def test_a_subnet_that_the_supernet_lacks_does_not_run(supernet, batch, subnet):
    """Paddle's own message for it is that of a C++ kernel."""
    with pytest.raises(UsageError):
        supernet(subnet, **batch)


def test_neighbouring_subnets_compute_something_else(supernet, batch):
    """One head, neuron or layer less changes the logits, and so does every step of the grid."""
    full = supernet.full
    neighbours = set(supernet.search_space().grid().values())
    for layer in range(4):
        for what in ("heads", "neurons"):
            counts = list(getattr(full, what))
            counts[layer] -= 1
            neighbours.add(Subnet(**{**vars(full), what: tuple(counts)}))
        kept = tuple(other for other in range(4) if other != layer)
        neighbours.add(Subnet(kept, (4,) * 3, (48,) * 3))
    logits = [supernet(subnet, **batch).logits.numpy() for subnet in neighbours]
    assert len(neighbours) == 12 + 12 - 1  # the grid itself drops the last layer
    for index, one in enumerate(logits):
        for other in logits[index + 1 :]:
            assert np.abs(one - other).max() > 1e-3


def test_hidden_states_are_the_input_of_each_kept_layer_and_the_output(supernet, batch):
    subnet = Subnet((1, 3), (2, 3), (9, 30))
    states = supernet(subnet, **batch).hidden_states
    assert len(states) == 3
    np.testing.assert_array_equal(states[0].numpy(), supernet.embed(**batch).numpy())
    first = supernet(Subnet((1,), (2,), (9,)), **batch).hidden_states
    np.testing.assert_array_equal(states[1].numpy(), first[1].numpy())


def test_inputs_that_the_model_does_not_take_are_left_out(supernet, batch):
    logits = supernet(**batch, labels_of_another_model=paddle.zeros([1])).logits
    np.testing.assert_array_equal(logits.numpy(), supernet(**batch).logits.numpy())


def test_a_given_embedding_stands_in_for_the_models_own(supernet, batch):
    subnet = Subnet((0, 3), (2, 3), (9, 30))
    embedding = supernet.embed(**batch)
    np.testing.assert_array_equal(
        supernet(subnet, embedding=embedding, **batch).logits.numpy(), supernet(subnet, **batch).logits.numpy()
    )
    other = supernet(subnet, embedding=embedding * 2.0, **batch)
    np.testing.assert_array_equal(other.hidden_states[0].numpy(), embedding.numpy() * 2)


def test_logits_alone_are_those_of_the_whole_pass(supernet, batch):
    for subnet in supernet.search_space().grid().values():
        output = supernet(subnet, logits_only=True, **batch)
        np.testing.assert_allclose(output.logits.numpy(), supernet(subnet, **batch).logits.numpy(), rtol=0, atol=1e-6)
        assert output.hidden_states == ()


def test_no_subnet_outlives_its_call(supernet, batch):
    full = supernet(**batch).logits.numpy()
    for subnet in supernet.search_space().grid().values():
        supernet(subnet, **batch)
        supernet.embed(**batch)
        np.testing.assert_array_equal(supernet.model(**batch).numpy(), full)
        np.testing.assert_array_equal(supernet(**batch).logits.numpy(), full)


def test_no_subnet_outlives_a_call_that_fails(supernet, batch):
    full = supernet(**batch).logits.numpy()

    def fail(*_):
        raise RuntimeError("inside the call")

    for layer in (supernet.model.bert.embeddings, supernet.encoder.layers[1].norm1, supernet.model.classifier):
        hook = layer.register_forward_pre_hook(fail)
        try:
            with pytest.raises(RuntimeError, match="inside the call"):
                supernet(Subnet((1,), (1,), (1,)), **batch)
        finally:
            hook.remove()
        np.testing.assert_array_equal(supernet.model(**batch).numpy(), full)


def test_a_call_inside_another_models_call_is_not_mistaken_for_it(supernet, batch):
    """A student's forward pass may run its teacher's: each encoder answers its own call alone."""
    other = db.Supernet(make_bert(seed=1))
    other.eval()
    subnet, expected = Subnet((1,), (1,), (1,)), other(**batch).logits.numpy()
    alone = supernet(subnet, **batch).logits.numpy()
    seen = []
    hook = supernet.model.bert.embeddings.register_forward_post_hook(
        lambda *_: seen.append([other.model(**batch).numpy(), other(**batch).logits.numpy()]) and None
    )
    try:
        np.testing.assert_array_equal(supernet(subnet, **batch).logits.numpy(), alone)
    finally:
        hook.remove()
    np.testing.assert_array_equal(seen[0][0], expected)
    np.testing.assert_array_equal(seen[0][1], expected)


def test_threads_run_their_own_subnets_at_the_same_time(supernet, batch):
    subnets = [Subnet((0, 2), (2, 3), (9, 30)), Subnet((1,), (4,), (48,)), supernet.full]
    expected = [supernet(subnet, **batch).logits.numpy() for subnet in subnets]
    # All threads are inside their calls before any of them reaches the encoder.
    barrier = threading.Barrier(len(subnets), timeout=20)

    def meet(*_):
        barrier.wait()

    hook = supernet.model.bert.embeddings.register_forward_post_hook(meet)
    results = [[] for _ in subnets]

    def work(index):
        for _ in range(5):
            results[index].append(supernet(subnets[index], **batch).logits.numpy())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(subnets))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        hook.remove()
    for logits, own in zip(results, expected, strict=True):
        assert len(logits) == 5
        for one in logits:
            np.testing.assert_array_equal(one, own)


def gradients(model):
    return {
        name: np.zeros(parameter.shape, "float32") if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in model.named_parameters()
    }


def assert_same_gradients(actual, expected):
    """Sums over 12 sub-networks in another order: 1e-5 of the largest gradient of a parameter, 200 roundings."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        # The bias of keys shifts all scores of a query alike: its gradient is what rounding leaves of the weight's.
        scale = np.abs(expected[name.replace("k_proj.bias", "k_proj.weight")]).max()
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=1e-5 * scale + 1e-9, err_msg=name)
    assert np.abs(expected["bert.embeddings.word_embeddings.weight"]).max() > 0


def add_to_slices(totals, supernet, subnet, small):
    """Add an extracted model's gradients where its rows and columns come from, by indices of their own."""
    for name, gradient in gradients(small.model).items():
        where = name
        slices = ()
        if ".encoder.layers." in name:
            head, _, rest = name.partition(".encoder.layers.")
            index, _, inner = rest.partition(".")
            where = f"{head}.encoder.layers.{subnet.layers[int(index)]}.{inner}"
            what, axis = ELASTIC_AXES.get(inner, ("", 0))
            count = {"heads": subnet.heads[int(index)] * 8, "neurons": subnet.neurons[int(index)], "": None}[what]
            slices = (slice(None),) * axis + (slice(0, count),)
        totals[where][slices] += gradient


def test_a_step_over_the_grid_has_the_sum_of_the_extracted_models_gradients():
    supernet = db.Supernet(make_bert(**NO_DROPOUT))
    grid = supernet.search_space().grid()
    batch = {name: paddle.to_tensor(value) for name, value in make_batch().items()}
    step = label_step(grid, FinalConfig())
    labels = batch.pop("labels")
    parts = backward(step(supernet, Shard(batch, labels), index=0))
    totals = {name: np.zeros_like(value) for name, value in to_arrays(supernet.model).items()}
    losses = []
    for subnet in grid.values():
        small = db.extract(supernet, subnet)
        loss = F.cross_entropy(small.model(**batch), labels)
        loss.backward()
        losses.append(float(loss))
        add_to_slices(totals, supernet, subnet, small)
    assert_same_gradients(gradients(supernet.model), totals)
    assert float(parts["loss"]) == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        WidthConfig(lambda_hidden=0.1),
        WidthConfig(lambda_hidden=1.0, include_padding=True, temperature=2.0),
        WidthConfig(subnets_per_step="sandwich"),
    ],
)
def test_a_distillation_step_has_the_sum_of_separate_backward_passes(config):
    supernet, teacher = db.Supernet(make_bert(**NO_DROPOUT)), db.Supernet(make_bert(seed=1))
    grid = supernet.search_space().grid()
    batch = {name: paddle.to_tensor(value) for name, value in make_batch().items()}
    step = distillation_step(teacher, grid, config, kind="classification")
    batch.pop("labels")
    parts = backward(step(supernet, Shard(batch), index=3))
    actual = gradients(supernet.model)
    assert all(parameter.grad is None for parameter in teacher.parameters())

    supernet.clear_gradients()
    weights = {"lambda_logit": config.lambda_logit, "lambda_hidden": config.lambda_hidden}
    loss = DistillationLoss(**weights, temperature=config.temperature)
    rows = None if config.include_padding else token_rows(batch["attention_mask"])
    with paddle.no_grad():
        target = teacher(**batch)
    losses = []
    chosen = choose_subnets(grid, config, 3)
    assert len(chosen) == (4 if config.subnets_per_step == "sandwich" else 12)
    for subnet in chosen:
        value = loss(supernet(subnet, **batch), target, subnet, rows=rows)["loss"]
        value.backward()
        losses.append(float(value))
    assert_same_gradients(actual, gradients(supernet.model))
    assert float(parts["loss"]) == pytest.approx(np.mean(losses), rel=1e-6)
    assert float(parts["loss"]) == pytest.approx(float(parts["logit"]) + float(parts["hidden"]), rel=1e-6)
