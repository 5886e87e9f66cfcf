import pytest

from emor3.errors import UserError
from emor3.rewards import RewardSettings, predicted_label, reflective, score, verdict_value, weights
from emor3.taxonomy import MIKELS8
from emor3.thinking import parse
from emor3.types import Aspect, Finding, Reflection, Verdict

GOOD = parse("<step1>A child alone.</step1><step2>Sorrow.</step2><step3>Negative.</step3>\\boxed{sadness}")


def reflection(consistency=Verdict.SUPPORTED, coherence=Verdict.SUPPORTED):
    return Reflection(*(None if verdict is None else Finding(verdict) for verdict in (consistency, coherence)))


def total(settings=None, thought=GOOD, found=None, label="sadness"):
    return score(thought, label, MIKELS8, found or reflection(), settings or RewardSettings()).total


def test_everything_right_earns_exactly_the_maximum_of_1():
    # 0.8 + 0.1 * (1 + 1) / 2 + 0.1
    assert total() == pytest.approx(1.0)


def test_one_failed_reflection_costs_half_of_l1():
    assert total(found=reflection(consistency=Verdict.REFUTED)) == pytest.approx(0.95)
    assert total(found=reflection(coherence=Verdict.UNREADABLE)) == pytest.approx(0.95)
    assert total(found=reflection(Verdict.NOT_ASKED, Verdict.NOT_ASKED)) == pytest.approx(0.9)


def test_a_wrong_answer_keeps_format_and_reflection():
    # 0 + 0.1 + 0.1
    assert total(label="fear") == pytest.approx(0.2)


def test_the_parts_are_raw_and_their_weighted_sum_is_the_total():
    settings = RewardSettings(reflective=0.3, format=0.2)
    breakdown = score(GOOD, "fear", MIKELS8, reflection(coherence=Verdict.REFUTED), settings)
    assert breakdown.parts == {"accuracy": 0, "format": 1, "consistency": 1, "coherence": 0}
    # 0.5 * 0 + 0.2 * 1 + 0.15 * 1 + 0.15 * 0
    assert breakdown.total == pytest.approx(0.35)
    assert breakdown.total == pytest.approx(
        sum(weights(settings)[name] * part for name, part in breakdown.parts.items())
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (RewardSettings(), {"accuracy": 0.8, "format": 0.1, "consistency": 0.05, "coherence": 0.05}),
        (RewardSettings(coherence=False), {"accuracy": 0.8, "format": 0.1, "consistency": 0.1, "coherence": 0}),
        (RewardSettings(consistency=False), {"accuracy": 0.8, "format": 0.1, "consistency": 0, "coherence": 0.1}),
        (
            RewardSettings(consistency=False, coherence=False),
            {"accuracy": 0.9, "format": 0.1, "consistency": 0, "coherence": 0},
        ),
        (RewardSettings(reflective=0), {"accuracy": 0.9, "format": 0.1, "consistency": 0, "coherence": 0}),
        (RewardSettings(reflective=0, format=0), {"accuracy": 1, "format": 0, "consistency": 0, "coherence": 0}),
        (RewardSettings(formula="released"), {"accuracy": 0.8, "format": 0.1, "consistency": 0.1, "coherence": 0.1}),
    ],
    ids=["set+rer", "consistency only", "coherence only", "both off", "set only", "grpo only", "released"],
)
def test_each_ablation_is_a_setting(settings, expected):
    assert weights(settings) == pytest.approx(expected)


@pytest.mark.parametrize("l1", [0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("l2", [0, 0.1, 0.5])
@pytest.mark.parametrize("switches", [(True, True), (True, False), (False, True), (False, False)])
def test_the_papers_maximum_is_1_for_all_weights_and_switches(l1, l2, switches):
    assert total(RewardSettings(l1, l2, *switches)) == pytest.approx(1.0)


def test_the_released_formula_pays_up_to_1_1_and_half_a_point_for_noise():
    released = RewardSettings(formula="released")
    assert total(released) == pytest.approx(1.1)
    # 0.8 + 0.1 * (0.5 + 0.5) + 0.1
    assert total(released, found=reflection(Verdict.UNREADABLE, Verdict.UNREADABLE)) == pytest.approx(1.0)


def test_a_verdict_earns_1_only_where_it_supports():
    assert [verdict_value(verdict) for verdict in Verdict] == [1, 0, 0, 0]
    assert [verdict_value(verdict, "released") for verdict in Verdict] == [1, 0, 0.5, 0]


def test_a_reflection_that_never_ran_is_none_and_an_error_where_it_carries_weight():
    breakdown = score(GOOD, "sadness", MIKELS8, Reflection(), RewardSettings(reflective=0))
    assert breakdown.parts["consistency"] is None
    assert breakdown.total == pytest.approx(1.0)
    with pytest.raises(UserError, match="consistency reflection was never run"):
        total(found=reflection(consistency=None))
    assert total(RewardSettings(consistency=False), found=reflection(consistency=None)) == pytest.approx(1.0)


def test_only_paid_reflections_are_worth_asking():
    assert RewardSettings().aspects == frozenset(Aspect)
    assert RewardSettings(coherence=False).aspects == {Aspect.CONSISTENCY}
    assert RewardSettings(reflective=0).aspects == frozenset()


def test_r_rer_is_the_mean_of_both_reflections_or_none():
    assert reflective({"consistency": 1.0, "coherence": 0.0}) == 0.5
    assert reflective({"consistency": None, "coherence": 1.0}) is None


@pytest.mark.parametrize("label", MIKELS8.labels)
def test_the_gold_answer_of_every_label_earns_full_reward(label):
    gold = parse(f"<step1>A.</step1><step2>B.</step2><step3>C.</step3>\\boxed{{{label}}}")
    assert predicted_label(gold, MIKELS8) == label
    assert total(thought=gold, label=label) == pytest.approx(1.0)


def test_a_ground_truth_outside_the_label_set_is_refused():
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
        ({"formula": "papers"}, "unknown reward formula"),
    ],
)
def test_weights_and_formula_are_checked(values, complaint):
    with pytest.raises(UserError, match=complaint):
        RewardSettings(**values)
