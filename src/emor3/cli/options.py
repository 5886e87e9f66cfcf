"""Options that several commands share, their bounds, and the evaluation settings made of them."""

import os
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emor3.errors import UserError
from emor3.evaluation.settings import EngineName, EvaluationSettings
from emor3.printing import say
from emor3.settings import MOST, low_temperature, odd_number

if TYPE_CHECKING:
    from emor3.evaluation.candidate import Candidate


def usable(value: float | None) -> float | None:
    """A number as an option takes it. Raises BadParameter, which names the option, for NaN and over 32 bits."""
    if odd := odd_number(value):
        raise typer.BadParameter(odd)
    return value


def usable_temperature(value: float) -> float:
    """A temperature that logits can be divided by, or 0. Raises BadParameter as `usable`."""
    if low := low_temperature(value):
        raise typer.BadParameter(low)
    return usable(value) or 0.0


MODEL = typer.Option("--model", "-m", help="Checkpoint: a folder, a hub name, or `embedded`.")
Labels = Annotated[
    str | None,
    typer.Option(
        help="Label set: a built-in name (mikels8, sentiment3, …), labels as `a,b,c`, or a YAML file. "
        "[default: the labels in the data, else those the model was trained on]"
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write to. [default: a new one under runs/]")
]
Seed = Annotated[int, typer.Option(callback=usable, min=0, max=MOST, help="Seed of all random draws.")]
JudgePath = Annotated[
    str | None,
    typer.Option(
        "--judge", help="Checkpoint that judges the reasoning. [default: the run's start model, else the model itself]"
    ),
]
Template = Annotated[
    str | None,
    typer.Option(help="Prompt template: a shipped one or a file. [default: that of the model's run, else `steps`]"),
]
Temperature = Annotated[
    float, typer.Option(callback=usable_temperature, min=0.0, max=1e3, help="Sampling temperature; 0 decodes greedily.")
]
MaxNewTokens = Annotated[int, typer.Option(callback=usable, min=1, help="Most tokens of a completion.")]
BatchSize = Annotated[int, typer.Option(callback=usable, min=1, help="Images in a batch; of large ones fewer.")]
Engine = Annotated[
    EngineName,
    typer.Option(
        help="What makes completions and asks the judge; vLLM has to be installed: pip install 'emor3[vllm]'."
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(
        callback=usable,
        min=1,
        help="Frames drawn of a video clip, from the middles of as many equal parts. [default: 4]",
    ),
]
Limit = Annotated[
    int | None, typer.Option(callback=usable, min=1, help="Evaluate at most this many samples of each data set.")
]


def _tell_of_reflect(given: bool) -> bool:
    if given:
        say("note: --reflect will go: give --samples alone; no judge weighs the answers (docs/log.md)", error=True)
    return given


Reflect = Annotated[bool, typer.Option("--reflect", hidden=True, callback=_tell_of_reflect)]
"""Taken for one release more: it had the judge weigh sampled answers."""
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe setting, such as grpo.beta=0.02."),
]


DEFAULTS = EvaluationSettings()
"""What options of an evaluation are if they are not given; a test holds their bounds to those of the block."""


def evaluation_settings(context: typer.Context, candidate: "Candidate", **decided: Any) -> EvaluationSettings:
    """Settings from a command's options of these names; the prompt is that of the model's run if none is given."""
    given = {name: value for name, value in context.params.items() if name in EvaluationSettings.model_fields}
    return candidate.settings(**given | decided)


def refuse_idle(context: typer.Context, circumstance: str, idle: Collection[str]) -> None:
    """Raise UserError if an option was given that does nothing here: a person who gave it expects that it counts."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if parameter.name in idle and given is not None and given.name == "COMMANDLINE":
            raise UserError(f"{parameter.opts[0]} does nothing {circumstance}: leave it out")


def drop_output() -> None:
    """Forget what is still to be written to standard output: it would fail again when Python ends."""
    with suppress(OSError, ValueError, AttributeError):
        written = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), written)
