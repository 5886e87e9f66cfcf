"""The `emor3` command. Heavy imports stand inside the commands, so that `--help` answers at once.

Bad input ends with one line on standard error and exit status 2, a signal with one line and 130 (Ctrl-C) or 143; a
command that finds faults in data it was asked to go through (`score`, `data check`, `predict`) still goes through all
of it and ends with 1.
"""

import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emor3 import __version__
from emor3.cli_common import (
    BatchSize,
    JudgePath,
    Labels,
    Limit,
    MaxNewTokens,
    Model,
    Output,
    Overrides,
    Seed,
    Temperature,
    Template,
    hide_loading_bars,
    print_error,
    show,
)
from emor3.cli_data import data_app
from emor3.cli_tools import bench_app, tiny_app
from emor3.errors import UserError
from emor3.signals import Stopped, received_by, stop_at_once, tell

if TYPE_CHECKING:
    pass

app = typer.Typer(
    help="Teach vision-language models to reason about the emotion an image evokes (EMO-R3), and show their reasoning."
    " Begin with `emor3 quickstart`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench_app, name="bench")
app.add_typer(data_app, name="data")
app.add_typer(tiny_app, name="tiny")


class Formula(StrEnum):
    """How parts become a reward: as in the paper, or as the authors' released code pays it."""

    PAPER = "paper"
    RELEASED = "released"


class Sharding(StrEnum):
    """How a model is spread over GPUs."""

    NONE = "none"
    FSDP2 = "fsdp2"
    ZERO3 = "zero3"


def main() -> None:
    """Entry point of the `emor3` command."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports every trainer it makes
    try:
        with received_by(stop_at_once):
            app()
    except UserError as error:
        print_error(error)
        sys.exit(2)
    except Stopped as stopped:
        tell(str(stopped))
        sys.exit(128 + stopped.number)


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
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines with id, response, label, judge, …")],
    formula: Annotated[Formula, typer.Option(help="How the parts become one reward.")] = Formula.PAPER,
) -> None:
    """Compute the rewards of saved completions.

    Prints one JSON line for every line of the file, in order; ends with status 1 if any could not be scored.
    """
    from emor3.scoring import score_file

    failed = False
    for row in score_file(file, formula.value):
        failed = failed or "error" in row
        print(json.dumps(row))
    raise typer.Exit(int(failed))


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file, as those in recipes/.")],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run directory, instead of the recipe's.")
    ] = None,
) -> None:
    """Train a model with EMO-R3 as a recipe says."""
    from emor3.config import load_recipe

    settings = [*(overrides or []), *([f"output_dir={json.dumps(str(output))}"] if output else [])]
    loaded = load_recipe(recipe, settings)
    from emor3.train import train as run_training

    hide_loading_bars()
    run = run_training(loaded, resume=resume, overwrite=overwrite)
    print(f"run directory: {run}")


@app.command()
def evaluate(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Checkpoint: a folder, a hub name, or `embedded`.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Data folder or embedded:NAME; give it several times for more."),
    ] = None,
    saved: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="Recompute the figures of a saved evaluation, without a model."),
    ] = None,
    labels: Labels = None,
    label_field: Annotated[str, typer.Option(help="Field of a row that holds the label.")] = "label",
    split: Annotated[str, typer.Option(help="Split to evaluate, or `all`.")] = "test",
    samples: Annotated[
        int,
        typer.Option(min=0, help="Answers to sample per image at temperature 1, for distributions and calibration."),
    ] = 0,
    reflect: Annotated[
        bool, typer.Option("--reflect", help="Weigh each sampled answer by its reasoning (needs --samples).")
    ] = False,
    judge: JudgePath = None,
    template: Template = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = 256,
    batch_size: BatchSize = 64,
    output: Output = None,
) -> None:
    """Evaluate a checkpoint on labelled images.

    Prints a table and writes predictions.jsonl and results.json to the output folder.
    """
    if saved is not None:
        _evaluate_again(saved)
        return
    if reflect and samples == 0:
        raise UserError("--reflect weighs sampled answers: say how many with --samples")
    if model is None or not data:
        raise UserError("give --model and --data, or --from with the folder of a saved evaluation")
    from emor3 import evaluate as evaluation
    from emor3.figures import results_table

    folder = evaluation.fresh_folder(output, "evaluation")
    hide_loading_bars()
    candidate = evaluation.load_candidate(model, judge)
    settings = evaluation.EvaluationSettings(
        split=None if split == "all" else split,
        labels=labels,
        label_field=label_field,
        limit=limit,
        temperature=temperature,
        samples=samples,
        reflective=reflect,
        seed=seed,
        thinking=candidate.thinking,
        template=template or candidate.template,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    evaluations = evaluation.evaluate(candidate, data, settings, folder)
    show(results_table(model, evaluations))
    print(f"judge of consistency and coherence: {candidate.judge_path}\nwritten to: {folder}")


def _evaluate_again(path: Path) -> None:
    from emor3.figures import results, results_table, summarise
    from emor3.predictions import RESULTS, read_evaluation
    from emor3.records import write_json

    evaluation = read_evaluation(path)
    evaluations = [
        summarise(data, predictions, evaluation.thinking) for data, predictions in evaluation.predictions.items()
    ]
    write_json(evaluation.folder / RESULTS, results(evaluation.head, evaluations))
    show(results_table(evaluation.model, evaluations))
    print(f"written to: {evaluation.folder / RESULTS}")


@app.command()
def compare(
    evaluations: Annotated[list[Path], typer.Argument(metavar="A B", help="Folders that `emor3 evaluate` wrote.")],
) -> None:
    """Compare saved evaluations with the first by paired tests.

    Ends with status 1 if any had to be left out.
    """
    from emor3.compare import compare_evaluations, comparison_tables
    from emor3.predictions import read_evaluation

    rows, left_out = compare_evaluations([read_evaluation(path) for path in evaluations])
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    for table in comparison_tables(rows):
        show(table)
    raise typer.Exit(int(bool(left_out)))


@app.command()
def report(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run and evaluation folders, or folders that hold some.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write.")] = Path("report.html"),
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it anew whenever a record changes, until Ctrl-C.")
    ] = False,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks with --watch.")] = 10,
) -> None:
    """Put runs and evaluations on one self-contained page.

    Ends with status 1 if anything had to be left out.
    """
    from emor3 import report as page

    written = page.watch(paths, output, every) if watch else iter([page.write_report(paths, output)])
    left_out: Sequence[str] = ()
    try:
        for left_out in written:
            for line in left_out:
                print(f"left out: {' '.join(line.split())}", file=sys.stderr)
            print(f"written to: {output}", flush=True)
    except Stopped:
        pass
    raise typer.Exit(int(bool(left_out)))


@app.command()
def share(
    evaluation: Annotated[Path, typer.Argument(metavar="EVALUATION", help="Folder that `emor3 evaluate` wrote.")],
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
) -> None:
    """Write a saved evaluation in the formats of other tools.

    These are TSV files for VLMEvalKit and a block for a model card.
    """
    from emor3.exchange import left_out, write_exchange
    from emor3.predictions import read_evaluation

    saved = read_evaluation(evaluation)
    for path in write_exchange(saved, output):
        print(path)
    for line in left_out(saved):
        print(line)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory, or one of its checkpoints.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")],
    evaluation: Annotated[
        Path | None, typer.Option(help="Evaluation of this policy, whose figures the model card states.")
    ] = None,
    repo: Annotated[
        str | None, typer.Option("--push", metavar="REPO", help="Upload to this private hub repository.")
    ] = None,
) -> None:
    """Write a trained policy with its model card.

    A plain checkpoint, adapters merged; it is loaded again and must give the same logits.
    """
    from emor3 import export as exporting
    from emor3.predictions import read_evaluation

    folder = exporting.export(run, output, None if evaluation is None else read_evaluation(evaluation))
    print(f"written to: {folder}; loaded again, it gives the same logits")
    if repo is not None:
        print(f"uploaded to: {exporting.push(folder, repo)}")


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files.")],
    model: Model,
    labels: Labels = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per image.")] = False,
    judge: JudgePath = None,
    template: Template = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 256,
    batch_size: BatchSize = 16,
    samples: Annotated[int, typer.Option(min=1, help="Completions to sample for --reflect.")] = 8,
    reflect: Annotated[
        bool, typer.Option("--reflect", help="Sample completions and weigh each by its reasoning.")
    ] = False,
    abstain_below: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="With --reflect: abstain where the leading label has less.")
    ] = 0.5,
) -> None:
    """Label images and show the reasoning behind each label.

    For every image, in order: the label, the three steps, and what the reflection says of them, with probabilities. An
    image that cannot be read fails alone; the status then is 1.
    """
    from emor3 import predict as prediction
    from emor3.evaluate import EvaluationSettings, load_candidate

    hide_loading_bars()
    candidate = load_candidate(model, judge)
    settings = EvaluationSettings(
        temperature=temperature,
        seed=seed,
        thinking=candidate.thinking,
        template=template or candidate.template,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        samples=samples if reflect else 0,
        reflective=reflect,
    )
    label_set = prediction.choose_labels(candidate, labels)
    failed = False
    for image, outcome in prediction.predict(candidate, images, label_set, settings, abstain_below):
        failed = failed or isinstance(outcome, UserError)
        if as_json:
            print(json.dumps(prediction.outcome_row(image, outcome)))
        elif isinstance(outcome, UserError):
            print_error(outcome)
        else:
            print(prediction.describe(outcome.prediction))
            if outcome.decision is not None:
                print(prediction.describe_decision(outcome.decision))
    raise typer.Exit(int(failed))


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Checkpoint to look at as well.")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Ask whether the model hub answers.")] = False,
) -> None:
    """Look whether this machine can run emor3.

    Versions, GPU, vLLM, disk, a checkpoint and a try of the embedded model; status 1 if anything fails.
    """
    from emor3.doctor import checks_table, examine

    checks = list(examine(model, hub))
    show(checks_table(checks))
    raise typer.Exit(int(any(check.status == "fail" for check in checks)))


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(help="Recipe: a YAML file, as in recipes/.")],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs, over all machines.")] = 1,
    memory: Annotated[float, typer.Option(min=0.1, help="Memory of each GPU in GB.")] = 80,
    sharding: Annotated[Sharding, typer.Option(help="As in recipes/accelerate/.")] = Sharding.NONE,
    config: Annotated[Path | None, typer.Option(help="The model's config.json, where the hub is out of reach.")] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Take two steps here to tell the time.")] = False,
) -> None:
    """Say what a recipe needs of each GPU.

    Nothing is loaded; status 1, and what to change, where it cannot fit.
    """
    from emor3 import needs as planning
    from emor3.config import load_recipe

    settings = load_recipe(recipe, overrides or [])
    machine = planning.Machine(gpus, memory * 1e9, sharding.value)
    model = planning.model_config(settings.model.path, config)
    needs = planning.needs_of(settings, model, machine)
    show(planning.needs_table(settings, needs, machine))
    if probe and needs.steps:
        seconds = planning.probe(settings)
        print(f"a step takes {seconds:.1f} s here, so {needs.steps} steps take {needs.steps * seconds / 3600:.2f} h")
    if needs.fits(machine):
        return
    print("It does not fit. What makes it smaller, one on top of the other:")
    fits = False
    for change, then, other in planning.ways_to_fit(settings, model, machine):
        fits = then.fits(other)
        print(f"  {change}: {then.peak / 1e9:.1f} GB{', fits' if fits else ''}")
    if not fits:
        print("None of it is enough: take more or larger GPUs, or a smaller model.")
    raise typer.Exit(1)


@app.command()
def reproduce(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="YAML file, as recipes/table1_tiny.yaml.")],
    quick: Annotated[bool, typer.Option("--quick", help="One seed and the core methods only.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to, instead of the plan's.")
    ] = None,
    cell: Annotated[Path | None, typer.Option(hidden=True, help="Run this one cell.")] = None,
) -> None:
    """Train and evaluate every method of a plan in one table.

    Goes on where an earlier call stopped.
    """
    from rich.console import Console

    from emor3 import reproduce as reproduction
    from emor3.plan import cells_of, load_plan

    settings = load_plan(plan, output, quick)
    if cell is not None:
        reproduction.end_with_parent()
        reproduction.run_cell(settings, cell)
        return
    from emor3.table1 import Results, write_tables

    cells = cells_of(settings)
    show(reproduction.plan_table(settings, cells))
    failed = reproduction.run_plan(settings, plan, quick)
    results = Results(settings, cells)
    with Console(stderr=True).status("intervals and paired tests"):
        paths = write_tables(results, cells, Path(settings.output_dir))
    print(paths[0].read_text(encoding="utf-8"))
    print("written to: " + ", ".join(map(str, paths)))
    raise typer.Exit(int(bool(failed)))


@app.command()
def quickstart(
    seed: Seed = 0,
    output: Output = None,
    limit: Limit = None,
    overrides: Overrides = None,
) -> None:
    """Show the tiny model before and after EMO-R3 in one table.

    Evaluates the embedded base, trains it on drawn scenes (a few minutes on two cores), evaluates it again in and out
    of domain, and tells what changed, with intervals and paired tests.
    """
    from emor3.quickstart import run_quickstart

    hide_loading_bars()
    run_quickstart(seed, output, limit, overrides or [])


if __name__ == "__main__":
    main()
