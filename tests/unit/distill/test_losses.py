"""The distillation loss against its formulas written in NumPy."""

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert

import dynabert_paddle as db
from dynabert_paddle.distill.losses import DistillationLoss, pick_rows, token_rows
from dynabert_paddle.errors import ModelError
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.supernet import SupernetOutput

BATCH, LENGTH, HIDDEN, CLASSES, LAYERS = 4, 5, 6, 3, 12
SPACE = SearchSpace((4,) * LAYERS, (8,) * LAYERS, HIDDEN, 2)
MASK = (np.arange(LENGTH) < np.array([[5], [3], [1], [4]])).astype("int64")
# Single-precision means of some hundred values.
TOLERANCE = 2e-6


def random_output(rng, num_layers, *, shape=(CLASSES,), hidden=HIDDEN):
    return SupernetOutput(
        paddle.to_tensor(rng.normal(0, 2, (BATCH, *shape)).astype("float32")),
        tuple(
            paddle.to_tensor(rng.normal(0, 1, (BATCH, LENGTH, hidden)).astype("float32")) for _ in range(num_layers + 1)
        ),
    )


def soft_cross_entropy(student, teacher, temperature):
    def log_softmax(x):
        x = x - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    student, teacher = (x.astype("float64") / temperature for x in (student, teacher))
    return -(np.exp(log_softmax(teacher)) * log_softmax(student)).sum(-1).mean() * temperature**2


def mean_squared_errors(student, teacher, kept, weights):
    """Over the hidden states of kept layers' inputs and the last; `weights` says which tokens count."""
    pairs = zip(student.hidden_states, [teacher.hidden_states[i] for i in [*kept, LAYERS]], strict=True)
    squares = [((s.numpy().astype("float64") - t.numpy()) ** 2).mean(-1) for s, t in pairs]
    return sum((value * weights).sum() / weights.sum() for value in squares)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("depth_mult", "kept"),
    [(1.0, range(12)), (0.75, [0, 1, 2, 4, 5, 6, 8, 9, 10]), (0.5, [0, 2, 4, 6, 8, 10])],
)
@pytest.mark.parametrize(("lambda_logit", "lambda_hidden"), [(1.0, 0.1), (0.3, 1.0)])
def test_the_loss_is_the_papers(lambda_logit, lambda_hidden, depth_mult, kept, masked, temperature):
    """Temperature softens the logits, and its square makes up for it; the hidden states know nothing of it."""
    rng = np.random.default_rng(0)
    subnet = SPACE.subnet(width_mult=0.5, depth_mult=depth_mult)
    student, teacher = random_output(rng, len(kept)), random_output(rng, LAYERS)
    loss = DistillationLoss(lambda_logit=lambda_logit, lambda_hidden=lambda_hidden, temperature=temperature)
    rows = token_rows(paddle.to_tensor(MASK)) if masked else None
    parts = {name: float(value) for name, value in loss(student, teacher, subnet, rows=rows).items()}
    logit = lambda_logit * soft_cross_entropy(student.logits.numpy(), teacher.logits.numpy(), temperature)
    hidden = lambda_hidden * mean_squared_errors(student, teacher, kept, MASK if masked else np.ones_like(MASK))
    assert parts["logit"] == pytest.approx(logit, rel=TOLERANCE)
    # Left over where the logits' part is taken off the sum, so its rounding is the sum's.
    assert parts["hidden"] == pytest.approx(hidden, rel=TOLERANCE, abs=TOLERANCE * (logit + hidden))
    assert parts["loss"] == pytest.approx(logit + hidden, rel=TOLERANCE)


@pytest.mark.parametrize("masked", [True, False])
def test_the_labels_of_padding_do_not_count(masked):
    rng = np.random.default_rng(1)
    subnet = SPACE.subnet(depth_mult=0.5)
    student, teacher = (random_output(rng, count, shape=(LENGTH, CLASSES)) for count in (6, LAYERS))
    loss = DistillationLoss(lambda_logit=0.7, lambda_hidden=0.0)
    rows = token_rows(paddle.to_tensor(MASK)) if masked else None
    counted = MASK.astype(bool) if masked else np.ones_like(MASK, dtype=bool)
    expected = 0.7 * soft_cross_entropy(student.logits.numpy()[counted], teacher.logits.numpy()[counted], 1.0)
    assert float(loss(student, teacher, subnet, logit_rows=rows)["loss"]) == pytest.approx(expected, rel=TOLERANCE)


def test_an_answers_ends_are_distributions_over_the_tokens():
    rng = np.random.default_rng(1)
    subnet = SPACE.subnet(depth_mult=0.5)
    student, teacher = (random_output(rng, count, shape=(2, LENGTH)) for count in (6, LAYERS))
    loss = DistillationLoss(lambda_logit=0.7, lambda_hidden=0.0)
    expected = 0.7 * soft_cross_entropy(student.logits.numpy(), teacher.logits.numpy(), 1.0)
    rows = token_rows(paddle.to_tensor(MASK))
    assert float(loss(student, teacher, subnet, rows=rows)["loss"]) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("masked", [True, False])
def test_regression_compares_values(masked):
    rng = np.random.default_rng(1)
    subnet, kept = SPACE.subnet(depth_mult=0.5), [0, 2, 4, 6, 8, 10]
    student, teacher = (random_output(rng, count, shape=(1,)) for count in (6, LAYERS))
    # The temperature of a soft cross-entropy has no meaning here.
    loss = DistillationLoss(lambda_logit=0.7, lambda_hidden=0.2, temperature=3.0, kind="regression")
    rows = token_rows(paddle.to_tensor(MASK)) if masked else None
    parts = loss(student, teacher, subnet, rows=rows)
    logit = 0.7 * ((student.logits.numpy().astype("float64") - teacher.logits.numpy()) ** 2).mean()
    hidden = 0.2 * mean_squared_errors(student, teacher, kept, MASK if masked else np.ones_like(MASK))
    assert float(parts["logit"]) == pytest.approx(logit, rel=TOLERANCE)
    assert float(parts["loss"]) == pytest.approx(logit + hidden, rel=TOLERANCE)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("lambda_hidden", [0.0, 0.2])
def test_several_labels_are_each_a_distribution_over_yes_and_no(lambda_hidden, temperature):
    """T^2 * mean(-p_t log p_s - (1 - p_t) log(1 - p_s)), both probabilities being sigmoids of logits over T."""
    rng = np.random.default_rng(1)
    subnet, kept = SPACE.subnet(depth_mult=0.5), [0, 2, 4, 6, 8, 10]
    student, teacher = (random_output(rng, count, shape=(9,)) for count in (6, LAYERS))
    student.logits.stop_gradient = False
    loss = DistillationLoss(lambda_logit=0.7, lambda_hidden=lambda_hidden, temperature=temperature, kind="multi_label")
    parts = loss(student, teacher, subnet, weights=(0.5, 0.25))
    own, target = (
        1 / (1 + np.exp(-x.numpy().astype("float64") / temperature)) for x in (student.logits, teacher.logits)
    )
    cross_entropy = -(target * np.log(own) + (1 - target) * np.log(1 - own)).mean() * temperature**2
    hidden = lambda_hidden * mean_squared_errors(student, teacher, kept, np.ones_like(MASK))
    assert float(parts["logit"]) == pytest.approx(0.5 * 0.7 * cross_entropy, rel=TOLERANCE)
    assert float(parts["hidden"]) == pytest.approx(0.25 * hidden, rel=TOLERANCE)
    assert float(parts["loss"]) == pytest.approx(0.35 * cross_entropy + 0.25 * hidden, rel=TOLERANCE)
    parts["loss"].backward()
    expected = 0.35 * temperature * (own - target) / own.size
    np.testing.assert_allclose(student.logits.grad.numpy(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("layers", "wanted"), [((0, 1, 2, 3, 4, 5), range(7)), ((0, 1, 2, 4, 5), [0, 1, 2, 4, 5, 6]), ((5,), [5, 6])]
)
def test_each_hidden_state_has_one_teacher_layer(layers, wanted):
    """Hidden states that hold their own number: the loss is 0 where the pairs are right, and only there."""
    numbers = [paddle.full([BATCH, LENGTH, HIDDEN], float(index)) for index in range(7)]
    logits = paddle.zeros([BATCH, CLASSES])
    teacher = SupernetOutput(logits, tuple(numbers))
    subnet = Subnet(layers, (1,) * len(layers), (1,) * len(layers))
    loss = DistillationLoss(lambda_logit=0.0, lambda_hidden=1.0)
    assert float(loss(SupernetOutput(logits, tuple(numbers[i] for i in wanted)), teacher, subnet)["hidden"]) == 0
    for position in range(len(wanted)):
        states = [numbers[i] for i in wanted]
        states[position] = states[position] + 2.0
        assert float(loss(SupernetOutput(logits, tuple(states)), teacher, subnet)["hidden"]) == 4


def test_a_real_subnets_states_are_paired_with_its_own_layers(batch):
    """The full model is its own teacher: the input of the first kept layer and of the one after it are the same."""
    supernet = db.Supernet(make_bert(num_layers=6))
    supernet.eval()
    subnet = supernet.search_space().subnet(depth_mult=0.75)
    assert subnet.layers == (0, 1, 2, 4, 5)
    student, teacher = supernet(subnet, **batch), supernet(**batch)
    parts = DistillationLoss(lambda_logit=0.0, lambda_hidden=1.0)(student, teacher, subnet)
    # Layers 0 to 2 run on what the teacher's do; layer 4 runs on the output of layer 2, the teacher's input to 3.
    pairs = [(teacher.hidden_states[3], 4), (student.hidden_states[4], 5), (student.hidden_states[5], 6)]
    expected = sum(float(((s - teacher.hidden_states[i]) ** 2).mean()) for s, i in pairs)
    assert float(parts["hidden"]) == pytest.approx(expected, rel=TOLERANCE)
    assert expected > 0.1


def test_a_model_that_distils_itself_has_the_entropy_of_its_answers_as_its_loss(batch):
    supernet = db.Supernet(make_bert())
    supernet.eval()
    output = supernet(**batch)
    parts = DistillationLoss(lambda_logit=1.0, lambda_hidden=1.0)(output, output, supernet.full)
    logits = output.logits.numpy()
    assert float(parts["hidden"]) == 0
    assert float(parts["loss"]) == pytest.approx(soft_cross_entropy(logits, logits, 1.0), rel=TOLERANCE)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradients_reach_the_students_logits_and_every_hidden_state(temperature):
    """The gradient of the soft cross-entropy is T * (softmax(s / T) - softmax(t / T)) / b."""
    rng = np.random.default_rng(2)
    student, teacher = random_output(rng, 6), random_output(rng, LAYERS)
    for value in (student.logits, *student.hidden_states):
        value.stop_gradient = False
    loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=0.5, temperature=temperature)
    rows = token_rows(paddle.to_tensor(MASK))
    loss(student, teacher, SPACE.subnet(depth_mult=0.5), rows=rows)["loss"].backward()

    def softmax(x):
        exps = np.exp(x / temperature - (x / temperature).max(-1, keepdims=True))
        return exps / exps.sum(-1, keepdims=True)

    expected = temperature * (softmax(student.logits.numpy()) - softmax(teacher.logits.numpy())) / BATCH
    np.testing.assert_allclose(student.logits.grad.numpy(), expected, rtol=1e-5, atol=1e-6)
    for state, index in zip(student.hidden_states, [0, 2, 4, 6, 8, 10, 12], strict=True):
        difference = state.numpy() - teacher.hidden_states[index].numpy()
        expected = 0.5 * 2 * difference * MASK[..., None] / (MASK.sum() * HIDDEN)
        np.testing.assert_allclose(state.grad.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_masked_padding_does_not_change_the_loss():
    rng = np.random.default_rng(3)
    student, teacher = random_output(rng, LAYERS), random_output(rng, LAYERS)
    padding = paddle.to_tensor((1 - MASK)[..., None].astype("float32"))
    other = SupernetOutput(student.logits, tuple(state + 9.0 * padding for state in student.hidden_states))
    loss, rows = DistillationLoss(lambda_logit=1.0, lambda_hidden=1.0), token_rows(paddle.to_tensor(MASK))
    assert float(loss(other, teacher, SPACE.full, rows=rows)["loss"]) == float(
        loss(student, teacher, SPACE.full, rows=rows)["loss"]
    )
    assert float(loss(other, teacher, SPACE.full)["loss"]) > 10 * float(loss(student, teacher, SPACE.full)["loss"])


def test_rows_are_the_tokens_that_are_not_padding():
    mask = paddle.to_tensor(make_batch()["attention_mask"])
    rows = token_rows(mask).numpy()
    np.testing.assert_array_equal(rows, np.flatnonzero(mask.numpy()))
    hidden = paddle.rand([*mask.shape, 2])
    np.testing.assert_array_equal(pick_rows(hidden, paddle.to_tensor(rows)), hidden.numpy()[mask.numpy() == 1])
    assert pick_rows(hidden, None) is hidden


def test_a_teacher_without_a_kept_layer_is_refused():
    rng = np.random.default_rng(4)
    loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=1.0)
    subnet = Subnet((0, 12), (1, 1), (1, 1))
    with pytest.raises(ModelError, match="the teacher has 12 layers and the sub-network keeps layer 12"):
        loss(random_output(rng, 2), random_output(rng, LAYERS), subnet)


def test_a_teacher_of_another_width_is_refused():
    rng = np.random.default_rng(5)
    loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=1.0)
    with pytest.raises(ModelError, match="the teacher's hidden states are 8 wide, the student's 6: distil from"):
        loss(random_output(rng, LAYERS), random_output(rng, LAYERS, hidden=8), SPACE.full)


def test_a_teacher_of_other_labels_is_refused():
    rng = np.random.default_rng(6)
    loss = DistillationLoss(lambda_logit=1.0, lambda_hidden=1.0)
    with pytest.raises(ModelError):
        loss(random_output(rng, LAYERS), random_output(rng, LAYERS, shape=(4,)), SPACE.full)
