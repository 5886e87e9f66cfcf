"""Differences between two methods that were each trained with several seeds, over seeds and test items together.

A further training run and a further set of images would both give other numbers, so both belong into the error. The
outcomes of S runs on the same items are a table with two random sides, runs and items, as of the readers and cases of
a radiological study (Dorfman, Berbaum & Metz 1992; Clark 1973 for psychology; Bouthillier et al. 2021, arXiv
2103.03098, for seeds in machine learning). docs/statistics.md says which test is used when, and shows by simulation
why it is this one.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, permutation_test, rankdata
from scipy.stats import t as student

from emor3.errors import UserError
from emor3.method.types import Estimate
from emor3.stats.uncertainty import BOOTSTRAP_DRAWS, Floats, by_cluster

# --- tables [seeds, clusters] ----------------------------------------------------------------------------------------


def share_table(outcomes: Floats, items: Sequence[Hashable]) -> Floats:
    """Outcomes [S, N] of S runs on N items as a table [S, C] over C clusters of items, whose row means are the shares.

    An outcome is 1 or 0, or NaN if the check does not apply to that item in that run. Raises UserError if a run has
    none at all.

    The first two items are near copies. Run 1 has 2 of its 3 right; for run 2 the third item does not count.

    >>> share_table(np.array([[1.0, 0.0, 1.0], [1.0, 1.0, np.nan]]), ["a", "a", "b"]).mean(axis=1).round(3).tolist()
    [0.667, 1.0]
    """
    known = ~np.isnan(outcomes)
    if not known.any(axis=1).all():
        raise UserError("there is nothing to count in one of the runs")
    return pseudo_values(_ratio, np.stack([np.where(known, outcomes, 0.0), known.astype(np.float64)], axis=-1), items)


def _ratio(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1), dtype=np.float64)


def pseudo_values(statistic: Callable[[Floats], Floats], values: Floats, items: Sequence[Hashable]) -> Floats:
    """What each cluster of items adds to a figure of each run, as a table [S, C] whose row means are the figures.

    `statistic` maps sums over items [..., X] to figures [...], as in `uncertainty.bootstrap`; `values` is [S, N, X].
    Each cell is the jackknife's pseudo-value C f - (C - 1) f without this cluster (Efron & Tibshirani 1993, section
    11.5; on tables of runs and items Dorfman, Berbaum & Metz 1992), moved so that the row's mean is f itself.

    Of a mean the pseudo-values are the values:

    >>> pseudo_values(lambda sums: sums[..., 0] / sums[..., 1], np.array([[[1.0, 1.0], [0.0, 1.0]]]), "ab").tolist()
    [[1.0, 0.0]]
    """
    parts = np.stack([by_cluster(run, items) for run in values])
    number = parts.shape[1]
    whole = parts.sum(axis=1)
    if number == 1:  # without it nothing is left that has a figure
        return np.asarray(statistic(whole)[:, None])
    without = statistic(whole[:, None] - parts)
    return np.asarray(statistic(whole)[:, None] + (number - 1) * (without.mean(axis=1, keepdims=True) - without))


RANK_DRAWS = 200_000
"""Ways to deal out ranks that are tried: all of them up to ten seeds against ten."""

# --- the test --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Variance of after - before, one run of each on one cluster of items, in three parts; shares squared."""

    seed: float
    """Whole runs differ: what further items do not average out."""
    item: float
    """One method is better on some items than on others: what further seeds do not average out."""
    residual: float
    """The same item comes out otherwise in another run: what both average out."""


@dataclass(frozen=True)
class SeedComparison:
    """Two methods over their seeds and items, `after` against `before`."""

    difference: Estimate
    """Mean of after - before with the 95% interval; n counts clusters of items."""
    p_value: float
    """Two-sided: would new seeds and new items show a difference again?"""
    standard_error: float
    """Of the difference."""
    freedom: float
    """Degrees of freedom of t: few seeds, few degrees."""
    spread: Spread
    """For the power of a further study (`power.smallest_effect`)."""
    seeds: tuple[int, int]
    """Runs of before and of after; 1 is a model that has no seeds, which is taken as it is."""


def rank_sum(before: Sequence[float], after: Sequence[float]) -> float:
    """Two-sided p-value of the rank-sum test of two methods' figures, one a seed, by all ways to deal out the ranks.

    How far one run lies from the others is the same to it, so a run that collapsed cannot hide what all others show, as
    it does in `compare_seeds`. It speaks about new seeds on the same items. Wilcoxon 1945; Mann & Whitney 1947.

    Three against three seeds that do not overlap: 2 of the 20 ways to deal out six ranks are as far apart.

    >>> rank_sum([0.1, 0.6, 0.61], [0.7, 0.72, 0.71])
    0.1
    """
    ranks = rankdata([*before, *after])
    found = permutation_test(
        (ranks[: len(before)], ranks[len(before) :]), _mean_change, vectorized=True, n_resamples=RANK_DRAWS, rng=0
    )
    return float(found.pvalue)


def _mean_change(before: Floats, after: Floats, axis: int) -> Floats:
    return np.asarray(after.mean(axis=axis) - before.mean(axis=axis))


def compare_seeds(before: Floats, after: Floats, paired: bool = False) -> SeedComparison:
    """Tables [S, C] of two methods on the same clusters of items: difference, interval and p-value over both sides.

    The variance of the difference is that of the mean of the seeds, V_s = sum over methods of var(seed means) / S,
    which holds the items' noise too, and that of the items, V_i = max(0, var(item means) - residual / S) / C. t has
    (V_s + V_i)^2 / (sum of V_s^2 / (S - 1) + V_i^2 / (C - 1)) degrees of freedom, in which no V_s is taken smaller than
    the residual alone makes it (Satterthwaite 1946; with these parts Hillis 2007, Statistics in Medicine 26; Welch 1947
    for two methods). Few seeds are paid with by few degrees: S - 1 if seeds make all of the doubt, C - 1 if items do.

    Items are always paired. `paired` also pairs run k of one method with run k of the other, which helps if equal
    seeds bring equal luck and else costs half of the degrees of freedom. A table of one row is a model without seeds.
    Raises UserError if the tables do not fit or hold fewer than two clusters.

    Three seeds each, four items: a gain of 25 points that so few seeds and items cannot show.

    >>> before = np.array([[1.0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 0, 1]])
    >>> after = np.array([[1.0, 1, 0, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    >>> found = compare_seeds(before, after)
    >>> [round(x, 3) for x in (found.difference.value, found.difference.low, found.difference.high, found.p_value)]
    [0.25, -0.31, 0.81, 0.293]
    >>> round(found.freedom, 1)
    4.4
    """
    _fit(before, after, paired)
    tables = [after - before] if paired else [before, after]
    number = after.shape[1]
    change = after.mean(axis=0) - before.mean(axis=0)
    residuals = [_residual(table) for table in tables]
    seed_parts = [_seed_part(table, residual) for table, residual in zip(tables, residuals, strict=True)]
    left = sum(residual / len(table) for residual, table in zip(residuals, tables, strict=True))
    item_part = max(float(change.var(ddof=1)) - left, 0.0) / number
    variance = sum(seed_parts) + item_part
    freedom = _freedom(tables, seed_parts, residuals, item_part)
    value, error = float(change.mean()), float(np.sqrt(variance))
    reach = float(student.isf(0.025, freedom)) * error
    seed = sum(max(len(t) * p - r / number, 0.0) for t, p, r in zip(tables, seed_parts, residuals, strict=True))
    return SeedComparison(
        difference=Estimate(value, value - reach, value + reach, number),
        p_value=_p_value(value, error, freedom, number),
        standard_error=error,
        freedom=freedom,
        spread=Spread(seed, item_part * number, sum(residuals)),
        seeds=(len(before), len(after)),
    )


def _fit(before: Floats, after: Floats, paired: bool) -> None:
    if before.shape[1] != after.shape[1]:
        raise UserError("two methods are compared on the same items")
    if after.shape[1] < 2:
        raise UserError("a comparison over seeds and items needs at least two items that are no near copies")
    if paired and len(before) != len(after):
        raise UserError(f"pairs of seeds need as many runs of one method as of the other: {len(before)}, {len(after)}")


def _residual(table: Floats) -> float:
    """Mean square of what neither the run nor the item explains; 0 for one run."""
    runs, number = table.shape
    if runs == 1:
        return 0.0
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    return float((rest**2).sum() / ((runs - 1) * (number - 1)))


def _seed_part(table: Floats, residual: float) -> float:
    """Variance of the mean over runs; runs that happen to have the very same figure differ as their items do."""
    runs, number = table.shape
    return 0.0 if runs == 1 else (float(table.mean(axis=1).var(ddof=1)) or residual / number) / runs


def _freedom(
    tables: Sequence[Floats], seed_parts: Sequence[float], residuals: Sequence[float], item_part: float
) -> float:
    """Satterthwaite's degrees of freedom, with no part of the seeds below what the residual alone makes of it."""
    number = tables[0].shape[1]
    parts = [
        (max(part, residual / number / len(table)), len(table) - 1)
        for table, part, residual in zip(tables, seed_parts, residuals, strict=True)
        if len(table) > 1
    ]
    parts.append((item_part, number - 1))
    doubt = sum(part**2 / degrees for part, degrees in parts)
    return float(sum(part for part, _ in parts) ** 2 / doubt) if doubt > 0 else number - 1.0


def _p_value(value: float, error: float, freedom: float, number: int) -> float:
    if error > 1e-12:
        return float(2 * student.sf(abs(value) / error, freedom))
    return 1.0 if abs(value) < 1e-12 else 0.5 ** (number - 1)  # all equal and none 0: the sign test's least p


# --- checks and curves -----------------------------------------------------------------------------------------------


def hierarchical_bootstrap(
    before: Floats, after: Floats, paired: bool = False, seed: int = 0, corrected: bool = True
) -> tuple[Estimate, float]:
    """The same difference with interval and p-value from drawing seeds and clusters of items, with replacement.

    Drawn as they are, both sides err: S seeds drawn from S spread by (S - 1) / S of what seeds do, and the residual is
    counted three times (Owen 2007, the pigeonhole bootstrap; McCullagh 2000 shows that no resampling is right for a
    table with two random sides). `corrected` draws are therefore scaled to the standard error of `compare_seeds` and
    by the ratio of its t to the normal quantile: they keep the shape, and check whether the t interval hides a skew.

    >>> before = np.array([[1.0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 0, 1]])
    >>> after = np.array([[1.0, 1, 0, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    >>> found, p_value = hierarchical_bootstrap(before, after)
    >>> [round(x, 2) for x in (found.value, found.low, found.high, p_value)]
    [0.25, -0.25, 0.85, 0.39]
    """
    test = compare_seeds(before, after, paired)
    generator = np.random.default_rng(seed)
    tables = [(1.0, after - before)] if paired else [(-1.0, before), (1.0, after)]
    columns = _times(generator, after.shape[1])
    drawn = sum(sign * ((_times(generator, len(table)) @ table) * columns).sum(axis=1) for sign, table in tables)
    away = np.asarray(drawn) - test.difference.value
    if corrected and away.std() > 0:
        away *= test.standard_error / away.std() * student.isf(0.025, test.freedom) / norm.isf(0.025)
    draws = test.difference.value + away
    low, high = np.quantile(draws, [0.025, 0.975])
    tail = (min(int((draws <= 0).sum()), int((draws >= 0).sum())) + 1) / (len(draws) + 1)
    return Estimate(test.difference.value, float(low), float(high), after.shape[1]), min(1.0, 2 * tail)


def _times(generator: np.random.Generator, number: int) -> Floats:
    """Shares of a draw that each of the rows (or columns) has, [draws, number]."""
    places = generator.integers(number, size=(BOOTSTRAP_DRAWS, number)) + number * np.arange(BOOTSTRAP_DRAWS)[:, None]
    return np.bincount(places.ravel(), minlength=BOOTSTRAP_DRAWS * number).reshape(BOOTSTRAP_DRAWS, number) / number


class Band(NamedTuple):
    """A learning curve over seeds, each [T]."""

    mean: Floats
    low: Floats
    high: Floats


def seed_band(curves: Floats) -> Band:
    """Mean of S learning curves [S, T] at each of T steps, and the 95% interval of that mean over seeds.

    By Student's t with one degree less than there are seeds at the step; NaN marks a seed without that step, and bounds
    are NaN for fewer than two. The interval is for each step alone, not for the curve as a whole.

    Three seeds: 0.7 and t(2) = 4.30 times 0.1 / sqrt(3) to each side.

    >>> band = seed_band(np.array([[0.5, 0.6], [0.5, 0.7], [0.5, 0.8]]))
    >>> [part.round(3).tolist() for part in band]
    [[0.5, 0.7], [0.5, 0.452], [0.5, 0.948]]
    """
    known = ~np.isnan(curves)
    count = known.sum(axis=0)
    enough = count > 1
    mean = np.where(known, curves, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)
    squares = (np.where(known, curves - mean, 0.0) ** 2).sum(axis=0)
    less = np.where(enough, count - 1, 1)
    reach = np.where(enough, student.isf(0.025, less) * np.sqrt(squares / less / np.maximum(count, 1)), np.nan)
    return Band(mean, mean - reach, mean + reach)
