"""The table of a reproduction: its cells (six in the paper) and their averages, with intervals and paired tests.

A cell is the mean over seeds. Its interval is the bootstrap over test items, drawn together with the completions of all
seeds; how far seeds spread is given beside it. Averages weigh the cells equally, as the paper does.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emor3.errors import UserError
from emor3.evaluation.table_cell import TableCell
from emor3.experiments import training_table
from emor3.experiments.plan import Cell, Plan
from emor3.experiments.reproduce import is_finished
from emor3.method.thinking import Thinking
from emor3.method.types import Estimate, Prediction
from emor3.runs.predictions import TABLE, SavedEvaluation, read_evaluation
from emor3.stats.classification import is_correct
from emor3.stats.figures import FIGURES, checks
from emor3.stats.format import markdown_table, p_equation, percent_interval, percent_value, points, seed_spread
from emor3.stats.measures import Check
from emor3.stats.uncertainty import Floats, bootstrap, holm, sign_flip, wilson
from emor3.storage.cells import table_text
from emor3.storage.outputs import write_whole

Column = tuple[str, str]
"""Training domain and test set."""

AVERAGES = ("in domain", "out of domain", "all")


Rows = Mapping[str, Mapping[str, TableCell]]
"""Numbers by method and column."""


class Results:
    """Outcomes of all finished cells of a plan, by method and column, as item x seed tables."""

    def __init__(self, plan: Plan, cells: Sequence[Cell]) -> None:
        self.plan = plan
        self.columns: list[Column] = [(domain, test) for domain in plan.domains for test in plan.tests]
        self.predictions: dict[str, dict[Column, list[list[Prediction]]]] = {}
        self.thinking: dict[str, Thinking] = {}
        self._checksums: dict[str, str] = {}
        for cell in cells:
            if is_finished(cell):
                self._add(cell, read_evaluation(cell.evaluation))

    def _add(self, cell: Cell, evaluation: SavedEvaluation) -> None:
        self.thinking[cell.method] = evaluation.thinking
        for test in self.plan.tests:
            known = self._checksums.setdefault(test, evaluation.checksum(test))
            if known != evaluation.checksum(test):
                raise UserError(
                    f"{cell.evaluation}: other samples of {test} than the other cells: remove it and run again"
                )
            for domain in (cell.domain,) if cell.domain else self.plan.domains:
                by_column = self.predictions.setdefault(cell.method, defaultdict(list))
                by_column[domain, test].append(evaluation.predictions[test])

    def cells_of_average(self, average: str) -> list[Column]:
        """Columns that an average is taken over."""
        inside = [(domain, test) for domain, test in self.columns if domain == test]
        outside = [column for column in self.columns if column not in inside]
        return {"in domain": inside, "out of domain": outside, "all": self.columns}[average]

    def groups(self) -> dict[str, list[Column]]:
        """Columns of the printed table: each cell alone, then the averages."""
        alone = {f"{domain} → {test}": [(domain, test)] for domain, test in self.columns}
        averages = {name: self.cells_of_average(name) for name in AVERAGES}
        return alone | {name: columns for name, columns in averages.items() if columns}

    def sums(self, method: str, columns: Sequence[Column], check: Check) -> tuple[Floats, list[tuple[str, str]]] | None:
        """Hits and counts over seeds [items, columns, 2] and the items; None if a column is missing or empty."""
        found = self.predictions.get(method, {})
        if not columns or any(column not in found for column in columns):
            return None
        sums: dict[tuple[str, str], Floats] = {}
        for place, column in enumerate(columns):
            for run in found[column]:
                for prediction in run:
                    outcome = check(prediction)
                    if outcome is not None:
                        item = (column[1], prediction.sample.group or prediction.sample.id)
                        row = sums.setdefault(item, np.zeros((len(columns), 2)))
                        row[place] += (float(outcome), 1.0)
        table = np.array(list(sums.values())).reshape(-1, len(columns), 2)
        return None if len(table) == 0 or (table.sum(0)[:, 1] == 0).any() else (table, list(sums))

    def seed_values(self, method: str, columns: Sequence[Column], check: Check) -> list[float]:
        """The figure of each seed alone."""
        runs = zip(*(self.predictions[method][column] for column in columns), strict=False)
        return [float(np.mean([_share(run, check) for run in seed])) for seed in runs]

    def changes(self, method: str, other: str, columns: Sequence[Column], check: Check) -> Floats:
        """Change from `other` to `method` by item, all columns weighing the same; their sum is the whole change."""
        mine, theirs = self.sums(method, columns, check), self.sums(other, columns, check)
        if mine is None or theirs is None:
            return np.array([np.nan])
        parts: dict[tuple[str, str], float] = defaultdict(float)
        for sign, (table, items) in ((1.0, mine), (-1.0, theirs)):
            weighted = (table[..., 0] / table[..., 1].sum(0)).mean(-1)
            for item, value in zip(items, weighted, strict=True):
                parts[item] += sign * float(value)
        return np.array(list(parts.values()))


def _share(run: Sequence[Prediction], check: Check) -> float:
    outcomes = [outcome for prediction in run if (outcome := check(prediction)) is not None]
    return float(np.mean(outcomes)) if outcomes else np.nan


def mean_share(sums: Floats) -> Floats:
    """Mean over columns of hits / count: [..., columns, 2] -> [...]."""
    return np.asarray((sums[..., 0] / np.maximum(sums[..., 1], 1)).mean(-1), dtype=np.float64)


def accuracy_table(results: Results) -> dict[str, dict[str, TableCell]]:
    """Accuracy of every method (rows) in every column and average."""
    groups = results.groups()
    table = {name: dict(_estimates(results, name, groups, is_correct)) for name in results.predictions}
    reference = results.plan.reference
    for group, columns in groups.items():
        p_values = {
            name: sign_flip(results.changes(name, reference, columns, is_correct), seed=0)
            for name in table
            if name != reference and group in table[name] and group in table.get(reference, {})
        }
        for name, p_value in holm(p_values).items():
            table[name][group] = replace(table[name][group], p_value=p_value)
    for group, name in _clear_winners(results, table, groups):
        table[name][group] = replace(table[name][group], bold=True)
    return table


def _estimates(
    results: Results, method: str, groups: Mapping[str, Sequence[Column]], check: Check
) -> Iterator[tuple[str, TableCell]]:
    for group, columns in groups.items():
        found = results.sums(method, columns, check)
        if found is None:
            continue
        sums, items = found
        share = float(mean_share(sums.sum(0)))
        if share in (0, 1):
            low, high = wilson(int(share) * len(items), len(items))  # resampling equal outcomes cannot show any doubt
        else:
            low, high = bootstrap(mean_share, sums, items, seed=0)
        seeds = results.seed_values(method, columns, check)
        deviation = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
        yield group, TableCell(Estimate(share, low, high, len(items)), len(seeds), deviation)


def _clear_winners(
    results: Results, table: Mapping[str, Mapping[str, TableCell]], groups: Mapping[str, Sequence[Column]]
) -> list[tuple[str, str]]:
    best, p_values = {}, {}
    for group, columns in groups.items():
        ranked = sorted((name for name in table if group in table[name]), key=lambda n: -table[n][group].estimate.value)
        if len(ranked) > 1:
            best[group] = ranked[0]
            p_values[group] = sign_flip(results.changes(ranked[0], ranked[1], columns, is_correct), seed=0)
    return [(group, best[group]) for group, p_value in holm(p_values).items() if p_value < 0.05]


def reasoning_table(results: Results) -> dict[str, dict[str, TableCell]]:
    """Reasoning figures of every method under the plan's fixed judge, over the cells where a figure is defined."""
    table: dict[str, dict[str, TableCell]] = {}
    for name in results.predictions:
        table[name] = {}
        for figure, check in checks(results.thinking[name]).items():
            defined = [column for column in results.columns if results.sums(name, [column], check) is not None]
            if defined:
                table[name][figure] = dict(_estimates(results, name, {"all": defined}, check))["all"]
    return table


def to_markdown(results: Results, cells: Sequence[Cell], accuracy: Rows, reasoning: Rows) -> str:
    """All tables as Markdown: accuracy, differences, reasoning, training. Percent, 95% intervals, seeds and items."""
    groups = list(results.groups())
    seeds = {name: str(max((cell.seeds for cell in row.values()), default=0)) for name, row in accuracy.items()}
    items = {test: len({p.sample.id for p in runs[0]}) for _, test, runs in _runs(results)}
    others = [name for name in accuracy if name != results.plan.reference]
    parts = [
        "## Accuracy, %\n",
        markdown_table(
            ["method", "seeds", *map(_short, groups)],
            ([name, seeds[name], *(_printed(row.get(group)) for group in groups)] for name, row in accuracy.items()),
        ),
        "Items: " + ", ".join(f"{test} {count}" for test, count in items.items()) + ". " + NOTE + "\n",
        f"## Accuracy against {results.plan.reference}, points (p, Holm over methods)\n",
        markdown_table(
            ["method", *AVERAGES],
            ([name, *(_change(results, name, a, accuracy[name].get(a)) for a in AVERAGES)] for name in others),
        ),
        "## Reasoning, %, all cells, fixed judge\n",
        markdown_table(
            ["method", *(FIGURES[figure].title.strip() for figure in checks())],
            ([name, *(_printed(row.get(figure)) for figure in checks())] for name, row in reasoning.items()),
        ),
        training_table.to_markdown(cells),
    ]
    return "\n".join(parts)


NOTE = (
    "Each number is the mean over seeds with the 95% bootstrap interval over test items; ± is the standard deviation "
    "over seeds. Bold: best of its column and better than the runner-up (paired sign flips over items, p < 0.05 after "
    "Holm over columns)."
)


def _runs(results: Results) -> Iterator[tuple[str, str, list[list[Prediction]]]]:
    for by_column in results.predictions.values():
        for (domain, test), runs in by_column.items():
            yield domain, test, runs


def _short(group: str) -> str:
    return group.replace("embedded:", "")


def _printed(cell: TableCell | None) -> str:
    if cell is None:
        return "-"
    value = percent_value(cell.estimate.value)
    value = f"**{value}**" if cell.bold else value
    return f"{value} {percent_interval(cell.estimate)}{seed_spread(cell.seed_deviation)}"


def _change(results: Results, method: str, average: str, cell: TableCell | None) -> str:
    if cell is None or cell.p_value is None:
        return "-"
    columns = results.cells_of_average(average)
    change = results.changes(method, results.plan.reference, columns, is_correct).sum()
    return f"{points(change)} ({p_equation(cell.p_value)})"


def write_tables(results: Results, cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Write `table.md` and `table.csv` (one row per number of an evaluation); returns their paths."""
    accuracy, reasoning = accuracy_table(results), reasoning_table(results)
    rows = [
        {"figure": figure, "method": name, "column": column, **cell.to_row()}
        for figure, table in (("accuracy", accuracy), ("reasoning", reasoning))
        for name, row in table.items()
        for column, cell in row.items()
    ]
    markdown, csv = folder / "table.md", folder / TABLE
    write_whole(markdown, to_markdown(results, cells, accuracy, reasoning))
    write_whole(csv, table_text(rows))
    return [markdown, csv]
