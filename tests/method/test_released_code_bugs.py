"""One test for each fault of the authors' released code that shows without a model: ours must not have it."""

import time
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.method.labels import EKMAN6, MIKELS8, LabelSet
from emor3.method.reflection import ScriptedJudge, reflect
from emor3.method.rewards import RewardSettings, score, weights
from emor3.method.thinking import build_prompt, parse
from emor3.method.types import Aspect, EmotionalThought, Reflection, Sample, Verdict
from rewards import paper_reward

BOTH = frozenset(Aspect)


def completion(label: str, trigger: str = "A child alone.") -> EmotionalThought:
    return parse(f"<step1>{trigger}</step1>\n<step2>Sorrow.</step2>\n<step3>Low.</step3>\n\\boxed{{{label}}}")


def sample(label: str = "sadness", labels: LabelSet = MIKELS8, id: str = "a") -> Sample:
    return Sample(id, (f"{id}.png",), label, labels)


def script(consistency: str, coherence: str) -> ScriptedJudge:
    return ScriptedJudge(lambda question: consistency if question.aspect is Aspect.CONSISTENCY else coherence)


def earn(judge: ScriptedJudge, items: list[tuple[Sample, Any]], settings: RewardSettings | None = None) -> list[float]:
    settings = settings or paper_reward()
    reflections = reflect(judge, items, settings.aspects)
    return [
        score(thought, item, reflection, settings).total
        for (item, thought), reflection in zip(items, reflections, strict=True)
    ]


def test_weights_sum_to_1_and_not_to_1_1() -> None:
    assert sum(weights(paper_reward()).values()) == pytest.approx(1.0)
    assert earn(script("Yes", "sadness"), [(sample(), completion("sadness"))]) == pytest.approx([1.0])


def test_switching_reflection_off_is_read_asks_nothing_and_pays_nothing() -> None:
    for off in (paper_reward(reflective=0), paper_reward(consistency=False, coherence=False)):
        judge = script("No", "fear")
        assert earn(judge, [(sample(), completion("sadness"))], off) == pytest.approx([1.0])
        assert judge.asked == []


def test_the_judge_is_offered_the_samples_labels_and_none_written_in_code() -> None:
    judge = script("Yes", "joy")
    reflect(judge, [(sample("joy", EKMAN6), completion("joy"))], BOTH)
    coherence = next(question for question in judge.asked if question.aspect is Aspect.COHERENCE)
    assert coherence.candidates == EKMAN6.labels
    for foreign in set(MIKELS8.labels) - set(EKMAN6.labels):
        assert foreign not in coherence.text
        assert foreign not in build_prompt(EKMAN6)


@pytest.mark.parametrize(("reply", "verdict"), [("eyes", Verdict.UNREADABLE), ("none", Verdict.UNREADABLE)])
def test_verdicts_are_read_by_words_and_not_by_substring(reply: str, verdict: Verdict) -> None:
    found = reflect(script(reply, "sadness"), [(sample(), completion("sadness"))], BOTH)[0]
    assert found.consistency.verdict is verdict


def test_a_judges_label_is_read_by_words_and_not_by_substring() -> None:
    labels = LabelSet("mine", ("awe", "awesome fun"))
    found = reflect(script("Yes", "awesome fun"), [(sample("awe", labels), completion("awe"))], BOTH)[0]
    assert found.coherence.verdict is Verdict.REFUTED


def test_labels_are_compared_trimmed() -> None:
    assert earn(script("Yes", " Sadness.\n"), [(sample(), completion(" sadness.\n"))]) == pytest.approx([1.0])


def test_a_completion_that_cannot_be_asked_does_not_shift_images_against_samples() -> None:
    judge = ScriptedJudge(lambda question: "Yes" if question.images == ("b.png",) else "No")
    items = [
        (sample(id="x"), parse("no steps at all")),
        (sample(id="b"), completion("sadness", "A dog.")),
        (sample(id="c"), completion("sadness", "A cat.")),
    ]
    found = [reflection.consistency for reflection in reflect(judge, items, frozenset({Aspect.CONSISTENCY}))]
    assert [finding.verdict for finding in found] == [Verdict.NOT_ASKED, Verdict.SUPPORTED, Verdict.REFUTED]
    assert [question.images for question in judge.asked] == [("b.png",), ("c.png",)]
    assert "A dog." in judge.asked[0].text


def test_a_group_whose_answers_all_agree_is_still_told_apart_by_its_reflection() -> None:
    # both answers are right, so accuracy alone gives the group no signal; consistency alone carries l1: 1.0 against 0.9
    judge = ScriptedJudge(lambda question: "No" if "A dragon." in question.text else "Yes")
    items = [(sample(), completion("sadness")), (sample(), completion("sadness", "A dragon."))]
    settings = paper_reward(coherence=False)
    assert earn(judge, items, settings) == pytest.approx([1.0, 0.9])


def test_a_reflection_that_never_ran_is_not_counted_as_1() -> None:
    settings = paper_reward(reflective=0)
    parts = score(completion("sadness"), sample(), Reflection(), settings).parts
    assert (parts["consistency"], parts["coherence"]) == (None, None)
    with pytest.raises(UserError, match="never run"):
        score(completion("sadness"), sample(), Reflection(), paper_reward())


def test_an_unreadable_verdict_pays_nothing() -> None:
    # 0.8 + 0.1 * (0 + 0) / 2 + 0.1
    assert earn(script("", ""), [(sample(), completion("sadness"))]) == pytest.approx([0.9])


def test_a_missing_box_is_no_label_even_where_a_label_is_called_none() -> None:
    labels = LabelSet("odd", ("none", "joy"))
    assert earn(script("No", "none"), [(sample("none", labels), parse("I see nothing."))]) == [0.0]


def test_spaced_tags_are_broken_for_format_and_for_reflection_alike() -> None:
    thought = parse("< step1>A.</ step1>\n< step2>B.</ step2>\n< step3>C.</ step3>\n\\boxed{sadness}")
    assert (thought.problem is None, thought.trigger, thought.feeling) == (False, None, None)


def test_a_loop_of_tags_parses_at_once_where_a_backtracking_regex_never_ends() -> None:
    for loop in (
        "<step1>",
        "<step1></step1>",
        "<step1>a</step1> <step2>b</step2> ",
        "</step3>\\boxed{",
        "<step1><step2>",
    ):
        text = loop * (2048 // 4)
        start = time.process_time()  # not the clock, on which other work counts too
        parse(text)
        assert time.process_time() - start < 1  # milliseconds, on any machine
