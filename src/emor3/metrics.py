"""Figures with their uncertainty: classification, rates of reasoning, and paired tests between two models.

A completion without a readable answer is the outcome "unparsed": never a class, and wrong in every accuracy.
Intervals are 95%: Wilson (1927) for shares of independent items, else a percentile bootstrap that draws whole groups
together (near copies, or several completions on one image).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from emor3.errors import UserError
from emor3.rewards import verdict_value
from emor3.taxonomy import LabelSet, resolve
from emor3.types import Aspect, Estimate, Prediction

Floats = NDArray[np.float64]

BOOTSTRAP_DRAWS = 1000
PERMUTATION_DRAWS = 9999
_CHUNK = 100  # draws at once, which bounds the memory


@dataclass(frozen=True)
class Classification:
    """How well predictions on one label set agree with the ground truth."""

    accuracy: Estimate
    lenient_accuracy: Estimate
    """Accuracy with `taxonomy.resolve`, which takes synonyms and inflections; reported beside the strict one."""
    macro_f1: Estimate
    balanced_accuracy: Estimate
    """Mean recall of the classes that occur (unweighted average recall)."""
    polarity_accuracy: Estimate | None
    """Over items whose label has a fixed polarity; None where no item has."""
    unparsed: Estimate
    confusion: tuple[tuple[int, ...], ...]
    """[K][K + 1] counts, ground truth by prediction in the order of the label set; the last column is "unparsed"."""


def classify(predictions: Sequence[Prediction], seed: int = 0) -> Classification:
    """All classification figures of N predictions on one label set. Raises UserError for none or for several sets."""
    labels = _label_set(predictions)
    items = clusters(predictions)
    cells = _cells(predictions, labels)
    signed = [p for p in predictions if p.sample.label in labels.polarity]
    return Classification(
        accuracy=proportion(correct(predictions), items, seed),
        lenient_accuracy=proportion([_lenient(p) == p.sample.label for p in predictions], items, seed),
        macro_f1=_of_tables(macro_f1, cells, items, seed),
        balanced_accuracy=_of_tables(balanced_accuracy, cells, items, seed),
        polarity_accuracy=proportion([_same_polarity(p) for p in signed], clusters(signed), seed) if signed else None,
        unparsed=proportion([p.predicted is None for p in predictions], items, seed),
        confusion=tuple(tuple(int(count) for count in row) for row in cells.sum(axis=0)),
    )


def correct(predictions: Sequence[Prediction]) -> list[bool]:
    """Whether each prediction is the ground truth, strictly."""
    return [p.predicted == p.sample.label for p in predictions]


def clusters(predictions: Sequence[Prediction]) -> list[Hashable]:
    """What to resample together: the sample's group where it has one, else the sample."""
    return [("id", p.sample.id) if p.sample.group is None else ("group", p.sample.group) for p in predictions]


def format_rate(predictions: Sequence[Prediction], seed: int = 0) -> Estimate:
    """Share of completions that keep the grammar of Structured Emotional Thinking."""
    return proportion([p.thought.problem is None for p in predictions], clusters(predictions), seed)


def support_rate(predictions: Sequence[Prediction], aspect: Aspect, seed: int = 0) -> Estimate | None:
    """Share of completions that a judge supports; one that could not be asked counts 0. None where it never ran."""
    findings = [getattr(p.reflection, aspect.value) for p in predictions]
    ran = [(p, finding) for p, finding in zip(predictions, findings, strict=True) if finding is not None]
    if not ran:
        return None
    return proportion([verdict_value(finding.verdict) == 1 for _, finding in ran], clusters([p for p, _ in ran]), seed)


def _label_set(predictions: Sequence[Prediction]) -> LabelSet:
    if not predictions:
        raise UserError("there are no predictions to measure")
    labels = predictions[0].sample.labels
    if any(p.sample.labels != labels for p in predictions):
        raise UserError("predictions on different label sets cannot be measured together: evaluate each set alone")
    return labels


def _lenient(prediction: Prediction) -> str | None:
    answer = prediction.thought.answer
    return None if answer is None else resolve(answer, prediction.sample.labels)


def _same_polarity(prediction: Prediction) -> bool:
    polarity = prediction.sample.labels.polarity
    predicted = None if prediction.predicted is None else polarity.get(prediction.predicted)
    return predicted == polarity[prediction.sample.label]


# --- statistics of confusion tables: [..., K, K + 1] -> [...] -------------------------------------------------------


def macro_f1(tables: Floats) -> Floats:
    """Mean F1 of the classes that occur in the ground truth; an unparsed completion is a miss of its class."""
    hits, support = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(axis=-1)
    claimed = tables[..., :-1].sum(axis=-2)
    return _mean_where(support > 0, 2 * hits / np.maximum(support + claimed, 1))


def balanced_accuracy(tables: Floats) -> Floats:
    """Mean recall of the classes that occur in the ground truth."""
    hits, support = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(axis=-1)
    return _mean_where(support > 0, hits / np.maximum(support, 1))


def _mean_where(present: NDArray[np.bool_], values: Floats) -> Floats:
    return np.asarray((values * present).sum(axis=-1) / present.sum(axis=-1), dtype=np.float64)


def _cells(predictions: Sequence[Prediction], labels: LabelSet) -> Floats:
    """One confusion table for each item: [N, K, K + 1] with a single 1."""
    column = {label: index for index, label in enumerate(labels.labels)}
    cells = np.zeros((len(predictions), len(column), len(column) + 1))
    for table, p in zip(cells, predictions, strict=True):
        table[column[p.sample.label], len(column) if p.predicted is None else column[p.predicted]] = 1
    return cells


def _of_tables(statistic: Callable[[Floats], Floats], cells: Floats, items: Sequence[Hashable], seed: int) -> Estimate:
    low, high = _bootstrap(statistic, cells, items, seed)
    return Estimate(float(statistic(cells.sum(axis=0))), low, high, len(cells))


# --- intervals -------------------------------------------------------------------------------------------------------


def proportion(hits: Sequence[bool], items: Sequence[Hashable], seed: int = 0) -> Estimate:
    """A share with its interval: Wilson where every item is its own cluster, else the cluster bootstrap.

    Raises UserError where there is nothing to count.
    """
    if len(hits) == 0:
        raise UserError("there is nothing to count")
    if len(set(items)) == len(items):
        interval = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
        low, high = float(interval.low), float(interval.high)
    else:
        low, high = _bootstrap(_ratio, _with_count(np.asarray(hits, dtype=np.float64)), items, seed)
    return Estimate(sum(hits) / len(hits), low, high, len(hits))


def _with_count(values: Floats) -> Floats:
    return np.stack([values, np.ones_like(values)], axis=1)


def _ratio(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def _bootstrap(
    statistic: Callable[[Floats], Floats], values: Floats, items: Sequence[Hashable], seed: int
) -> tuple[float, float]:
    """Percentile interval of a statistic of `values` [N, ...] summed over items; clusters are drawn as wholes.

    Efron & Tibshirani 1993, section 13.3; the cluster form is Davison & Hinkley 1997, section 3.8.
    """
    sums = _by_cluster(values, items)
    flat = sums.reshape(len(sums), -1)
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(0, BOOTSTRAP_DRAWS, _CHUNK):
        times = generator.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=_CHUNK)
        drawn.append(statistic((times @ flat).reshape(_CHUNK, *sums.shape[1:])))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return float(low), float(high)


def _by_cluster(values: Floats, items: Sequence[Hashable]) -> Floats:
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


def compare(before: Sequence[Prediction], after: Sequence[Prediction], seed: int = 0) -> Comparison:
    """Strict accuracy of two models on the same samples in the same order. Raises UserError where they differ."""
    if [(p.sample.id, p.sample.label) for p in before] != [(p.sample.id, p.sample.label) for p in after]:
        raise UserError("a paired test needs predictions on the same samples in the same order")
    return compare_hits(correct(before), correct(after), clusters(before), seed)


def compare_hits(before: Sequence[bool], after: Sequence[bool], items: Sequence[Hashable], seed: int = 0) -> Comparison:
    """The comparison for any yes-or-no outcome of N items. Raises UserError where there are none."""
    if len(before) == 0:
        raise UserError("there is nothing to compare")
    change = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    low, high = _bootstrap(_ratio, _with_count(change), items, seed)
    independent = len(set(items)) == len(items)
    return Comparison(
        difference=Estimate(float(change.mean()), low, high, len(change)),
        gained=int((change > 0).sum()),
        lost=int((change < 0).sum()),
        p_value=mcnemar(before, after) if independent else _sign_flip(_by_cluster(change, items), seed),
    )


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Exact two-sided McNemar test (1947): are the items that changed as often gained as lost? 1 where none did."""
    gained = sum(a and not b for b, a in zip(before, after, strict=True))
    lost = sum(b and not a for b, a in zip(before, after, strict=True))
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _sign_flip(changes: Floats, seed: int) -> float:
    """Monte Carlo permutation test on cluster sums: under no difference, before and after swap freely per cluster."""
    generator = np.random.default_rng(seed)
    observed = abs(changes.sum()) - 1e-9
    extreme = 0
    for start in range(0, PERMUTATION_DRAWS, _CHUNK):
        draws = min(_CHUNK, PERMUTATION_DRAWS - start)
        signs = generator.choice([-1.0, 1.0], size=(draws, len(changes)))
        extreme += int((abs(signs @ changes) >= observed).sum())
    return (extreme + 1) / (PERMUTATION_DRAWS + 1)
