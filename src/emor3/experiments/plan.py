"""The plan of a reproduction: methods x training domains x seeds, as YAML a person edits, and its cells.

A method is a recipe that differs from the others in its settings only; one without `grpo` and `cold_start` is the
start model itself, evaluated once.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from emor3.data.folders import EMBEDDED
from emor3.errors import UserError
from emor3.evaluation.settings import EngineName, EvaluationSettings
from emor3.runs.changes import changes
from emor3.runs.recipe import Recipe, build_recipe
from emor3.settings import MOST, Block, describe_fault
from emor3.storage.shipped import check_kind, find_recipe
from emor3.storage.yaml_text import read_yaml

SeedNumber = Annotated[int, Field(ge=0, le=MOST)]
Average = Literal["in domain", "out of domain", "all"]
AVERAGES: tuple[Average, ...] = get_args(Average)
"""Columns of the table that average over others."""
Outcome = Literal["accuracy", "truth"]


class QuickBlock(Block):
    """What `--quick` leaves of the plan."""

    seeds: list[SeedNumber] = Field(default=[0], min_length=1)
    """Seeds that are left."""
    methods: list[str]
    """Methods that are left."""


class FamilyBlock(Block):
    """Tests that decide, named before the first run; Holm's correction is over the family alone."""

    methods: list[str] = Field(min_length=1)
    """Methods, each against the reference."""
    placebos: dict[str, str] = Field(default_factory=dict)
    """Method -> its placebo, which it must beat as well: the larger of both p-values is the test's. The placebo is the
    method with `reward.placebo: true` and no other change."""
    outcomes: list[Outcome] = Field(default=["accuracy"], min_length=1)
    """What is tested: the strict accuracy, or whether step 1 names exactly what was drawn (embedded test sets only)."""
    columns: list[Average] = Field(default=["all"], min_length=1)
    """Averages that are tested."""
    seeds: list[SeedNumber] | None = Field(default=None, min_length=1)
    """Seeds of its methods, which alone it tests; None is the plan's. The reference has the same, or all of the plan's
    where these are among them. Nothing is tested before all of them are finished."""
    test: Literal["t", "ranks"] = "t"
    """`t` speaks about new trainings and new items, `ranks` about new trainings on these items, by the exact rank-sum
    test of the seeds' means, for which it is the same how far a run fell that collapsed."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """A gain counts if its p-value after Holm is below this."""

    @property
    def all_methods(self) -> list[str]:
        """Its methods and their placebos."""
        return [*self.methods, *self.placebos.values()]

    def seeds_of_reference(self, plan: Sequence[int]) -> Sequence[int]:
        """Seeds of the reference, of those of the whole plan."""
        return self.seeds if self.seeds and not set(self.seeds) <= set(plan) else plan


class Plan(Block):
    """A table to fill: every method trained on every domain with every seed, evaluated on all tests."""

    output_dir: str
    """Folder of all cells and tables."""
    seeds: list[SeedNumber] = Field(min_length=1)
    """Every method is trained with each of them."""
    jobs: int = Field(default=1, ge=1)
    """Cells that run at the same time."""
    domains: list[str] = Field(min_length=1)
    """Training sets."""
    tests: list[str] = Field(min_length=1)
    """Test sets, on which every model is evaluated."""
    judge: str | None = None
    """Fixed judge of the reasoning; None is the model that training starts from."""
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    """How every cell is evaluated."""
    quick: QuickBlock
    """The smaller plan that `--quick` runs."""
    reference: str
    """The method that all others are compared with by paired tests."""
    families: dict[str, FamilyBlock] = Field(default_factory=dict)
    """The tests that decide, in order of importance, which is the order of their runs; all other differences then have
    an interval and no p-value. Without families each column of the table is corrected by itself."""
    base: dict[str, Any]
    """Settings that all recipes share."""
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    """What each method sets otherwise."""

    @field_validator("evaluation")
    @classmethod
    def _leaves_to_cells(cls, value: EvaluationSettings) -> EvaluationSettings:
        if given := value.model_fields_set & {"seed", "thinking", "template"}:
            raise ValueError(f"{min(given)} is that of each cell: leave it out")
        return value


@dataclass(frozen=True)
class Cell:
    """One training and its evaluation on all tests."""

    method: str
    domain: str | None
    """None for the start model, which no domain trains."""
    seed: int
    folder: Path
    recipe: Recipe

    @property
    def trains(self) -> bool:
        return self.domain is not None

    @property
    def evaluation(self) -> Path:
        """Folder of the evaluation; it appears when the cell is finished."""
        return self.folder / "evaluation"

    @property
    def training(self) -> Path:
        """The run directory."""
        return self.folder / "training"

    @property
    def steps(self) -> int:
        """Training steps, for the progress bar."""
        cold_start = self.recipe.cold_start.steps if self.recipe.cold_start else 0
        return cold_start + int((self.recipe.grpo or {}).get("max_steps", 0))


def load_plan(path: Path, output: Path | None, quick: bool, engine: EngineName | None = None) -> Plan:
    """The plan of a YAML file, or of a shipped one by its name, shortened by `quick`, with another output or engine.

    Raises UserError for what it cannot use.
    """
    content = read_yaml(find_recipe(path), "plan")
    if isinstance(content, dict):
        check_kind(content, "plan", path)
    try:
        plan = Plan.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_fault(error, Plan)}") from None
    named = [name for family in plan.families.values() for name in (*family.all_methods, *family.placebos)]
    if unknown := [name for name in (*plan.quick.methods, plan.reference, *named) if name not in plan.methods]:
        raise UserError(f"{path}: {unknown[0]!r} is no method of this plan; it has {', '.join(plan.methods)}")
    for name, family in plan.families.items():
        _check_family(f"{path}: families.{name}", family, plan)
    update: dict[str, Any] = {"output_dir": str(output)} if output else {}
    if engine is not None:
        update["evaluation"] = plan.evaluation.model_copy(update={"engine": engine})
    if quick:
        methods = {name: plan.methods[name] for name in plan.methods if name in plan.quick.methods}
        families = {
            name: family.model_copy(update={"seeds": None})
            for name, family in plan.families.items()
            if methods.keys() >= {*family.all_methods, plan.reference}
        }
        update |= {"seeds": plan.quick.seeds, "methods": methods, "families": families}
    return plan.model_copy(update=update)


def _check_family(where: str, family: FamilyBlock, plan: Plan) -> None:
    """Raises UserError for tests that would say nothing."""
    if plan.reference in family.methods:
        raise UserError(f"{where}.methods: {plan.reference} is the reference, it is not tested against itself")
    if stray := [name for name in family.placebos if name not in family.methods]:
        raise UserError(f"{where}.placebos: {stray[0]!r} is none of the family's methods: {', '.join(family.methods)}")
    if "truth" in family.outcomes and (unknown := [test for test in plan.tests if not test.startswith(EMBEDDED)]):
        raise UserError(
            f"{where}.outcomes: what is in a picture is known of drawn ones only, and {unknown[0]!r} is no embedded "
            "data set: leave truth out"
        )
    for method, placebo in family.placebos.items():
        _check_placebo(f"{where}.placebos", method, placebo, plan)


def _check_placebo(where: str, method: str, placebo: str, plan: Plan) -> None:
    """Raises UserError if what a method gains over its placebo may come from another setting."""
    cells = [_build_cell(plan, name, plan.methods[name], plan.domains[0], plan.seeds[0]) for name in (method, placebo)]
    found = {change.setting: change for change in changes(*(cell.recipe.model_dump() for cell in cells))}
    del found["output_dir"]
    permutes = found.pop("reward.placebo", None)
    others = ", ".join(map(str, found.values()))
    if others or permutes is None or not permutes.after:
        differs = f"they differ by {others}" if others else f"reward.placebo is not true in {placebo} alone"
        raise UserError(f"{where}: {placebo} must be {method} with reward.placebo: true and no other change: {differs}")


def seeds_of(plan: Plan, method: str) -> list[int]:
    """Seeds that a method is trained with: those of all families that need it, or else the plan's."""
    of_families = [
        seeds
        for family in plan.families.values()
        for method_of, seeds in (
            *((name, family.seeds or plan.seeds) for name in family.all_methods),
            (plan.reference, family.seeds_of_reference(plan.seeds)),
        )
        if method_of == method
    ]
    return sorted({seed for seeds in of_families for seed in seeds}) if of_families else plan.seeds


def cells_of(plan: Plan) -> list[Cell]:
    """Every cell of a plan in the order of its runs. Raises UserError for bad recipes.

    Family by family, the methods of none last, and each of these seed by seed: one cut short has whole seeds of what
    matters most.
    """
    families = [[plan.reference, *family.all_methods] for family in plan.families.values()]
    cells: dict[Path, Cell] = {}
    for methods in (*families, list(plan.methods)):
        seeds = {name: seeds_of(plan, name) for name in plan.methods if name in methods}
        for seed in sorted({seed for of_method in seeds.values() for seed in of_method}):
            for name in (name for name, of_method in seeds.items() if seed in of_method):
                for domain in plan.domains:
                    cell = _build_cell(plan, name, plan.methods[name], domain, seed)
                    cells.setdefault(cell.folder, cell)
    return list(cells.values())


def _build_cell(plan: Plan, name: str, changes: dict[str, Any], domain: str, seed: int) -> Cell:
    settings = merge(plan.base, changes)
    trains = settings.get("grpo") is not None or settings.get("cold_start") is not None
    place = Path(plan.output_dir) / name
    folder = place / domain.replace(":", "_").replace("/", "_") / f"seed{seed}" if trains else place
    settings |= {
        "seed": seed,
        "output_dir": str(folder / "training"),
        "data": settings.get("data", {}) | {"train": domain},
    }
    if not trains:
        settings["grpo"] = {}  # never used; a recipe must train something
    recipe = build_recipe(settings, (), f"method {name}")
    refuse_own_code(recipe, f"method {name}")
    return Cell(name, domain if trains else None, seed, folder, recipe)


def refuse_own_code(recipe: Recipe, what: str) -> None:
    """Raise UserError for a recipe with code of one's own, which nothing here hands over, before hours are spent."""
    if recipe.reward.own or recipe.judge.model == "own":
        setting = "reward.own" if recipe.reward.own else "judge.model own"
        raise UserError(
            f"{what}: {setting} is code of your own, which only `emor3 train` and Python take: leave it out"
        )


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with the changes laid over them, block by block; a null removes a block."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged
