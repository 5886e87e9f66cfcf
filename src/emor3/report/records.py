"""Find and read run directories and evaluation folders for `emor3 report`, with one line for every fault.

Records may be half-written (a run still going, a killed one), so each file is read for as much as it holds.
"""

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from emor3.errors import UserError
from emor3.evaluation.settings import FORMER
from emor3.method.rewards import forms_on
from emor3.method.types import Estimate
from emor3.report.table_cell import TableCell
from emor3.review.marks import NO_MARKS, Marks, read_marks
from emor3.runs.directory import BEST, CHECKPOINTS, CONFIG, EVALUATIONS, FINAL, METRICS, ROLLOUTS
from emor3.runs.evaluations import best_text
from emor3.runs.overview import CELL, find_records, holds_run
from emor3.runs.predictions import EVALUATION, PREDICTIONS, RESULTS, TABLE, VERSION, SavedEvaluation, read_evaluation
from emor3.runs.records import OBJECT, read_json, scan_jsonl, typed
from emor3.storage.cells import from_cell

RECORDS = (CONFIG, METRICS, ROLLOUTS, EVALUATIONS, EVALUATION, PREDICTIONS, RESULTS, TABLE)
UNREADABLE = (OSError, ValueError, KeyError, TypeError, csv.Error)
"""What reading a table that is not as it was written may raise."""
STEPS_SHOWN = 6
"""Training steps of a run whose best and worst rollouts are shown."""
ROLLOUTS_SHOWN = 2
"""How many of the best, and of the worst, rollouts of such a step."""


@dataclass(frozen=True)
class Run:
    """One training run, as far as it has come."""

    name: str
    config: Mapping[str, Any]
    """The resolved recipe; empty if it is missing."""
    metrics: Sequence[Mapping[str, float]]
    """The finite numbers of each recorded step, `step` among them."""
    evaluations: Sequence[Mapping[str, float]]
    """The numbers of each evaluation on held-out samples, `step` among them."""
    best: str
    """The best policy on these, in words; empty if none was kept."""
    rollouts: Sequence[Mapping[str, Any]]
    """The best and worst rollouts of some steps, best first within each step; `of` is how many the step recorded."""
    recorded_steps: int
    """Steps that recorded rollouts."""
    folder: Path

    @property
    def method(self) -> str:
        """What runs that differ in their seed only share: the other settings; its name if these are missing."""
        settings = {key: value for key, value in self.config.items() if key not in ("seed", "output_dir")}
        return json.dumps(settings, sort_keys=True) if settings else self.name

    @property
    def reward(self) -> Mapping[str, Any]:
        """The settings of the reward, as far as they are recorded."""
        reward = self.config.get("reward")
        return reward if isinstance(reward, Mapping) else {}

    @property
    def forms(self) -> list[str]:
        """The forms of the reward that were on."""
        return forms_on(self.reward)

    @property
    def placebo(self) -> bool:
        """Whether it was paid permuted verdicts."""
        return self.reward.get("placebo") is True


@dataclass(frozen=True)
class Results:
    """What the page takes from `results.json` on one data set."""

    n: int
    figures: Mapping[str, Estimate]
    majority_class: Mapping[str, Estimate]
    confusion: Sequence[Sequence[int]]
    reliability: Sequence[tuple[float, float, float]] | None = None
    """[bins] of confidence sum, hits and count, if answers were sampled."""


@dataclass(frozen=True)
class Evaluated:
    """One saved evaluation with the figures of its `results.json`."""

    folder: str
    saved: SavedEvaluation
    """Its folder is the short one, which is how tests and messages call it."""
    results: Mapping[str, Results]
    """By data set; absent if they cannot be read."""
    marks: Marks = NO_MARKS
    """What people said of its completions."""
    name: str = ""
    """Model and decoding, as rows are named; with the folder if several share these."""
    is_start: bool = False
    """Whether other models on the page were trained from it."""
    run: Run | None = None
    """The run that trained its model, if that is on the page."""

    @property
    def method(self) -> tuple[str, ...]:
        """What evaluations of runs that differ in their seed only share: recipe, checkpoint, and how they were made."""
        if self.run is None:
            return (self.folder,)
        checkpoint = os.path.relpath(self.saved.model, self.run.folder)
        recorded = self.saved.head["settings"].items()
        settings = {key: value for key, value in recorded if key != "seed" and (key, value) not in FORMER.items()}
        return (self.run.method, checkpoint, self.saved.head["judge"], json.dumps(settings, sort_keys=True))

    @property
    def decoding(self) -> str:
        """How the judged completion of each sample was made."""
        settings = self.saved.head["settings"]
        temperature = settings.get("temperature", 0.0)
        blank = ", blank images" if settings.get("blank") else ""
        return f"{'greedy' if temperature == 0 else f'sampled at temperature {temperature:g}'}{blank}"


@dataclass(frozen=True)
class Reproduced:
    """One part of a reproduction's table: accuracy by training and test set, or reasoning by figure."""

    name: str
    part: str
    cells: Mapping[str, Mapping[str, TableCell]]
    """By method and column."""

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(column for row in self.cells.values() for column in row))


@dataclass(frozen=True)
class Records:
    """Everything found under the folders that were asked for."""

    runs: Sequence[Run]
    evaluations: Sequence[Evaluated]
    faults: Sequence[str]
    reproduced: Sequence[Reproduced] = ()


def read_records(paths: Sequence[Path]) -> Records:
    """Read every record under the folders; what cannot be read gives one line and the rest is still there."""
    faults = [f"{path}: no such folder" for path in paths if not path.exists()]
    found = find_records(paths)
    names = _names(list(found))
    runs, evaluations, reproduced = list[Run](), list[Evaluated](), list[Reproduced]()
    for folder, files in found.items():
        name = names[folder]
        if TABLE in files:
            reproduced += _read_table(folder / TABLE, name, faults)
        if EVALUATION in files:
            evaluations += _read_evaluation(folder, name, faults)
        elif PREDICTIONS in files:
            faults.append(f"{name}: {PREDICTIONS} without {EVALUATION}, as older versions left it: evaluate again")
        if holds_run(files):
            runs.append(_read_run(folder, name, faults))
    return Records(runs, _named(_start_first(evaluations, runs), runs), faults, reproduced)


def _start_first(evaluations: Sequence[Evaluated], runs: Sequence[Run]) -> list[Evaluated]:
    """Models that others were trained from, then the others: the first is what the others are compared with."""
    paths = [evaluated.saved.head.get("start") for evaluated in evaluations]
    paths += [run.config["model"].get("path") for run in runs if isinstance(run.config.get("model"), Mapping)]
    starts = {os.path.abspath(path) for path in paths if isinstance(path, str)}
    if not starts:  # records of older versions: without --judge, a policy is judged by the model it started from
        heads = [evaluated.saved.head for evaluated in evaluations]
        starts = {os.path.abspath(str(head["judge"])) for head in heads if head["judge"] != head["model"]}
    found = [replace(evaluated, is_start=os.path.abspath(evaluated.saved.model) in starts) for evaluated in evaluations]
    return sorted(found, key=lambda one: (not one.is_start, one.saved.head.get("start") is not None))


def _named(evaluations: Sequence[Evaluated], runs: Sequence[Run]) -> list[Evaluated]:
    """Each evaluation with the run of its model, and with its model and decoding as its name."""
    by_folder = {str(run.folder): run for run in runs}
    found = [replace(evaluated, run=_run_of(evaluated.saved.model, by_folder)) for evaluated in evaluations]
    names = [f"{_model_name(evaluated)}, {evaluated.decoding}" for evaluated in found]
    pairs = zip(found, names, strict=True)
    return [replace(e, name=name if names.count(name) == 1 else f"{name} ({e.folder})") for e, name in pairs]


def _run_of(model: str, runs: Mapping[str, Run]) -> Run | None:
    """The run of a final policy, of the best one or of a checkpoint."""
    path = Path(os.path.abspath(model))
    run = path.parent if path.name in (FINAL, BEST) else path.parent.parent if path.parent.name == CHECKPOINTS else path
    return runs.get(str(run))


def _model_name(evaluated: Evaluated) -> str:
    """A run's name for its final policy, else a hub name as it is and the last telling part of a path."""
    path, model = Path(evaluated.saved.model), evaluated.saved.model
    best = f", {BEST}" if path.name == BEST else ""
    if evaluated.run is not None and path.parent.name != CHECKPOINTS:
        return f"{evaluated.run.name}{best}"
    run = path.parent if path.name in (FINAL, BEST) else path
    run = run.parent if run.name == "training" else run
    if run == path and not path.is_absolute() and len(path.parts) <= 2:
        return model
    return f"{path.parent.parent.name}, {path.name}" if path.parent.name == CHECKPOINTS else f"{run.name}{best}"


def by_decoding(evaluations: Sequence[Evaluated]) -> dict[tuple[str, str], dict[int, Evaluated]]:
    """Evaluations by data set and decoding, which are compared among themselves, each with its place on the page."""
    found: dict[tuple[str, str], dict[int, Evaluated]] = {}
    for place, evaluated in enumerate(evaluations):
        for data in evaluated.saved.predictions:
            found.setdefault((data, evaluated.decoding), {})[place] = evaluated
    return found


def by_seeds(evaluations: Mapping[int, Evaluated]) -> list[dict[int, Evaluated]]:
    """Evaluations by method, in the order of the first: those of runs that differ in their seed only are one.

    A second evaluation of a method and seed is no further seed, and begins another group.
    """
    groups: dict[Hashable, dict[int, Evaluated]] = {}
    times = Counter[Hashable]()
    for place, evaluated in evaluations.items():
        run = evaluated.method, evaluated.run.config.get("seed") if evaluated.run else None
        groups.setdefault((evaluated.method, times[run]), {})[place] = evaluated
        times[run] += 1
    return list(groups.values())


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """The shortest paths that tell the folders apart; a cell's `training` and `evaluation` bear the cell's name."""
    base = Path(os.path.commonpath(folders)) if len(folders) > 1 else None
    names = {}
    for folder in folders:
        cell = folder.parent if folder.name in CELL and folder.parent not in folders else folder
        names[folder] = str((folder if cell == base else cell).relative_to(base)) if base else folder.name
    return {folder: base.name if base and name == "." else name for folder, name in names.items()}


def _read_table(path: Path, name: str, faults: list[str]) -> list[Reproduced]:
    parts: dict[str, dict[str, dict[str, TableCell]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                cell = TableCell.from_row(row)
                figure, method, column = (from_cell(row[key]) for key in ("figure", "method", "column"))
                parts.setdefault(figure, {}).setdefault(method, {})[column] = cell
    except UNREADABLE as error:
        faults.append(f"{name}: {TABLE} cannot be read ({type(error).__name__}): run `emor3 reproduce` again")
        return []
    return [Reproduced(name, part, cells) for part, cells in parts.items()]


def _read_evaluation(folder: Path, name: str, faults: list[str]) -> Iterator[Evaluated]:
    try:
        saved = replace(read_evaluation(folder), folder=Path(name))
    except UserError as error:
        faults.append(str(error).replace(str(folder), name))
        return
    yield Evaluated(name, saved, _read_results(folder, name, faults), _read_marks(saved, folder, name, faults))


def _read_marks(saved: SavedEvaluation, folder: Path, name: str, faults: list[str]) -> Marks:
    try:
        marks = read_marks(saved, folder)
    except UserError as error:
        faults.append(str(error).replace(str(folder), name))
        return NO_MARKS
    faults += [line.replace(str(folder), name) for line in marks.left_out]
    return marks


def _read_results(folder: Path, name: str, faults: list[str]) -> dict[str, Results]:
    again = "write it anew with `emor3 evaluate --from`"
    if not (folder / RESULTS).is_file():
        faults.append(f"{name}: no {RESULTS}: {again}")
        return {}
    try:
        results = read_json(folder / RESULTS)
        if results.get("version") != VERSION:
            raise UserError(f"{RESULTS} of version {results.get('version')}, this emor3 reads {VERSION}")
        parts = typed(results.get("data"), TypeAdapter(list[dict[str, Any]]), RESULTS)
        return {str(part.get("data")): typed(part, TypeAdapter(Results), RESULTS) for part in parts}
    except UserError as error:
        faults.append(f"{name}: {str(error).replace(str(folder / RESULTS), RESULTS)}: {again}")
        return {}


def _read_run(folder: Path, name: str, faults: list[str]) -> Run:
    try:
        config = read_json(folder / CONFIG)
    except UserError:
        faults.append(f"{name}: {CONFIG} is missing or broken: shown as a run of its own")
        config = {}
    metrics = _numbers(folder / METRICS, name, faults)
    if not metrics and config.get("grpo", {}) is not None:  # a recipe without reinforcement logs no steps
        faults.append(f"{name}: no steps in {METRICS}: nothing to plot yet")
    rollouts, recorded = _some_rollouts(_rows(folder / ROLLOUTS, name, faults))
    evaluations = _numbers(folder / EVALUATIONS, name, faults)
    return Run(name, config, metrics, evaluations, _best(folder, name, faults), rollouts, recorded, folder)


def _numbers(path: Path, name: str, faults: list[str]) -> list[dict[str, float]]:
    """The finite numbers of each line of a step."""
    numbers = ({key: value for key, value in row.items() if is_number(value)} for row in _rows(path, name, faults))
    return [row for row in numbers if "step" in row]


def _best(folder: Path, name: str, faults: list[str]) -> str:
    try:
        return best_text(folder)
    except UserError as error:
        faults.append(str(error).replace(str(folder), name))
        return ""


def _rows(path: Path, name: str, faults: list[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a JSON lines file; what is none is left out, in one line of faults."""
    if not path.is_file():
        return
    broken, number, whole = list[int](), 0, True
    found = scan_jsonl(path, OBJECT)
    for number, (line, row) in enumerate(found, start=1):
        whole = line.endswith(b"\n")
        if isinstance(row, UserError):
            broken.append(number)
        else:
            yield row
    if broken == [number] and not whole:
        faults.append(f"{name}: the last line of {path.name} is cut short (killed, or still being written): left out")
    elif broken:
        faults.append(f"{name}: {len(broken)} lines of {path.name} are no JSON objects (line {broken[0]}): left out")


def is_number(value: object) -> bool:
    """Whether a value of a record is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _some_rollouts(rows: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Best and worst rollouts of a few steps spread over the run, first and last among them; and how many steps."""
    usable = (row for row in rows if is_number(row.get("step")) and is_number(row.get("reward")))
    extremes = []
    for _, step in groupby(usable, key=lambda row: row["step"]):
        ordered = sorted(step, key=lambda row: row["reward"], reverse=True)
        best = _of_different_images(ordered)
        worst = _of_different_images(row for row in reversed(ordered) if row not in best)[::-1]
        ranked = [(row, "best") for row in best] + [(row, "worst") for row in worst]
        extremes.append([{**row, "rank": rank, "of": len(ordered)} for row, rank in ranked])
    last = len(extremes) - 1
    chosen = sorted({round(place * last / (STEPS_SHOWN - 1)) for place in range(STEPS_SHOWN)}) if extremes else []
    return [row for place in chosen for row in extremes[place]], len(extremes)


def _of_different_images(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(json.dumps(row.get("sample")), row)
    return list(first.values())[:ROLLOUTS_SHOWN]
