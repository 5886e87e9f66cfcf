from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.method.labels import MIKELS8
from emor3.method.rewards import (
    RewardSettings,
    attribute_recall,
    check_thinking,
    coherence_value,
    confidence_value,
    consistency_value,
    predicted_label,
    reflective,
    score,
    verdict_value,
    weights,
)
from emor3.method.thinking import parse
from emor3.method.types import Aspect, EmotionalThought, Finding, Reflection, Reply, Sample, Verdict
from rewards import paper_reward

GOOD = parse("<step1>A child alone.</step1><step2>Sorrow.</step2><step3>Negative.</step3>\\boxed{sadness}")


def reflection(consistency: Verdict = Verdict.SUPPORTED, coherence: Verdict = Verdict.SUPPORTED) -> Reflection:
    return Reflection(*(None if verdict is None else Finding(verdict) for verdict in (consistency, coherence)))


def sample(label: Any, **fields: Any) -> Sample:
    return Sample("s", ("x.png",), label, MIKELS8, **fields)


def total(
    settings: RewardSettings | None = None,
    thought: EmotionalThought = GOOD,
    found: Reflection | None = None,
    label: str = "sadness",
) -> float:
    return score(thought, sample(label), found or reflection(), settings or paper_reward()).total


def test_everything_right_earns_exactly_the_maximum_of_1() -> None:
    # 0.8 + 0.1 * (1 + 1) / 2 + 0.1
    assert total() == pytest.approx(1.0)


def test_one_failed_reflection_costs_half_of_l1() -> None:
    assert total(found=reflection(consistency=Verdict.REFUTED)) == pytest.approx(0.95)
    assert total(found=reflection(coherence=Verdict.UNREADABLE)) == pytest.approx(0.95)
    assert total(found=reflection(Verdict.NOT_ASKED, Verdict.NOT_ASKED)) == pytest.approx(0.9)


def test_a_wrong_answer_keeps_format_and_reflection() -> None:
    # 0 + 0.1 + 0.1
    assert total(label="fear") == pytest.approx(0.2)


def test_the_parts_are_raw_and_their_weighted_sum_is_the_total() -> None:
    settings = paper_reward(reflective=0.3, format=0.2)
    breakdown = score(GOOD, sample("fear"), reflection(coherence=Verdict.REFUTED), settings)
    assert breakdown.parts == {"accuracy": 0, "format": 1, "consistency": 1, "coherence": 0}
    # 0.5 * 0 + 0.2 * 1 + 0.15 * 1 + 0.15 * 0
    assert breakdown.total == pytest.approx(0.35)
    assert breakdown.total == pytest.approx(
        sum(weights(settings)[name] * part for name, part in breakdown.parts.items())
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (paper_reward(), {"accuracy": 0.8, "format": 0.1, "consistency": 0.05, "coherence": 0.05}),
        (paper_reward(coherence=False), {"accuracy": 0.8, "format": 0.1, "consistency": 0.1, "coherence": 0}),
        (paper_reward(consistency=False), {"accuracy": 0.8, "format": 0.1, "consistency": 0, "coherence": 0.1}),
        (
            paper_reward(consistency=False, coherence=False),
            {"accuracy": 0.9, "format": 0.1, "consistency": 0, "coherence": 0},
        ),
        (paper_reward(reflective=0), {"accuracy": 0.9, "format": 0.1, "consistency": 0, "coherence": 0}),
        (paper_reward(reflective=0, format=0), {"accuracy": 1, "format": 0, "consistency": 0, "coherence": 0}),
        (paper_reward(formula="released"), {"accuracy": 0.8, "format": 0.1, "consistency": 0.1, "coherence": 0.1}),
    ],
    ids=["set+rer", "consistency only", "coherence only", "both off", "set only", "grpo only", "released"],
)
def test_each_ablation_is_a_setting(settings: RewardSettings, expected: dict[str, Any]) -> None:
    assert weights(settings) == pytest.approx(expected)


@pytest.mark.parametrize("l1", [0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("l2", [0, 0.1, 0.5])
@pytest.mark.parametrize("switches", [(True, True), (True, False), (False, True), (False, False)])
def test_the_papers_maximum_is_1_for_all_weights_and_switches(l1: float, l2: float, switches: tuple[Any, ...]) -> None:
    assert total(
        paper_reward(reflective=l1, format=l2, consistency=switches[0], coherence=switches[1])
    ) == pytest.approx(1.0)


def test_the_released_formula_pays_up_to_1_1_and_half_a_point_for_noise() -> None:
    released = paper_reward(formula="released")
    assert total(released) == pytest.approx(1.1)
    # 0.8 + 0.1 * (0.5 + 0.5) + 0.1
    assert total(released, found=reflection(Verdict.UNREADABLE, Verdict.UNREADABLE)) == pytest.approx(1.0)


def test_a_verdict_earns_1_only_where_it_supports() -> None:
    verdicts = [verdict for verdict in Verdict if verdict is not Verdict.ERROR]
    assert [verdict_value(verdict) for verdict in verdicts] == [1, 0, 0, 0]
    assert [verdict_value(verdict, "released") for verdict in verdicts] == [1, 0, 0.5, 0]


def test_a_reflection_that_never_ran_is_none_and_an_error_where_it_carries_weight() -> None:
    breakdown = score(GOOD, sample("sadness"), Reflection(), paper_reward(reflective=0))
    assert breakdown.parts["consistency"] is None
    assert breakdown.total == pytest.approx(1.0)
    with pytest.raises(UserError, match="consistency reflection was never run"):
        total(found=reflection(consistency=None))
    assert total(paper_reward(consistency=False), found=reflection(consistency=None)) == pytest.approx(1.0)


def test_only_paid_reflections_are_worth_asking() -> None:
    assert paper_reward().aspects == frozenset(Aspect)
    assert paper_reward(coherence=False).aspects == {Aspect.CONSISTENCY}
    assert paper_reward(reflective=0).aspects == frozenset()


def test_r_rer_is_the_mean_of_both_reflections_or_none() -> None:
    assert reflective({"consistency": 1.0, "coherence": 0.0}) == 0.5
    assert reflective({"consistency": None, "coherence": 1.0}) is None


@pytest.mark.parametrize("label", MIKELS8.labels)
def test_the_gold_answer_of_every_label_earns_full_reward(label: Any) -> None:
    gold = parse(f"<step1>A.</step1><step2>B.</step2><step3>C.</step3>\\boxed{{{label}}}")
    assert predicted_label(gold, MIKELS8) == label
    assert total(thought=gold, label=label) == pytest.approx(1.0)


def test_a_ground_truth_outside_the_label_set_is_refused() -> None:
    with pytest.raises(UserError, match="'joy' is not in the set mikels8"):
        total(label="joy")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"reflective": -0.1}, "reflective"),
        ({"format": 1.5}, "format"),
        ({"format": float("nan")}, "format"),
        ({"reflective": float("inf")}, "reflective"),
        ({"reflective": 0.6, "format": 0.5}, "exceed 1"),
    ],
)
def test_weights_are_checked(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        paper_reward(**values)


# --- beyond the paper -------------------------------------------------------------------------------------------------


def yes(probability: Any) -> Reply:
    return Reply("Yes" if probability > 0.5 else "No", {"Yes": probability, "No": 1 - probability})


def seen(own: Any, *elsewhere: Any) -> Finding:
    """A consistency finding with probabilities on the own image and on others."""
    verdict = Verdict.SUPPORTED if own > 0.5 else Verdict.REFUTED
    return Finding(verdict, reply=yes(own), distractors=tuple(map(yes, elsewhere)))


def test_a_soft_verdict_pays_the_judges_probability() -> None:
    assert consistency_value(seen(0.7), paper_reward(soft=True)) == 0.7
    assert consistency_value(seen(0.7), paper_reward()) == 1
    felt = Finding(Verdict.REFUTED, reply=Reply("awe", {"awe": 0.6, "fear": 0.4}))
    assert coherence_value(felt, "fear", paper_reward(soft=True)) == 0.4
    assert coherence_value(Finding(Verdict.SUPPORTED, reply=Reply("fear")), "fear", paper_reward(soft=True)) == 1


def test_a_description_that_fits_other_images_too_earns_nothing() -> None:
    hard, soft = paper_reward(contrastive=2), paper_reward(contrastive=2, soft=True)
    assert consistency_value(seen(0.9, 0.1, 0.2), hard) == 1
    assert consistency_value(seen(0.9, 0.1, 0.8), hard) == 0
    assert consistency_value(seen(0.9, 0.1, 0.2), soft) == pytest.approx(0.7)  # against the best of the others
    assert consistency_value(seen(0.1, 0.9), hard) == 0
    assert consistency_value(seen(0.9), hard) == 1  # a batch of one image has no others
    assert consistency_value(seen(0.9, 0.8), paper_reward(contrastive=0)) == 1  # the canary's question is not paid for


def test_further_weights_are_taken_from_accuracy_and_the_maximum_stays_1() -> None:
    settings = paper_reward(attributes=0.2)
    assert weights(settings)["accuracy"] == pytest.approx(0.6)  # 1 - 0.1 - 0.1 - 0.2
    assert sum(weights(settings).values()) == pytest.approx(1)
    thought = parse("<step1>A child.</step1><step2>Sorrow.</step2><step3>Negative, low.</step3>\\boxed{sadness}")
    found = Reflection(Finding(Verdict.SUPPORTED), Finding(Verdict.SUPPORTED, reply=Reply("sadness")))
    assert score(thought, sample("sadness", attributes={"who": "child"}), found, settings).total == pytest.approx(1)


def test_recall_counts_annotated_words_as_whole_words_and_unknown_ones_not_at_all() -> None:
    thought = parse("<step1>A Dog on a sandy beach, smiling faces.</step1>")
    known = {"object": ("dog", "cat"), "scene": "sandy beach", "brightness": 0.4}
    assert attribute_recall(thought, sample("awe", attributes=known)) == pytest.approx(2 / 3)
    assert attribute_recall(thought, sample("awe", attributes={"object": ("face",)})) == 0  # faces is another word
    assert attribute_recall(thought, sample("awe")) is None


@pytest.mark.parametrize(
    ("name", "off", "on"), [("masked", False, True), ("agreement", 0.0, 0.1), ("conclusion", 0, 1)]
)
def test_a_setting_that_is_gone_passes_where_it_did_nothing_and_is_refused_by_name(
    name: str, off: Any, on: Any
) -> None:
    assert RewardSettings.model_validate({"reflective": 0.2, name: off}) == RewardSettings(reflective=0.2)
    with pytest.raises(UserError, match=rf"^reward\.{name} helped in no world and was removed .*: leave it out$"):
        RewardSettings.model_validate({name: on})


def test_settings_beyond_the_paper_are_checked() -> None:
    with pytest.raises(UserError, match=r"votes .* exceed 1"):
        paper_reward(votes=0.9)
    with pytest.raises(UserError, match="contrastive"):
        paper_reward(contrastive=-1)


def test_the_default_is_the_form_that_pays_and_the_questions_that_stop_empty_descriptions() -> None:
    chosen = RewardSettings()  # docs/reflection_study.md, docs/results.md
    assert (chosen.reflective, chosen.format, chosen.soft, chosen.contrastive) == (0.3, 0.1, True, 2)


# --- a judge that fails ----------------------------------------------------------------------------------------------


def test_a_part_on_which_the_judge_failed_has_no_value_and_is_left_out_of_the_total() -> None:
    breakdown = score(GOOD, sample("sadness"), reflection(coherence=Verdict.ERROR), paper_reward())
    assert breakdown.parts == {"accuracy": 1, "format": 1, "consistency": 1, "coherence": None}
    # 0.8 * 1 + 0.1 * 1 + 0.05 * 1
    assert breakdown.total == pytest.approx(0.95)
    assert reflective(breakdown.parts) is None


def test_a_failure_on_another_image_counts_where_that_image_is_paid_for() -> None:
    found = Reflection(replace(seen(0.9, 0.2), distractors=(yes(0.2), Reply("", error="HTTP 500"))), None)
    for contrastive, value in ((0, 1.0), (1, 1.0), (2, None)):
        settings = paper_reward(contrastive=contrastive, coherence=False)
        breakdown = score(GOOD, sample("sadness"), found, settings)
        assert breakdown.parts["consistency"] == value
        # 0.8 + 0.1 * value + 0.1
        assert breakdown.total == pytest.approx(0.9 + 0.1 * (value or 0))


# --- stated confidence


def stating(number: str, answer: str = "sadness") -> EmotionalThought:
    steps = "<step1>A child alone.</step1><step2>Sorrow.</step2><step3>Negative.</step3>"
    return parse(f"{steps}\\boxed{{{answer}}}<confidence>{number}</confidence>", "confidence")


@pytest.mark.parametrize(
    ("number", "answer", "expected"),
    [
        ("0.7", "sadness", 1 - 0.3**2),
        ("0.7", "fear", 1 - 0.7**2),
        ("1", "sadness", 1),
        ("1", "fear", 0),
        ("0", "fear", 1),
        ("0", "sadness", 0),
        ("0.5", "no label of the set", 1 - 0.5**2),
        ("seventy", "sadness", 0),
        ("7", "fear", 0),
        ("", "fear", 0),
    ],
)
def test_a_stated_confidence_earns_1_less_its_squared_distance_to_being_right(
    number: str, answer: str, expected: float
) -> None:
    settings = paper_reward(confidence=0.2)
    breakdown = score(stating(number, answer), sample("sadness"), reflection(), settings)
    assert breakdown.parts["confidence"] == pytest.approx(expected)
    known = breakdown.parts["accuracy"] * 0.6 + breakdown.parts["format"] * 0.1 + 0.1
    assert breakdown.total == pytest.approx(known + 0.2 * expected)


def test_no_number_earns_no_more_than_the_worst_number() -> None:
    worst = min(confidence_value(place / 100, right) for place in range(101) for right in (True, False))
    assert confidence_value(None, True) == confidence_value(None, False) == worst == 0


def test_confidence_is_no_part_unless_it_has_a_weight() -> None:
    assert "confidence" not in score(stating("0.7"), sample("sadness"), reflection(), paper_reward()).parts
    assert weights(paper_reward(confidence=0.2))["accuracy"] == pytest.approx(0.6)


def test_a_weight_above_accuracys_would_pay_for_being_wrong_on_purpose_and_is_refused() -> None:
    # 0.5 right by a chance of 0.1 that is stated: 0.4 * 0.1 + 0.5 * (1 - 0.09) < 0.5 of a surely wrong answer
    with pytest.raises(UserError, match=r"reward.confidence 0.5 is more than the 0.4 that is left for accuracy"):
        RewardSettings(reflective=0, format=0.1, confidence=0.5)
    assert RewardSettings(reflective=0, format=0.1, confidence=0.45).confidence == 0.45


def test_a_way_of_thinking_or_a_template_that_asks_for_no_confidence_is_refused_if_it_is_paid(tmp_path: Path) -> None:
    settings, mine, asks = paper_reward(confidence=0.1), tmp_path / "mine.txt", tmp_path / "asks.txt"
    for thinking in ("steps", "free", "direct"):
        with pytest.raises(UserError, match=rf"^reward.confidence 0.1 pays .* thinking: {thinking} asks for none: set"):
            check_thinking(settings, thinking)
        check_thinking(paper_reward(), thinking)
    check_thinking(settings, "confidence", "confidence")
    mine.write_text("Which of {{ labels }}?")
    with pytest.raises(UserError, match=r"the template .*mine.txt asks for none: have it ask for <confidence>0.7"):
        check_thinking(settings, "confidence", str(mine))
    asks.write_text("Which of {{ labels }}? And how sure, as <confidence>0.5</confidence>?")
    check_thinking(settings, "confidence", str(asks))
