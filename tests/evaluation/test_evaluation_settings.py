"""Commands and plans take an evaluation's settings with the bounds and defaults of one block."""

from pathlib import Path
from typing import Any, get_type_hints

import pytest
from test_reproduce import write_plan

from emor3.cli.evaluation import evaluate, predict
from emor3.errors import UserError
from emor3.evaluation.settings import EvaluationSettings
from emor3.experiments.plan import load_plan

FIELDS = EvaluationSettings.model_fields


def bounds(field: Any) -> dict[str, Any]:
    return {type(found).__name__.lower(): getattr(found, type(found).__name__.lower()) for found in field.metadata}


@pytest.mark.parametrize("command", [evaluate, predict])
def test_options_have_the_bounds_of_the_block(command: str) -> None:
    hints = get_type_hints(command, include_extras=True)
    for name in FIELDS.keys() & hints.keys():
        option = hints[name].__metadata__[0]
        found = {"ge": option.min, "le": option.max}
        assert {key: bound for key, bound in found.items() if bound is not None} == bounds(FIELDS[name]), name


@pytest.mark.parametrize("name", ["seed", "thinking", "template"])
def test_a_plan_leaves_to_its_cells_what_differs_among_them(tmp_path: Path, name: str) -> None:
    value = 1 if name == "seed" else "free"
    with pytest.raises(UserError, match=f"evaluation: {name} is that of each cell"):
        load_plan(write_plan(tmp_path, evaluation={name: value}), None, quick=False)


def test_reflective_decoding_is_gone_and_older_records_without_it_are_read(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path, evaluation={"limit": 3, "reflective": False}), None, quick=False)
    assert plan.evaluation == EvaluationSettings(limit=3)
    with pytest.raises(UserError, match=r"evaluation\.reflective helped in no world and was removed \(docs/log\.md\)"):
        load_plan(write_plan(tmp_path, evaluation={"reflective": True}), None, quick=False)


def test_a_temperature_that_overflows_is_refused() -> None:
    with pytest.raises(ValueError, match="too low to sample at"):
        EvaluationSettings(temperature=1e-5)
