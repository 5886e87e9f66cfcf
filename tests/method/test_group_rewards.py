"""Rewards that depend on the whole group of completions: votes, and the forms of R_RER."""

import math
from typing import Any

import pytest

from emor3.method.group_rewards import (
    annealed,
    in_form,
    placebo_places,
    relative_values,
    trust_weight,
    vote_values,
)
from emor3.method.rewards import reflective, weights
from emor3.method.types import RewardBreakdown
from rewards import paper_reward


def test_answers_as_people_vote_earn_the_same_and_no_single_label_is_best() -> None:
    votes = {"awe": 0.5, "fear": 0.5}
    # two of four say awe: q of the others is 1/3 for awe and 2/3 for fear, seen from awe
    assert vote_values(["awe", "awe", "fear", "fear"], votes) == pytest.approx([(1 + 0.5 - 1 / 3) / 2] * 4)
    # all say awe: q is 1, so the same answer earns less than the one nobody gives
    assert vote_values(["awe"] * 4, votes) == pytest.approx([0.25] * 4)
    assert vote_values(["awe", "awe", "awe", "fear"], votes)[3] == pytest.approx(0.75)
    assert vote_values([None, "anger"], votes) == [0, pytest.approx(0.5)]


# --- forms of R_RER that depend on the whole group --------------------------------------------------------------------

ROWS = [(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 0, 1)]
"""Accuracy, consistency and coherence of a group of four; R_RER is 1 and 0.5 of the right, 1 and 0.5 of the wrong."""


def group_of(rows: Any = ROWS, **settings: Any) -> tuple[Any, ...]:
    """A group's rewards as they are before their form."""
    chosen = paper_reward(**settings)
    parts = [{"accuracy": a, "format": 1.0, "consistency": c, "coherence": h} for a, c, h in rows]
    shares = weights(chosen)
    return chosen, [
        RewardBreakdown(sum(shares[name] * part for name, part in one.items() if part is not None), one)
        for one in parts
    ]


def formed(rows: Any = ROWS, step: int = 1, steps: int = 10, **settings: Any) -> Any:
    chosen, group = group_of(rows, **settings)
    return in_form(group, chosen, step, steps)


def paid(group: Any, name: Any) -> list[Any]:
    return [one.parts[name] for one in group]


def test_reflection_is_paid_to_right_answers_relative_to_the_other_right_ones() -> None:
    group = formed(relative=True)
    # consistency of the right ones is 1 and 1: (1 + 1 - 1) / 2; coherence 1 and 0: (1 + 1 - 0) / 2 and (1 + 0 - 1) / 2
    assert paid(group, "consistency") == [0.5, 0.5, 0, 0]
    assert paid(group, "coherence") == [1, 0, 0, 0]
    # 0.8 + 0.1 + 0.05 * (0.5 + 1), the same with 0.5 + 0, and 0.1 for the form of the wrong ones
    assert [one.total for one in group] == pytest.approx([0.975, 0.925, 0.1, 0.1])


def test_paid_by_part_it_is_the_formula_of_r_rer() -> None:
    values = [(0.9, 0.3), (0.2, 0.8), (0.6, 0.6)]
    group = formed([(1, *pair) for pair in values], relative=True)
    r_rer = [(c + h) / 2 for c, h in values]
    assert [reflective(one.parts) for one in group] == pytest.approx(relative_values(r_rer, [True] * 3))


def test_verdicts_make_no_advantage_where_one_answer_is_right_or_all_right_ones_are_alike() -> None:
    assert relative_values([0.0, 1.0], [True, False]) == relative_values([1.0, 1.0], [True, False]) == [0.5, 0]
    assert relative_values([0.7] * 3, [True] * 3) == pytest.approx([0.5] * 3)
    assert relative_values([1.0, 1.0], [False, False]) == [0, 0]


def test_a_judge_that_prefers_wrong_answers_is_trusted_less_in_that_group() -> None:
    # R_RER of the right ones is 1 and 0, of the wrong one 1: exp(0.5 - 1)
    rows = [(1, 1, 1), (1, 0, 0), (0, 1, 1)]
    factor = math.exp(-0.5)
    assert paid(formed(rows, trust=True), "coherence") == pytest.approx([factor, 0, factor])
    assert formed(rows, trust=True)[2].total == pytest.approx(0.1 + 0.1 * factor)
    assert formed(trust=True) == group_of(trust=True)[1]  # means of 0.75 and 0.75: full weight
    assert trust_weight([0.0, 1.0], [True, True]) == trust_weight([0.0, 1.0], [False, False]) == 1


def test_annealing_takes_reflection_away_over_the_steps() -> None:
    # exp(-5 / 10) of R_RER: 0.8 + 0.1 + 0.1 * 0.6065
    assert formed(step=5, anneal=True)[0].total == pytest.approx(0.9 + 0.1 * math.exp(-0.5))
    assert annealed(10, 10) == pytest.approx(math.exp(-1))


def test_forms_come_together_and_trust_looks_at_what_the_judge_gave() -> None:
    rows = [(1, 1, 1), (1, 0, 0), (0, 1, 1)]
    group = formed(rows, step=5, relative=True, trust=True, anneal=True)
    # right ones are 1 and 0, so 1 and 0 relative to each other; times exp(-0.5) for trust and again for step 5 of 10
    assert paid(group, "consistency") == pytest.approx([math.exp(-1), 0, 0])


@pytest.mark.parametrize("form", ["relative", "trust", "anneal"])
def test_in_every_form_the_total_is_the_weighted_sum_of_the_parts_and_a_failed_part_stays_out(form: str) -> None:
    chosen = paper_reward(**{form: True})
    for rows in (ROWS, [(a, None, h) for a, _, h in ROWS]):
        for one in formed(rows, **{form: True}):
            known = {name: part for name, part in one.parts.items() if part is not None}
            assert one.total == pytest.approx(sum(weights(chosen)[name] * part for name, part in known.items()))
            assert ("consistency" in known) == (rows is ROWS)


def test_a_placebo_pays_every_verdict_once_and_draws_anew_for_each_step_seed_and_sample() -> None:
    drawn = [placebo_places(8, *place) for place in ((0, 1, "a"), (0, 2, "a"), (1, 1, "a"), (0, 1, "b"))]
    assert all(sorted(places) == list(range(8)) for places in drawn)
    assert len(set(map(tuple, drawn))) == 4
    assert placebo_places(8, 0, 1, "a") == drawn[0]
