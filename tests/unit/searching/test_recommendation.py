"""Which sub-network is recommended."""

import pytest

from dynabert_paddle.searching.recommendation import cheapest_near

pytestmark = pytest.mark.reference


def test_the_recommended_subnet_is_the_cheapest_within_1_percent_of_the_full_model():
    rows = [("full", 0.9, 10), ("near", 0.8911, 5), ("better", 0.895, 5), ("below", 0.8909, 1), ("best", 0.95, 8)]
    assert cheapest_near(rows, 0.9) == "better"
    assert cheapest_near(rows[:1], 0.9) == "full"
    assert cheapest_near(rows, 0.0) is cheapest_near([("full", -0.1, 1)], -0.1) is None
