"""The `emor3` command. Heavy imports stand inside the commands, so that `--help` answers at once.

Bad input ends with one line on standard error and exit status 2; a command that finds faults in data it was asked to
go through (`score`, `data check`, `predict`) still goes through all of it and ends with 1.
"""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from emor3 import __version__
from emor3.errors import UserError

app = typer.Typer(
    help="Teach vision-language models to reason about the emotion an image evokes (EMO-R3), and show their reasoning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look at labelled images before training on them.", no_args_is_help=True)
tiny_app = typer.Typer(help="The tiny model that comes with the package.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(tiny_app, name="tiny")


class Formula(StrEnum):
    """How parts become a reward: as in the paper, or as the authors' released code pays it."""

    PAPER = "paper"
    RELEASED = "released"


Model = Annotated[str, typer.Option("--model", "-m", help="Checkpoint: a folder, a hub name, or `embedded`.")]
Labels = Annotated[
    str | None,
    typer.Option(help="Label set: a built-in name (mikels8, sentiment3, …), labels as `a,b,c`, or a YAML file."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write to; a new one under runs/ if absent.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn at random.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe setting, as grpo.beta=0.02.")
]


def main() -> None:
    """Entry point of the `emor3` command."""
    try:
        app()
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"emor3 {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that stand before any command."""


@app.command()
def score(
    file: Annotated[Path, typer.Argument(help="JSON lines with id, response, label, judge, …")],
    formula: Annotated[Formula, typer.Option(help="How the parts become one reward.")] = Formula.PAPER,
) -> None:
    """Score saved completions: one JSON line out for every line in, in order; status 1 if any could not be scored."""
    from emor3.scoring import score_file

    failed = False
    for row in score_file(file, formula.value):
        failed = failed or "error" in row
        print(json.dumps(row))
    raise typer.Exit(int(failed))


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe: a YAML file, as in recipes/.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
    output: Output = None,
) -> None:
    """Train a model with EMO-R3 as a recipe says."""
    from emor3.config import load_recipe
    from emor3.train import train as run_training

    settings = [*(overrides or []), *([f"output_dir={output}"] if output else [])]
    print(run_training(load_recipe(recipe, settings), resume=resume, overwrite=overwrite))
