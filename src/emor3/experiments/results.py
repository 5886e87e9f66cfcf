"""Outcomes of the finished cells of a plan, and the differences between its methods.

Methods are tested over seeds and items together (docs/statistics.md); two single runs by sign flips of items.
"""

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from emor3.data.folders import drawn_folders
from emor3.errors import UserError
from emor3.experiments.plan import AVERAGES, Cell, FamilyBlock, Plan
from emor3.experiments.reproduce import is_finished
from emor3.method.thinking import Thinking
from emor3.method.types import Estimate, Prediction
from emor3.runs.predictions import SavedEvaluation, read_evaluation
from emor3.stats.measures import Check
from emor3.stats.mixed import mixed_model
from emor3.stats.seeds import SeedComparison, compare_seeds, hierarchical_bootstrap, pseudo_values
from emor3.stats.uncertainty import Floats, sign_flip
from emor3.tiny.perception import DrawnTruth

Column = tuple[str, str]
"""Training domain and test set."""


class Results:
    """Outcomes of all finished cells of a plan, by method and column, as item x seed tables."""

    def __init__(self, plan: Plan, cells: Sequence[Cell]) -> None:
        self.plan = plan
        self.columns: list[Column] = [(domain, test) for domain in plan.domains for test in plan.tests]
        self.truth = DrawnTruth(drawn_folders(plan.tests))
        self.predictions: dict[str, dict[Column, dict[int, list[Prediction]]]] = {}
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
                by_column = self.predictions.setdefault(cell.method, defaultdict(dict))
                by_column[domain, test][cell.seed] = evaluation.predictions[test]

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
            for run in found[column].values():
                for prediction in run:
                    outcome = check(prediction)
                    if outcome is not None:
                        item = _item(column, prediction)
                        row = sums.setdefault(item, np.zeros((len(columns), 2)))
                        row[place] += (float(outcome), 1.0)
        table = np.array(list(sums.values())).reshape(-1, len(columns), 2)
        return None if len(table) == 0 or (table.sum(0)[:, 1] == 0).any() else (table, list(sums))

    def seed_values(self, method: str, columns: Sequence[Column], check: Check) -> list[float]:
        """The figure of each seed alone, of those that have all columns."""
        found = self.predictions[method]
        return [
            float(np.mean([_share(found[column][seed], check) for column in columns]))
            for seed in self.whole_seeds(method, columns)
        ]

    def whole_seeds(self, method: str, columns: Sequence[Column]) -> list[int]:
        """Seeds of which all columns are finished."""
        found = self.predictions.get(method, {})
        return sorted(set.intersection(*(set(found.get(column, ())) for column in columns)))

    def of_family(self, family: FamilyBlock) -> "Results":
        """The same results with the seeds that a family tests, and no others."""
        narrowed = copy.copy(self)
        narrowed.predictions = {}
        for method, found in self.predictions.items():
            is_reference = method == self.plan.reference
            seeds = family.seeds_of_reference(self.plan.seeds) if is_reference else family.seeds or self.plan.seeds
            narrowed.predictions[method] = {
                column: {seed: run for seed, run in runs.items() if seed in seeds} for column, runs in found.items()
            }
        return narrowed

    def compare(self, method: str, other: str, columns: Sequence[Column], check: Check) -> SeedComparison | None:
        """`method` against `other` on the same items over the seeds of both; None if there is nothing to compare.

        Two single runs have no seeds to count: they are tested by sign flips of items.
        """
        if not self.whole_seeds(method, columns) or not self.whole_seeds(other, columns):
            return None
        before, after = (self._table(name, columns, check) for name in (other, method))
        if before.shape[1] < 2:
            return None
        found = compare_seeds(before, after)
        if max(found.seeds) > 1:
            return found
        return replace(found, p_value=sign_flip(self.changes(method, other, columns, check), seed=0))

    def second_opinions(
        self, method: str, other: str, columns: Sequence[Column], check: Check
    ) -> tuple[Estimate, Estimate | None]:
        """The same difference by the hierarchical bootstrap and, of two or more seeds each, by the mixed model."""
        before, after = (self._table(name, columns, check) for name in (other, method))
        drawn, _ = hierarchical_bootstrap(before, after)
        try:
            return drawn, mixed_model(before, after).difference
        except UserError:  # a single run, or no outcome that differs
            return drawn, None

    def _table(self, method: str, columns: Sequence[Column], check: Check) -> Floats:
        """What each item adds to the mean of the columns in each whole seed [seeds, items]."""
        found, seeds = self.predictions[method], self.whole_seeds(method, columns)
        samples = {
            (test, prediction.sample.id): _item((domain, test), prediction)
            for domain, test in columns
            for prediction in found[domain, test][seeds[0]]
        }
        rows = {sample: row for row, sample in enumerate(samples)}
        sums = np.zeros((len(seeds), len(samples), len(columns), 2))
        for run, seed in enumerate(seeds):
            for place, column in enumerate(columns):
                for prediction in found[column][seed]:
                    outcome = check(prediction)
                    if outcome is not None:
                        sums[run, rows[column[1], prediction.sample.id], place] = (float(outcome), 1.0)
        return pseudo_values(mean_share, sums, list(samples.values()))

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


def _item(column: Column, prediction: Prediction) -> tuple[str, str]:
    """What is drawn and left out together: near copies of one test set, with all their completions."""
    return column[1], prediction.sample.group or prediction.sample.id


def _share(run: Sequence[Prediction], check: Check) -> float:
    outcomes = [outcome for prediction in run if (outcome := check(prediction)) is not None]
    return float(np.mean(outcomes)) if outcomes else np.nan


def mean_share(sums: Floats) -> Floats:
    """Mean over columns of hits / count: [..., columns, 2] -> [...]."""
    return np.asarray((sums[..., 0] / np.maximum(sums[..., 1], 1)).mean(-1), dtype=np.float64)
