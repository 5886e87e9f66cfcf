"""How sound a model's reasoning is, mostly under a fixed judge: checks that a prediction passes, fails or skips."""

from collections.abc import Callable, Sequence

from emor3.method.rewards import judge_failed, label_read, signs_held, verdict_value
from emor3.method.types import Estimate, Finding, Prediction
from emor3.stats.classification import clusters
from emor3.stats.uncertainty import proportion

Check = Callable[[Prediction], bool | None]
"""Whether one prediction passes a check of its reasoning; None if the check does not apply to it."""


def rate(predictions: Sequence[Prediction], check: Check, seed: int = 0) -> Estimate | None:
    """Share of the predictions a check applies to that pass it; None if it applies to none."""
    passed = [(p, outcome) for p in predictions if (outcome := check(p)) is not None]
    if not passed:
        return None
    return proportion([outcome for _, outcome in passed], clusters([p for p, _ in passed]), seed)


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
