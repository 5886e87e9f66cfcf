"""Sections of the reproduction report on evaluations: data, prompts and decoding, results, judge, controls, files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emor3.data.importers.benchmarks.published import published_on, sources
from emor3.errors import UserError, one_line
from emor3.evaluation.summary import IMPORTED, published_cell
from emor3.method.canaries import canaries
from emor3.method.thinking import load_template
from emor3.method.types import Prediction, RewardBreakdown, Rollout
from emor3.report.page import Table, agreements, compare_all
from emor3.report.records import Evaluated
from emor3.review.agreement import CAPTION, HEADINGS, cells
from emor3.runs.predictions import EVALUATION, PREDICTIONS
from emor3.stats.figures import FIGURES
from emor3.stats.format import markdown_table, p_value, percent, percent_value, points_with_interval
from emor3.storage.files import file_digest

CONTROLS = ("accuracy", "consistency", "swapped_consistency", "coherence")
"""Figures that stand in the table of controls, beside label words."""


def data_section(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    """Each data set with its checksums and what was left out; the same set under the same samples once."""
    parts = {
        (str(part["data"]), str(part.get("sample_ids_sha256"))): (evaluated, part)
        for evaluated in evaluations
        for part in evaluated.saved.head["data"]
    }
    rows = [_data_row(evaluated, part) for evaluated, part in parts.values()]
    headings = ("data", "split", "n", "labels", "imported as", "SHA-256 of the manifest", "of sample ids", "of content")
    yield table(headings, rows)
    for evaluated, part in parts.values():
        if left_out := part.get("unreadable"):
            yield f"{line(part['data'])}, {evaluated.name}: {len(left_out)} samples without a readable image left out."


def _data_row(evaluated: Evaluated, part: Mapping[str, Any]) -> tuple[str, ...]:
    imported = part.get(IMPORTED) or {}
    kind = f"{imported['set']}, {imported['policy']}" if imported else ""
    sums = (imported.get("manifest_sha256"), part.get("sample_ids_sha256"), part.get("content_sha256"))
    labels = ", ".join(part["label_set"]["labels"])
    split = evaluated.saved.head["settings"].get("split") or "all"
    return str(part["data"]), str(split), str(part["n"]), labels, kind, *(str(found or "") for found in sums)


def prompt_section(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    """The exact prompts of policy and judge, and how each evaluation decoded."""
    names = ("template", "thinking", "temperature", "max_new_tokens", "samples", "seed", "engine", "batch_size")
    heads = [(evaluated.name, evaluated.saved.head["settings"]) for evaluated in evaluations]
    rows = [(name, *(str(settings.get(key, "")) for key in names)) for name, settings in heads]
    yield table(("evaluation", *names), rows)
    templates = dict.fromkeys(str(settings.get("template", "steps")) for _, settings in heads)
    for template in (*templates, "consistency", "coherence"):
        whose = "the judge" if template in ("consistency", "coherence") else "the policy"
        try:
            yield f"Template `{template}`, of {whose}:\n\n{fenced(load_template(template))}"
        except UserError as error:
            yield f"Template `{template}` cannot be shown: {line(str(error))}."


def result_section(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    """Every figure with its interval, what others published, and paired tests with the smallest visible effect."""
    heads = {str(part["data"]): part for one in evaluations for part in one.saved.head["data"]}
    for found in compare_all(evaluations, []):
        yield f"### {line(found.data)}, {found.decoding}"
        yield table(("model", "n", *found.names), [_result_row(row) for row in found.rows])
        yield from _published(heads.get(found.data, {}))
        yield from _tests(found)


def _result_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return str(row["name"]), str(row["n"]), *(" ".join(filter(None, cell)) for cell in row["cells"])


def _published(part: Mapping[str, Any]) -> Iterator[str]:
    others = published_on(part.get(IMPORTED))
    figures = [name for name in FIGURES if any(name in entry.figures for entry in others)]
    if figures:
        rows = [(FIGURES[name].title.strip(), published_cell(name, others).replace("\n", "; ")) for name in figures]
        yield table(("figure", "published by others"), rows)
        yield f"Source: {'; '.join(sources(others))}. None of it was measured with these prompts on these files."


def _tests(found: Table) -> Iterator[str]:
    if not found.tests:
        return
    rows = [
        (
            f"{row.before} to {row.after}",
            FIGURES[row.figure].title.strip(),
            *map(percent_value, row.values),
            points_with_interval(row.difference),
            p_value(row.p_value),
            p_value(row.adjusted),
        )
        for row in found.tests
    ]
    yield table(("models", "figure", "before %", "after %", "change in points", "p", "p Holm"), rows)
    for method, caption in found.captions.items():
        yield f"{line(method)}: {caption}"


def judge_section(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    """Who judged, and how far people agree with it."""
    judges = dict.fromkeys(str(evaluated.saved.head["judge"]) for evaluated in evaluations)
    yield f"Judge of consistency and coherence: {', '.join(f'`{line(judge)}`' for judge in judges)}."
    if len(judges) > 1:
        yield "Judged figures are compared under one judge only."
    rows = [row for found in agreements(evaluations).values() for row in found]
    if not rows:
        yield "Agreement with people: nobody marked completions (`emor3 review`)."
        return
    headings = ("evaluation", "data", "question", "between", *HEADINGS)
    between = [(row, who, side) for row in rows for who, side in (("judge, people", row.judge), ("people", row.people))]
    shown = [(row.name, row.data, row.question, who, *cells(side)) for row, who, side in between if side is not None]
    yield table(headings, shown)
    yield CAPTION


def control_section(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    """Own description against another image's, how often steps 1 and 2 name a label, and what is right unseen."""
    rows = []
    for evaluated in evaluations:
        for data, part in evaluated.results.items():
            figures = [percent(part.figures.get(name)) for name in CONTROLS]
            rows.append((evaluated.name, data, *figures, _label_words(evaluated.saved.predictions[data])))
    titles = [f"{FIGURES[name].title.strip()} %" for name in CONTROLS]
    yield table(("evaluation", "data", *titles, "steps 1, 2 name a label %"), rows)
    yield (
        "A judge that looks says yes to a description of another image as rarely as to a wrong one; coherence of texts "
        "that name the label is no reasoning. What is right on blank images was not seen."
    )


def _label_words(predictions: Sequence[Prediction]) -> str:
    nothing = RewardBreakdown(0.0, {})
    rollouts = [Rollout(p.sample, p.completion, p.thought, p.reflection, nothing) for p in predictions]
    share = canaries(rollouts).get("canary/label_leak")
    return "" if share is None else percent_value(share)


def file_section(folders: Mapping[Path, set[str]]) -> Iterator[str]:
    """SHA-256 of the files that hold all generations, as they would be released."""
    rows = []
    for folder, names in folders.items():
        for name in sorted({EVALUATION, PREDICTIONS} & names):
            rows.append((f"{folder.name}/{name}", file_digest(folder / name).hex()))
    yield table(("file", "SHA-256"), rows)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose cells hold any text."""
    return markdown_table(headings, [[line(cell) for cell in row] for row in rows]).rstrip("\n")


def line(text: str) -> str:
    """A text of records on one line that Markdown shows as it is: no cell, tag or link is made of it."""
    plain = one_line(str(text)).replace("\\", "\\\\")
    for mark in "|<>[]`*_":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def fenced(text: str) -> str:
    """A text as a block of code, in more backticks than it holds in a row."""
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}text\n{text}\n{ticks}"
