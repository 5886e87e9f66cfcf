"""Differences over seeds and items against simulated studies whose spread is known, and against arithmetic by hand."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp, ttest_ind

from emor3.errors import UserError
from emor3.stats.classification import macro_f1
from emor3.stats.seeds import (
    SeedComparison,
    compare_seeds,
    hierarchical_bootstrap,
    pseudo_values,
    seed_band,
    share_table,
)
from emor3.stats.uncertainty import bootstrap
from false_alarms import outcomes

STUDIES = 600
SPREADS = {"none": 0.0, "1.5 points": 0.21, "5 points": 0.7}
"""Deviation of runs beyond their items, on the latent scale of `outcomes`."""
CORRECT = binom.interval(0.999, STUDIES, 0.05)
"""Alarms of a test that is right at 5%, within their error: 14 to 49 of 600."""


def studies(seeds: int, spread: float, shared: float = 0.0, images: int = 128, number: int = STUDIES) -> list[Any]:
    generator = np.random.default_rng(seeds)
    return [outcomes(generator, seeds, images, spread, shared) for _ in range(number)]


def alarms(found: list[SeedComparison]) -> int:
    return sum(comparison.p_value < 0.05 for comparison in found)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", SPREADS)
def test_equal_methods_differ_in_5_of_100_studies_whatever_the_spread_of_seeds(seeds: int, spread: Any) -> None:
    found = [compare_seeds(before, after) for before, after in studies(seeds, SPREADS[spread])]
    assert CORRECT[0] <= alarms(found) <= CORRECT[1]


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_pairs_of_seeds_that_share_luck_differ_in_5_of_100_studies(seeds: int) -> None:
    found = [compare_seeds(before, after, paired=True) for before, after in studies(seeds, 0.7, shared=0.5)]
    assert CORRECT[0] <= alarms(found) <= CORRECT[1]


def test_items_alone_would_call_a_difference_in_a_third_of_the_studies() -> None:
    found = [compare_seeds(b.mean(0, keepdims=True), a.mean(0, keepdims=True)) for b, a in studies(3, 0.7)]
    assert alarms(found) > STUDIES / 3


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_corrected_bootstrap_holds_5_percent_and_the_plain_one_does_not(seeds: int) -> None:
    drawn = studies(seeds, 2.0, images=64, number=200)
    corrected = [hierarchical_bootstrap(*tables, seed=k)[1] < 0.05 for k, tables in enumerate(drawn)]
    plain = [hierarchical_bootstrap(*tables, seed=k, corrected=False)[1] < 0.05 for k, tables in enumerate(drawn)]
    assert sum(corrected) <= binom.isf(0.001, 200, 0.05)  # 21
    assert sum(plain) > sum(corrected)


def test_the_interval_holds_the_true_difference_in_95_of_100_studies() -> None:
    # On normal tables the difference is known: 0.03.
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(STUDIES):
        before, after = generator.normal(0, 0.4, (2, 5, 64)) + generator.normal(0, 0.05, (2, 5, 1))
        found = compare_seeds(before, after + 0.03).difference
        hits += found.low <= 0.03 <= found.high
    assert STUDIES - CORRECT[1] <= hits <= STUDIES - CORRECT[0]


def test_the_spread_is_found_in_its_three_parts() -> None:
    # One run of each method on one item: 2 x 0.03^2 from runs, 0.1^2 from items, 2 x 0.2^2 from the rest.
    generator = np.random.default_rng(0)
    found = []
    for _ in range(200):
        before, after = generator.normal(0, 0.2, (2, 5, 64)) + generator.normal(0, 0.03, (2, 5, 1))
        spread = compare_seeds(before, after + generator.normal(0, 0.1, 64)).spread
        found.append((spread.seed, spread.item, spread.residual))
    assert np.mean(found, axis=0) == pytest.approx([0.0018, 0.01, 0.08], rel=0.15)


def test_seeds_that_differ_more_than_items_make_it_welchs_test_of_seed_means() -> None:
    before, after = np.array([[0.1], [0.5], [0.4]]), np.array([[0.9], [0.6], [0.8]])
    found = compare_seeds(np.repeat(before, 4, axis=1), np.repeat(after, 4, axis=1))
    assert found.p_value == pytest.approx(ttest_ind(after[:, 0], before[:, 0], equal_var=False).pvalue)
    paired = compare_seeds(np.repeat(before, 4, axis=1), np.repeat(after, 4, axis=1), paired=True)
    assert paired.p_value == pytest.approx(ttest_1samp((after - before)[:, 0], 0).pvalue)


def test_one_run_each_makes_it_the_paired_test_of_items() -> None:
    before, after = np.array([[1.0, 0, 0, 1, 0, 0]]), np.array([[1.0, 1, 1, 1, 0, 1]])
    found = compare_seeds(before, after)
    assert found.p_value == pytest.approx(ttest_1samp((after - before)[0], 0).pvalue)
    assert (found.freedom, found.spread.seed, found.seeds) == (5, 0, (1, 1))


def test_a_model_without_seeds_adds_none_of_its_own() -> None:
    luck = np.repeat(np.array([[0.1], [0.5], [0.3]]), 4, axis=1)  # deviation 0.2 of three runs
    found = compare_seeds(np.zeros((1, 4)), luck)
    assert found.standard_error == pytest.approx(0.2 / math.sqrt(3))
    assert (found.freedom, found.seeds) == (pytest.approx(2), (1, 3))


def test_seeds_that_agree_by_chance_still_differ_as_their_items_do() -> None:
    # Both runs have 2 of 4 right, but not the same ones: residual 8 x 0.5^2 / (1 x 3) = 2/3, over 2 runs x 4 items 1/12
    # for each method. Item means are 0.5 throughout.
    both = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    assert compare_seeds(both, both).standard_error == pytest.approx(math.sqrt(2 / 12))


def test_methods_that_never_differ_are_equal_and_a_gain_on_every_item_is_as_sure_as_its_items_are_many() -> None:
    same = np.array([[1.0, 0, 1, 1], [1, 0, 1, 1]])
    assert compare_seeds(same, same).p_value == 1
    assert compare_seeds(same * 0, same * 0 + 1).p_value == 0.5**3  # all 4 signs alike, of 2^4: two-sided 2 / 16


def test_tables_that_do_not_fit_are_one_line() -> None:
    table = np.zeros((3, 4))
    for before, after, paired, fault in (
        (table, table[:, :3], False, "the same items"),
        (table[:, :1], table[:, :1], False, "at least two items"),
        (table, table[:2], True, "as many runs of one method as of the other: 3, 2"),
    ):
        with pytest.raises(UserError, match=fault):
            compare_seeds(before, after, paired)


# --- tables ----------------------------------------------------------------------------------------------------------


def test_near_copies_make_one_item() -> None:
    one = np.array([[1.0, 0, 1], [0, 0, 1]])
    assert share_table(one, ["a", "b", "c"]) == pytest.approx(one)
    twice = share_table(np.repeat(one, 2, axis=1), ["a", "a", "b", "b", "c", "c"])
    assert twice == pytest.approx(one)  # so that copies make nothing surer


def test_what_does_not_apply_is_left_out_of_its_run_alone() -> None:
    table = share_table(np.array([[1.0, np.nan, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]]), "abcd")
    assert table.mean(axis=1) == pytest.approx([2 / 3, 3 / 4])
    with pytest.raises(UserError, match="nothing to count"):
        share_table(np.array([[np.nan, np.nan]]), "ab")


def test_the_spread_of_pseudo_values_is_the_error_of_a_ratio() -> None:
    # The delta method: a ratio's error is the deviation of (hit - share x count) / mean count over items.
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 2, (1, 400)).astype(float)
    hits = counts * generator.integers(0, 2, (1, 400))
    share = hits.sum() / counts.sum()
    table = pseudo_values(lambda sums: sums[..., 0] / sums[..., 1], np.stack([hits, counts], axis=-1), range(400))
    assert table.mean() == pytest.approx(share)
    assert table.std() == pytest.approx(((hits - share * counts) / counts.mean()).std(), rel=0.01)


def test_cells_weigh_the_same_however_many_items_they_have() -> None:
    # One run, two cells of 1 and 3 items: (1 + 1/3) / 2.
    hits = np.array([[[[1.0, 1], [1, 1]], [[0, 0], [0, 1]], [[0, 0], [0, 1]]]])  # [S, N, cells, hits and count]
    table = pseudo_values(lambda sums: (sums[..., 0] / np.maximum(sums[..., 1], 1)).mean(-1), hits, "abc")
    assert table.mean() == pytest.approx(2 / 3)


def test_one_item_is_all_of_a_figure() -> None:
    with np.errstate(all="raise"):
        table = pseudo_values(lambda sums: sums[..., 0] / sums[..., 1], np.array([[[1.0, 2.0]]]), "a")
    assert table.tolist() == [[0.5]]


def test_macro_f1_is_compared_as_its_bootstrap_says() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 300)
    cells = np.zeros((2, 300, 3, 4))
    for method, errors in enumerate((0.4, 0.2)):
        guess = np.where(generator.random(300) < errors, generator.integers(0, 3, 300), truth)
        cells[method, np.arange(300), truth, guess] = 1
    before, after = (pseudo_values(macro_f1, cells[[method]], range(300)) for method in (0, 1))
    found = compare_seeds(before, after).difference
    assert found.value == pytest.approx(macro_f1(cells[1].sum(0)) - macro_f1(cells[0].sum(0)))

    def change(tables: Any) -> Any:
        scores = macro_f1(tables)
        return scores[..., 1] - scores[..., 0]

    expected = bootstrap(change, cells.swapaxes(0, 1), range(300), seed=0)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.01)


# --- checks and curves -----------------------------------------------------------------------------------------------


def test_the_bootstrap_is_the_same_for_the_same_seed_and_agrees_with_t() -> None:
    before, after = outcomes(np.random.default_rng(0), 5, 256, 0.2, 0.0, gain=0.8)
    test = compare_seeds(before, after)
    found, p_value = hierarchical_bootstrap(before, after, seed=1)
    assert (found, p_value) == hierarchical_bootstrap(before, after, seed=1)
    assert found.value == test.difference.value
    width = test.difference.high - test.difference.low
    assert found.high - found.low == pytest.approx(width, rel=0.15)
    assert p_value == pytest.approx(test.p_value, abs=0.05)


def test_pairs_of_seeds_are_drawn_together() -> None:
    # Runs that share all their luck: drawn together it cancels.
    luck = np.repeat(np.array([[0.0], [0.5], [1.0]]), 4, axis=1)
    found, _ = hierarchical_bootstrap(luck, luck + 0.1, paired=True, corrected=False)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_a_band_has_students_interval_at_each_step_and_none_where_one_seed_is_left() -> None:
    curves = np.array([[0.2, 0.5, 0.7], [0.4, 0.7, np.nan], [0.6, 0.6, np.nan]])
    band = seed_band(curves)
    assert band.mean == pytest.approx([0.4, 0.6, 0.7])
    expected = ttest_1samp(curves[:, 0], 0).confidence_interval()
    assert (band.low[0], band.high[0]) == pytest.approx(tuple(expected))
    assert np.isnan([band.low[2], band.high[2]]).all()
    assert np.isnan(seed_band(np.array([[np.nan], [np.nan]])).mean).all()
