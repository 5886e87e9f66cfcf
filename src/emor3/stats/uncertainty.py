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

BOOTSTRAP_DRAWS = 1000
PERMUTATION_DRAWS = 9999
_CHUNK = 100  # draws at once, which bounds the memory


def proportion(hits: Sequence[bool], items: Sequence[Hashable], seed: int = 0) -> Estimate:
    """A share with its interval: Wilson where every item is its own cluster, else the cluster bootstrap.

    Raises UserError if there is nothing to count.
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
    """A mean over items with its cluster bootstrap. Raises UserError if there is nothing to average."""
    if len(values) == 0:
        raise UserError("there is nothing to average")
    low, high = bootstrap(_ratio, _with_count(np.asarray(values, dtype=np.float64)), items, seed)
    return Estimate(float(np.mean(values)), low, high, len(values))


def _with_count(values: Floats) -> Floats:
    return np.stack([values, np.ones_like(values)], axis=1)


def _ratio(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def bootstrap(
    statistic: Callable[[Floats], Floats], values: Floats, items: Sequence[Hashable], seed: int
) -> tuple[float, float]:
    """Percentile interval of a statistic of `values` [N, ...] summed over items; clusters are drawn as wholes.

    Efron & Tibshirani 1993, section 13.3; the cluster form is Davison & Hinkley 1997, section 3.8.

    Four answers on two images, all right on one image and all wrong on the other: two clusters say next to nothing.

    >>> hits = np.array([[1.0], [1.0], [0.0], [0.0]])
    >>> bootstrap(lambda sums: sums[..., 0] / 4, hits, ["a", "a", "b", "b"], seed=0)
    (0.0, 1.0)
    """
    sums = by_cluster(values, items)
    flat = sums.reshape(len(sums), -1)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(0, BOOTSTRAP_DRAWS, _CHUNK):
        times = generator.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=_CHUNK)
        drawn.append(statistic((times @ flat).reshape(_CHUNK, *sums.shape[1:])))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return float(low), float(high)


def resample(
    statistic: Callable[[NDArray[np.intp]], float], items: Sequence[Hashable], seed: int
) -> tuple[float, float]:
    """Percentile interval of a statistic of item indices that is no function of sums; clusters are drawn as wholes."""
    members: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        members.setdefault(item, []).append(place)
    clusters = [np.array(places) for places in members.values()]
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(np.concatenate([clusters[k] for k in generator.integers(len(clusters), size=len(clusters))]))
        for _ in range(BOOTSTRAP_DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def by_cluster(values: Floats, items: Sequence[Hashable]) -> Floats:
    """Values [N, ...] summed inside each cluster, in the order of first appearance."""
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
    """Two-sided: exact McNemar where items are independent, else sign flips of whole clusters."""


def compare_hits(before: Sequence[bool], after: Sequence[bool], items: Sequence[Hashable], seed: int = 0) -> Comparison:
    """The comparison for any yes-or-no outcome of N items. Raises UserError if there are none."""
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
    """Monte Carlo permutation test on cluster sums: under no difference, before and after swap freely per cluster."""
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
