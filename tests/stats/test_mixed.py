"""The mixed model against the test that it checks: on balanced tables both estimate the same variances."""

from typing import Any

import numpy as np
import pytest

from emor3.errors import UserError
from emor3.stats.mixed import mixed_model
from emor3.stats.seeds import compare_seeds


def tables(gain: float, seeds: int = 4, images: int = 40) -> tuple[Any, ...]:
    """Runs differ by 0.1, items by 0.5, the methods on an item by 0.2, the rest by 0.3."""
    generator = np.random.default_rng(1)
    items, taste = generator.normal(0, 0.5, images), generator.normal(0, 0.2, images)
    before, after = generator.normal(0, 0.3, (2, seeds, images)) + generator.normal(0, 0.1, (2, seeds, 1)) + items
    return before, after + taste + gain


@pytest.mark.slow
@pytest.mark.parametrize("gain", [-0.3, 0.0, 0.3])
def test_it_agrees_with_the_test_in_sign_and_size(gain: float) -> None:
    before, after = tables(gain)
    test, model = compare_seeds(before, after), mixed_model(before, after)
    assert model.difference.value == pytest.approx(test.difference.value, abs=1e-6)
    assert model.standard_error == pytest.approx(test.standard_error, rel=0.02)
    assert model.seed_deviation == pytest.approx((test.spread.seed / 2) ** 0.5, rel=0.1)


def test_its_p_value_takes_the_variances_as_known_so_it_is_the_smaller_one() -> None:
    before, after = tables(0.2)
    assert mixed_model(before, after).p_value < compare_seeds(before, after).p_value


def test_it_needs_runs_of_both_methods_that_differ() -> None:
    with pytest.raises(UserError, match="at least two runs"):
        mixed_model(np.zeros((1, 4)), np.zeros((2, 4)))
    with pytest.raises(UserError, match="differ from run to run"):
        mixed_model(np.zeros((2, 4)), np.zeros((2, 4)))
