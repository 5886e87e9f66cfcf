"""Predictions against what people voted and rated, and the confidence that a completion states."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from emor3.method.labels import EKMAN7, MIKELS8
from emor3.method.thinking import build_prompt, parse, stated_number
from emor3.method.types import Prediction, Problem
from emor3.runs.predictions import read_evaluation
from emor3.stats.people.confidence import area_under_roc, stated_calibration
from emor3.stats.people.ratings import against_ratings
from emor3.stats.people.votes import against_votes, mean_average_precision
from made_up import prediction, save_evaluation

VOTES = {"joy": 0.5, "sadness": 0.3, "fear": 0.2}


def saying(text: str, made: Prediction, **ratings: float) -> Prediction:
    """A prediction whose completion also says this, on a sample with these ratings."""
    return replace(made, completion=made.completion + text, sample=replace(made.sample, **ratings))


def voted(answer: str | None, id: str, **more: Any) -> Prediction:
    return prediction("fear", answer, id=id, votes=VOTES, **more)


def values(found: dict[str, Any]) -> dict[str, float]:
    return {name: pytest.approx(estimate.value) for name, estimate in found.items()}


def test_answers_are_held_against_the_dominant_label_and_a_voter_drawn_at_random() -> None:
    found = against_votes([voted("joy", "a"), voted("sadness", "b"), voted(None, "c"), prediction("joy", "joy")])
    assert values(found) == {
        "dominant_accuracy": 1 / 3,  # joy; the label, fear, does not matter, nor a sample without votes
        "voters_agreeing": (0.5 + 0.3 + 0) / 3,
        "voters_agreeing_ceiling": 0.5,
    }
    assert {estimate.n for estimate in found.values()} == {3}


def test_a_shared_first_place_is_dominant_whichever_of_its_labels_is_answered() -> None:
    tied = {"joy": 0.4, "fear": 0.4, "anger": 0.2}
    made = [prediction("joy", answer, id=answer, votes=tied) for answer in ("joy", "fear", "anger")]
    assert against_votes(made)["dominant_accuracy"].value == pytest.approx(2 / 3)


def test_the_order_of_sampled_answers_is_held_against_that_of_the_votes() -> None:
    first = voted("joy", "a", sampled=("joy", "joy", "joy", "sadness", "sadness", "fear"))
    second = voted("joy", "b", sampled=("fear", "fear", "sadness", "sadness", "joy", None))
    found = against_votes([first, second])
    assert found["dominant_in_top2"].value == 0.5  # joy is third in the second
    assert found["dominant_in_top3"].value == 1
    # Votes of six labels rank 1, 2, 3 and three at 5; the second has sadness and fear at 1.5, joy at 3:
    # with d = (-2, 0.5, 1.5), and variances of (35 - 2) / 12 and (35 - 2.5) / 12 units of sum d^2 = 6.5.
    x, y = np.array([1, 2, 3, 5, 5, 5]), np.array([3, 1.5, 1.5, 5, 5, 5])
    assert found["rank_correlation"].value == pytest.approx((1 + np.corrcoef(x, y)[0, 1]) / 2)


def test_mean_average_precision_leaves_out_labels_that_all_or_no_images_have() -> None:
    positive = np.array([[True, True, False], [False, True, False], [True, True, False]])
    scores = np.array([[0.9, 0.1, 0.0], [0.5, 0.2, 0.0], [0.5, 0.7, 0.0]])
    # One threshold at 0.9: 1 of 1; the next at 0.5 takes both: recall grows by 1/2 at a precision of 2/3.
    assert mean_average_precision(positive, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert mean_average_precision(positive[:, 1:], scores[:, 1:]) == 0


def test_the_first_three_emotions_as_eemo_bench_publishes_them_are_ranked_before_four_that_tie() -> None:
    votes = {"joy": 0.5, "surprise": 0.3, "neutral": 0.2}
    one = prediction("joy", "joy", votes=votes, sampled=("joy", "joy", "surprise", "fear"), labels=EKMAN7)
    found = against_votes([one])
    # Ranks of joy, surprise, neutral, fear and three more: 7 6 5 2.5 2.5 … by people, 7 5.5 2.5 5.5 2.5 … by answers.
    # From their mean 4: products sum to 9 + 3 - 1.5 - 2.25 + 3 * 2.25, squares to 23 and 22.5.
    assert found["rank_correlation"].value == pytest.approx(15 / (23 * 22.5) ** 0.5)
    assert found["dominant_in_top2"].value == 1


def test_stated_ratings_are_correlated_with_those_of_people() -> None:
    made = [
        saying(f"<valence>{said}</valence><arousal>0.5</arousal>", voted("joy", name), valence=rated, arousal=0.1)
        for name, said, rated in (("a", 0.1, 0.2), ("b", 0.2, 0.4), ("c", 0.9, 0.6), ("d", 0.4, 0.8))
    ]
    none = saying("", voted("joy", "e"), valence=0.3)
    found = against_ratings([*made, none, voted("joy", "f")])
    assert found["rates"].value == 0.8  # four of the five that people rated
    # Ranks 1 2 4 3 against 1 2 3 4: 1 - 6 * 2 / (4 * 15).
    assert found["valence_srcc"].value == pytest.approx(0.8)
    assert found["valence_plcc"].value == pytest.approx(np.corrcoef([0.1, 0.2, 0.9, 0.4], [0.2, 0.4, 0.6, 0.8])[0, 1])
    assert found["valence_srcc"].n == 4
    assert "arousal_srcc" not in found  # everything is rated alike
    assert against_ratings([none]) == {}  # the template asked for none


def test_stated_confidence_is_measured_as_that_of_sampled_answers_is() -> None:
    said = (("a", "joy", 0.9), ("b", "joy", 0.9), ("c", "fear", 0.9), ("d", "joy", 0.3), ("e", "fear", 0.1))
    made = [saying(f"<confidence>{c}</confidence>", prediction("joy", answer, id=name)) for name, answer, c in said]
    found = stated_calibration([*made, prediction("joy", "joy", id="f")])
    assert values(found) == {
        "states_confidence": 5 / 6,
        "stated_calibration_error": (3 * abs(0.9 - 2 / 3) + abs(0.3 - 1) + 0.1) / 5,
        "stated_brier": (2 * 0.01 + 0.81 + 0.49 + 0.01) / 5,
        # Right ones are at 0.9, 0.9, 0.3, wrong ones at 0.9 and 0.1: two ties and four of six pairs won.
        "stated_auroc": (2 * 0.5 + 3) / 6,
        # Errors of the surest come at a third each among the three at 0.9: 1/3 1/3 1/3, then 1/4 and 2/5.
        "stated_risk_coverage_area": (3 / 3 + 1 / 4 + 2 / 5) / 5,
    }
    assert stated_calibration([prediction("joy", "joy")]) == {}


def test_confidence_of_answers_that_are_all_right_has_no_order() -> None:
    made = saying("<confidence>0.9</confidence>", prediction("joy", "joy"))
    assert "stated_auroc" not in stated_calibration([made])
    assert area_under_roc(np.array([0.9]), np.array([1.0])) == 0.5


STEPS = "<step1>fog</step1><step2>tense</step2><step3>negative, high</step3>"


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (r"\boxed{fear}<confidence>0.7</confidence>", None),
        (r"<confidence> 1 </confidence>\boxed{fear}", None),
        (r"\boxed{fear}", Problem.CONFIDENCE_MISSING),
        (r"\boxed{fear}<confidence>70%</confidence>", Problem.CONFIDENCE_MISSING),
        (r"\boxed{fear}<confidence>1.2</confidence>", Problem.CONFIDENCE_MISSING),
        (r"\boxed{fear}<confidence>-0</confidence>", Problem.CONFIDENCE_MISSING),
        (r"\boxed{fear}<confidence>0.7</confidence><confidence>0.9</confidence>", Problem.CONFIDENCE_MISSING),
        ("<confidence>0.7</confidence>", Problem.ANSWER_MISSING),
    ],
)
def test_the_grammar_with_confidence_wants_one_number_behind_the_steps(end: str, problem: Problem | None) -> None:
    thought = parse(STEPS + end, "confidence")
    assert (thought.problem, thought.trigger) == (problem, "fog")
    assert parse(STEPS + r"\boxed{fear}<confidence>0.7</confidence>").problem is None  # nothing new for the others


def test_confidence_inside_a_step_is_none() -> None:
    text = STEPS.replace("fog", "fog <confidence>0.7</confidence>") + r"\boxed{fear}"
    assert parse(text, "confidence").problem is Problem.CONFIDENCE_MISSING


@pytest.mark.parametrize(("template", "tags"), [("confidence", ["confidence"]), ("ratings", ["valence", "arousal"])])
def test_the_example_in_a_prompt_that_asks_for_numbers_can_be_read(template: str, tags: list[str]) -> None:
    prompt = build_prompt(MIKELS8, template)
    assert [stated_number(prompt, tag) for tag in tags] == [0.5] * len(tags)


def test_ratings_of_people_are_saved_with_the_predictions(tmp_path: Any) -> None:
    made = [saying("", voted("joy", "a"), valence=0.25, arousal=0.5), voted("joy", "b")]
    read = read_evaluation(save_evaluation(tmp_path / "saved", {"d": made})).predictions["d"]
    assert [(p.sample.valence, p.sample.arousal) for p in read] == [(0.25, 0.5), (None, None)]
