"""The `emor3` command: training here, the other commands in the modules beside it.

Heavy imports stand inside the commands, so that `--help` answers at once.

Bad input ends with one line on standard error and exit status 2, a signal with one line and 130 (Ctrl-C) or 143; a
command that finds faults in data it was asked to go through (`score`, `data check`, `predict`, `evaluate`) still goes
through all of it and ends with 1.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from emor3 import __version__
from emor3.cli.data import data_app
from emor3.cli.evaluation import evaluate, predict
from emor3.cli.next_steps import say_next
from emor3.cli.options import (
    Limit,
    Output,
    Overrides,
    Seed,
    drop_output,
    usable,
)
from emor3.cli.results import compare, demo, export, report, review, runs, score, share
from emor3.cli.start import init
from emor3.cli.tools import bench_app, doctor, plan, recipes, tiny_app
from emor3.errors import UserError
from emor3.evaluation.settings import EngineName
from emor3.printing import console, escape_what_no_encoding_has, hide_idle_warnings, print_error, say, say_start, show
from emor3.signals import Stopped, signal_handler, stop_at_once, write_line

app = typer.Typer(
    help="Teach vision-language models to reason about the emotion an image evokes (EMO-R3), and show their reasoning."
    " Begin with `emor3 quickstart`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(tiny_app, name="tiny")


USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""What wrong arguments raise: typer's own class, or click's in releases of typer before it had one."""


def main() -> None:
    """Entry point of the `emor3` command."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports every trainer it makes
    hide_idle_warnings()
    escape_what_no_encoding_has()
    try:
        with signal_handler(stop_at_once):
            try:
                status = app(prog_name="emor3", standalone_mode=False)
            finally:
                if sys.stdout is not None:  # as it is if the shell closed it
                    sys.stdout.flush()
    except UserError as error:
        print_error(error)
        sys.exit(2)
    except USAGE_ERROR as error:
        _print_usage_error(error)
        sys.exit(2)
    except typer.Abort:  # the input ended where a question was asked
        print_error(UserError("no answer: give it as an argument, see --help"))
        sys.exit(2)
    except OSError as error:
        drop_output()
        print_error(UserError(f"{error.filename or 'cannot write the output'}: {error.strerror or error}"))
        sys.exit(2)
    except Stopped as stopped:
        write_line(str(stopped))
        sys.exit(128 + stopped.number)
    if status:  # of typer.Exit
        sys.exit(status)


def _print_usage_error(error: Any) -> None:
    """Wrong arguments in one line; a group of commands that was called without any shows its help."""
    message = error.format_message()
    if "\n" in message:
        say(message, error=True)
    else:
        at = error.ctx.command_path if error.ctx is not None else "emor3"
        print_error(UserError(f"{at}: {message.removesuffix('.')}; {at} -h tells what it takes"))


def _print_version(wanted: bool) -> None:
    if wanted:
        from emor3.revision import commit

        at = commit()
        say(f"emor3 {__version__}" + (f" (commit {at})" if at else ""))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version (in a checkout also the commit) and exit.",
        ),
    ] = False,
) -> None:
    """Options that stand before any command."""


def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            help="YAML file, or the name of a shipped recipe (`emor3 recipes`); with --resume also a run directory.",
        ),
    ],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in the output folder.")] = False,
    from_checkpoint: Annotated[
        int | None,
        typer.Option(
            callback=usable, min=1, metavar="N", help="Resume from the checkpoint of step N; later steps are repeated."
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the run in the output folder, once the new one has a checkpoint."),
    ] = False,
    allow_code: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Import this function, which the recipe names in reward.own; no other code is. Repeat for several.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run directory. [default: the recipe's]")
    ] = None,
) -> None:
    """Train a model with EMO-R3 as a recipe says."""
    from emor3.runs.directory import resumed_recipe
    from emor3.runs.recipe import load_recipe
    from emor3.scoring.own import import_parts

    if resume and overwrite:
        raise UserError("--resume goes on with the run in the output folder, --overwrite replaces it: give one of them")
    settings = [*(overrides or []), *([f"output_dir={json.dumps(str(output))}"] if output else [])]
    if recipe.is_dir():
        if not (resume or from_checkpoint) or output:
            raise UserError(f"{recipe} is a folder: --resume alone goes on with the run in it; else give a YAML file")
        loaded = resumed_recipe(recipe, settings)
    else:
        loaded = load_recipe(recipe, settings)
    own = import_parts(loaded.reward.own, allow_code or [])
    say_start("emor3 train")
    from emor3.training.run import train as run_training

    run = run_training(loaded, resume=resume, overwrite=overwrite, from_checkpoint=from_checkpoint, own=own)
    say(f"run directory: {run}")
    say_next("train", run=run, folder=loaded.data.folders[0])


def reproduce(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="YAML file, or the name of a shipped plan, such as table1_tiny.")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="One seed and the core methods only.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to. [default: the plan's]")
    ] = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="What evaluates the cells. [default: the plan's evaluation.engine]")
    ] = None,
    cell: Annotated[Path | None, typer.Option(hidden=True, help="Run this one cell.")] = None,
) -> None:
    """Train and evaluate all methods of a plan in one table.

    Resumes where an earlier call stopped.
    """
    from emor3.experiments.plan import cells_of, load_plan

    settings = load_plan(plan, output, quick, engine)
    say_start("emor3 reproduce")
    from emor3.experiments import reproduce as reproduction
    from emor3.runs.predictions import leaves_out
    from emor3.storage.locks import held

    if cell is not None:
        reproduction.end_with_parent()
        reproduction.run_cell(settings, cell)
        return
    from emor3.experiments.results import Results
    from emor3.experiments.table import write_tables

    cells = cells_of(settings)
    with held(Path(settings.output_dir)):
        show(reproduction.plan_table(settings, cells))
        failed = reproduction.run_plan(settings, plan, quick)
        results = Results(settings, cells)
        with console(error=True).status("intervals and tests"):
            paths = write_tables(results, cells, Path(settings.output_dir))
    say(paths[0].read_text(encoding="utf-8"))
    say("written to: " + ", ".join(map(str, paths)))
    say_next("reproduce", folder=settings.output_dir)
    unread = [cell.folder for cell in cells if reproduction.is_finished(cell) and leaves_out(cell.evaluation)]
    for folder in unread:
        say(f"images that cannot be read are left out, see {folder / reproduction.LOG}", error=True)
    raise typer.Exit(int(bool(failed or unread)))


def quickstart(
    easy: Annotated[
        bool, typer.Option("--easy", help="The easy scenes instead, of which the base describes nearly all rightly.")
    ] = False,
    seed: Seed = 0,
    output: Output = None,
    limit: Limit = None,
    overrides: Overrides = None,
) -> None:
    """Show a tiny model before and after EMO-R3 in one table.

    Evaluates the embedded base of the hard scenes, trains it on them (a few minutes on two cores), evaluates it again
    in and out of domain, on 256 images of each set (with --easy on all 512) if no --limit is given, and tells what
    changed, with intervals and paired tests.
    """
    for option, key in (("--seed", "seed"), ("--output", "output_dir")):
        if any(override.startswith(f"{key}=") for override in overrides or []):
            raise UserError(f"--set {key}=… does nothing here: give {option}")
    say_start("emor3 quickstart")
    from emor3.experiments.quickstart import EASY, HARD, run_quickstart

    say_next("quickstart", folder=run_quickstart(EASY if easy else HARD, seed, output, limit, overrides or []))


for command in (
    *(quickstart, init, train, evaluate, predict, demo),
    *(runs, compare, review, report, reproduce, export, share, score),
    *(recipes, plan, doctor),
):
    app.command()(command)


if __name__ == "__main__":
    main()
