"""`emor3 report`: runs and evaluations on one self-contained HTML page, made from their records alone.

`records` reads -> `plots` draws, `cards` chooses examples -> the templates under report/templates
"""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from emor3 import __version__
from emor3.errors import UserError
from emor3.evaluation.compare import PairedTest, caption_of, check_comparable, compare_groups, group_name
from emor3.method.types import Estimate
from emor3.report.cards import OUTCOMES, Pictures, gallery, rollouts
from emor3.report.plots import COLOURS, DASHES, Group, curve_sections, group_runs, reliability_diagram
from emor3.report.records import RECORDS, Evaluated, Records, Results, by_decoding, by_seeds, read_records
from emor3.review.agreement import CAPTION, AgreementRow, agreement_rows, coefficient
from emor3.review.marks import is_marks_file
from emor3.runs.overview import find_records
from emor3.stats import format as form
from emor3.stats.figures import FIGURES, titles
from emor3.stats.format import decimal, p_equation, percent, points, with_more_seeds
from emor3.storage.outputs import write_whole
from emor3.templating import page_environment

TEMPLATES = files("emor3") / "report" / "templates"
LARGEST_CONFUSION = 30
"""Labels of the largest confusion matrix that is shown."""
SIGNIFICANT = 0.05
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Table:
    """Evaluations of one data set under one decoding; paired tests compare with the first, a start model if any is."""

    data: str
    decoding: str
    names: Sequence[str]
    """Heads of the columns."""
    rows: Sequence[Mapping[str, Any]]
    tests: Sequence[PairedTest]
    captions: Mapping[str, str]
    """What the tests of each method speak for."""
    confusions: Sequence[Mapping[str, Any]]
    calibrated: Mapping[int, str]
    """The lines of the reliability diagram."""
    reliability: Markup | None


def write_report(paths: Sequence[Path], output: Path, refresh: float | None = None) -> Sequence[str]:
    """Write the page; returns a line for everything that had to be left out.

    `refresh` is the number of seconds after which the page loads itself again. Raises UserError if nothing was found
    (but not while watching: records may come).
    """
    records = read_records(paths)
    if not (records.runs or records.evaluations or records.reproduced) and refresh is None:
        found = "; ".join(records.faults) or f"none in {', '.join(map(str, paths))}"
        raise UserError(f"no runs or evaluations to report: {found}")
    page, faults = render(records, refresh)
    write_whole(output, page)
    return faults


def watch(
    paths: Sequence[Path], output: Path, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Sequence[str]]:
    """Write the page now and whenever a record has changed, looking every so many seconds; never ends by itself."""
    seen: dict[Path, tuple[int, int]] | None = None
    while True:
        found = _state(paths)
        if found != seen:
            seen = found
            yield write_report(paths, output, seconds)
        sleep(seconds)


def _state(paths: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Time and size of every record."""
    found = ((folder, name) for folder, names in find_records(paths).items() for name in names)
    records = (folder / name for folder, name in found if name in RECORDS or is_marks_file(name))
    return {path: (stat.st_mtime_ns, stat.st_size) for path in records if (stat := path.stat())}


def render(records: Records, refresh: float | None = None) -> tuple[str, Sequence[str]]:
    """The page, and a line for everything that had to be left out."""
    faults, pictures, groups = list(records.faults), Pictures(), group_runs(records.runs)
    tables = compare_all(records.evaluations, faults)
    cards = {
        "evaluations": [evaluated.name for evaluated in records.evaluations],
        "sets": gallery(records.evaluations, pictures),
        "runs": rollouts(records.runs, pictures, faults),
        "outcomes": OUTCOMES[::-1],
        "pictures": pictures.uris,
    }
    if pictures.missing:
        faults.append(f"{len(pictures.missing)} pictures cannot be read (the first is {pictures.missing[0]})")
    if pictures.left_out:
        faults.append(f"{pictures.left_out} of {pictures.asked} pictures do not fit on the page")
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    environment = page_environment("report")
    page = environment.get_template("page.html").render(
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        policy=f"{CONTENT_POLICY}; script-src 'sha256-{digest}'",
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        cards=json_in_html(cards),
        refresh=refresh,
        faults=faults,
        evaluations=records.evaluations,
        runs=records.runs,
        groups=groups,
        tables=tables,
        agreements=agreements(records.evaluations),
        coefficient=coefficient,
        agreement_caption=CAPTION,
        reproduced=records.reproduced,
        sections=curve_sections(groups),
        times=time_split(groups),
        swatch=swatch,
        svg=Markup,
        titles=titles(),
        form=form,
        change=change,
        settings=settings,
    )
    return page, faults


def json_in_html(content: Mapping[str, Any]) -> Markup:
    """JSON for a `<script type="application/json">`: no `<` is left that could end it."""
    return Markup(json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


def agreements(evaluations: Sequence[Evaluated]) -> dict[str, list[AgreementRow]]:
    """Rows on the agreement of judge and people, by the data sets of evaluations that people marked."""
    found: dict[str, list[AgreementRow]] = {}
    for evaluated in evaluations:
        for row in agreement_rows(evaluated.name, evaluated.saved, evaluated.marks):
            found.setdefault(row.data, []).append(row)
    return found


def compare_all(evaluations: Sequence[Evaluated], faults: list[str]) -> list[Table]:
    """A table for each data set and decoding."""
    groups = by_decoding(evaluations)
    return [_table(data, decoding, found, faults) for (data, decoding), found in groups.items()]


def _table(data: str, decoding: str, evaluations: Mapping[int, Evaluated], faults: list[str]) -> Table:
    parts = {place: found.results[data] for place, found in evaluations.items() if data in found.results}
    present = {name for part in parts.values() for name in part.figures}
    shown = {name: title.strip() for name, title in titles().items() if name in present}
    groups = by_seeds(evaluations)
    tests = _tests(data, [list(group.values()) for group in groups], faults)
    changes = {row.after: row for row in tests if row.figure == "accuracy"}
    rows = [row for group in groups for row in _method_rows(group, parts, list(shown), changes)]
    for part in list(parts.values())[:1]:
        cells = [_value_and_interval(name, part.majority_class.get(name)) for name in shown]
        plain = {"note": "", "change": None, "seeds": 1, "span": 1}
        rows.append({"name": "majority class", "n": part.n, "cells": cells, **plain})
    reliable = {place: part.reliability for place, part in parts.items() if part.reliability}
    labels = {place: found.saved.predictions[data][0].sample.labels.labels for place, found in evaluations.items()}
    return Table(
        data,
        decoding,
        list(shown.values()),
        rows,
        tests,
        _captions(tests),
        [_confusion(evaluations[place].name, labels[place], part) for place, part in parts.items()],
        {place: evaluations[place].name for place in reliable},
        Markup(reliability_diagram(f"{data} {decoding}", reliable)) if reliable else None,
    )


def _method_rows(
    group: Mapping[int, Evaluated],
    parts: Mapping[int, Results],
    figures: Sequence[str],
    changes: Mapping[str, PairedTest],
) -> Iterator[dict[str, Any]]:
    """A row for each run of a method; the change of all of them together stands in the first and spans the others."""
    told = [place for place in group if place in parts]
    for place in told:
        found, part = group[place], parts[place]
        yield {
            "name": found.name,
            "n": part.n,
            "note": "start model" if found.is_start else "placebo" if found.run and found.run.placebo else "",
            "change": changes.get(_name(list(group.values()))),
            "seeds": len(group),
            "span": len(told) if place == told[0] else 0,
            "cells": [_value_and_interval(name, part.figures.get(name)) for name in figures],
        }


def _value_and_interval(name: str, estimate: Estimate | None) -> tuple[str, str]:
    """An estimate and its interval: shares in percent, distances as they are."""
    if estimate is None:
        return "", ""
    value, _, interval = (percent if FIGURES[name].unit == "share" else decimal)(estimate).partition(" ")
    return value, interval


def _tests(data: str, groups: Sequence[Sequence[Evaluated]], faults: list[str]) -> list[PairedTest]:
    """Paired tests of the first method against the others, on this data set alone: over seeds if there are several."""
    saved = [[replace(e.saved, predictions={data: e.saved.predictions[data]}) for e in group] for group in groups]
    kept = saved[:1]
    for other in saved[1:]:
        try:
            check_comparable(saved[0], other)
            kept.append(other)
        except UserError as error:
            faults += [str(error)] if str(error) not in faults else []
    if len(kept) < 2:
        return []
    rows, left_out = compare_groups(kept)
    faults += [line for line in left_out if line not in faults]
    names = {group_name(of_saved): _name(group) for of_saved, group in zip(saved, groups, strict=True)}
    return [replace(row, before=names[row.before], after=names[row.after]) for row in rows]


def _name(group: Sequence[Evaluated]) -> str:
    """A method's name: its first evaluation's, and how many more seeds there are."""
    return with_more_seeds(group[0].name, len(group))


def _captions(tests: Sequence[PairedTest]) -> dict[str, str]:
    """For each method tested what its tests speak for, and the smallest changes that they could have seen."""
    number = sum(row.p_value is not None for row in tests)
    methods = dict.fromkeys(row.after for row in tests)
    return {method: caption_of([row for row in tests if row.after == method], number) for method in methods}


def _confusion(name: str, labels: Sequence[str], part: Results) -> dict[str, Any]:
    pairs = zip(labels, part.confusion, strict=False)
    rows = [{"label": label, "total": sum(counts), "counts": counts} for label, counts in pairs if sum(counts)]
    return {"name": name, "labels": labels, "rows": rows if len(labels) <= LARGEST_CONFUSION else []}


def change(row: PairedTest | None) -> Markup:
    """The cell of a tested change: bold if it is one."""
    if row is None:
        return Markup("")
    real = row.adjusted is not None and row.adjusted < SIGNIFICANT
    cell = Markup("<b>{}</b> <small>{}</small>" if real else "{} <small>{}</small>")
    return cell.format(points(row.difference.value), "" if row.adjusted is None else p_equation(row.adjusted))


def settings(values: Mapping[str, Any]) -> str:
    """Settings on one line, without those that are None."""
    written = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items() if value is not None}
    return ", ".join(f"{key}: {value}" for key, value in written.items())


def time_split(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Mean seconds a step by phase and group of runs; runs that recorded none are left out."""
    split = []
    for place, group in enumerate(groups):
        keys = [key for key in sorted(group.recorded()) if key.startswith("time/")]
        timed = [row for run in group.runs for row in run.metrics if any(key in row for key in keys)]
        phases = {key.removeprefix("time/"): fmean(row.get(key, 0.0) for row in timed) for key in keys}
        if phases:
            split.append({"name": group.name, "place": place, "phases": phases, "total": sum(phases.values())})
    return split


def swatch(place: int) -> Markup:
    """The line of a legend, in colour and dashes of the drawing."""
    dashes = DASHES[place // COLOURS % len(DASHES)]
    return Markup(
        '<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true"><line x1="1" y1="4" x2="27" y2="4" '
        'style="stroke:var(--c{})" stroke-dasharray="{}"/></svg>'
    ).format(place % COLOURS, dashes)
