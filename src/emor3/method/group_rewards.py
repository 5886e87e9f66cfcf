"""What depends on a whole group of completions: votes, a part on which the judge failed, and the forms of R_RER.

A form (relative, trust, anneal; or a placebo, for experiments) changes parts of the reward, so that the total stays
the weighted sum of the recorded parts.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeAlias

from emor3.method.rewards import RewardSettings, predicted_label, weighted_total, weights
from emor3.method.types import Aspect, EmotionalThought, RewardBreakdown, Sample

Scored: TypeAlias = tuple[Sample, EmotionalThought, RewardBreakdown]
"""A completion's sample, its parsed text and its reward so far."""


def settled(group: Sequence[Scored], settings: RewardSettings, step: int = 1, steps: int = 1) -> list[RewardBreakdown]:
    """The rewards of the completions of one prompt as they train, at a step of so many.

    What depends on the whole group is in, and what the judge failed on for one completion is out for all. The only
    place that settles a group: training (`emor3.training.scorer`) and `emor3.scoring.rows` call it.
    """
    samples, thoughts, rewards = zip(*group, strict=True)
    sample = samples[0]
    formed = in_form(without_failed_parts(rewards, settings), settings, step, steps)
    if settings.votes == 0 or sample.distribution is None:
        return formed
    answers = [predicted_label(thought, sample.labels) for thought in thoughts]
    return with_votes(formed, vote_values(answers, sample.distribution), settings.votes)


def without_failed_parts(breakdowns: Sequence[RewardBreakdown], settings: RewardSettings) -> list[RewardBreakdown]:
    """A group's rewards; a part on which the judge failed for one completion is dropped for all of them.

    Completions are compared inside their group, so a part that only some have would count against the others.

    Two completions, on the second of which the judge failed: neither is paid for coherence, 0.15 of the first's 1.0.

    >>> parts = {"accuracy": 1.0, "format": 1.0, "consistency": 1.0, "coherence": 1.0}
    >>> group = [RewardBreakdown(1.0, parts), RewardBreakdown(0.85, {**parts, "coherence": None})]
    >>> [round(reward.total, 4) for reward in without_failed_parts(group, RewardSettings())]
    [0.85, 0.85]
    """
    paid = {name: weight for name, weight in weights(settings).items() if weight > 0}
    failed = {name for name in paid if any(breakdown.parts[name] is None for breakdown in breakdowns)}
    left = {name: weight for name, weight in paid.items() if name not in failed}
    return [
        RewardBreakdown(weighted_total(parts, left), parts)
        for parts in ({**breakdown.parts, **dict.fromkeys(failed)} for breakdown in breakdowns)
    ]


def vote_values(answers: Sequence[str | None], votes: Mapping[str, float]) -> list[float]:
    """How much each of G answers improves the group's Brier score against the votes p: (1 + p(a) - q(a)) / 2.

    q is the share of the other G - 1 answers, so q - p is the Brier score's gradient, estimated without the answer
    itself: a group that answers as people vote earns the same for every answer, and no single label is the best one.
    An unparsed answer earns 0.

    People voted 3 to 1 for joy. A group that answers 3 to 1 as well: each "joy" is joined by 2 of the 3 others.

    >>> [round(value, 3) for value in vote_values(["joy", "joy", "joy", "fear"], {"joy": 0.75, "fear": 0.25})]
    [0.542, 0.542, 0.542, 0.625]
    """
    counts = Counter(answers)
    others = max(1, len(answers) - 1)
    return [
        0.0 if answer is None else (1 + votes.get(answer, 0.0) - (counts[answer] - 1) / others) / 2
        for answer in answers
    ]


def with_votes(breakdowns: Sequence[RewardBreakdown], values: Sequence[float], weight: float) -> list[RewardBreakdown]:
    """The group's rewards with the part for human votes."""
    return [
        RewardBreakdown(breakdown.total + weight * value, {**breakdown.parts, "votes": value})
        for breakdown, value in zip(breakdowns, values, strict=True)
    ]


def in_form(
    breakdowns: Sequence[RewardBreakdown], settings: RewardSettings, step: int, steps: int
) -> list[RewardBreakdown]:
    """A group's rewards with R_RER in the form of the settings: its parts are changed, and the total is their sum.

    Trust looks at R_RER as the judge gave it, before it is made relative.

    The only right answer earns half of R_RER with `relative`, 0.6 + 0.1 + 0.3 / 2, and the wrong one none, 0.1.

    >>> parts = {"accuracy": 1.0, "format": 1.0, "consistency": 1.0, "coherence": 1.0}
    >>> group = [RewardBreakdown(1.0, parts), RewardBreakdown(0.4, {**parts, "accuracy": 0.0})]
    >>> [round(reward.total, 4) for reward in in_form(group, RewardSettings(relative=True), 1, 100)]
    [0.85, 0.1]
    """
    paid = [aspect.value for aspect in Aspect if aspect in settings.aspects]
    columns = {
        name: [value for one in breakdowns if (value := one.parts[name]) is not None] for name in paid
    }  # a part that failed is None in the whole group
    columns = {name: values for name, values in columns.items() if values}
    if not columns or not (settings.relative or settings.trust or settings.anneal):
        return list(breakdowns)
    right = [one.parts["accuracy"] == 1 for one in breakdowns]
    factor = annealed(step, steps) if settings.anneal else 1.0
    if settings.trust:
        factor *= trust_weight([sum(values) / len(values) for values in zip(*columns.values(), strict=True)], right)
    if settings.relative:
        columns = {name: relative_values(values, right) for name, values in columns.items()}
    changed = [
        {**one.parts, **{name: factor * values[place] for name, values in columns.items()}}
        for place, one in enumerate(breakdowns)
    ]
    scored = {name: weight for name, weight in weights(settings).items() if changed[0][name] is not None}
    return [RewardBreakdown(weighted_total(parts, scored), parts) for parts in changed]


def relative_values(values: Sequence[float], right: Sequence[bool]) -> list[float]:
    """A reflection paid only to right answers, against the group's other right ones: (1 + v_i - mean of v_j) / 2.

    After CARE (arXiv 2506.16141): a bonus for right answers, by comparison with their peers; theirs has a slow moving
    average as judge and no KL term (`judge.model: ema`, `grpo.beta: 0`). A wrong answer earns 0, right ones earn 1/2 on
    average in every group. So does the only right one, whatever the judge says, and so do right ones that are alike:
    no advantage among right answers follows from a constant, because it is in their mean as well, which is subtracted.
    Linear in v, so R_RER has this form if both its reflections have it.

    Three right answers, of which the judge supports the first two, and a wrong one that it supports too: the first is
    compared with the mean of 1 and 0, the third with that of 1 and 1.

    >>> relative_values([1.0, 1.0, 0.0, 1.0], [True, True, True, False])
    [0.75, 0.75, 0.0, 0.0]
    >>> relative_values([0.0, 1.0], [True, False])
    [0.5, 0.0]
    """
    whole, count = sum(v for v, is_right in zip(values, right, strict=True) if is_right), sum(right)
    if count == 1:
        return [0.5 * is_right for is_right in right]
    return [
        (1 + value - (whole - value) / (count - 1)) / 2 if is_right else 0.0
        for value, is_right in zip(values, right, strict=True)
    ]


def trust_weight(values: Sequence[float], right: Sequence[bool]) -> float:
    """Weight of R_RER in a group: exp(min(0, mean of the right answers' - mean of the wrong answers')).

    SophiaVL-R1 (arXiv 2505.17018): a judge that prefers the group's wrong answers is not to be trusted on it. 1 if all
    are right or all wrong, because nothing speaks against the judge.

    Right answers earn 0.5 on average, the wrong one 1: exp(-0.5).

    >>> round(trust_weight([1.0, 0.0, 1.0], [True, True, False]), 4)
    0.6065
    """
    sides = [[v for v, is_right in zip(values, right, strict=True) if is_right is side] for side in (True, False)]
    if not all(sides):
        return 1.0
    of_right, of_wrong = (sum(side) / len(side) for side in sides)
    return math.exp(min(0.0, of_right - of_wrong))


def annealed(step: int, steps: int) -> float:
    """Weight of R_RER at a step, from 1, of so many: exp(-step / steps), from 1 down to 0.37 (SophiaVL-R1, 2505.17018).

    >>> round(annealed(50, 100), 4), round(annealed(100, 100), 4)
    (0.6065, 0.3679)
    """
    return math.exp(-step / steps)


def placebo_places(count: int, seed: int, step: int, sample: str) -> list[int]:
    """For each of a group's G completions the place of the one whose verdicts it is paid for, drawn at random.

    Drawn from the run's seed, the step and the sample, so that a resumed run draws the same. Every verdict is paid
    once, so that size and spread of the rewards stay; which completion earned it does not.

    >>> placebo_places(4, seed=0, step=1, sample="1")
    [1, 3, 0, 2]
    """
    return Random(f"{seed}/{step}/{sample}").sample(range(count), count)
