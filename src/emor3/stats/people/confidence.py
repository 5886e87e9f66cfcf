"""Figures of the confidence that completions state in words: `<confidence>0.7</confidence>`, from 0 to 1.

The same figures as those of sampled answers, on the stated number (EmoCaliber, arXiv 2512.15528): items that state none
are counted and left out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from emor3.method.thinking import CONFIDENCE, stated_number
from emor3.method.types import Estimate, Prediction
from emor3.stats.classification import clusters, is_correct
from emor3.stats.distributions import area_under_risk, calibration_error, reliability_cells
from emor3.stats.uncertainty import Floats, bootstrap, mean, proportion, resample


def stated_confidence(predictions: Sequence[Prediction]) -> tuple[list[Prediction], Floats, Floats]:
    """The N predictions that state a confidence, what they state (N,), and whether they are right (N,)."""
    stated = [(p, value) for p in predictions if (value := stated_number(p.completion, CONFIDENCE)) is not None]
    confidence = np.array([value for _, value in stated], dtype=np.float64)
    return [p for p, _ in stated], confidence, np.array([float(is_correct(p)) for p, _ in stated])


def stated_calibration(predictions: Sequence[Prediction], seed: int = 0) -> dict[str, Estimate]:
    """Share that states a confidence, its ECE, Brier score, area under ROC and under risk-coverage; nothing if none.

    The Brier score is of the answer's being right: the mean of (confidence - right)^2, from 0 to 1.
    """
    stated, confidence, right = stated_confidence(predictions)
    if not stated:
        return {}
    items = clusters(stated)
    cells = reliability_cells(confidence, right)

    def risk(places: NDArray[np.intp]) -> float:
        return area_under_risk(confidence[places], right[places])

    def roc(places: NDArray[np.intp]) -> float:
        return area_under_roc(confidence[places], right[places])

    every, number = np.arange(len(stated)), len(stated)
    error = float(calibration_error(cells.sum(0)))
    found = {
        "states_confidence": proportion(
            [stated_number(p.completion, CONFIDENCE) is not None for p in predictions], clusters(predictions), seed
        ),
        "stated_calibration_error": Estimate(error, *bootstrap(calibration_error, cells, items, seed), number),
        "stated_brier": mean(((confidence - right) ** 2).tolist(), items, seed),
        "stated_risk_coverage_area": Estimate(risk(every), *resample(risk, items, seed), number),
    }
    if 0 < right.sum() < number:
        found["stated_auroc"] = Estimate(roc(every), *resample(roc, items, seed), number)
    return found


def area_under_roc(confidence: Floats, right: Floats) -> float:
    """Chance that a right answer states more confidence than a wrong one, ties counted half; 0.5 if none is either.

    >>> area_under_roc(np.array([0.9, 0.6, 0.6, 0.2]), np.array([1.0, 1.0, 0.0, 0.0]))
    0.875
    """
    hits = right.sum()
    misses = len(right) - hits
    if not hits or not misses:
        return 0.5
    return float((rankdata(confidence)[right == 1].sum() - hits * (hits + 1) / 2) / (hits * misses))
