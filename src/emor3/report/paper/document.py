"""`emor3 report --paper`: one Markdown file with what a credible reproduction states, and what of it is not there."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emor3 import __version__
from emor3.data.copies.report import MARKDOWN, SUMMARY
from emor3.errors import UserError
from emor3.report.page import agreements
from emor3.report.paper import evaluated, trained
from emor3.report.plots import group_runs
from emor3.report.records import Records, read_records
from emor3.runs.directory import FINAL
from emor3.runs.overview import find_records
from emor3.storage.outputs import write_whole

FEWEST_MARKS = 100
"""Completions that people should mark before a judge is relied on."""
FEWEST_SEEDS = 3


def write_paper(paths: Sequence[Path], copies: Sequence[Path], output: Path) -> Sequence[str]:
    """Write the reproduction report of runs and evaluations; returns a line for everything that was left out.

    `copies` are folders that `emor3 data check --across --output` wrote. Raises UserError if nothing was found, or if
    one of these folders is none.
    """
    records = read_records(paths)
    if not (records.runs or records.evaluations):
        found = "; ".join(records.faults) or f"none in {', '.join(map(str, paths))}"
        raise UserError(f"no runs or evaluations to report: {found}")
    reports = [_copies(folder) for folder in copies]
    write_whole(output, document(records, reports, paths))
    return records.faults


def _copies(folder: Path) -> str:
    """The Markdown of a copies report, one heading lower."""
    if not (folder / SUMMARY).is_file() or not (folder / MARKDOWN).is_file():
        raise UserError(
            f"{folder}: no {SUMMARY} and {MARKDOWN} there: `emor3 data check --across … -o DIR` writes them"
        )
    return (folder / MARKDOWN).read_text(encoding="utf-8").replace("# ", "### ", 1)


def document(records: Records, copies: Sequence[str], paths: Sequence[Path]) -> str:
    """The whole text."""
    runs, evaluations = records.runs, records.evaluations
    machines = [*trained.environments(runs), *(e.saved.head.get("environment") or {} for e in evaluations)]
    sections = {
        "What is here, and what is not": checklist(records, copies),
        "Software": trained.environment_section([found for found in machines if found]),
        "Data": evaluated.data_section(evaluations),
        "Copies of images": iter(copies or [NO_COPIES]),
        "Methods": trained.method_section(runs),
        "Prompts and decoding": evaluated.prompt_section(evaluations),
        "Results": evaluated.result_section(evaluations),
        "Judge": _judge(records),
        "Controls": evaluated.control_section(evaluations),
        "Parts of the reward over steps": trained.curve_section(runs),
        "Failed runs": trained.failure_section(runs, records.faults),
        "Cost": trained.cost_section(runs),
        "Generations": evaluated.file_section(find_records(paths)),
    }
    made = datetime.now(UTC).date().isoformat()
    text = [f"# Reproduction report\n\nMade by emor3 {__version__} on {made} from the records alone."]
    for title, parts in sections.items():
        body = list(parts)
        text.append(f"## {title}\n\n" + ("\n\n".join(body) if body else "Nothing was recorded."))
    return "\n\n".join(text).replace("\n\n- ", "\n- ") + "\n"


NO_COPIES = (
    "Not looked for: `emor3 data check --across TRAIN TEST … -o DIR`, then `--copies DIR` here, puts the counts in."
)


def _judge(records: Records) -> Iterator[str]:
    yield from evaluated.judge_section(records.evaluations)
    yield from trained.trial_section(records.runs)


def checklist(records: Records, copies: Sequence[str]) -> Iterator[str]:
    """What readers look for, each there or not: so that what is missing is said before anybody asks."""
    evaluations, runs = records.evaluations, records.runs
    marks = [row.judge.items for rows in agreements(evaluations).values() for row in rows if row.judge is not None]
    seeds = [len(group.runs) for group in group_runs(runs)]
    predictions = [p for e in evaluations for made in e.saved.predictions.values() for p in made]
    figures = {name for e in evaluations for part in e.results.values() for name in part.figures}
    imported = [part for e in evaluations for part in e.saved.head["data"] if part.get("imported")]
    points: dict[str, Any] = {
        "manifests that name their set, policy and checksum": imported,
        "copies across splits and sets were looked for": copies,
        f"at least {FEWEST_SEEDS} seeds of every method": seeds and min(seeds) >= FEWEST_SEEDS,
        "every run came to its end": runs and all((run.folder / FINAL).is_dir() for run in runs),
        "figures against the votes of people": "voters_agreeing" in figures,
        "calibration": figures & {"expected_calibration_error", "stated_calibration_error"},
        f"at least {FEWEST_MARKS} completions marked by people": max(marks, default=0) >= FEWEST_MARKS,
        "control: descriptions of another image": "swapped_consistency" in figures,
        "control: label words in the reasoning": any(p.thought.trigger for p in predictions),
        "control: a blank image in place of each": any(e.saved.head["settings"].get("blank") for e in evaluations),
        "hours of training": any("step_time" in row or "time/update" in row for run in runs for row in run.metrics),
    }
    for point, there in points.items():
        yield f"- [{'x' if there else ' '}] {point}"
