"""Reflective decoding: M sampled completions, each weighed by what a judge makes of its reasoning. No ground truth.

weight = P(yes | image, s1) * P(answer | s1 + s2): the description must fit the image (consistency) and the reasoning
must lead to the label that the completion itself answers (agreement). A completion without an answer weighs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from emor3.method.labels import LabelSet, affirmed
from emor3.method.reflection import reflect, says_yes
from emor3.method.rewards import predicted_label
from emor3.method.types import Aspect, EmotionalThought, Finding, Judge, Reflection, Sample


@dataclass(frozen=True)
class Decision:
    """What M weighed completions say together."""

    distribution: dict[str, float]
    """Share of each label among the weights; empty if no completion has any weight."""
    label: str | None
    best: int | None
    """Place of the completion that answers `label` with the largest weight: the best-supported trace."""
    abstains: bool
    """Whether the leading label has less than the share asked for."""


def weigh(
    judge: Judge, samples: Sequence[Sample], thoughts: Sequence[EmotionalThought]
) -> list[tuple[float, Reflection]]:
    """Weight of each of N completions and the reflection behind it, from one call of the judge."""
    reflections = reflect(judge, list(zip(samples, thoughts, strict=True)), frozenset(Aspect))
    return [
        (_weight(reflection, predicted_label(thought, sample.labels), sample.labels), reflection)
        for sample, thought, reflection in zip(samples, thoughts, reflections, strict=True)
    ]


def _weight(reflection: Reflection, answer: str | None, labels: LabelSet) -> float:
    if answer is None:
        return 0.0
    consistency = reflection.consistency
    yes = says_yes(consistency.reply) if consistency and consistency.reply else 0.0
    return yes * _reads(reflection.coherence, answer, labels)


def _reads(finding: Finding | None, answer: str, labels: LabelSet) -> float:
    if finding is None or finding.reply is None:
        return 0.0
    if finding.reply.probabilities is None:
        return float(affirmed(finding.reply.text, labels) == answer)
    return finding.reply.probabilities[answer]


def decide(answers: Sequence[str | None], weights: Sequence[float], labels: LabelSet, abstain_below: float) -> Decision:
    """The label with the largest share of the weights; ties go to the earlier one in the label set."""
    totals = {label: sum(w for a, w in zip(answers, weights, strict=True) if a == label) for label in labels.labels}
    whole = sum(totals.values())
    if whole == 0:
        return Decision({}, None, None, abstains=True)
    shares = {label: total / whole for label, total in totals.items()}
    label = max(shares, key=shares.__getitem__)
    best = max((place for place, answer in enumerate(answers) if answer == label), key=lambda place: weights[place])
    return Decision(shares, label, best, abstains=shares[label] < abstain_below)
