"""Commands on what was saved: scores, comparisons, the report, other tools' formats and the checkpoint itself."""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from emor3.cli.next_steps import say_next
from emor3.cli.options import refuse_idle, usable
from emor3.printing import say, show
from emor3.runs.score_format import RESULT, ROW, keys_text
from emor3.signals import Stopped


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, one completion each.")],
    formula: Annotated[Literal["paper", "released"], typer.Option(help="How the parts become one reward.")] = "paper",
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="Checkpoint that judges rows without saved replies: a folder, a hub name, …"),
    ] = None,
) -> None:
    """Compute the rewards of saved completions.

    Prints one JSON line for every line of the file, in order; ends with status 1 if any could not be scored.
    """
    from emor3.method.scoring import score_file

    asked = None
    if judge is not None:
        from emor3.evaluation.candidate import load_any
        from emor3.judges.local import ScoreJudge

        asked = ScoreJudge(*load_any(judge))
    failed = False
    for row in score_file(file, formula, asked):
        failed = failed or "error" in row
        say(json.dumps(row))
    raise typer.Exit(int(failed))


score.__doc__ = "\n\n".join(
    [
        inspect.cleandoc(score.__doc__ or ""),
        keys_text("A line of FILE holds", ROW),
        keys_text("A printed line holds", RESULT),
    ]
)


def compare(
    context: typer.Context,
    evaluations: Annotated[
        list[str],
        typer.Argument(
            metavar="A B",
            help="Folders that `emor3 evaluate` wrote; runs of one method that differ in their seed as A1,A2,A3.",
        ),
    ],
    power: Annotated[
        bool, typer.Option("--power", help="Say how many images and seeds a planned comparison needs.")
    ] = False,
    difference: Annotated[
        float,
        typer.Option(callback=usable, min=0.1, max=100, help="With --power: the change in points that is to be seen."),
    ] = 2.0,
) -> None:
    """Compare saved evaluations with the first by paired tests.

    Single models are tested over the same items, groups of runs over seeds and items together. Ends with status 1 if
    any had to be left out.
    """
    if not power:
        refuse_idle(context, "without --power", ["difference"])
    from emor3.evaluation.compare import compare_groups, comparison_tables, power_tables
    from emor3.runs.predictions import read_evaluation

    folders = [[given] if Path(given).exists() else given.split(",") for given in evaluations]
    rows, left_out = compare_groups([[read_evaluation(Path(path)) for path in group] for group in folders])
    for line in left_out:
        say(f"left out: {line}", error=True)
    for table in power_tables(rows, difference / 100) if power else comparison_tables(rows):
        show(table)
    say_next("compare", folders=[path for group in folders for path in group])
    raise typer.Exit(int(bool(left_out)))


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to look under.")] = Path("runs"),
) -> None:
    """List the runs under a folder and how they stand.

    For each its state, the last step with its mean reward and accuracy, the seed, and the evaluations of its policies.
    """
    from emor3.runs.overview import standings, standings_table

    rows = standings(folder)
    if rows:
        show(standings_table(rows))
        say_next("runs", folder=folder)
    else:
        say(f"nothing in {folder}: no folder that `emor3 train`, `reproduce`, `quickstart` or `evaluate` wrote")


def report(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run and evaluation folders, or folders that hold some.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Page to write.")] = Path("report.html"),
    watch: Annotated[bool, typer.Option("--watch", help="Rewrite it whenever a record changes, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(callback=usable, min=1, help="Seconds between two checks with --watch.")] = 10,
) -> None:
    """Put runs and evaluations on one self-contained page.

    Ends with status 1 if anything had to be left out.
    """
    if not watch:
        refuse_idle(context, "without --watch", ["every"])
    from emor3.report import page

    written = page.watch(paths, output, every) if watch else iter([page.write_report(paths, output)])
    left_out: Sequence[str] = ()
    try:
        for left_out in written:
            for line in left_out:
                say(f"left out: {' '.join(line.split())}", error=True)
            say(f"written to: {output}", flush=True)
    except Stopped:
        pass
    if not watch:
        say_next("report", page=output)
    raise typer.Exit(int(bool(left_out)))


def share(
    evaluation: Annotated[Path, typer.Argument(metavar="EVALUATION", help="Folder that `emor3 evaluate` wrote.")],
    output: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
) -> None:
    """Write a saved evaluation in the formats of other tools.

    These are TSV files for VLMEvalKit and a block for a model card.
    """
    from emor3.evaluation.share import left_out, write_shared
    from emor3.runs.predictions import read_evaluation

    saved = read_evaluation(evaluation)
    for path in write_shared(saved, output):
        say(path)
    for line in left_out(saved):
        say(line)


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
    from emor3.runs.predictions import read_evaluation
    from emor3.tools import export as exporting

    saved = None if evaluation is None else read_evaluation(evaluation)
    folder = exporting.export(run, output, saved)
    say(f"written to: {folder}; loaded again, it gives the same logits")
    if repo is not None:
        say(f"uploaded to: {exporting.push(folder, repo)}")
    say_next("export", folder=folder)
