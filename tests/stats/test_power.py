"""The smallest effect of a design is found in 80 of 100 simulated studies; the search for designs turns it round."""

import numpy as np
import pytest
from scipy.stats import binom
from statsmodels.stats.power import TTestIndPower, TTestPower

from emor3.stats.power import detectable, images_needed, seeds_needed, smallest_effect, spread_of_shares
from emor3.stats.seeds import Spread, compare_seeds
from places import ROOT

STUDIES = 500
TRIAL = spread_of_shares(0.06, 0.04, 0.015, 512)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("paired", [False, True])
def test_the_smallest_effect_is_found_in_80_of_100_studies(seeds: int, paired: bool) -> None:
    # One run of each method on one item: 2 x 0.03^2 from runs, 0.1^2 from items, 2 x 0.2^2 from the rest.
    effect = smallest_effect(Spread(0.0018, 0.01, 0.08), 64, seeds, paired)
    generator = np.random.default_rng(seeds)
    found = 0
    for _ in range(STUDIES):
        before, after = generator.normal(0, 0.2, (2, seeds, 64)) + generator.normal(0, 0.03, (2, seeds, 1))
        comparison = compare_seeds(before, after + generator.normal(0, 0.1, 64) + effect, paired)
        found += comparison.p_value < 0.05
    low, high = binom.interval(0.999, STUDIES, 0.8)
    assert low - 0.04 * STUDIES <= found <= high + 0.02 * STUDIES  # the degrees of freedom are estimated, too


def test_seeds_alone_are_the_power_of_students_t_and_items_alone_too() -> None:
    # Equal items: each seed is one number. Deviation 0.03 of a run, sqrt(2) of it of a pair.
    seeds_only = Spread(2 * 0.03**2, 0.0, 0.0)
    expected = 0.03 * TTestIndPower().solve_power(nobs1=5, alpha=0.05, power=0.8)
    assert smallest_effect(seeds_only, 512, 5) == pytest.approx(expected, rel=1e-3)
    paired = 0.03 * np.sqrt(2) * TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8)
    assert smallest_effect(seeds_only, 512, 5, paired=True) == pytest.approx(paired, rel=1e-3)
    items_only = 0.2 * TTestPower().solve_power(nobs=100, alpha=0.05, power=0.8)
    assert smallest_effect(Spread(0.0, 0.04, 0.0), 100, 5) == pytest.approx(items_only, rel=1e-3)


def test_more_of_anything_shows_less_and_a_stricter_test_shows_more() -> None:
    at_hand = smallest_effect(TRIAL, 512, 5)
    assert smallest_effect(TRIAL, 1024, 5) < at_hand
    assert smallest_effect(TRIAL, 512, 6) < at_hand
    assert smallest_effect(TRIAL, 512, 5, alpha=0.01) > at_hand
    assert smallest_effect(TRIAL, 512, 5, power=0.9) > at_hand
    assert detectable(0.0, 4) == 0


@pytest.mark.parametrize("effect", [0.025, 0.04, 0.06])
def test_the_number_needed_is_the_first_that_is_enough(effect: float) -> None:
    images = images_needed(TRIAL, effect, seeds=10)
    assert smallest_effect(TRIAL, images, 10) <= effect < smallest_effect(TRIAL, images - 1, 10)
    seeds = seeds_needed(TRIAL, effect, images=512)
    assert smallest_effect(TRIAL, 512, seeds) <= effect
    assert seeds == 2 or effect < smallest_effect(TRIAL, 512, seeds - 1)


def test_neither_images_nor_seeds_make_up_for_the_other() -> None:
    assert images_needed(TRIAL, 0.005, seeds=3) is None
    assert seeds_needed(TRIAL, 0.005, images=512) is None


def test_the_noise_of_the_images_is_taken_out_of_the_spread_of_seeds() -> None:
    # 0.04 / 2 / 512 of the 0.015^2 is the images' noise; two methods have the rest twice.
    assert spread_of_shares(0.06, 0.04, 0.015, 512).seed == pytest.approx(2 * (0.015**2 - 0.02 / 512))
    assert spread_of_shares(0.04, 0.06, 0.001, 512) == Spread(0.0, 0.0, 0.06)


def test_one_seed_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least two"):
        smallest_effect(TRIAL, 512, 1)


def test_the_studys_table_is_what_the_functions_say() -> None:
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs" / "reflection_study.md").read_text().splitlines()]
    heads = next(row for row in rows if row[0] == "spread of seeds in a cell")
    seeds = [int(head.removesuffix(" seeds")) for head in heads[2:]]
    table = [row for row in rows if len(row) == len(heads) and row[1] in ("0.05", "0.005")]
    assert len(table) == 6
    for deviation, alpha, *points in table:
        images, factor = 3 * 256, 0.5**0.5  # six cells: two trainings a seed, three test sets
        spread = spread_of_shares(0.06, 0.04, float(deviation) / 100 * factor, images)
        found = [100 * smallest_effect(spread, images, number, alpha=float(alpha)) for number in seeds]
        assert [f"{effect:.1f}" for effect in found] == points
