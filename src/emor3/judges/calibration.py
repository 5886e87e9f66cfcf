"""Checks before the first step: the judge's AUC on own and swapped descriptions, and rewards the start model can get.

Both look at one completion of the start model for each of some training images. A judge that cannot tell an image's own
description from another one's makes the consistency reward noise; a start model that never keeps the format, or never
names a label of the set, gets no reward to learn from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sklearn.metrics import roc_auc_score

from emor3.method.reflection import question_on, says_yes
from emor3.method.rewards import predicted_label
from emor3.method.types import EmotionalThought, Judge, Sample
from emor3.stats.format import hundredths, whole_percent

WEAK_AUC = 0.7
RARE = 0.1
"""A share of completions below this is too few to learn from."""


@dataclass(frozen=True)
class Calibration:
    """How well a judge tells an image's own description from another one's, before training."""

    auc: float
    yes_own: float
    yes_swapped: float
    n: int

    def line(self) -> str:
        """The finding on one line, with a warning if it is bad."""
        text = (
            f"judge: AUC {hundredths(self.auc)} between own and swapped descriptions of {self.n} images "
            f"(yes to {whole_percent(self.yes_own)} and {whole_percent(self.yes_swapped)})"
        )
        if self.auc >= WEAK_AUC:
            return text
        return f"{text}\nwarning: this judge hardly sees, its consistency reward is noise: try another judge.model"


def calibrate(judge: Judge, samples: Sequence[Sample], thoughts: Sequence[EmotionalThought]) -> Calibration | None:
    """Try a judge on the policy's descriptions of n samples, one parsed completion for each.

    None if fewer than two samples have usable and distinct ones, and if the judge fails on all of them.
    """
    tried = zip(samples, thoughts, strict=True)
    described = [(sample, thought.trigger) for sample, thought in tried if thought.trigger is not None]
    pairs = [
        (sample, text, other)
        for place, (sample, text) in enumerate(described)
        if (other := next((t for _, t in described[place + 1 :] + described[:place] if t != text), None))
    ]
    if not pairs:
        return None
    own_questions = [question_on(sample, text) for sample, text, _ in pairs]
    swapped_questions = [question_on(sample, other) for sample, _, other in pairs]
    replies = judge.answer([*own_questions, *swapped_questions])
    both = zip(replies[: len(pairs)], replies[len(pairs) :], strict=True)
    answered = [(says_yes(own), says_yes(other)) for own, other in both if own.error is None and other.error is None]
    if not answered:
        return None
    own, swapped = (list(scores) for scores in zip(*answered, strict=True))
    auc = float(roc_auc_score([1] * len(own) + [0] * len(swapped), own + swapped))
    yes_own, yes_swapped = (sum(score > 0.5 for score in part) / len(part) for part in (own, swapped))
    return Calibration(auc, yes_own, yes_swapped, len(answered))


@dataclass(frozen=True)
class StartFigures:
    """How many of n sampled completions of the start model keep the format, and name a label of the set."""

    n: int
    format: int
    named: int
    temperature: float

    def line(self) -> str:
        """The figures on one line, with a warning on another if almost no completion can be paid."""
        text = (
            f"start model: {self.format} of {self.n} completions keep the format, {self.named} name a label of the set "
            f"(one for each of {self.n} training images, temperature {self.temperature:g})"
        )
        counts = {"keeps the format": self.format, "names a label of the set": self.named}
        lacks = [what for what, count in counts.items() if count < RARE * self.n]
        if not lacks:
            return text
        return (
            f"{text}\nwarning: almost none {' or '.join(lacks)}, so there is hardly a reward to learn from: "
            "try another start model, a cold start (a shorter one if there is one), or a prompt template it follows"
        )


def start_figures(samples: Sequence[Sample], thoughts: Sequence[EmotionalThought], temperature: float) -> StartFigures:
    """Figures of one parsed completion for each of n samples.

    Two of four in the right format and three with a label of the set: `StartFigures(4, 2, 3, 1.0)`.
    """
    kept = sum(thought.problem is None for thought in thoughts)
    labels = [predicted_label(thought, sample.labels) for sample, thought in zip(samples, thoughts, strict=True)]
    return StartFigures(len(thoughts), kept, sum(label is not None for label in labels), float(temperature))
