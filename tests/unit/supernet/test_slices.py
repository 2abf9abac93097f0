"""The slice cache: each slice is cut once, and outputs and gradients are the same as without a cache."""

import numpy as np
import paddle
import pytest
from conftest import make_batch, make_bert

from dynabert_paddle.subnet import Subnet
from dynabert_paddle.supernet.calls import NO_STATE, PassState
from dynabert_paddle.supernet.slices import SliceCache, add_gradients
from dynabert_paddle.supernet.supernet import Supernet, to_tensors

# The largest first, as in a step; one width in two depths, and a searched one whose layers differ.
NAMES = ["w1.00d1.00", "w0.75d1.00", "w0.50d0.75", "w0.50d0.50", "searched", "w0.25d1.00"]
SEARCHED = Subnet((0, 2, 3), (1, 4, 3), (7, 48, 13))


@pytest.fixture
def supernet():
    model = Supernet(make_bert())
    model.eval()
    return model


@pytest.fixture
def cuts(monkeypatch):
    """The parameter and the shape of each copy of a part that is made."""
    copied = []
    crop = paddle.crop
    monkeypatch.setattr(paddle, "crop", lambda x, shape: copied.append((id(x), *shape)) or crop(x, shape))
    return copied


def choose(supernet, names):
    subnets = {"searched": SEARCHED, **supernet.search_space(depth_mults=[1.0, 0.75, 0.5]).grid()}
    return [subnets[name] for name in names]


def inputs():
    return {name: value for name, value in to_tensors(make_batch()).items() if name != "labels"}


def gradients(supernet):
    found = {name: p.grad.numpy() for name, p in supernet.model.named_parameters() if p.grad is not None}
    supernet.clear_gradients()
    return found


@pytest.mark.parametrize("max_elements", [2**28, 5000, 0])
def test_outputs_are_the_same_and_no_part_is_copied_twice_while_the_cache_has_room(supernet, cuts, max_elements):
    batch = inputs()
    subnets = choose(supernet, NAMES)

    def run(state=NO_STATE):
        return [supernet(subnet, state=state, **batch).logits.numpy() for subnet in subnets for _ in range(2)]

    with paddle.no_grad():
        expected = run()
        without = len(cuts)
        cuts.clear()
        kept = run(PassState(SliceCache(max_elements)))
        within = len(cuts)
        assert all(np.array_equal(*pair) for pair in zip(kept, expected, strict=True))
        if max_elements == 2**28:
            assert len(set(cuts)) == within < without
        else:
            assert within == without if max_elements == 0 else without / 2 < within < without
        cuts.clear()
        run()
    assert len(cuts) == without


@pytest.mark.parametrize("names", [NAMES, NAMES[1:], NAMES[-1:]])
@pytest.mark.parametrize("max_elements", [2**28, 5000, 0])
def test_gradients_of_parts_are_added_to_the_parameters(supernet, names, max_elements):
    """With the largest sub-network, whose gradients are the parameters' own, and without."""
    batch = inputs()
    frozen = supernet.model.bert.encoder.layers[1].linear1.weight
    frozen.stop_gradient = True

    def backward(state=NO_STATE):
        for subnet in choose(supernet, names):
            supernet(subnet, state=state, **batch).logits.square().mean().backward()

    backward()
    expected = gradients(supernet)
    slices = SliceCache(max_elements)
    backward(PassState(slices))
    for parameter in supernet.model.parameters():
        add_gradients([*slices.slices_with_gradients(parameter), parameter])
    actual = gradients(supernet)
    assert actual.keys() == expected.keys()
    size = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        np.testing.assert_allclose(actual[name], gradient, rtol=0, atol=1e-6 * size, err_msg=name)
    assert frozen.grad is None


def test_slices_made_anew_follow_a_change_of_the_weights(supernet):
    batch = inputs()
    (subnet,) = choose(supernet, ["w0.50d1.00"])
    weight = supernet.model.bert.encoder.layers[0].linear1.weight
    with paddle.no_grad():
        for factor in (1.0, 2.0):
            weight.set_value(weight * factor)
            expected = supernet(subnet, **batch).logits
            state = PassState(SliceCache(2**28))
            assert paddle.equal_all(supernet(subnet, state=state, **batch).logits, expected)
