"""The reward of one completion:

R_overall = (1 - l1 - l2) * R_acc + l1 * R_RER + l2 * R_format,   R_RER = (R_cons + R_coh) / 2   (maximum 1.0)

`formula: released` is what the authors' code pays instead: l1 for each reflection (maximum 1 + l1) and half a point
for a reply that cannot be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from emor3.errors import UserError
from emor3.taxonomy import LabelSet, match
from emor3.types import Aspect, EmotionalThought, Finding, Reflection, RewardBreakdown, Verdict

Formula = Literal["paper", "released"]

FORMULAS: tuple[Formula, ...] = get_args(Formula)


@dataclass(frozen=True)
class RewardSettings:
    """Weights and switches. GRPO only: reflective 0 and format 0. SET only: reflective 0. SET + RER: the defaults.

    Raises UserError for weights that are negative, not a number or above 1 in sum, and for an unknown formula.
    """

    reflective: float = 0.1
    """l1, the weight of the Reflective Emotional Reward."""
    format: float = 0.1
    """l2, the weight of the grammar of Structured Emotional Thinking."""
    consistency: bool = True
    """Whether R_RER holds visual-text consistency; with one of the two off, R_RER is the other one alone."""
    coherence: bool = True
    """Whether R_RER holds emotional coherence."""
    formula: Formula = "paper"

    def __post_init__(self) -> None:
        if self.formula not in FORMULAS:
            raise UserError(f"unknown reward formula {self.formula!r}: use {' or '.join(FORMULAS)}")
        for name, weight in (("reflective", self.reflective), ("format", self.format)):
            if not 0 <= weight <= 1:
                raise UserError(f"reward weight {name!r} is {weight}: it must be a number from 0 to 1")
        if self.reflective + self.format > 1 + 1e-9:
            raise UserError(f"reward weights reflective {self.reflective} + format {self.format} exceed 1")

    @property
    def aspects(self) -> frozenset[Aspect]:
        """The reflections that are paid for; only these are worth asking in training."""
        switches = {Aspect.CONSISTENCY: self.consistency, Aspect.COHERENCE: self.coherence}
        return frozenset(aspect for aspect, on in switches.items() if on and self.reflective > 0)


def weights(settings: RewardSettings) -> dict[str, float]:
    """Weight of each raw part; the total is the sum of weight times part.

    With both reflections switched off their weight goes to accuracy, so that the maximum stays 1.
    """
    reflective = settings.reflective if settings.aspects else 0.0
    share = reflective if settings.formula == "released" else reflective / max(1, len(settings.aspects))
    return {
        "accuracy": 1 - reflective - settings.format,
        "format": settings.format,
        **{aspect.value: share if aspect in settings.aspects else 0.0 for aspect in Aspect},
    }


def verdict_value(verdict: Verdict, formula: Formula = "paper") -> float:
    """What a verdict earns: 1 where the judge supports the text, else 0; half a point for noise if released."""
    if verdict is Verdict.UNREADABLE and formula == "released":
        return 0.5
    return float(verdict is Verdict.SUPPORTED)


def predicted_label(thought: EmotionalThought, labels: LabelSet) -> str | None:
    """The label of the set that the answer is, spelt as in the set; None is the outcome "unparsed", never a class."""
    return None if thought.answer is None else match(thought.answer, labels)


def score(
    thought: EmotionalThought, label: str, labels: LabelSet, reflection: Reflection, settings: RewardSettings
) -> RewardBreakdown:
    """Raw parts and their weighted total for one completion whose ground truth is `label`.

    Raises UserError where `label` is not in the set, or a reflection that carries weight was never run.
    """
    if label not in labels.labels:
        raise UserError(f"label {label!r} is not in the set {labels.name} ({', '.join(labels.labels)})")
    parts: dict[str, float | None] = {
        "accuracy": float(predicted_label(thought, labels) == label),
        "format": float(thought.problem is None),
        "consistency": _value(reflection.consistency, settings.formula),
        "coherence": _value(reflection.coherence, settings.formula),
    }
    return RewardBreakdown(_total(parts, weights(settings)), parts)


def _value(finding: Finding | None, formula: Formula) -> float | None:
    return None if finding is None else verdict_value(finding.verdict, formula)


def _total(parts: Mapping[str, float | None], part_weights: Mapping[str, float]) -> float:
    total = 0.0
    for name, weight in part_weights.items():
        part = parts[name]
        if weight == 0:
            continue
        if part is None:
            raise UserError(
                f"the {name} reflection was never run but has weight {weight:g}: run it or set its weight to 0"
            )
        total += weight * part
    return total


def reflective(parts: Mapping[str, float | None]) -> float | None:
    """R_RER = (R_cons + R_coh) / 2; None where either reflection was never run."""
    consistency, coherence = parts["consistency"], parts["coherence"]
    return None if consistency is None or coherence is None else (consistency + coherence) / 2
