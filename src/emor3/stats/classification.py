"""How well predictions on one data set agree with the ground truth.

A completion without a readable answer is the outcome "unparsed": never a class, and wrong in every accuracy.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emor3.errors import UserError
from emor3.method.labels import LabelSet, resolve
from emor3.method.types import Estimate, Prediction
from emor3.stats.seeds import pseudo_values
from emor3.stats.uncertainty import Floats, Statistic, bootstraps, proportion


@dataclass(frozen=True)
class Classification:
    """How well predictions on one label set agree with the ground truth."""

    accuracy: Estimate
    lenient_accuracy: Estimate
    """Accuracy with `taxonomy.resolve`, which takes synonyms and inflections; reported beside the strict one."""
    macro_f1: Estimate
    weighted_f1: Estimate
    """Mean F1 of the classes, each as often as it occurs, as VECBench reports it."""
    balanced_accuracy: Estimate
    """Mean recall of the classes that occur (unweighted average recall)."""
    polarity_accuracy: Estimate | None
    """Over items whose label has a fixed polarity; None if no item has."""
    unparsed: Estimate
    confusion: tuple[tuple[int, ...], ...]
    """[K][K + 1] counts, ground truth by prediction in the order of the label set; the last column is "unparsed"."""

    @property
    def figures(self) -> dict[str, Estimate]:
        """All figures that there are, by name."""
        return {name: part for name, part in vars(self).items() if isinstance(part, Estimate)}


def classify(predictions: Sequence[Prediction], seed: int = 0) -> Classification:
    """All classification figures of N predictions on one label set. Raises UserError for none or for several sets."""
    labels = _label_set(predictions)
    items = clusters(predictions)
    tables = _confusions(predictions, labels)
    signed = [p for p in predictions if p.sample.label in labels.polarity]
    f1, weighted, recall = _of_tables([macro_f1, weighted_f1, balanced_accuracy], tables, items, seed)
    return Classification(
        accuracy=proportion([*map(is_correct, predictions)], items, seed),
        lenient_accuracy=proportion([_lenient(p) == p.sample.label for p in predictions], items, seed),
        macro_f1=f1,
        weighted_f1=weighted,
        balanced_accuracy=recall,
        polarity_accuracy=proportion([_same_polarity(p) for p in signed], clusters(signed), seed) if signed else None,
        unparsed=proportion([p.predicted is None for p in predictions], items, seed),
        confusion=tuple(tuple(int(count) for count in row) for row in tables.sum(axis=0)),
    )


def is_correct(prediction: Prediction) -> bool:
    """Whether a prediction is the ground truth, strictly; one that cannot be read is not."""
    return prediction.predicted == prediction.sample.label


def clusters(predictions: Sequence[Prediction]) -> list[Hashable]:
    """What to resample together: the sample's group if it has one, else the sample."""
    return [("id", p.sample.id) if p.sample.group is None else ("group", p.sample.group) for p in predictions]


def compare_macro_f1(
    before: Sequence[Prediction], after: Sequence[Prediction], seed: int = 0
) -> tuple[tuple[float, float], Estimate]:
    """Macro-F1 of two models on the same samples in the same order; its change with the paired bootstrap's interval."""
    labels = _label_set(before)
    pairs = np.stack([_confusions(before, labels), _confusions(after, labels)], axis=1)

    def change(tables: Floats) -> Floats:
        scores = macro_f1(tables)
        return np.asarray(scores[..., 1] - scores[..., 0], dtype=np.float64)

    first, last = macro_f1(pairs.sum(axis=0)).tolist()
    return (first, last), _of_tables([change], pairs, clusters(before), seed)[0]


def macro_f1_table(runs: Sequence[Sequence[Prediction]]) -> Floats:
    """What each cluster of items adds to the macro-F1 of each of S runs on the same samples, [S, C]."""
    tables = np.stack([_confusions(run, _label_set(run)) for run in runs])
    return pseudo_values(macro_f1, tables, clusters(runs[0]))


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
    scores, support = _f1(tables)
    return _mean_where(support > 0, scores)


def weighted_f1(tables: Floats) -> Floats:
    """Mean F1 of the classes, weighted by how often they occur in the ground truth."""
    scores, support = _f1(tables)
    return np.asarray((scores * support).sum(axis=-1) / support.sum(axis=-1), dtype=np.float64)


def _f1(tables: Floats) -> tuple[Floats, Floats]:
    """F1 of each class and how often it occurs, [..., K]."""
    hits, support = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(axis=-1)
    return 2 * hits / np.maximum(support + tables[..., :-1].sum(axis=-2), 1), support


def balanced_accuracy(tables: Floats) -> Floats:
    """Mean recall of the classes that occur in the ground truth."""
    hits, support = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(axis=-1)
    return _mean_where(support > 0, hits / np.maximum(support, 1))


def _mean_where(present: NDArray[np.bool_], values: Floats) -> Floats:
    return np.asarray((values * present).sum(axis=-1) / present.sum(axis=-1), dtype=np.float64)


def _confusions(predictions: Sequence[Prediction], labels: LabelSet) -> Floats:
    """One confusion table for each item: [N, K, K + 1] with a single 1."""
    column = {label: index for index, label in enumerate(labels.labels)}
    cells = np.zeros((len(predictions), len(column), len(column) + 1))
    for table, p in zip(cells, predictions, strict=True):
        table[column[p.sample.label], len(column) if p.predicted is None else column[p.predicted]] = 1
    return cells


def _of_tables(statistics: Sequence[Statistic], cells: Floats, items: Sequence[Hashable], seed: int) -> list[Estimate]:
    intervals = bootstraps([(statistic, cells) for statistic in statistics], items, seed)
    sums = cells.sum(axis=0)
    return [Estimate(float(f(sums)), *interval, len(cells)) for f, interval in zip(statistics, intervals, strict=True)]
