"""Figures from M sampled answers: distance to human votes, calibration, and risk when the least sure are left out.

The model's distribution over the K labels is the share of the sampled answers, with one further answer spread evenly
over all labels (q = (count + 1/K) / (M + 1)), so that no label has probability 0. Unparsed answers count for no label.

Where none of the M answers can be read, there is no distribution: q is 0 for every label, not uniform. Such an item is
counted ("unanswered"). It has no leading answer, so it is wrong in the accuracy, with confidence 0 in calibration and
risk and a Brier score of 1; distances to votes leave it out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emor3.method.types import Estimate, Prediction
from emor3.stats.classification import clusters
from emor3.stats.figures import FIGURES
from emor3.stats.uncertainty import Floats, bootstrap, mean, means, proportion, resample

BINS = 10
"""Bins of equal width of the reliability diagram and of the expected calibration error (Guo et al. 2017)."""


def answer_shares(prediction: Prediction) -> Floats:
    """The model's distribution (K,) from its sampled answers, smoothed as the module says."""
    labels = prediction.sample.labels.labels
    counts = [(prediction.sampled or ()).count(label) for label in labels]
    if not any(counts):
        return np.zeros(len(labels))
    return (np.array(counts) + 1 / len(labels)) / (sum(counts) + 1)


def votes(prediction: Prediction) -> Floats | None:
    """Human votes as shares (K,), where humans voted."""
    shares = prediction.sample.distribution
    return None if shares is None else np.array([shares.get(label, 0.0) for label in prediction.sample.labels.labels])


def leading_answer(prediction: Prediction) -> str | None:
    """The label with the largest share; the earlier one in the label set if several have it; None without answers."""
    found = answer_shares(prediction)
    return prediction.sample.labels.labels[int(found.argmax())] if found.any() else None


def distances(predictions: Sequence[Prediction], seed: int = 0) -> dict[str, Estimate]:
    """Mean of every distance over the predictions that have votes and readable answers; nothing if none has."""
    pairs = [
        (p, human, model)
        for p in predictions
        if p.sampled is not None and (human := votes(p)) is not None and (model := answer_shares(p)).any()
    ]
    if not pairs:
        return {}
    items = clusters([p for p, _, _ in pairs])
    rows = {name: row.distance for name, row in FIGURES.items() if row.distance}
    return means({name: [f(human, model) for _, human, model in pairs] for name, f in rows.items()}, items, seed)


# --- calibration and selective prediction on the leading answer -------------------------------------------------------


def confidences(predictions: Sequence[Prediction]) -> tuple[Floats, Floats]:
    """Confidence (N,) in the leading answer, and whether it is right (N,)."""
    confidence = np.array([answer_shares(p).max() for p in predictions])
    return confidence, np.array([float(leading_answer(p) == p.sample.label) for p in predictions])


def calibration(predictions: Sequence[Prediction], seed: int = 0) -> dict[str, Estimate]:
    """Accuracy of the leading answer, items without one, ECE, Brier score and area under the risk-coverage curve.

    Nothing if no answers were sampled.
    """
    sampled = [p for p in predictions if p.sampled is not None]
    if not sampled:
        return {}
    confidence, right = confidences(sampled)
    items = clusters(sampled)
    cells = reliability_cells(confidence, right)

    def risk_area(indices: NDArray[np.intp]) -> float:
        return area_under_risk(confidence[indices], right[indices])

    return {
        "leading_accuracy": mean(right.tolist(), items, seed),
        "unanswered": proportion([leading_answer(p) is None for p in sampled], items, seed),
        "expected_calibration_error": Estimate(
            float(calibration_error(cells.sum(0))), *bootstrap(calibration_error, cells, items, seed), len(sampled)
        ),
        "brier": mean([brier(p) for p in sampled], items, seed),
        "risk_coverage_area": Estimate(
            risk_area(np.arange(len(sampled))), *resample(risk_area, items, seed), len(sampled)
        ),
    }


def brier(prediction: Prediction) -> float:
    """Squared distance of the model's distribution to the true label's certain one (Brier 1950), from 0 to 2."""
    labels = prediction.sample.labels.labels
    truth = np.array([float(label == prediction.sample.label) for label in labels])
    return float(np.sum((answer_shares(prediction) - truth) ** 2))


def reliability_cells(confidence: Floats, right: Floats) -> Floats:
    """For each item its bin's (confidence, right, count): [N, BINS, 3], zero in all other bins."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    cells = np.zeros((len(bins), BINS, 3))
    cells[np.arange(len(bins)), bins] = np.stack([confidence, right, np.ones_like(right)], axis=1)
    return cells


def calibration_error(cells: Floats) -> Floats:
    """sum over bins of |mean confidence - accuracy| weighted by the bin's share: [..., BINS, 3] -> [...]."""
    return np.asarray(np.abs(cells[..., 0] - cells[..., 1]).sum(-1) / cells[..., 2].sum(-1), dtype=np.float64)


def area_under_risk(confidence: Floats, right: Floats) -> float:
    """Mean error rate over all coverages, the surest answers first (AURC, Geifman & El-Yaniv 2017)."""
    return float(np.mean(risk_curve(confidence, right)))


def risk_curve(confidence: Floats, right: Floats) -> Floats:
    """Error rate (N,) among the 1, 2, ..., N surest answers; equally sure ones share their mean error."""
    order = np.argsort(-confidence, kind="stable")
    level = np.unique(-confidence[order], return_inverse=True)[1]
    errors = (np.bincount(level, 1 - right[order]) / np.bincount(level))[level]
    return np.asarray(np.cumsum(errors) / np.arange(1, len(errors) + 1), dtype=np.float64)
