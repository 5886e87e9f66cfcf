"""What the commands share: options of one meaning and name, and quiet loading."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from emor3.errors import UserError

Model = Annotated[str, typer.Option("--model", "-m", help="Checkpoint: a folder, a hub name, or `embedded`.")]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Label set: a built-in name (mikels8, sentiment3, …), labels as `a,b,c`, or a YAML file; "
        "that of the data, or of the model's training, if absent."
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write to; a new one under runs/ if absent.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn at random.")]
JudgePath = Annotated[
    str | None,
    typer.Option(
        "--judge", help="Checkpoint that judges the reasoning; the run's start model, else the model, if absent."
    ),
]
Template = Annotated[
    str | None,
    typer.Option(help="Prompt template: a shipped one or a file; as in the model's run, else `steps`, if absent."),
]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 decodes greedily, above it samples.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Length at which a completion is cut.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at once.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Evaluate at most that many samples of each data set.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe setting, as grpo.beta=0.02.")
]


def refuse_idle(context: typer.Context, circumstance: str, idle: Collection[str]) -> None:
    """Raise UserError if an option was given that does nothing here: a person who gave it expects that it counts."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if parameter.name in idle and given is not None and given.name == "COMMANDLINE":
            raise UserError(f"{parameter.opts[0]} does nothing {circumstance}: leave it out")
