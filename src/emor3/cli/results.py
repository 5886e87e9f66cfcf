"""Commands on what was saved: scores, comparisons, the report, other tools' formats and the checkpoint itself."""

import inspect
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from emor3.cli.next_steps import say_next
from emor3.cli.options import DEFAULTS, MODEL, JudgePath, MaxNewTokens, Seed, refuse_idle, usable
from emor3.errors import UserError
from emor3.printing import say, say_start, show
from emor3.runs.score_format import RESULT, ROW, keys_text
from emor3.signals import Stopped

if TYPE_CHECKING:
    pass


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
    from emor3.scoring.saved import score_file

    asked = None
    if judge is not None:
        say_start("emor3 score")
        from emor3.evaluation.candidate import load_any
        from emor3.judges.local import ScoreJudge

        asked = ScoreJudge(*load_any(judge))
    failed = False
    for row in score_file(file, formula, asked):
        failed = failed or "error" in row
        say(json.dumps(row))
    say_next("score")
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

    Single models are tested over the same items, groups of runs over seeds and items together. If people marked
    completions (`emor3 review`), tables of their agreement with the judge and each other follow. Ends with status 1 if
    any evaluation had to be left out.
    """
    if not power:
        refuse_idle(context, "without --power", ["difference"])
    say_start("emor3 compare")
    from emor3.evaluation.compare import compare_groups, comparison_tables, power_tables
    from emor3.runs.predictions import read_evaluation

    folders = [[given] if Path(given).exists() else given.split(",") for given in evaluations]
    groups = [[read_evaluation(Path(path)) for path in group] for group in folders]
    rows, left_out = compare_groups(groups)
    for line in left_out:
        say(f"left out: {line}", error=True)
    for table in power_tables(rows, difference / 100) if power else comparison_tables(rows):
        show(table)
    if not power:
        from emor3.review.agreement import show_agreement

        show_agreement([evaluation for group in groups for evaluation in group])
    say_next("compare", folders=[path for group in folders for path in group])
    raise typer.Exit(int(bool(left_out)))


def review(
    evaluations: Annotated[
        list[Path], typer.Argument(metavar="EVALUATION", help="Folders that `emor3 evaluate` wrote.")
    ],
    number: Annotated[
        int,
        typer.Option(
            "--number", "-n", callback=usable, min=1, help="Completions to mark, over all models and data sets."
        ),
    ] = 100,
    seed: Seed = 0,
    reviewer: Annotated[
        str | None, typer.Option(help="Name that the marks are saved under. [default: the login name]")
    ] = None,
    port: Annotated[
        int, typer.Option(callback=usable, min=0, max=65_535, help="Port of the page; 0 takes any that is free.")
    ] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another one than this machine's own opens the page to a network.")
    ] = "127.0.0.1",
) -> None:
    """Mark completions by eye, to hold the judge against people.

    Serves a page on this machine that shows completions drawn from one or several evaluations, without their models,
    labels and verdicts, and saves each answer at once to marks-REVIEWER.jsonl beside the evaluation. The same command
    goes on where it was stopped; the same seed shows every reviewer the same completions.
    """
    from emor3.review.access import LOCAL

    say_start("emor3 review")
    from emor3.review.server import review_server

    name = _login_name() if reviewer is None else reviewer
    with review_server(evaluations, number, seed, name, host, port) as server:
        session = server.session
        say(f"{len(session.drawn)} completions with seed {seed}, of which {name} has marked {len(session.marks)}")
        say(f"open {server.address}", flush=True)
        say("Ctrl-C ends it; every mark is saved at once", flush=True)
        if host not in LOCAL:
            say("whoever gets this address can mark, and others can read along: it is not encrypted", error=True)
        with suppress(Stopped):
            server.serve_forever()
        say(f"{name} has marked {len(session.marks)} of {len(session.drawn)}")
    say_next("review", folders=[str(folder) for folder in evaluations])


def _login_name() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # as in a container whose user has no name
        raise UserError("this user has no login name: give one by --reviewer") from None


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
        say_next("runs (none)")


def report(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run and evaluation folders, or folders that hold some.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write. [default: report.html, with --paper reproduction.md]"),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Write what a paper's reproduction states, as Markdown, instead of the page."),
    ] = False,
    copies: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="With --paper: what `emor3 data check --across -o DIR` wrote; again for more."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Rewrite it whenever a record changes, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(callback=usable, min=1, help="Seconds between two checks with --watch.")] = 10,
) -> None:
    """Put runs and evaluations on one page, or report for a paper.

    Ends with status 1 if anything had to be left out.
    """
    if not watch:
        refuse_idle(context, "without --watch", ["every"])
    refuse_idle(context, *(("with --paper", ["watch"]) if paper else ("without --paper", ["copies"])))
    if paper:
        _report_paper(paths, copies or [], output or Path("reproduction.md"))
    else:
        _report_page(paths, output or Path("report.html"), watch, every)


def _report_paper(paths: Sequence[Path], copies: Sequence[Path], output: Path) -> None:
    say_start("emor3 report")
    from emor3.report.paper.document import write_paper

    left_out = write_paper(paths, copies, output)
    for line in left_out:
        say(f"left out: {' '.join(line.split())}", error=True)
    say(f"written to: {output}")
    say_next("report --paper", page=output)
    raise typer.Exit(int(bool(left_out)))


def _report_page(paths: Sequence[Path], output: Path, watch: bool, every: float) -> None:
    say_start("emor3 report")
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
    say_start("emor3 share")
    from emor3.evaluation.share import left_out, write_shared
    from emor3.runs.predictions import read_evaluation

    saved = read_evaluation(evaluation)
    for path in write_shared(saved, output):
        say(path)
    for line in left_out(saved):
        say(line)
    say_next("share", folder=evaluation)


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
    say_start("emor3 export")
    from emor3.runs.predictions import read_evaluation
    from emor3.tools import export as exporting

    saved = None if evaluation is None else read_evaluation(evaluation)
    folder = exporting.export(run, output, saved)
    say(f"written to: {folder}; loaded again, it gives the same logits")
    if repo is not None:
        say(f"uploaded to: {exporting.push(folder, repo)}")
    say_next("export", folder=folder)


def demo(
    context: typer.Context,
    model: Annotated[str, MODEL] = "embedded",
    second: Annotated[
        str | None,
        typer.Option("--compare", help="Checkpoint to show beside it, under the same judge."),
    ] = None,
    judge: JudgePath = None,
    max_new_tokens: MaxNewTokens = DEFAULTS.max_new_tokens,
    abstain_below: Annotated[
        float,
        typer.Option(callback=usable, min=0.0, max=1.0, help="Abstain if the leading label has a smaller share."),
    ] = 0.5,
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to serve at; 0 takes a free one.")] = 7860,
    space: Annotated[
        Path | None,
        typer.Option("--export-space", metavar="DIR", help="Write the files of a Hugging Face Space instead."),
    ] = None,
) -> None:
    """Show what a model thinks of an image on a local page.

    The label, the three steps and what the judge says of them, and the labels of sampled completions. Needs Gradio
    (pip install 'emor3[demo]').
    """
    if space is not None:
        refuse_idle(context, "with --export-space, which serves nothing", ["host", "port"])
    say_start("emor3 demo")
    from emor3.demo.looking import DemoSettings
    from emor3.demo.serving import serve
    from emor3.demo.space import export_space

    settings = DemoSettings(model, second, judge, max_new_tokens, abstain_below)
    if space is None:
        serve(settings, host, port, lambda address: say(f"open {address} in a browser; Ctrl-C ends it", flush=True))
        return
    say(f"written to: {export_space(settings, space)}")
    say_next("demo --export-space", folder=space)
