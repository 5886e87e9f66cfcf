"""Uncertainty of every figure: 95% intervals, and paired tests between two models on the same items.

Intervals are Wilson's (1927) for shares of independent items, else a percentile bootstrap that draws whole clusters
together (near copies, or several completions on one image).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from emor3.errors import UserError
from emor3.method.types import Estimate

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Of values summed over items, [..., *] -> [...]."""

BOOTSTRAP_DRAWS = 1000
PERMUTATION_DRAWS = 9999
_CHUNK = 100  # draws at once, which bounds the memory


def proportion(hits: Sequence[bool], items: Sequence[Hashable], seed: int = 0) -> Estimate:
    """A share with its interval: Wilson if every item is its own cluster, else the cluster bootstrap.

    Raises UserError if there is nothing to count.

    >>> proportion([True, True, False, False], items="aabb")
    Estimate(value=0.5, low=0.0, high=1.0, n=4)
    """
    if len(hits) == 0:
        raise UserError("there is nothing to count")
    number = len(set(items))
    if number == len(items):
        low, high = wilson(sum(hits), number)
    elif sum(hits) in (0, len(hits)):
        low, high = wilson(number if hits[0] else 0, number)  # resampling equal outcomes cannot show any doubt
    else:
        low, high = bootstrap(_ratio, _with_count(np.asarray(hits, dtype=np.float64)), items, seed)
    return Estimate(sum(hits) / len(hits), low, high, len(hits))


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's interval for a share of n independent items (1927).

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mean(values: Sequence[float], items: Sequence[Hashable], seed: int = 0) -> Estimate:
    """A mean over items with its cluster bootstrap. Raises UserError if there is nothing to average.

    Two images with two answers each: the mean of four, but the doubt of two.

    >>> mean([0.0, 0.0, 1.0, 1.0], items="aabb")
    Estimate(value=0.5, low=0.0, high=1.0, n=4)
    """
    return means({"it": values}, items, seed)["it"]


def means(values: Mapping[str, Sequence[float]], items: Sequence[Hashable], seed: int = 0) -> dict[str, Estimate]:
    """`mean` of several values of the same items, from the same draws.

    >>> means({"score": [0.0, 0.5, 1.0, 0.5], "cost": [1.0, 1.0, 1.0, 1.0]}, items="abcd")["cost"]
    Estimate(value=1.0, low=1.0, high=1.0, n=4)
    """
    if len(items) == 0:
        raise UserError("there is nothing to average")
    parts = [(_ratio, _with_count(np.asarray(numbers, dtype=np.float64))) for numbers in values.values()]
    return {
        name: Estimate(float(np.mean(numbers)), *interval, len(items))
        for (name, numbers), interval in zip(values.items(), bootstraps(parts, items, seed), strict=True)
    }


def _with_count(values: Floats) -> Floats:
    return np.stack([values, np.ones_like(values)], axis=1)


def _ratio(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def bootstrap(statistic: Statistic, values: Floats, items: Sequence[Hashable], seed: int) -> tuple[float, float]:
    """Percentile interval of a statistic of `values` [N, ...] summed over items; clusters are drawn as wholes.

    Efron & Tibshirani 1993, section 13.3; the cluster form is Davison & Hinkley 1997, section 3.8.

    Four answers on two images, all right on one image and all wrong on the other: two clusters say next to nothing.

    >>> hits = np.array([[1.0], [1.0], [0.0], [0.0]])
    >>> bootstrap(lambda sums: sums[..., 0] / 4, hits, ["a", "a", "b", "b"], seed=0)
    (0.0, 1.0)
    """
    return bootstraps([(statistic, values)], items, seed)[0]


def bootstraps(
    parts: Sequence[tuple[Statistic, Floats]], items: Sequence[Hashable], seed: int
) -> list[tuple[float, float]]:
    """`bootstrap` of several statistics of the same items, each with its own values, from the same draws.

    >>> hits = np.array([[1.0], [1.0], [0.0], [0.0]])
    >>> bootstraps([(lambda sums: sums[..., 0] / 4, hits), (lambda sums: 1 - sums[..., 0] / 4, hits)], "aabb", seed=0)
    [(0.0, 1.0), (0.0, 1.0)]
    """
    sums = [by_cluster(values, items) for _, values in parts]
    drawn: list[list[Floats]] = [[] for _ in parts]
    generator = np.random.default_rng(seed)
    number = len(set(items))
    for _ in range(0, BOOTSTRAP_DRAWS, _CHUNK):
        times = generator.multinomial(number, np.full(number, 1 / number), size=_CHUNK)
        for (statistic, _), of_part, found in zip(parts, sums, drawn, strict=True):
            found.append(statistic((times @ of_part.reshape(number, -1)).reshape(_CHUNK, *of_part.shape[1:])))
    return [_percentiles(np.concatenate(found)) for found in drawn]


def _percentiles(drawn: Floats) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def resample(
    statistic: Callable[[NDArray[np.intp]], float], items: Sequence[Hashable], seed: int
) -> tuple[float, float]:
    """Percentile interval of a statistic of item indices that is no function of sums; clusters are drawn as wholes.

    >>> resample(lambda places: float(np.median(places)), "aabb", seed=0)  # items 0 and 1, or 2 and 3, or all
    (0.5, 2.5)
    """
    members: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        members.setdefault(item, []).append(place)
    clusters = [np.array(places) for places in members.values()]
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(np.concatenate([clusters[k] for k in generator.integers(len(clusters), size=len(clusters))]))
        for _ in range(BOOTSTRAP_DRAWS)
    ]
    return _percentiles(np.array(drawn))


def by_cluster(values: Floats, items: Sequence[Hashable]) -> Floats:
    """Values [N, ...] summed inside each cluster, in the order of first appearance.

    >>> by_cluster(np.array([1.0, 2.0, 4.0]), ["a", "b", "a"]).tolist()
    [5.0, 2.0]
    """
    index = {item: place for place, item in enumerate(dict.fromkeys(items))}
    sums = np.zeros((len(index), *values.shape[1:]))
    np.add.at(sums, [index[item] for item in items], values)
    return sums


# --- two models on the same items ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two models on the same items, `after` against `before`."""

    difference: Estimate
    """Mean of after - before, with the paired bootstrap's interval."""
    gained: int
    """Items that only `after` has right."""
    lost: int
    """Items that only `before` has right."""
    p_value: float
    """Two-sided: exact McNemar if items are independent, else sign flips of whole clusters."""


def compare_hits(before: Sequence[bool], after: Sequence[bool], items: Sequence[Hashable], seed: int = 0) -> Comparison:
    """The comparison for any yes-or-no outcome of N items. Raises UserError if there are none.

    Eight items, five gained and one lost: (5 - 1) / 8, and McNemar's 2 * (1 + 6) * (1/2)^6.

    >>> found = compare_hits([True] * 3 + [False] * 5, [True, True, False] + [True] * 5, items=range(8))
    >>> found.difference.value, found.gained, found.lost, found.p_value
    (0.5, 5, 1, 0.21875)
    """
    if len(before) == 0:
        raise UserError("there is nothing to compare")
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    low, high = bootstrap(_ratio, _with_count(change), items, seed)
    independent = len(set(items)) == len(items)
    return Comparison(
        difference=Estimate(float(change.mean()), low, high, len(change)),
        gained=int((change > 0).sum()),
        lost=int((change < 0).sum()),
        p_value=mcnemar(before, after) if independent else sign_flip(by_cluster(change, items), seed),
    )


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided McNemar test (1947): are the items that changed as often gained as lost? 1 if none did.

    Five items gained and none lost: 2 * (1/2)^5.

    >>> mcnemar([False] * 5 + [True], [True] * 6)
    0.0625
    """
    gained = sum(a and not b for b, a in zip(before, after, strict=True))
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flip(changes: Floats, seed: int) -> float:
    """Monte Carlo permutation test on cluster sums: under no difference, before and after swap freely per cluster.

    Five clusters that gain one item each: about 2 * (1/2)^5, as McNemar gives for five items.

    >>> sign_flip(np.ones(5), seed=0)
    0.0652
    """
    generator = np.random.default_rng(seed)
    observed = abs(changes.sum()) - 1e-9
    extreme = 0
    for start in range(0, PERMUTATION_DRAWS, _CHUNK):
        draws = min(_CHUNK, PERMUTATION_DRAWS - start)
        signs = generator.choice([-1.0, 1.0], size=(draws, len(changes)))
        extreme += int((abs(signs @ changes) >= observed).sum())
    return (extreme + 1) / (PERMUTATION_DRAWS + 1)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several tests, adjusted so that the chance of any false alarm among them holds (Holm 1979).

    >>> holm({"accuracy": 0.01, "macro_f1": 0.04})
    {'accuracy': 0.02, 'macro_f1': 0.04}
    """
    adjusted, largest = dict(p_values), 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, p_values[name] * (len(p_values) - place)))
        adjusted[name] = largest
    return adjusted
