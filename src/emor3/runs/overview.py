"""`emor3 runs`: what lies under a folder, found without entering weights, and how each run and evaluation stands.

Cheap on big folders: of the records of a run only the recipe and the end of its metrics are read, of an evaluation its
figures.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, TypeAdapter
from rich import box
from rich.table import Column, Table

from emor3.errors import UserError, one_line
from emor3.runs.directory import (
    BEST,
    CHECKPOINTS,
    COLD_START,
    CONFIG,
    ENVIRONMENT,
    FINAL,
    METRICS,
    REPLACED,
    ROLLOUTS,
    read_recipe,
)
from emor3.runs.predictions import EVALUATION, PREDICTIONS, RESULTS, TABLE
from emor3.runs.records import Record, last_rows, read_json, typed
from emor3.stats.format import percent_value, thousandths
from emor3.storage.locks import is_held

NOT_ENTERED = {BEST, CHECKPOINTS, COLD_START, FINAL, REPLACED}
"""Folders of a run: weights, and what it replaces."""
CELL = ("training", "evaluation")
"""Folders of one cell of `emor3 reproduce`."""


class StepFigures(Record):
    """What the table shows of a line of `metrics.jsonl`; a step that reuses completions has no reward."""

    step: int
    reward: float | None = None
    accuracy: float | None = Field(None, alias="rewards/accuracy/mean")


class Share(Record):
    """A figure of `results.json`, without its interval."""

    value: float


class Figures(Record):
    """The one figure that the table shows."""

    accuracy: Share | None = None


class DataResults(Record):
    """What `results.json` says of one data set."""

    data: str
    figures: Figures


class Decoding(Record):
    """How an evaluation's answers were made."""

    temperature: float = 0.0


class EvaluationResults(Record):
    """What the table needs of `results.json`."""

    settings: Decoding
    data: list[DataResults]


STEP_FIGURES, RESULTS_FORM = TypeAdapter(StepFigures), TypeAdapter(EvaluationResults)


@dataclass(frozen=True)
class Standing:
    """One row of the table: a run with its evaluations, or an evaluation of a model that no run here made."""

    name: str
    state: str
    """running, finished, stopped, broken; of an evaluation alone: evaluated, running, stopped, broken."""
    step: str = ""
    reward: float | None = None
    accuracy: float | None = None
    """Mean reward and accuracy of the last step that has some, 0 to 1."""
    seed: int | None = None
    notes: Sequence[str] = ()
    """The accuracy on each data set that was evaluated, and what is broken."""


def find_records(paths: Sequence[Path]) -> dict[Path, set[str]]:
    """Folders that hold records, with their file names, in the order given and by name below; weights are not entered.

    A file stands for its folder. Folders still being written under a temporary name (`….tmp`) are left out.
    """
    found: dict[Path, set[str]] = {}
    for path in paths:
        for place, folders, files in os.walk(path.parent if path.is_file() else path):
            folders[:] = sorted(name for name in folders if name not in NOT_ENTERED and not name.endswith(".tmp"))
            names = set(files)
            if names & {EVALUATION, PREDICTIONS, TABLE} or holds_run(names):
                found.setdefault(Path(place).resolve(), names)
    return found


def holds_run(files: set[str]) -> bool:
    """Whether a folder with these files is a run directory (a checkpoint has a `config.json` too)."""
    return {CONFIG, ENVIRONMENT} <= files or bool({METRICS, ROLLOUTS} & files)


def standings(root: Path) -> list[Standing]:
    """How every run under a folder stands, then the evaluations of other models. Raises UserError if it is missing."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: nothing was trained there yet; `emor3 train quickstart` would")
    found = find_records([root])
    runs = [folder for folder, files in found.items() if holds_run(files)]
    of_run: dict[Path | None, list[Path]] = {}
    for folder in (folder for folder, files in found.items() if EVALUATION in files):
        of_run.setdefault(_trained_by(folder, runs), []).append(folder)
    trained = [_run_standing(run, _name(run, root), of_run.get(run, ())) for run in runs]
    return trained + [_evaluation_standing(folder, _name(folder, root)) for folder in of_run.get(None, ())]


def standings_table(rows: Sequence[Standing]) -> Table:
    """The rows as a person reads them; rewards and accuracies of training are means of the last step."""
    columns = ("run", "state", "step", "reward", "accuracy", "seed")
    table = Table(*columns, Column("evaluations: accuracy %", overflow="fold"), box=box.SIMPLE)
    for row in rows:
        figures = ("" if value is None else thousandths(value) for value in (row.reward, row.accuracy))
        seed = "" if row.seed is None else str(row.seed)
        table.add_row(row.name, row.state, row.step, *figures, seed, "\n".join(row.notes))
    return table


def _name(folder: Path, root: Path) -> str:
    """The path below the root; of a cell's training its cell, which bears the name of the method."""
    inside = folder.relative_to(root.resolve())
    return str(inside.parent if inside.name == CELL[0] and len(inside.parts) > 1 else inside)


def _trained_by(evaluation: Path, runs: Sequence[Path]) -> Path | None:
    """The run that made the model of an evaluation: around it, beside it in a cell, or by the path of the model."""
    places = {*evaluation.parents, evaluation.with_name(CELL[0])}
    try:
        model = Path(os.path.abspath(str(read_json(evaluation / EVALUATION).get("model"))))
        places |= {model, *model.parents}
    except UserError:
        pass  # told in the row of the evaluation
    return next((run for run in runs if run in places), None)


def _run_standing(run: Path, name: str, evaluations: Sequence[Path]) -> Standing:
    faults, seed, total = list[str](), None, 0
    try:
        recipe = read_recipe(run)
        seed, total = recipe.seed, int((recipe.grpo or {}).get("max_steps", 0))
    except UserError as error:
        faults.append(_short(error, run))
    rows = list[StepFigures]()
    try:
        rows = last_rows(run / METRICS, STEP_FIGURES) if (run / METRICS).is_file() else []
    except UserError as error:
        faults.append(_short(error, run))
    measured = next((row for row in reversed(rows) if row.reward is not None), None)
    done = str(rows[-1].step) if rows else "0" if total > 0 else ""
    return Standing(
        name,
        _state(run, "finished" if (run / FINAL).is_dir() else "stopped", faults),
        f"{done} of {total}" if total > 0 else done,
        measured.reward if measured else None,
        measured.accuracy if measured else None,
        seed,
        [*faults, *(line for folder in evaluations for line in _evaluation_lines(folder))],
    )


def _evaluation_standing(folder: Path, name: str) -> Standing:
    """An evaluation in a row of its own."""
    lines = list(_evaluation_lines(folder))
    return Standing(name, _evaluation_state(folder), notes=lines)


def _evaluation_lines(folder: Path) -> Iterator[str]:
    """The accuracy on each data set of an evaluation, or why there is none."""
    try:
        found = _results(folder)
    except UserError as error:
        yield _short(error, folder)
        return
    if found is None:
        yield f"{folder.name}: no {RESULTS}"
        return
    sampled = f" (T = {found.settings.temperature:g})" if found.settings.temperature else ""
    for part in found.data:
        accuracy = part.figures.accuracy
        yield f"{part.data}{sampled} {'' if accuracy is None else percent_value(accuracy.value)}"


def _evaluation_state(folder: Path) -> str:
    try:
        return _state(folder, "stopped" if _results(folder) is None else "evaluated", [])
    except UserError:
        return _state(folder, "", ["broken"])


def _results(folder: Path) -> EvaluationResults | None:
    """The figures of an evaluation, None if it has none yet. Raises UserError if they cannot be read."""
    path = folder / RESULTS
    return typed(read_json(path), RESULTS_FORM, str(path)) if path.is_file() else None


def _state(folder: Path, otherwise: str, faults: Sequence[str]) -> str:
    if is_held(folder):
        return "running"
    return "broken" if faults else otherwise


def _short(error: UserError, folder: Path) -> str:
    return one_line(str(error).replace(f"{folder}/", ""))
