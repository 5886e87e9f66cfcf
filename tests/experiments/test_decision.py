"""Families of tests: a method pays if it beats the reference and its placebo, and loses nowhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emor3.errors import UserError
from emor3.experiments import decision
from emor3.experiments.decision import FamilyTest, decide, verdicts
from emor3.experiments.plan import Cell, Plan, cells_of, load_plan, seeds_of
from emor3.experiments.results import Results
from emor3.method.types import Estimate
from emor3.stats.classification import is_correct
from emor3.stats.seeds import SeedComparison, Spread
from plans import finish, write_plan

ITEMS = 10
HITS = {"set": (4, 5), "paper": (9, 10), "placebo": (5, 6), "form": (4, 6)}
"""Right answers of ten of the first and the second seed, by method."""
PLACEBO = {"reward": {"placebo": True}}
MAIN = {"methods": ["paper"], "placebos": {"paper": "placebo"}}


def plan_with(folder: Path, **families: Any) -> Plan:
    methods = {"set": {"reward": {"reflective": 0.0}}, "form": {}, "paper": {}, "placebo": PLACEBO}
    changes: dict[str, Any] = {"reference": "set", "methods": methods, "families": families}
    return load_plan(write_plan(folder, quick={"methods": ["set"]}, **changes), None, quick=False)


def fill(plan: Plan, cells: list[Cell]) -> Results:
    for cell in cells:
        finish(cell, plan, HITS[cell.method][cell.seed])
    return Results(plan, cells_of(plan))


def against(value: float, p_value: float) -> SeedComparison:
    return SeedComparison(Estimate(value, value - 1, value + 1, 10), p_value, 0.1, 8.0, Spread(0, 0, 0), (5, 5))


def family_test(outcome: Any, adjusted: float, *found: SeedComparison) -> FamilyTest:
    return FamilyTest("paper", outcome, "all", found[0], found[1], (found[0].difference, None), adjusted)


@pytest.mark.slow
def test_a_method_is_as_sure_as_the_less_sure_of_its_two_comparisons(tmp_path: Path) -> None:
    plan = plan_with(tmp_path, main=MAIN)
    results = fill(plan, cells_of(plan))
    (test,) = decide(results, plan.families["main"], {"accuracy": is_correct, "truth": is_correct})
    assert test.reference.difference.value == pytest.approx(0.5)  # 9.5 of 10 against 4.5
    assert test.placebo is not None
    assert test.placebo.difference.value == pytest.approx(0.4)  # against 5.5
    assert (
        test.p_value
        == max(test.reference.p_value, test.placebo.p_value)
        > min(test.reference.p_value, test.placebo.p_value)
    )
    assert test.adjusted == test.p_value  # one test in the family
    bootstrap, mixed = test.second_opinions
    assert bootstrap.value == pytest.approx(0.5)
    assert mixed is not None
    assert mixed.value == pytest.approx(0.5)


def test_holm_is_over_methods_outcomes_and_columns_of_one_family(tmp_path: Path) -> None:
    plan = plan_with(tmp_path, main=MAIN | {"columns": ["all", "in domain"]}, forms={"methods": ["form"]})
    results = fill(plan, cells_of(plan))
    found = decide(results, plan.families["main"], {"accuracy": is_correct, "truth": is_correct})
    surest, other = sorted(found, key=lambda test: test.p_value)
    assert surest.adjusted == pytest.approx(2 * surest.p_value)  # two columns; the other family does not count
    assert other.adjusted == pytest.approx(max(other.p_value, surest.adjusted))


def test_nothing_is_tested_before_every_cell_of_a_family_is_there(tmp_path: Path) -> None:
    plan = plan_with(tmp_path, main=MAIN, forms={"methods": ["form"]})
    results = fill(plan, [cell for cell in cells_of(plan) if (cell.method, cell.seed) != ("form", 1)])
    text = decision.to_markdown(results)
    assert "## Tests that decide: main\n\n| method" in text
    assert "## Tests that decide: forms\n\nNot tested before all of its cells are there; 2 are missing." in text


@pytest.mark.parametrize(
    ("truth", "verdict"),
    [
        (family_test("truth", 0.5, against(0.01, 0.5), against(0.01, 0.5)), "pays"),
        (family_test("truth", 1.0, against(-0.02, 0.2), against(-0.01, 0.5)), "pays"),
        (family_test("truth", 1.0, against(0.01, 0.5), against(-0.02, 0.04)), "loses"),
    ],
)
def test_a_gain_in_one_outcome_pays_unless_another_loses(truth: FamilyTest, verdict: str) -> None:
    gain = family_test("accuracy", 0.009, against(0.03, 0.001), against(0.02, 0.005))
    assert verdicts([gain, truth], level=0.01) == {"paper": verdict}


def test_a_gain_over_the_reference_that_the_placebo_has_too_is_none() -> None:
    gain = family_test("accuracy", 0.2, against(0.03, 0.001), against(0.001, 0.2))
    harm = family_test("accuracy", 0.009, against(0.03, 0.001), against(-0.03, 0.009))
    assert verdicts([gain], level=0.01) == {"paper": "not shown"}
    assert verdicts([harm], level=0.01) == {"paper": "loses"}
    assert verdicts([replace(gain, adjusted=0.01)], level=0.01) == {"paper": "not shown"}  # the level is not below it


def test_of_ranks_a_run_that_collapsed_hides_nothing_and_a_family_tests_its_own_seeds_alone(tmp_path: Path) -> None:
    again = MAIN | {"seeds": [2, 3, 4, 5]}
    plan = plan_with(tmp_path, main=MAIN, again=again, ranks=again | {"test": "ranks"})
    hits = {  # of the seeds 0 to 5; those of `main` would say the opposite
        "set": (9, 9, 4, 5, 4, 5),
        "paper": (1, 1, 9, 10, 9, 10),
        "placebo": (9, 9, 6, 7, 6, 0),  # the last one collapsed
    }
    for cell in cells_of(plan):
        if cell.method in hits:
            finish(cell, plan, hits[cell.method][cell.seed])
    results = Results(plan, cells_of(plan))
    found = {
        name: decide(results, plan.families[name], {"accuracy": is_correct, "truth": is_correct})[0]
        for name in ("again", "ranks")
    }
    for test in found.values():
        assert test.reference.difference.value == pytest.approx(0.5)  # 9.5 of 10 against 4.5
        assert test.placebo is not None
        assert test.placebo.difference.value == pytest.approx(0.475)  # against 4.75
    # None of four lies among the other four: 2 of the 70 ways to choose four of eight.
    assert found["ranks"].p_value == pytest.approx(2 / 70)
    assert found["again"].p_value > 0.05
    assert "exact rank-sum test" in decision.to_markdown(results).split("## Tests that decide: ranks")[1]


def test_runs_go_family_by_family_and_each_has_its_own_seeds(tmp_path: Path) -> None:
    plan = plan_with(tmp_path, main=MAIN | {"seeds": [0, 1]}, forms={"methods": ["form"], "seeds": [1]})
    order = list(dict.fromkeys((cell.method, cell.seed) for cell in cells_of(plan)))
    main = [(method, seed) for seed in (0, 1) for method in ("set", "paper", "placebo")]
    assert order == [*main, ("form", 1)]
    assert seeds_of(plan, "set") == [0, 1]
    assert seeds_of(plan, "form") == [1]


def test_quick_keeps_the_families_whose_methods_are_left(tmp_path: Path) -> None:
    path = write_plan(
        tmp_path,
        reference="set",
        seeds=[0, 1, 2],
        quick={"methods": ["set", "paper", "placebo"], "seeds": [0, 1]},
        methods={"set": {}, "form": {}, "paper": {}, "placebo": PLACEBO},
        families={"main": MAIN | {"seeds": [0, 1, 2]}, "forms": {"methods": ["form"]}},
    )
    plan = load_plan(path, None, quick=True)
    assert list(plan.families) == ["main"]
    assert {cell.seed for cell in cells_of(plan)} == {0, 1}


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ({"methods": ["form"], "placebos": {"paper": "placebo"}}, "placebos: 'paper' is none of the family's methods"),
        ({"methods": ["paper"], "placebos": {"paper": "sugar"}}, "'sugar' is no method of this plan"),
        ({"methods": ["paper"], "outcomes": ["truth"]}, "'a' is no embedded data set: leave truth out"),
    ],
)
def test_a_family_that_says_nothing_is_refused(tmp_path: Path, family: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_with(tmp_path, main=family)


@pytest.mark.parametrize(
    ("method", "placebo", "differs"),
    [
        ({}, {}, "reward.placebo is not true in placebo alone"),
        (PLACEBO, PLACEBO, "reward.placebo is not true in placebo alone"),
        (PLACEBO, {}, "reward.placebo is not true in placebo alone"),
        ({"reward": {"soft": False}}, PLACEBO, "they differ by reward.soft False -> True"),
        ({}, PLACEBO | {"grpo": {"beta": 0.5}}, "they differ by grpo.beta unset -> 0.5"),
    ],
)
def test_a_placebo_that_differs_in_more_than_its_permuted_verdicts_is_refused(
    tmp_path: Path, method: dict[str, Any], placebo: dict[str, Any], differs: str
) -> None:
    methods = {"set": {"reward": {"reflective": 0.0}}, "paper": method, "placebo": placebo}
    path = write_plan(tmp_path, reference="set", quick={"methods": ["set"]}, methods=methods, families={"main": MAIN})
    with pytest.raises(UserError) as refused:
        load_plan(path, None, quick=False)
    must = "placebo must be paper with reward.placebo: true and no other change"
    assert str(refused.value) == f"{path}: families.main.placebos: {must}: {differs}"


def test_a_placebo_may_spell_out_what_its_method_leaves_at_its_default(tmp_path: Path) -> None:
    methods = {
        "set": {"reward": {"reflective": 0.0}},
        "paper": {},
        "placebo": {"reward": {"placebo": True, "soft": True}},
    }
    path = write_plan(tmp_path, reference="set", quick={"methods": ["set"]}, methods=methods, families={"main": MAIN})
    assert load_plan(path, None, quick=False).families["main"].placebos == {"paper": "placebo"}
