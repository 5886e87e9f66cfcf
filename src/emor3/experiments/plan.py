"""The plan of a reproduction: methods x training domains x seeds, as YAML a person edits, and its cells.

A method is a recipe that differs from the others in its settings only; one without `grpo` and `cold_start` is the
start model itself, evaluated once.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from emor3.errors import UserError
from emor3.evaluation.settings import EvaluationSettings
from emor3.runs.recipe import Recipe, build_recipe
from emor3.settings import MOST, Block, describe_fault
from emor3.storage.yaml_text import read_yaml

SeedNumber = Annotated[int, Field(ge=0, le=MOST)]


class QuickBlock(Block):
    """What `--quick` leaves of the plan."""

    seeds: list[SeedNumber] = Field(default=[0], min_length=1)
    """Seeds that are left."""
    methods: list[str]
    """Methods that are left."""


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


def load_plan(path: Path, output: Path | None, quick: bool) -> Plan:
    """The plan of a YAML file, shortened by `quick`. Raises UserError for what it cannot use."""
    content = read_yaml(path, "plan")
    try:
        plan = Plan.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_fault(error, Plan)}") from None
    unknown = [name for name in (*plan.quick.methods, plan.reference) if name not in plan.methods]
    if unknown:
        raise UserError(f"{path}: {unknown[0]!r} is no method of this plan; it has {', '.join(plan.methods)}")
    changes: dict[str, Any] = {"output_dir": str(output)} if output else {}
    if quick:
        methods = {name: plan.methods[name] for name in plan.methods if name in plan.quick.methods}
        changes |= {"seeds": plan.quick.seeds, "methods": methods}
    return plan.model_copy(update=changes)


def cells_of(plan: Plan) -> list[Cell]:
    """Every cell of a plan, seed by seed, so that one cut short has whole seeds. Raises UserError for bad recipes."""
    cells: dict[Path, Cell] = {}
    for seed in plan.seeds:
        for name, changes in plan.methods.items():
            for domain in plan.domains:
                cell = _build_cell(plan, name, changes, domain, seed)
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
    return Cell(name, domain if trains else None, seed, folder, build_recipe(settings, (), f"method {name}"))


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with the changes laid over them, block by block; a null removes a block."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged
