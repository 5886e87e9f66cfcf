"""Distances, calibration and risk against arithmetic by hand and against other implementations."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import brier_score_loss

from emor3.method.labels import LabelSet
from emor3.method.types import Prediction
from emor3.stats import distributions, measures
from emor3.stats.figures import FIGURES
from made_up import prediction

TWO = LabelSet("two", ("joy", "fear"))


def sampled(label: str, answers: Any, votes: dict[str, float] | None = None, id: str = "s") -> Prediction:
    return prediction(label, label, labels=TWO, votes=votes, sampled=tuple(answers), id=id)


def test_one_more_answer_spread_evenly_keeps_every_label_possible_and_unparsed_ones_count_for_none() -> None:
    # 3 joy, 1 unparsed: (3 + 1/2) / (3 + 1) = 0.875 and (0 + 1/2) / 4 = 0.125
    assert distributions.answer_shares(sampled("joy", ["joy", "joy", "joy", None])) == pytest.approx([0.875, 0.125])


def test_distances_by_hand() -> None:
    p, q = np.array([1.0, 0.0]), np.array([0.75, 0.25])
    by_name = {name: row.distance(p, q) for name, row in FIGURES.items() if row.distance}
    assert by_name["chebyshev"] == 0.25
    assert by_name["clark"] == pytest.approx(math.sqrt((0.25 / 1.75) ** 2 + 1))  # (1 - .75) / 1.75 and -.25 / .25
    assert by_name["canberra"] == pytest.approx(0.25 / 1.75 + 1)
    assert by_name["kullback_leibler"] == pytest.approx(entropy(p, q)) == pytest.approx(math.log(4 / 3))
    assert by_name["cosine"] == pytest.approx(0.75 / math.hypot(0.75, 0.25))
    assert by_name["intersection"] == 0.75
    assert by_name["brier_votes"] == pytest.approx(0.125)
    m = (p + q) / 2
    assert by_name["jensen_shannon"] == pytest.approx((entropy(p, m, base=2) + entropy(q, m, base=2)) / 2)


def test_a_label_without_votes_and_without_answers_adds_nothing_where_0_is_divided_by_0() -> None:
    p = np.array([1.0, 0.0])
    assert measures.clark(p, p) == measures.canberra(p, p) == measures.kullback_leibler(p, p) == 0


def test_distances_need_votes_and_sampled_answers() -> None:
    assert distributions.distances([prediction("joy", "joy")]) == {}
    assert distributions.distances([sampled("joy", ["joy"])]) == {}
    found = distributions.distances([sampled("joy", ["joy"], {"joy": 1.0}, "a"), sampled("joy", ["joy"], None, "b")])
    assert found["intersection"].n == 1
    assert found["intersection"].value == 0.75  # (1 + 1/2) / 2


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy_weighted_by_bins() -> None:
    # Two answers at 0.95, one right: gap 0.45. Two at 0.55, both right: gap 0.45. All four: (0.9 + 0.9) / 4.
    cells = distributions.reliability_cells(np.array([0.95, 0.95, 0.55, 0.55]), np.array([1.0, 0.0, 1.0, 1.0]))
    assert distributions.calibration_error(cells.sum(0)) == pytest.approx(0.45)


def test_full_confidence_falls_in_the_last_bin() -> None:
    assert distributions.reliability_cells(np.array([1.0]), np.array([1.0]))[0, -1].tolist() == [1, 1, 1]


def test_brier_equals_that_of_scikit_learn_on_two_labels() -> None:
    items = [sampled("joy", ["joy", "fear", "joy"], id="a"), sampled("fear", ["joy", "joy"], id="b")]
    truth = [p.sample.label == "joy" for p in items]
    shares = [distributions.answer_shares(p)[0] for p in items]
    # scikit-learn counts one of two labels, so half of the multi-class score
    expected = 2 * brier_score_loss(truth, shares, scale_by_half=True)
    assert distributions.calibration(items)["brier"].value == pytest.approx(expected)


def test_risk_grows_with_coverage_where_the_surest_answers_are_right() -> None:
    confidence, right = np.array([0.9, 0.8, 0.6, 0.5]), np.array([1.0, 1.0, 0.0, 0.0])
    assert distributions.risk_curve(confidence, right) == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert distributions.area_under_risk(confidence, right) == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_equally_sure_answers_share_their_errors_whatever_their_order() -> None:
    one = distributions.risk_curve(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    other = distributions.risk_curve(np.array([0.5, 0.5]), np.array([0.0, 1.0]))
    assert one.tolist() == other.tolist() == [0.5, 0.5]


def test_calibration_is_empty_without_sampled_answers_and_skips_predictions_without_them() -> None:
    assert distributions.calibration([prediction("joy", "joy")]) == {}
    items = [sampled("joy", ["joy", "joy"], id="a"), prediction("joy", "joy", labels=TWO, id="b")]
    assert distributions.calibration(items)["leading_accuracy"].n == 1


NOTHING = [sampled("joy", [None, None], {"joy": 1.0}, "a"), sampled("fear", [None, None], {"fear": 1.0}, "b")]


def test_no_readable_answer_is_an_error_in_accuracy_and_counted_not_the_first_label() -> None:
    found = distributions.calibration(NOTHING)
    assert (found["leading_accuracy"].value, found["unanswered"].value) == (0, 1)
    assert distributions.leading_answer(NOTHING[0]) is None
    one = distributions.calibration([*NOTHING, sampled("joy", [None, "joy"], id="c")])
    assert (one["leading_accuracy"].value, one["unanswered"].value) == pytest.approx((1 / 3, 2 / 3))


def test_no_readable_answer_is_no_distribution_no_confidence_and_half_the_worst_brier_score() -> None:
    assert distributions.answer_shares(NOTHING[0]).tolist() == [0, 0]
    assert distributions.distances(NOTHING) == {}
    assert distributions.distances([*NOTHING, sampled("joy", ["joy"], {"joy": 1.0}, "c")])["cosine"].n == 1
    found = distributions.calibration(NOTHING)
    assert found["brier"].value == 1
    assert found["expected_calibration_error"].value == 0  # not sure of anything, and never right
    assert found["risk_coverage_area"].value == 1
