"""Agreement of raters who put items into categories: raw, Cohen's kappa and Krippendorff's alpha with 95% intervals.

Ratings are whole numbers [N items, R raters], from 0 to K - 1, or `MISSING`. The coefficients are scikit-learn's and
krippendorff's; their intervals need thousands of them, so each is written once more on sums over items, which the
bootstrap draws (tests hold both equal).

Cohen 1960, Educational and Psychological Measurement 20; Light 1971, Psychological Bulletin 76 (the mean over pairs);
Krippendorff 2019, Content Analysis, chapter 12 (nominal).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import krippendorff
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from emor3.method.types import Estimate
from emor3.stats.uncertainty import Floats, Statistic, bootstrap, proportion, wilson

Ratings = NDArray[np.int_]
"""[N, R]."""

MISSING = -1
"""In place of a category: this rater said nothing of this item."""


@dataclass(frozen=True)
class Agreement:
    """How far raters agree on one question. A coefficient is None if all say one and the same thing throughout."""

    share: Estimate
    """Share of the comparisons of two raters in which both say the same; `n` counts comparisons."""
    kappa: Estimate | None
    """Cohen's, of several pairs the mean of those that have one; `n` counts items, here and below."""
    alpha: Estimate | None
    """Krippendorff's for categories."""
    items: int
    """Items that two raters or more have rated."""


def agreement(
    ratings: Ratings, teams: Sequence[Sequence[int]], items: Sequence[Hashable], seed: int = 0
) -> Agreement | None:
    """Agreement inside teams of raters, given by their columns; None if no item was rated by two of a team.

    All raters of one team: how far they agree with each other. Teams (0, 1), (0, 2), …: how far rater 0 agrees with
    the others, whatever these think of each other. `items` says which rows are drawn together.

    Two raters, ten items, eight agreements; each says 0 of one half and 1 of the other, so by chance they agree in
    0.5: (0.8 - 0.5) / 0.5. Alpha counts 20 ratings, ten of each kind, without replacement: 1 - 0.2 / (200 / 380).

    >>> ratings = np.array([[0, 0]] * 4 + [[1, 1]] * 4 + [[0, 1], [1, 0]])
    >>> found = agreement(ratings, [(0, 1)], items=range(10))
    >>> found.share.value, round(found.kappa.value, 3), round(found.alpha.value, 3)
    (0.8, 0.6, 0.62)
    """
    pairs = [pair for team in teams for pair in combinations(team, 2)]
    both = [(ratings[:, first] != MISSING) & (ratings[:, second] != MISSING) for first, second in pairs]
    kept = np.any(both, axis=0)
    if not kept.any():
        return None
    ratings = ratings[kept]
    rows = [item for item, keep in zip(items, kept, strict=True) if keep]
    tables = np.stack([_table(ratings[:, pair], int(ratings.max()) + 1) for pair in pairs], axis=1)
    compared = [(row, hit) for (first, second) in pairs for row, hit in _hits(ratings[:, [first, second]], rows)]
    share = proportion([hit for _, hit in compared], [row for row, _ in compared], seed)
    units = np.stack([_counts(ratings[:, team], tables.shape[-1]) for team in teams], axis=1)
    kappas = [_kappa(ratings[:, pair]) for pair in pairs]
    known = [place for place, kappa in enumerate(kappas) if kappa is not None]
    mean = fmean(kappa for kappa in kappas if kappa is not None) if known else None
    return Agreement(
        share,
        # Without the other pairs in the draws, too, in which they would count as 1.
        _estimate(mean, mean_kappa, tables[:, known], share, rows, seed),
        _estimate(_alpha(units), alpha_of_sums, _pairable(units), share, rows, seed),
        len(rows),
    )


def _table(pair: Ratings, categories: int) -> Floats:
    """One table [K, K] with a single 1 for each item that both have rated: [N, K, K]."""
    tables = np.zeros((len(pair), categories, categories))
    (rated,) = (pair != MISSING).all(axis=1).nonzero()
    tables[rated, pair[rated, 0], pair[rated, 1]] = 1
    return tables


def _hits(pair: Ratings, rows: Sequence[Hashable]) -> list[tuple[Hashable, bool]]:
    """Whether two raters agree, for each item that both have rated."""
    return [(row, bool(a == b)) for row, (a, b) in zip(rows, pair, strict=True) if MISSING not in (a, b)]


def _counts(team: Ratings, categories: int) -> Floats:
    """How many of a team put each item into each category: [N, K]; none if only one has rated the item."""
    counts = (team[:, :, None] == np.arange(categories)).sum(axis=1)
    return np.asarray(counts * (counts.sum(axis=1, keepdims=True) > 1), dtype=np.float64)


def _kappa(pair: Ratings) -> float | None:
    """scikit-learn's coefficient of two raters; None if both say one and the same thing throughout."""
    rated = pair[(pair != MISSING).all(axis=1)]
    return float(cohen_kappa_score(rated[:, 0], rated[:, 1])) if len(np.unique(rated)) > 1 else None


def _alpha(units: Floats) -> float | None:
    """krippendorff's coefficient of counts [N, teams, K]; None if all say one and the same thing."""
    counts = units.reshape(-1, units.shape[-1])
    if (counts.sum(axis=0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts.astype(int), level_of_measurement="nominal"))


def _estimate(
    value: float | None, statistic: Statistic, sums: Floats, share: Estimate, rows: Sequence[Hashable], seed: int
) -> Estimate | None:
    """A coefficient with its bootstrap interval.

    If all agree on every item, no draw can show any doubt: the lower end is then what the coefficient would be at the
    lower end of Wilson's interval for the agreement, with chance as it was found.
    """
    if value is None:
        return None
    if share.value == 1:
        number = len(set(rows))
        doubt = (1 - wilson(number, number)[0]) / (1 - _chance(sums))
        return Estimate(value, max(-1.0, 1 - doubt), 1.0, len(rows))
    return Estimate(value, *bootstrap(statistic, sums, rows, seed), len(rows))


def _chance(sums: Floats) -> float:
    """Agreement by chance if all agree: what is left of it when one category takes its share twice."""
    totals = sums.sum(axis=0)
    shares = np.diagonal(totals, axis1=-2, axis2=-1).sum(axis=0) if totals.ndim > 1 else totals[1:]
    return float(((shares / shares.sum()) ** 2).sum())


# --- on sums over items ----------------------------------------------------------------------------------------------


def mean_kappa(tables: Floats) -> Floats:
    """Cohen's kappa of tables of counts [..., pairs, K, K], averaged over the pairs that share items.

    A pair that says one and the same thing throughout, which happens in a draw if the others are rare, counts as 1:
    such draws then widen the interval.
    """
    number = tables.sum(axis=(-2, -1))
    shares = tables / np.maximum(number, 1)[..., None, None]
    observed = np.trace(shares, axis1=-2, axis2=-1)
    chance = (shares.sum(axis=-1) * shares.sum(axis=-2)).sum(axis=-1)
    kappas = 1 - _ratio(1 - observed, 1 - chance)
    return np.asarray((kappas * (number > 0)).sum(axis=-1) / (number > 0).sum(axis=-1), dtype=np.float64)


def _pairable(units: Floats) -> Floats:
    """What alpha needs of each item's counts [N, teams, K], summed over teams: agreeing pairs, and ratings: [N, 1 + K].

    Of m ratings of a unit each pair counts 1 / (m - 1), so that a unit weighs as many pairs as it has ratings.
    """
    raters = units.sum(axis=-1)
    agreeing = (units * (units - 1)).sum(axis=-1) / np.maximum(raters - 1, 1)
    return np.concatenate([agreeing.sum(axis=1)[:, None], units.sum(axis=1)], axis=1)


def alpha_of_sums(sums: Floats) -> Floats:
    """Krippendorff's alpha of agreeing pairs and ratings by category, [..., 1 + K]; 1 as in `mean_kappa`."""
    agreeing, ratings = sums[..., 0], sums[..., 1:]
    number = ratings.sum(axis=-1)
    chance = (ratings * (ratings - 1)).sum(axis=-1) / (number * (number - 1))
    return np.asarray(1 - _ratio(1 - agreeing / number, 1 - chance), dtype=np.float64)


def _ratio(disagreement: Floats, expected: Floats) -> Floats:
    """Disagreement over that by chance; 0 if chance leaves none, as there is none then."""
    none = expected < 1e-12
    return np.asarray(np.where(none, 0.0, disagreement / np.where(none, 1.0, expected)), dtype=np.float64)
