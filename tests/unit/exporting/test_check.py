"""What an export is compared with its source by."""

import numpy as np
import pytest
from conftest import make_bert

from dynabert_paddle.errors import ModelError
from dynabert_paddle.exporting.check import compare_logits, source_logits
from dynabert_paddle.supernet.supernet import Supernet

BOUND = {"max_seq_length": 24, "tolerance": 1e-5}


@pytest.fixture(scope="module")
def supernet():
    supernet = Supernet(make_bert(vocab_size=500, num_layers=1))
    supernet.model.classifier.weight.set_value(supernet.model.classifier.weight * 50.0)
    return supernet


def shifted(supernet, number, value):
    """A graph that differs from the model in the first logit of one batch."""

    def run(batches):
        logits = source_logits(supernet, batches)
        logits[number][0, 0] += value
        return logits

    return run


def test_the_bound_is_a_share_of_the_largest_logit(supernet):
    done = compare_logits(supernet, shifted(supernet, 0, 0.0), **BOUND)
    largest = done.tolerance / 1e-5
    assert largest > 2
    assert done.max_abs_diff == 0
    assert compare_logits(supernet, shifted(supernet, 1, 0.9e-5 * largest), **BOUND).max_abs_diff > 1e-5
    with pytest.raises(ModelError, match="more than"):
        compare_logits(supernet, shifted(supernet, 1, 1.1e-5 * largest), **BOUND)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("number", range(4))
def test_what_is_no_number_is_found_in_every_batch(supernet, number, value):
    with pytest.raises(ModelError, match="the exported graph's logits differ"):
        compare_logits(supernet, shifted(supernet, number, value), **BOUND)


def test_a_model_that_overflows_is_no_source():
    supernet = Supernet(make_bert(vocab_size=500, num_layers=1))
    supernet.model.classifier.bias.set_value(np.full([7], np.inf, "float32"))
    with pytest.raises(ModelError, match="the model computes logits that are not finite"):
        compare_logits(supernet, lambda batches: source_logits(supernet, batches), **BOUND)
