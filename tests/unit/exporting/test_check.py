"""The check of an exported graph's logits against the model's."""

import numpy as np
import pytest
from conftest import make_bert

from dynabert_paddle.errors import ModelError
from dynabert_paddle.exporting.check import compare_logits, source_logits
from dynabert_paddle.supernet.supernet import Supernet

LIMITS = {"max_seq_length": 24, "tolerance": 1e-5}


@pytest.fixture(scope="module")
def supernet():
    supernet = Supernet(make_bert(vocab_size=500, num_layers=1))
    supernet.model.classifier.weight.set_value(supernet.model.classifier.weight * 50.0)
    return supernet


def shifted(supernet, index, value):
    """A runner of a graph that differs from the model by `value` in the first logit of one batch."""

    def run(batches):
        logits = source_logits(supernet, batches)
        logits[index][0, 0] += value
        return logits

    return run


def test_the_tolerance_is_relative_to_the_largest_logit(supernet):
    check = compare_logits(supernet, shifted(supernet, 0, 0.0), **LIMITS)
    largest = check.tolerance / 1e-5
    assert largest > 2
    assert check.max_abs_diff == 0
    assert compare_logits(supernet, shifted(supernet, 1, 0.9e-5 * largest), **LIMITS).max_abs_diff > 1e-5
    with pytest.raises(ModelError, match="more than"):
        compare_logits(supernet, shifted(supernet, 1, 1.1e-5 * largest), **LIMITS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("index", range(4))
def test_nan_and_infinity_are_found_in_every_batch(supernet, index, value):
    with pytest.raises(ModelError, match="the exported graph's logits differ"):
        compare_logits(supernet, shifted(supernet, index, value), **LIMITS)


def test_a_model_whose_own_logits_overflow_is_refused():
    supernet = Supernet(make_bert(vocab_size=500, num_layers=1))
    supernet.model.classifier.bias.set_value(np.full([7], np.inf, "float32"))
    with pytest.raises(ModelError, match="the model computes logits that are not finite"):
        compare_logits(supernet, lambda batches: source_logits(supernet, batches), **LIMITS)
