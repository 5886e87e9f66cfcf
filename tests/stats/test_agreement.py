"""Agreement of raters: coefficients and intervals as calculated by hand, and their fast forms as in the libraries."""

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from emor3.stats.agreement.coefficients import (
    MISSING,
    Ratings,
    _counts,
    _pairable,
    _table,
    agreement,
    alpha_of_sums,
    mean_kappa,
)
from emor3.stats.uncertainty import wilson

PAIR = [(0, 1)]


def rated(*rows: str) -> Ratings:
    """Ratings as letters, a row for each item; a dot for what a rater did not see."""
    return np.array([[MISSING if letter == "." else ord(letter) - ord("a") for letter in row] for row in rows])


def test_kappa_is_agreement_beyond_chance() -> None:
    # 20 aa, 5 ab, 10 ba, 15 bb: the first says a of 25 in 50, the second of 30. Same in 35 / 50 = 0.7, by chance in
    # 0.5 * 0.6 + 0.5 * 0.4 = 0.5, so (0.7 - 0.5) / (1 - 0.5).
    found = agreement(rated(*["aa"] * 20, *["ab"] * 5, *["ba"] * 10, *["bb"] * 15), PAIR, range(50))
    assert found is not None
    assert (found.share.value, found.share.n, found.items) == (0.7, 50, 50)
    assert found.kappa.value == pytest.approx(0.4)
    assert found.kappa.low < 0.4 < found.kappa.high
    # Fleiss, Cohen & Everitt (1969): A = 0.4 * (1 - 1.1 * 0.6)^2 + 0.3 * (1 - 0.9 * 0.6)^2 = 0.10972,
    # B = 0.36 * (0.1 * 1.1^2 + 0.2 * 0.9^2) = 0.10188 (the columns' share of the row's answer and the other way round),
    # C = (0.4 - 0.5 * 0.6)^2 = 0.01; error = sqrt((A + B - C) / 50) / 0.5 = 0.127, and 1.96 of it to each side.
    assert (found.kappa.high - found.kappa.low) / 2 == pytest.approx(1.96 * 0.127, rel=0.1)


def test_alpha_counts_pairs_of_ratings_and_passes_over_what_one_rater_did_not_see() -> None:
    # Four a and four b in units of 3, 2 and 3 ratings. The one unit that differs has two ordered pairs of 8 pairs:
    # 2 / 8 = 0.25; by chance 2 * 4 * 4 / (8 * 7) = 4 / 7. Alpha = 1 - 0.25 * 7 / 4. A unit with one rating has no pair.
    found = agreement(rated("aaa", "ab.", "bbb", "..a"), [(0, 1, 2)], range(4))
    assert found is not None
    assert found.alpha.value == pytest.approx(0.5625)
    assert (found.items, found.share.n) == (3, 7)  # 3 + 1 + 3 comparisons of two raters
    assert found.share.value == pytest.approx(6 / 7)


def test_kappa_of_several_raters_is_the_mean_over_their_pairs() -> None:
    ratings = rated("aaa", "aab", "bba", "bbb", "aba", "bbb")
    pairs = [(0, 1), (0, 2), (1, 2)]
    found = agreement(ratings, [(0, 1, 2)], range(6))
    # 0 and 1: same in 5 of 6, by chance 3/6 * 2/6 + 3/6 * 4/6 = 1/2: 2/3; 0 and 2: same in 4, chance 1/2: 1/3;
    # 1 and 2: same in 3, by chance 2/6 * 3/6 + 4/6 * 3/6 = 1/2: 0. The mean is 1/3.
    assert found.kappa.value == pytest.approx(1 / 3)
    assert found.kappa.value == pytest.approx(np.mean([cohen_kappa_score(*ratings[:, pair].T) for pair in pairs]))


def test_one_rater_against_several_leaves_out_what_these_think_of_each_other() -> None:
    # The judge says as the first person always, as the second never; the two people never agree.
    ratings = rated("aab", "bba", "aab", "bba")
    found = agreement(ratings, [(0, 1), (0, 2)], range(4))
    assert found.share.value == 0.5
    assert found.kappa.value == pytest.approx(0)  # the mean of 1 and -1


@pytest.mark.parametrize("teams", [[(0, 1, 2, 3)], [(0, 1), (0, 2), (0, 3)]])
def test_the_forms_on_sums_that_intervals_are_drawn_by_equal_the_libraries(teams: list[tuple[int, ...]]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        ratings = generator.integers(MISSING, 4, size=(40, 4))
        pairs = [(a, b) for team in teams for place, a in enumerate(team) for b in team[place + 1 :]]
        tables = np.stack([_table(ratings[:, pair], 4) for pair in pairs], axis=1)
        both = [ratings[:, pair][(ratings[:, pair] != MISSING).all(axis=1)] for pair in pairs]
        assert mean_kappa(tables.sum(axis=0)) == pytest.approx(np.mean([cohen_kappa_score(*pair.T) for pair in both]))
        units = np.stack([_counts(ratings[:, team], 4) for team in teams], axis=1)
        apart = np.vstack([np.where(np.isin(range(4), team), ratings, MISSING) for team in teams])
        data = np.where(apart == MISSING, np.nan, apart.astype(float)).T
        expected = krippendorff.alpha(data, level_of_measurement="nominal")
        assert alpha_of_sums(_pairable(units).sum(axis=0)) == pytest.approx(expected)


def test_total_agreement_is_as_doubtful_as_its_items_are_few() -> None:
    # Same on all of 20 items, half a and half b, so by chance in 0.5: at Wilson's lower end s of 20 out of 20 kappa
    # would be 1 - (1 - s) / 0.5.
    found = agreement(rated(*["aa", "bb"] * 10), PAIR, range(20))
    expected = 1 - (1 - wilson(20, 20)[0]) / 0.5
    for estimate in (found.kappa, found.alpha):
        assert (estimate.value, estimate.low, estimate.high) == (1, pytest.approx(expected), 1)


def test_raters_who_say_one_and_the_same_have_no_coefficient_and_nothing_in_common_is_no_agreement() -> None:
    found = agreement(rated("aa", "aa"), PAIR, range(2))
    assert (found.share.value, found.kappa, found.alpha) == (1, None, None)
    assert agreement(rated("a.", ".b"), PAIR, range(2)) is None


def test_a_pair_without_a_coefficient_is_left_out_of_the_interval_as_of_the_value() -> None:
    judge, other = np.array([0, 1] * 15), np.array([0, 1, 1] * 10)
    always = np.zeros(30, dtype=int)
    ratings = np.stack([judge, other, always, always], axis=1)  # the last two say one and the same: they have none
    with_them = agreement(ratings, [(0, 1), (2, 3)], items=range(30))
    alone = agreement(ratings[:, :2], [(0, 1)], items=range(30))
    assert with_them.kappa == alone.kappa
    assert with_them.kappa.low < with_them.kappa.value < with_them.kappa.high
    three = agreement(np.array([[0, 0, 1]] * 3), [(0, 1), (0, 2)], items=range(3))  # only one has it
    assert (three.kappa.value, three.kappa.low, three.kappa.high) == (0, 0, 0)


def test_near_copies_are_drawn_together() -> None:
    ratings = rated(*["aa", "bb", "ab", "bb", "ba", "aa"] * 10)
    alone = agreement(ratings, PAIR, range(60))
    in_groups = agreement(ratings, PAIR, [place // 6 // 2 * 6 + place % 6 for place in range(60)])
    width = [found.kappa.high - found.kappa.low for found in (alone, in_groups)]
    # Each kind of item twice in one group: half as many independent ones, the interval wider by the root of two.
    assert width[1] / width[0] == pytest.approx(2**0.5, rel=0.15)


def test_a_rare_answer_makes_the_interval_wide_not_narrow() -> None:
    found = agreement(rated(*["aa"] * 98, "ab", "ba"), PAIR, range(100))
    assert found.kappa.value < 0
    assert found.kappa.high == 1  # 13% of the draws hold neither of the two: all agree there
