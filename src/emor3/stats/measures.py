"""What figures are made of: checks that one prediction passes, fails or skips, and distances of one distribution.

Checks look at the reasoning, mostly under a fixed judge. Distances are between human votes p and the model's
distribution q over K labels, both (K,).
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.spatial import distance

from emor3.method.rewards import judge_failed, label_read, signs_held, verdict_value
from emor3.method.types import Estimate, Finding, Prediction
from emor3.stats.classification import clusters
from emor3.stats.uncertainty import Floats, proportion

Check = Callable[[Prediction], float | None]
"""Whether one prediction passes a check of its reasoning, or its share that does; None if the check does not apply."""

Distance = Callable[[Floats, Floats], float]
"""A number of p and q."""


def rate(predictions: Sequence[Prediction], check: Check, seed: int = 0) -> Estimate | None:
    """Share of the predictions a check applies to that pass it; None if it applies to none."""
    passed = [(p, outcome) for p in predictions if (outcome := check(p)) is not None]
    if not passed:
        return None
    return proportion([bool(outcome) for _, outcome in passed], clusters([p for p, _ in passed]), seed)


def keeps_format(prediction: Prediction) -> bool:
    """Whether the completion has all its steps and one answer, in order."""
    return prediction.thought.problem is None


def consistent(prediction: Prediction) -> bool | None:
    """Whether the judge sees step 1 in the image."""
    return _supported(prediction.reflection.consistency)


def consistent_when_swapped(prediction: Prediction) -> bool | None:
    """The control of consistency: whether the judge sees another image's step 1, which must be rare."""
    return _supported(prediction.swapped)


def coherent(prediction: Prediction) -> bool | None:
    """Whether the judge reads the true label from steps 1 and 2."""
    return _supported(prediction.reflection.coherence)


def _supported(finding: Finding | None) -> bool | None:
    """Whether the judge supports the text; what could not be asked is not supported.

    None if it never ran or the judge failed.
    """
    return None if finding is None or judge_failed(finding) else verdict_value(finding.verdict) == 1


def agrees(prediction: Prediction) -> bool | None:
    """Think-answer agreement: the judge reads from steps 1 and 2 the label that the model itself answers."""
    finding = prediction.reflection.coherence
    if finding is None or judge_failed(finding):
        return None
    read = label_read(finding, prediction.sample.labels)
    return read is not None and read == prediction.predicted


def polarity_holds(prediction: Prediction) -> bool | None:
    """Whether step 3 claims the polarity of the true label."""
    return signs_held(prediction.thought, prediction.sample)[0]


def arousal_holds(prediction: Prediction) -> bool | None:
    """Whether step 3 claims the arousal of the true label."""
    return signs_held(prediction.thought, prediction.sample)[1]


def chebyshev(p: Floats, q: Floats) -> float:
    """max |p - q|."""
    return float(distance.chebyshev(p, q))


def clark(p: Floats, q: Floats) -> float:
    """sqrt(sum ((p - q) / (p + q))^2), 0/0 = 0 (Geng 2016)."""
    return float(np.sqrt(np.sum(_relative_difference(p, q) ** 2)))


def canberra(p: Floats, q: Floats) -> float:
    """sum |p - q| / (p + q), 0/0 = 0."""
    return float(np.sum(np.abs(_relative_difference(p, q))))


def _relative_difference(p: Floats, q: Floats) -> Floats:
    return np.divide(p - q, p + q, out=np.zeros_like(p), where=p + q > 0)


def kullback_leibler(p: Floats, q: Floats) -> float:
    """sum p log(p / q) in nats, 0 log 0 = 0; finite because q is smoothed."""
    return float(np.sum(p * np.log(np.divide(p, q, out=np.ones_like(p), where=p > 0))))


def jensen_shannon(p: Floats, q: Floats) -> float:
    """Mean of the divergences of p and q from their mean, in bits: 0 to 1."""
    return float(distance.jensenshannon(p, q, base=2) ** 2)


def cosine(p: Floats, q: Floats) -> float:
    """Cosine similarity, higher is closer."""
    return float(1 - distance.cosine(p, q))


def intersection(p: Floats, q: Floats) -> float:
    """sum min(p, q), higher is closer."""
    return float(np.minimum(p, q).sum())


def brier(p: Floats, q: Floats) -> float:
    """sum (p - q)^2 (Brier 1950), 0 to 2."""
    return float(np.sum((p - q) ** 2))
