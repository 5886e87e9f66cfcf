"""Tables of what training did in a reproduction, from the records of the runs.

Held-out figures, reward parts, canaries and seconds per step.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from emor3.experiments.plan import Cell
from emor3.heldout.settings import Metric
from emor3.runs.directory import METRICS
from emor3.runs.evaluations import evaluations_of
from emor3.runs.records import MEASURED, read_jsonl
from emor3.stats import format as form
from emor3.training.callbacks import TIME

ROUNDS = 5
"""Rounds of completions that the start and the end of a run are averaged over."""

METRIC_TITLES = {
    "rewards/accuracy/mean": "accuracy",
    "rewards/consistency/mean": "consistency",
    "rewards/coherence/mean": "coherence",
    "canary/yes_own": "yes on own image",
    "canary/yes_swapped": "yes on another",
    "canary/label_leak": "label named",
    "canary/duplicates": "duplicates",
    "canary/length": "words",
}
Metrics = Mapping[str, float]
"""Of one step, by name."""
PHASES = ("generate", "reflect", "log_probs", "update")


@dataclass(frozen=True)
class Course:
    """One figure at both ends of training, one value for each seed."""

    start: tuple[float, ...]
    end: tuple[float, ...]


def courses(runs: Sequence[Sequence[Metrics]]) -> dict[str, Course]:
    """Every figure's mean over the first and the last ROUNDS rounds of each run; absent if no round has it."""
    found: dict[str, Course] = {}
    for figure in METRIC_TITLES:
        rounds = [[row[figure] for row in run if figure in row] for run in runs]
        if rounds and all(rounds):
            start, end = ([float(np.mean(values[part])) for values in rounds] for part in _ENDS)
            found[figure] = Course(tuple(start), tuple(end))
    return found


_ENDS = (slice(None, ROUNDS), slice(-ROUNDS, None))


def seconds(runs: Sequence[Sequence[Metrics]]) -> dict[str, float]:
    """Seconds of each phase per optimizer step, the mean over all steps of all runs (a round may serve several)."""
    rows = [row for run in runs for row in run]
    return {phase: sum(row.get(f"{TIME}{phase}", 0.0) for row in rows) / len(rows) for phase in PHASES}


def training_runs(cells: Sequence[Cell]) -> dict[tuple[str, str], list[list[Metrics]]]:
    """Rows of the records of finished runs, by method and training domain, seed by seed; supervised ones have none."""
    runs: dict[tuple[str, str], list[list[Metrics]]] = defaultdict(list)
    for cell in cells:
        path = cell.training / METRICS
        if cell.domain is not None and cell.recipe.grpo is not None and path.is_file():
            rows: list[Metrics] = [*read_jsonl(path, MEASURED)]
            runs[cell.method, cell.domain].append(rows)
    return runs


def to_markdown(cells: Sequence[Cell]) -> str:
    """All tables as Markdown; empty if no cell was trained by reinforcement or evaluated as it learnt."""
    return "\n".join(filter(None, (_held_out_table(cells), _course_tables(cells))))


def held_out_curves(cells: Sequence[Cell]) -> dict[tuple[str, str], list[list[Metrics]]]:
    """Evaluations during training of the cells that had any, by method and training domain, seed by seed."""
    curves: dict[tuple[str, str], list[list[Metrics]]] = defaultdict(list)
    for cell in cells:
        if cell.domain is not None and cell.recipe.evaluation is not None and (rows := evaluations_of(cell.training)):
            curves[cell.method, cell.domain].append([*rows])
    return curves


def _held_out_table(cells: Sequence[Cell]) -> str:
    curves = held_out_curves(cells)
    if not curves:
        return ""
    figures = [name for name in get_args(Metric) if any(name in row for runs in curves.values() for row in runs[0][:1])]
    rows = (
        [*_named(key), str(len(runs)), *(_course(_ends_of(runs, figure), figure) for figure in figures)]
        for key, runs in curves.items()
    )
    table = form.markdown_table(["method", "trained on", "seeds", *figures], rows)
    return f"## On held-out samples, start → end (± standard deviation over seeds)\n\n{table}"


def _ends_of(runs: Sequence[Sequence[Metrics]], figure: str) -> Course | None:
    """A figure of the first and the last evaluation of each run; None if any lacks it."""
    if any(figure not in row for run in runs for row in (run[0], run[-1])):
        return None
    return Course(tuple(run[0][figure] for run in runs), tuple(run[-1][figure] for run in runs))


def _named(key: tuple[str, str]) -> list[str]:
    return [key[0], key[1].replace("embedded:", "")]


def _course_tables(cells: Sequence[Cell]) -> str:
    runs = training_runs(cells)
    if not runs:
        return ""
    names = {key: _named(key) for key in runs}
    found = {key: courses(of_seeds) for key, of_seeds in runs.items()}
    spent = {key: seconds(of_seeds) for key, of_seeds in runs.items()}
    parts = [
        f"## In training, start → end (mean of {ROUNDS} rounds each, ± standard deviation over seeds)\n",
        form.markdown_table(
            ["method", "trained on", "seeds", *METRIC_TITLES.values()],
            (
                [*names[key], str(len(runs[key])), *(_course(found[key].get(f), f) for f in METRIC_TITLES)]
                for key in runs
            ),
        ),
        "Accuracy, consistency and coherence are as they were paid (contrastive consistency is stricter than the "
        "plain one), by the judge of the training.\n",
        "## Seconds per optimizer step\n",
        form.markdown_table(
            ["method", "trained on", *PHASES, "all"],
            (
                [*names[key], *(form.hundredths(s) for s in (*spent[key].values(), sum(spent[key].values())))]
                for key in runs
            ),
        ),
    ]
    return "\n".join(parts)


def _course(course: Course | None, figure: str) -> str:
    if course is None:
        return "-"
    printed, unit = (form.tenths, "") if figure == "canary/length" else (form.percent_value, "%")
    spread = f" ±{printed(float(np.std(course.end, ddof=1)))}" if len(course.end) > 1 else ""
    return f"{printed(float(np.mean(course.start)))} → {printed(float(np.mean(course.end)))}{unit}{spread}"
