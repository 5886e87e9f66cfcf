"""Reflective decoding weighs completions by their reasoning and says when it does not know."""

from typing import Any

import pytest

from emor3.evaluation.summary import summarise
from emor3.method.decoding import decide, weigh
from emor3.method.labels import LabelSet
from emor3.method.reflection import ScriptedJudge
from emor3.method.thinking import parse
from emor3.method.types import Aspect, EmotionalThought, Sample
from emor3.stats import distributions
from made_up import SeesDogs, prediction

TWO = LabelSet("two", ("joy", "fear"))


def thought(answer: str, trigger: str = "A dog.") -> EmotionalThought:
    return parse(f"<step1>{trigger}</step1><step2>a</step2><step3>b</step3>\\boxed{{{answer}}}")


def weights_of(judge: Any, *thoughts: Any) -> list[float]:
    found = weigh(judge, [Sample("s", ("x.png",), "", TWO)] * len(thoughts), list(thoughts))
    return [weight for weight, _ in found]


def test_a_weight_is_the_chance_of_the_description_times_that_of_the_own_answer() -> None:
    found = weights_of(
        SeesDogs(0.8, joy=0.9, fear=0.1), thought("joy"), thought("fear"), thought("joy", "A cat."), thought("nothing")
    )
    assert found == pytest.approx([0.8 * 0.9, 0.8 * 0.1, 0.1 * 0.9, 0])


def test_free_text_verdicts_weigh_all_or_nothing() -> None:
    judge = ScriptedJudge(lambda question: "Yes" if question.aspect is Aspect.CONSISTENCY else "joy")
    assert weights_of(judge, thought("joy"), thought("fear")) == [1, 0]


def test_what_cannot_be_asked_weighs_nothing() -> None:
    assert weights_of(SeesDogs(0.8, joy=0.9, fear=0.1), parse("\\boxed{joy}")) == [0]


def test_two_unsupported_answers_lose_against_a_supported_one() -> None:
    decision = decide(["fear", "fear", "joy", None], [0.1, 0.1, 0.7, 0.0], TWO, abstain_below=0.5)
    assert (decision.label, decision.best, decision.abstains) == ("joy", 2, False)
    assert decision.distribution == pytest.approx({"joy": 7 / 9, "fear": 2 / 9})
    assert decide(["fear", "fear", "joy"], [0.1, 0.1, 0.7], TWO, abstain_below=0.8).abstains


def test_without_any_support_there_is_no_label() -> None:
    decision = decide(["joy", None], [0.0, 0.0], TWO, abstain_below=0.0)
    assert (decision.label, decision.best, decision.distribution, decision.abstains) == (None, None, {}, True)


def test_figures_stand_beside_those_of_the_majority_at_equal_m() -> None:
    # The majority says fear; the judge's weights turn it to joy, the truth.
    made = prediction("joy", "joy", labels=TWO, sampled=("fear", "fear", "joy"), votes={"joy": 1.0})
    weighed = type(made)(**{**vars(made), "weights": (0.1, 0.1, 0.7)})
    assert distributions.weighed_shares(weighed) == pytest.approx([(0.7 + 0.5) / 1.9, (0.2 + 0.5) / 1.9])
    figures = summarise("d", [weighed], "steps").figures
    assert (figures["leading_accuracy"].value, figures["reflective_leading_accuracy"].value) == (0, 1)
    assert figures["reflective_intersection"].value > figures["intersection"].value
    assert "reflective_brier" not in summarise("d", [made], "steps").figures
