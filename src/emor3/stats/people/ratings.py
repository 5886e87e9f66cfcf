"""Valence and arousal that completions state, against the mean ratings of people: rank and linear correlation.

A template asks for them as `<valence>0.7</valence><arousal>0.4</arousal>`, each from 0 to 1, as data hold them.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from emor3.method.thinking import stated_number
from emor3.method.types import Estimate, Prediction
from emor3.stats.classification import clusters
from emor3.stats.uncertainty import Floats, proportion, resample

RATED = ("valence", "arousal")
Correlation = Callable[[Floats, Floats], float]
FEWEST = 3
"""Items below which a correlation says nothing."""


def against_ratings(predictions: Sequence[Prediction], seed: int = 0) -> dict[str, Estimate]:
    """SRCC and PLCC of stated and rated valence and arousal, and how many items state what people rated.

    Nothing unless people rated and some completion states a rating: a template that asks for none is not measured.
    """
    pairs = {name: _pairs(predictions, name) for name in RATED}
    if all(value is None for found in pairs.values() for _, value in found):
        return {}
    known = {name: [(p, v) for p, v in found if v is not None] for name, found in pairs.items()}
    rated = [p for p in predictions if any(getattr(p.sample, name) is not None for name in RATED)]
    found = {"rates": proportion([_states_all(p) for p in rated], clusters(rated), seed)}
    for name, stated in known.items():
        people = np.array([getattr(p.sample, name) for p, _ in stated], dtype=np.float64)
        model = np.array([value for _, value in stated], dtype=np.float64)
        if len(stated) >= FEWEST and np.ptp(people) > 0 and np.ptp(model) > 0:
            items = clusters([p for p, _ in stated])
            for measure, correlation in (("srcc", srcc), ("plcc", plcc)):
                found[f"{name}_{measure}"] = _estimate(people, model, correlation, items, seed)
    return found


def _pairs(predictions: Sequence[Prediction], name: str) -> list[tuple[Prediction, float | None]]:
    """The predictions whose samples people rated, with what their completions state."""
    return [(p, stated_number(p.completion, name)) for p in predictions if getattr(p.sample, name) is not None]


def _states_all(prediction: Prediction) -> bool:
    rated = [name for name in RATED if getattr(prediction.sample, name) is not None]
    return all(stated_number(prediction.completion, name) is not None for name in rated)


def _estimate(
    people: Floats, model: Floats, correlation: Correlation, items: Sequence[Hashable], seed: int
) -> Estimate:
    def of(places: NDArray[np.intp]) -> float:
        return correlation(people[places], model[places])

    return Estimate(of(np.arange(len(people))), *resample(of, items, seed), len(people))


def plcc(x: Floats, y: Floats) -> float:
    """Pearson's linear correlation; 0 without any difference, which shows no relation.

    >>> plcc(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), plcc(np.ones(3), np.arange(3.0))
    (1.0, 0.0)
    """
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def srcc(x: Floats, y: Floats) -> float:
    """Spearman's correlation of ranks, ties at their mean rank.

    >>> srcc(np.array([1.0, 2.0, 9.0]), np.array([1.0, 3.0, 2.0]))
    0.5
    """
    return plcc(rankdata(x), rankdata(y))
