"""Commands and plans take an evaluation's settings with the bounds and defaults of one block."""

from typing import get_type_hints

import pytest
from test_reproduce import write_plan

from emor3.cli.main import evaluate, predict
from emor3.errors import UserError
from emor3.evaluation.settings import EvaluationSettings
from emor3.experiments.plan import load_plan

FIELDS = EvaluationSettings.model_fields


def bounds(field):
    return {type(found).__name__.lower(): getattr(found, type(found).__name__.lower()) for found in field.metadata}


@pytest.mark.parametrize("command", [evaluate, predict])
def test_options_have_the_bounds_of_the_block(command):
    hints = get_type_hints(command, include_extras=True)
    for name in FIELDS.keys() & hints.keys() - ({"samples"} if command is predict else set()):
        option = hints[name].__metadata__[0]
        found = {"ge": option.min, "le": option.max}
        assert {key: bound for key, bound in found.items() if bound is not None} == bounds(FIELDS[name]), name


@pytest.mark.parametrize("name", ["seed", "thinking", "template"])
def test_a_plan_leaves_to_its_cells_what_differs_among_them(tmp_path, name):
    value = 1 if name == "seed" else "free"
    with pytest.raises(UserError, match=f"evaluation: {name} is that of each cell"):
        load_plan(write_plan(tmp_path, evaluation={name: value}), None, quick=False)


def test_a_temperature_that_overflows_is_refused():
    with pytest.raises(ValueError, match="too low to sample at"):
        EvaluationSettings(temperature=1e-5)
