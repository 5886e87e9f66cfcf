"""`emor3 data …`: import, export, check, sample and count labelled images. Heavy imports stand inside the commands."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from emor3.cli.next_steps import say_next
from emor3.cli.options import Frames, Overrides, Seed, refuse_idle, usable
from emor3.errors import UserError
from emor3.printing import say, say_start, show

data_app = typer.Typer(help="Import, export, check, sample and count labelled images.", no_args_is_help=True)


@data_app.command("check")
def check_data(
    context: typer.Context,
    folders: Annotated[
        list[str], typer.Argument(metavar="DIR", help="Data folder or embedded:NAME; with --across one or several.")
    ],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Recipe to check against. [default: the quickstart's]")
    ] = None,
    rows_only: Annotated[bool, typer.Option("--rows-only", help="Open no image.")] = False,
    faults: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every fault to this file, one JSON object a line.")
    ] = None,
    purpose: Annotated[
        Literal["train", "evaluate"] | None,
        typer.Option("--for", help="What the folder is for. [default: `train` with --recipe, else either]"),
    ] = None,
    across: Annotated[
        bool, typer.Option("--across", help="Look for copies of images in and between these folders instead.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="With --across: new folder for counts, groups and a report to cite."),
    ] = None,
    distance: Annotated[
        int, typer.Option(callback=usable, min=0, max=16, help="With --across: most bits between near copies.")
    ] = 16,
    workers: Annotated[
        int, typer.Option(callback=usable, min=0, max=512, help="With --across: processes; 0 takes one a core.")
    ] = 0,
    overrides: Overrides = None,
) -> None:
    """Check a data folder before training or evaluating on it.

    Checks rows, labels, images, repetitions across splits and the tokens of an image; ends with status 1 if anything
    would break training. A folder without training rows does so only with --recipe or --for train. With --across it
    counts the images that have a copy in another split or folder; folders of images without a manifest will do.
    """
    if across:
        refuse_idle(context, "with --across", ["recipe", "rows_only", "faults", "purpose", "overrides"])
        _check_across(folders, output, distance, workers)
        return
    refuse_idle(context, "without --across", ["output", "distance", "workers"])
    if len(folders) > 1:
        raise UserError(f"{len(folders)} folders: check one at a time, or look for copies between them with --across")
    _check_one(folders[0], recipe, rows_only, faults, purpose, overrides or [])


def _check_one(
    folder: str,
    recipe: Path | None,
    rows_only: bool,
    faults: Path | None,
    purpose: Literal["train", "evaluate"] | None,
    overrides: list[str],
) -> None:
    """Check one folder, and end with status 1 for faults that would break training."""
    from emor3.runs.recipe import load_recipe
    from emor3.storage.shipped import RECIPES

    settings = load_recipe(recipe or RECIPES / "quickstart.yaml", overrides)
    say_start("emor3 data check")
    from emor3.data import check
    from emor3.models.architectures import limit_pixels
    from emor3.models.checkpoints import resolve_checkpoint
    from emor3.models.processors import load_processor
    from emor3.storage.outputs import write_whole

    processor = None if rows_only else load_processor(resolve_checkpoint(settings.model.path))
    if processor is not None and settings.model.max_pixels is not None:
        limit_pixels(processor, settings.model.max_pixels)
    trains = purpose == "train" or (purpose is None and recipe is not None)
    report = check.check(folder, settings.data, processor, template=settings.prompt_template, trains=trains)
    show(check.report_table(report))
    if faults is not None:
        cases = [{"what": tally.what, "case": case} for tally in report.tallies() for case in tally.cases]
        write_whole(faults, "".join(json.dumps(case, ensure_ascii=False) + "\n" for case in cases))
    if report.breaks_training():
        say_next("data check (faults)")
        raise typer.Exit(1)
    if recipe is not None:
        say_next("data check --recipe", recipe=recipe)
    elif purpose == "evaluate":
        say_next("data check --for evaluate", folder=folder)
    else:
        say_next("data check", folder=folder)


def _check_across(folders: list[str], output: Path | None, distance: int, workers: int) -> None:
    say_start("emor3 data check")
    from emor3.data.copies.overlaps import find_copies
    from emor3.data.copies.report import PAGE, copies_table, summary, summary_lines, write_copies
    from emor3.data.copies.scan import cores, scan
    from emor3.storage.outputs import check_free

    if output is not None:
        check_free(output)
    copies = find_copies(scan(folders, workers or cores()), distance)
    found = summary(copies, distance)
    if found["groups"]["all"]:
        show(copies_table(copies))
    for line in summary_lines(found):
        say(line)
    if output is None:
        say_next("data check --across", folders=folders)
    else:
        write_copies(copies, found, output)
        say(f"written to: {output}")
        say_next("data check --across --output", page=output / PAGE)


@data_app.command("import")
def import_data(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="abstract, artphoto, caer-s, dfew, eemo-bench, emoset, emotic, emotion6, emotionroi, fer2013, "
            "ferplus, fi, flickr-ldl, mer, mvei, oasis, raf-db, twitter-ldl, unbiasedemo, vecbench, webemo; or your "
            "own: folders, table, hub, clips.",
        ),
    ],
    source: Annotated[str, typer.Argument(metavar="SRC", help="The set as it is distributed: a folder, or a table.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for metadata.jsonl.")],
    policy: Annotated[
        str | None, typer.Option(help="Label policy, for sets that leave a choice; see docs/datasets.md.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=NAME", help="Column of a table that holds a field, such as label=mood."),
    ] = None,
    label_names: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Names of labels that a table gives as numbers: calm,tense from 0, or 1=calm,2=tense."
        ),
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images instead of linking to them.")] = False,
    test_share: Annotated[
        float | None,
        typer.Option(
            callback=usable,
            min=0.0,
            max=1.0,
            help="Share of each label to hold out if the set has no split. [default: 0.3]",
        ),
    ] = None,
    frames: Frames = None,
    seed: Seed = 0,
) -> None:
    """Make a data folder of a public set or your own files.

    Of video clips (mer, dfew, clips) frames become the images; an import that ended early goes on where it stopped.
    """
    if name not in ("table", "hub", "clips"):
        refuse_idle(context, f"with {name}, whose layout is known", ["column"])
    say_start("emor3 data import")
    from emor3.data.importers import importing
    from emor3.data.importers.catalogue import known_set

    if not known_set(name).clips:
        refuse_idle(context, f"with {name}, which is no set of clips", ["frames"])

    columns = dict(_pair(text, "--column", "label=mood") for text in column or [])
    imported = importing.import_data(
        name,
        source,
        output,
        policy=policy,
        columns=columns,
        label_names=_label_names(label_names),
        copy=copy,
        test_share=test_share,
        seed=seed,
        frames=frames,
    )
    for line in importing.import_lines(imported, output):
        say(line)
    say_next("data import", folder=output)


@data_app.command("export")
def export_data(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Data folder or embedded:NAME.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for rows, prompt and README.")],
    host: Annotated[
        str,
        typer.Option("--for", metavar="HOST", help="Who reads it: trl, easyr1, verl, swift, verifiers, lmms, vlmeval."),
    ],
    split: Annotated[str | None, typer.Option(help="Only rows of this split. [default: all]")] = None,
    template: Annotated[str, typer.Option(help="Prompt template: a shipped one or a file.")] = "steps",
    distractors: Annotated[
        int,
        typer.Option(
            callback=usable, min=0, max=16, help="Other images of each row, which its description must not fit."
        ),
    ] = 2,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images instead of linking to them.")] = False,
    seed: Seed = 0,
) -> None:
    """Write a data folder as another trainer or harness reads it.

    A README beside the rows has the command that reads them.
    """
    say_start("emor3 data export")
    from emor3.hosts.exports import catalogue

    if not catalogue.known_host(host).rewards:
        refuse_idle(context, f"for {host}, which is paid no reward", ["distractors"])
    written = catalogue.export_data(
        host, folder, output, split=split, template=template, distractors=distractors, seed=seed, copy=copy
    )
    for line in catalogue.export_lines(written, output):
        say(line)
    say_next("data export", folder=output)


@data_app.command("sample")
def sample_data(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Data folder or embedded:NAME.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the subset.")],
    size: Annotated[
        list[str] | None, typer.Option(metavar="SPLIT=N", help="Rows to draw from a split; again for more splits.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take the ids that this file lists instead of drawing.")
    ] = None,
    natural: Annotated[
        bool, typer.Option("--natural", help="Keep the labels' shares instead of equal numbers of each.")
    ] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images instead of linking to them.")] = False,
    seed: Seed = 0,
) -> None:
    """Draw a reproducible, balanced subset.

    Writes its rows, its id list and the checksums of both.
    """
    if (size is None) == (ids is None):
        raise UserError("give --size, as in --size train=2100, or --ids with an id list")
    if ids is not None:
        refuse_idle(context, "with --ids, which draws nothing", ["natural", "seed"])
    say_start("emor3 data sample")
    from emor3.data import subsets as sampling

    if ids is not None:
        drawn = sampling.pick_data(folder, output, sampling.read_ids(ids), copy=copy)
    else:
        sizes = dict(_pair(text, "--size", "train=2100") for text in size or [])
        rows = sampling.read_sizes(sizes)
        drawn = sampling.sample_data(folder, output, rows, seed=seed, balanced=not natural, copy=copy)
    for line in sampling.sample_lines(drawn):
        say(line)
    say_next("data sample", folder=output)


@data_app.command("stats")
def data_stats(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Data folder or embedded:NAME.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with pictures of each label.")] = None,
    per_label: Annotated[int, typer.Option(callback=usable, min=1, help="Pictures of each label on the page.")] = 12,
    seed: Seed = 0,
) -> None:
    """Count labels and splits; show pictures of each label."""
    if html is None:
        refuse_idle(context, "without --html", ["per_label", "seed"])
    say_start("emor3 data stats")
    from emor3.data import overview as stats

    found = stats.stats(folder)
    show(stats.balance_table(found))
    if html is not None:
        stats.write_page(found, html, per_label, seed)
        say(f"written to: {html}")
    say_next("data stats", folder=folder)


def _label_names(text: str | None) -> dict[int, str]:
    names = [name.strip() for name in text.split(",")] if text else []
    pairs = [_pair(name, "--label-names", "1=calm,2=tense") for name in names if "=" in name]
    if not all(names) or len(pairs) not in (0, len(names)) or not all(number.isdecimal() for number, _ in pairs):
        raise UserError(f"--label-names is given as calm,tense or as 1=calm,2=tense; found {text!r}")
    return {int(number): name for number, name in pairs} or dict(enumerate(names))


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key or not value:
        raise UserError(f"{option} is given as in {option} {example}; found {text!r}")
    return key, value
