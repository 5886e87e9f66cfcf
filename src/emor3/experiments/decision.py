"""The tests that decide: each family of a plan, its methods against the reference and against their placebos.

A method with a placebo must beat both, so the larger p-value is that of the test ("both" is no choice of the better
one: Berger 1982, Technometrics 24). Holm's correction is over the methods, outcomes and columns of a family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from emor3.experiments.plan import Average, Cell, FamilyBlock, Outcome, Plan, cells_of
from emor3.experiments.reproduce import is_finished
from emor3.experiments.results import Column, Results
from emor3.method.types import Estimate
from emor3.stats.classification import is_correct
from emor3.stats.format import markdown_table, p_value, percent_value, points_with_interval
from emor3.stats.measures import Check
from emor3.stats.power import detectable
from emor3.stats.seeds import SeedComparison, rank_sum
from emor3.stats.uncertainty import holm

LOSS_LEVEL = 0.05
"""A loss counts below this without correction: what must do no harm is looked at more closely than what may help."""

Verdict = Literal["pays", "loses", "not shown"]


@dataclass(frozen=True)
class FamilyTest:
    """One test of a family: a method and an outcome over the columns of an average."""

    method: str
    outcome: Outcome
    column: Average
    reference: SeedComparison
    placebo: SeedComparison | None
    second_opinions: tuple[Estimate, Estimate | None]
    """The difference to the reference by the hierarchical bootstrap and by the mixed model."""
    adjusted: float = 1.0
    """The p-value after Holm."""

    @property
    def against(self) -> list[SeedComparison]:
        """What must be beaten."""
        return [self.reference] if self.placebo is None else [self.reference, self.placebo]

    @property
    def p_value(self) -> float:
        """The larger of both."""
        return max(comparison.p_value for comparison in self.against)

    def gains(self, level: float) -> bool:
        """Whether the method beats all that it must, after correction."""
        return self.adjusted < level and all(found.difference.value > 0 for found in self.against)

    @property
    def loses(self) -> bool:
        """Whether it is worse than any of them, without correction."""
        return any(found.difference.value < 0 and found.p_value < LOSS_LEVEL for found in self.against)


def missing_cells(plan: Plan, family: FamilyBlock) -> list[Cell]:
    """What a family still waits for: nothing is tested before all of it is there."""
    seeds: dict[str, Sequence[int]] = dict.fromkeys(family.all_methods, family.seeds or plan.seeds)
    seeds[plan.reference] = family.seeds_of_reference(plan.seeds)
    return [cell for cell in cells_of(plan) if cell.seed in seeds.get(cell.method, ()) and not is_finished(cell)]


def decide(results: Results, family: FamilyBlock, outcomes: Mapping[Outcome, Check]) -> list[FamilyTest]:
    """All tests of a family of which every seed is there, with Holm's correction."""
    results = results.of_family(family)
    found = [
        found_one
        for method in family.methods
        for outcome in family.outcomes
        for column in family.columns
        if (found_one := _test(results, family, method, outcome, column, outcomes[outcome]))
    ]
    adjusted = holm({(test.method, test.outcome, test.column): test.p_value for test in found})
    return [replace(test, adjusted=adjusted[test.method, test.outcome, test.column]) for test in found]


def _test(
    results: Results, family: FamilyBlock, method: str, outcome: Outcome, column: Average, check: Check
) -> FamilyTest | None:
    columns = results.cells_of_average(column)
    reference = _compare(results, family, method, results.plan.reference, columns, check)
    placebo = family.placebos.get(method)
    against = _compare(results, family, method, placebo, columns, check) if placebo else None
    if reference is None:
        return None
    others = results.second_opinions(method, results.plan.reference, columns, check)
    return FamilyTest(method, outcome, column, reference, against, others)


def _compare(
    results: Results, family: FamilyBlock, method: str, other: str, columns: Sequence[Column], check: Check
) -> SeedComparison | None:
    """Two methods by the family's own test; None if there is nothing to compare."""
    found = results.compare(method, other, columns, check)
    if found is None or family.test == "t":
        return found
    before, after = (results.seed_values(name, columns, check) for name in (other, method))
    return replace(found, p_value=rank_sum(before, after))


def verdicts(tests: Sequence[FamilyTest], level: float) -> dict[str, Verdict]:
    """Of each method: it pays if it gains in one outcome at least and loses in none."""
    found: dict[str, Verdict] = {}
    for method in dict.fromkeys(test.method for test in tests):
        own = [test for test in tests if test.method == method]
        if any(test.loses for test in own):
            found[method] = "loses"
        else:
            found[method] = "pays" if any(test.gains(level) for test in own) else "not shown"
    return found


def to_markdown(results: Results) -> str:
    """A table for each family of the plan; empty if it has none."""
    outcomes: dict[Outcome, Check] = {"accuracy": is_correct, "truth": results.truth.exact}
    return "\n".join(_family_text(results, name, family, outcomes) for name, family in results.plan.families.items())


def _family_text(results: Results, name: str, family: FamilyBlock, outcomes: Mapping[Outcome, Check]) -> str:
    title = f"## Tests that decide: {name}\n"
    if waiting := missing_cells(results.plan, family):
        return f"{title}\nNot tested before all of its cells are there; {len(waiting)} are missing.\n"
    tests = decide(results, family, outcomes)
    verdict = verdicts(tests, family.level)
    header = ["method", "outcome", "column", f"against {results.plan.reference}", "against its placebo"]
    table = markdown_table(
        [*header, "p, the larger", "p, Holm", "sees", "verdict", "by bootstrap", "by mixed model"],
        (
            [
                *(test.method, test.outcome, test.column),
                *(points_with_interval(found.difference) for found in test.against),
                *(["-"] if test.placebo is None else []),
                *(p_value(test.p_value), p_value(test.adjusted)),
                "-" if family.test == "ranks" else percent_value(_smallest_effect(test, family.level / len(tests))),
                verdict[test.method],
                *("-" if other is None else points_with_interval(other) for other in test.second_opinions),
            ]
            for test in tests
        ),
    )
    return f"{title}\n{table}\n{_note(results.plan, family)}\n"


def _smallest_effect(test: FamilyTest, alpha: float) -> float:
    return max(detectable(found.standard_error, found.freedom, alpha) for found in test.against)


def _note(plan: Plan, family: FamilyBlock) -> str:
    ranks = "P-values are of the exact rank-sum test of the seeds' means: new trainings, these items. "
    return (
        "Points with 95% intervals over seeds and items together (docs/statistics.md), seeds "
        f"{', '.join(map(str, family.seeds or plan.seeds))}. {ranks if family.test == 'ranks' else ''}"
        f"A method pays if in one outcome at least it beats all that it is compared with (p < {family.level:g} after "
        f"Holm over this table) and in none it loses to any (p < {LOSS_LEVEL:g} without correction). Sees: the "
        "smallest difference, in points, that such a test finds in 80% of studies, at the level of Holm's first test. "
        f"By bootstrap, by mixed model: the difference to {plan.reference} computed in two other ways, which should "
        "agree; the test decides."
    )
