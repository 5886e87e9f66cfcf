"""Before the first step it is said whether reflection tells the completions of one image apart, and which are right."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from emor3.data.folders import load_samples
from emor3.judges.group_signal import GroupSignal, Truth, group_signal
from emor3.method.reflection import ScriptedJudge
from emor3.method.rewards import RewardSettings
from emor3.method.thinking import parse
from emor3.method.types import EmotionalThought, Question, Reply, Sample
from emor3.tiny.language import alter, trigger_text
from emor3.tiny.perception import DrawnTruth
from rewards import paper_reward

HARD, SOFT = paper_reward(coherence=False), paper_reward(coherence=False, soft=True)


def described(text: str) -> EmotionalThought:
    """A completion that describes the image with this text."""
    return parse(f"<step1>{text}</step1><step2>a</step2><step3>b</step3>\\boxed{{c}}")


class Drawn:
    """Pictures with two right and two wrong descriptions each, and a judge who sees as much as a test says."""

    def __init__(self, folder: str) -> None:
        self.samples = list(load_samples(folder, split="train")[:10])
        self.truth = DrawnTruth([Path(folder)])
        self.groups = [self._group(sample, Random(place)) for place, sample in enumerate(self.samples)]
        self.right = {
            (sample.images, group[0].trigger) for sample, group in zip(self.samples, self.groups, strict=True)
        }

    def _group(self, sample: Sample, rng: Random) -> list[EmotionalThought]:
        (scene,) = [s for path, s in self.truth.scenes.items() if path[-1] == Path(sample.image).name]
        told = described(trigger_text(scene, rng))
        return [told, told, *(described(trigger_text(alter(scene, rng), rng)) for _ in range(2))]

    def signal(self, judge: object, settings: RewardSettings, truth: Truth | None = None) -> GroupSignal | None:
        return group_signal(judge, self.samples, self.groups, settings, truth or self.truth.describes)


class Judge:
    """Says Yes with the probability that a test gives for a right description, and for a wrong one."""

    def __init__(self, drawn: Drawn, right: float, wrong: float) -> None:
        self.drawn, self.right, self.wrong = drawn, right, wrong

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        told = [any(q.images == image and text in q.text for image, text in self.drawn.right) for q in questions]
        shares = [self.right if right else self.wrong for right in told]
        return [Reply("Yes" if share > 0.5 else "No", {"Yes": share, "No": 1 - share}) for share in shares]


def unknown(sample: Sample, thought: EmotionalThought) -> None:
    """The truth of a photograph."""
    return


@pytest.fixture(scope="module")
def drawn(scenes: str) -> Drawn:
    return Drawn(scenes)


def test_a_judge_that_sees_tells_right_from_wrong_in_every_group(drawn: Drawn) -> None:
    found = drawn.signal(Judge(drawn, 0.9, 0.2), HARD)
    assert found == GroupSignal(groups=10, alike=0, auc_within=1.0, mixed_groups=10)
    assert found.line() == (
        "judge: says the same of all completions in 0 of 10 groups; "
        "AUC 1.00, n = 10 groups between right and wrong descriptions of one image"
    )


def test_what_counts_is_what_reflection_pays_verdicts_or_if_soft_probabilities(drawn: Drawn) -> None:
    unsure = Judge(drawn, 0.9, 0.6)  # yes to both
    assert drawn.signal(unsure, HARD) == GroupSignal(10, 10, 0.5, 10)
    assert drawn.signal(unsure, SOFT) == GroupSignal(10, 0, 1.0, 10)
    assert drawn.signal(Judge(drawn, 0.9, 0.895), SOFT) == GroupSignal(10, 10, 1.0, 10)  # 0.005 apart: the same


def test_a_judge_that_prefers_wrong_descriptions_is_warned_of_once(drawn: Drawn) -> None:
    found = drawn.signal(Judge(drawn, 0.2, 0.9), HARD)
    assert found is not None
    assert found.line().splitlines()[1:] == [
        "warning: this judge cannot tell right from wrong descriptions inside a group (AUC 0.00, n = 10 groups): "
        "reflection will be noise, try another judge.model"
    ]


def test_where_the_truth_is_not_known_the_spread_of_the_verdicts_warns(drawn: Drawn) -> None:
    found = drawn.signal(ScriptedJudge(lambda question: "Yes"), HARD, unknown)
    assert found == GroupSignal(10, 10, None, 0)
    assert found.line().splitlines() == [
        "judge: says the same of all completions in 10 of 10 groups",
        "warning: the judge says the same of all completions in 10 of 10 groups: reflection will hardly change an "
        "advantage, try reward.soft, another judge.model or a higher grpo.temperature",
    ]


@pytest.mark.parametrize(
    ("finding", "warns"),
    [
        (GroupSignal(32, 30, None, 0), True),  # 2 of 32 differ, less than a tenth
        (GroupSignal(32, 28, None, 0), False),  # 4 of 32 differ
        (GroupSignal(7, 7, None, 0), False),  # too few groups to say so
        (GroupSignal(32, 0, 0.52, 24), True),
        (GroupSignal(32, 0, 0.52, 7), False),
        (GroupSignal(32, 0, 0.7, 24), False),
    ],
)
def test_a_warning_takes_enough_groups_and_a_bad_finding(finding: GroupSignal, warns: bool) -> None:
    assert finding.line().count("warning") == warns


def test_a_judge_of_the_reasoning_alone_is_tried_by_its_spread(drawn: Drawn) -> None:
    reads = ScriptedJudge(lambda question: next(s.label for s in drawn.samples if s.label in question.candidates))
    found = drawn.signal(reads, paper_reward(consistency=False))
    assert found == GroupSignal(10, 10, None, 0)


def judge_of(reply: Callable[[int], Reply]) -> object:
    """A judge that replies by the place of a question."""

    class ByPlace:
        def answer(self, questions: Sequence[Question]) -> list[Reply]:
            return [reply(place) for place in range(len(questions))]

    return ByPlace()


def test_groups_with_fewer_than_two_judged_completions_are_not_counted(drawn: Drawn) -> None:
    broken = Reply("", error="HTTP 500")
    assert drawn.signal(judge_of(lambda place: broken), HARD) is None
    # The first two of a group are one question, so it has three: with the first question's reply a group has two.
    found = drawn.signal(judge_of(lambda place: Reply("Yes") if place < 3 else broken), HARD)
    assert found == GroupSignal(1, 1, 0.5, 1)


def test_completions_without_step_1_are_no_question_of_the_judge(drawn: Drawn) -> None:
    judge = ScriptedJudge(lambda question: "Yes")
    groups = [[parse("\\boxed{awe}")] * 4 for _ in drawn.samples]
    assert group_signal(judge, drawn.samples, groups, HARD, drawn.truth.exact) is None
    assert judge.asked == []
