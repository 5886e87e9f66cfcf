"""Check before the first step: whether reflection tells the completions of one image apart, in groups of a few.

An advantage is a difference inside a group, so a judge that says the same of all completions of an image makes none,
and one that supports wrong descriptions as often as right ones makes noise, however well it tells an image's own
description from another image's. Which descriptions are right is known of drawn pictures only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from sklearn.metrics import roc_auc_score

from emor3.judges.calibration import RARE, WEAK_AUC
from emor3.method.reflection import reflect
from emor3.method.rewards import RewardSettings, coherence_value, consistency_value
from emor3.method.types import EmotionalThought, Finding, Judge, Reflection, Sample
from emor3.stats.format import hundredths

GROUP = 4
"""Completions of an image that are compared."""
ALIKE = 0.01
"""A reflection whose values, 0 to 1, lie no further apart in a group says the same of all its completions."""
FEWEST = 8
"""Groups from which on a warning is given."""

Truth = Callable[[Sample, EmotionalThought], bool | None]
"""Whether step 1 is right; None if that is not known."""


@dataclass(frozen=True)
class GroupSignal:
    """What reflection says of the completions of one image, before training."""

    groups: int
    """Images with at least two completions that the judge judged."""
    alike: int
    """Of these, how many of whose completions the judge says the same."""
    auc_within: float | None
    """Mean over mixed groups of the AUC between right and wrong descriptions; None if the truth is known of none."""
    mixed_groups: int
    """Groups with right and wrong descriptions."""

    def line(self) -> str:
        """The finding on one line, with a warning on another if reflection cannot help."""
        text = f"judge: says the same of all completions in {self._in_groups()}"
        if self.auc_within is not None:
            text += f"; {self._auc()} between right and wrong descriptions of one image"
        warning = self._warning()
        return text if warning is None else f"{text}\nwarning: {warning}"

    def _warning(self) -> str | None:
        if self.auc_within is not None and self.auc_within < WEAK_AUC and self.mixed_groups >= FEWEST:
            return (
                "this judge cannot tell right from wrong descriptions inside a group "
                f"({self._auc()}): reflection will be noise, try another judge.model"
            )
        if self.groups >= FEWEST and self.groups - self.alike < RARE * self.groups:
            return (
                f"the judge says the same of all completions in {self._in_groups()}: reflection will hardly change an "
                "advantage, try reward.soft, another judge.model or a higher grpo.temperature"
            )
        return None

    def _in_groups(self) -> str:
        return f"{self.alike} of {self.groups} groups"

    def _auc(self) -> str:
        return f"AUC {hundredths(self.auc_within or 0.0)}, n = {self.mixed_groups} groups"


def group_signal(
    judge: Judge,
    samples: Sequence[Sample],
    groups: Sequence[Sequence[EmotionalThought]],
    settings: RewardSettings,
    truth: Truth,
) -> GroupSignal | None:
    """Try a judge on a group of parsed completions for each of n samples, by what reflection would pay for them.

    Only the sample's own image is asked about, not those of contrastive consistency, so that the check stays cheap.
    None if no group has two completions that were judged.
    """
    items = [(sample, thought) for sample, group in zip(samples, groups, strict=True) for thought in group]
    found = iter(reflect(judge, items, settings.aspects))
    tried = [_Tried(sample, group, [next(found) for _ in group]) for sample, group in zip(samples, groups, strict=True)]
    spreads = [spread for group in tried if (spread := group.spread(settings)) is not None]
    if not spreads:
        return None
    aucs = [auc for group in tried if (auc := group.auc(settings, truth)) is not None]
    return GroupSignal(len(spreads), sum(s <= ALIKE for s in spreads), fmean(aucs) if aucs else None, len(aucs))


class _Tried(NamedTuple):
    """A sample, completions of it and what the judge made of each."""

    sample: Sample
    thoughts: Sequence[EmotionalThought]
    reflections: Sequence[Reflection]

    def spread(self, settings: RewardSettings) -> float | None:
        """Largest difference of what a reflection pays for two completions that were judged; None without two."""
        values = (
            [_judged(r.consistency, consistency_value(r.consistency, settings)) for r in self.reflections],
            [_judged(r.coherence, coherence_value(r.coherence, self.sample.label, settings)) for r in self.reflections],
        )
        paid = [[value for value in column if value is not None] for column in values]
        return max((max(column) - min(column) for column in paid if len(column) > 1), default=None)

    def auc(self, settings: RewardSettings, truth: Truth) -> float | None:
        """Share of pairs of a right and a wrong description in which the right one is paid more; None unless mixed."""
        told = [
            (right, value)
            for thought, r in zip(self.thoughts, self.reflections, strict=True)
            if (value := _judged(r.consistency, consistency_value(r.consistency, settings))) is not None
            and (right := truth(self.sample, thought)) is not None
        ]
        if len({right for right, _ in told}) < 2:
            return None
        return float(roc_auc_score(*zip(*told, strict=True)))


def _judged(finding: Finding | None, value: float | None) -> float | None:
    """What is paid for a finding, if the judge was asked and replied."""
    return value if finding is not None and finding.reply is not None else None
