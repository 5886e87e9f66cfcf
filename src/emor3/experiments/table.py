"""The table of a reproduction: its cells (six in the paper) and their averages, with intervals and tests.

A cell is the mean over seeds. Its interval is the bootstrap over test items, drawn together with the completions of all
seeds; how far seeds spread is given beside it. Averages weigh the cells equally, as the paper does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emor3.experiments import decision, training_table
from emor3.experiments.plan import AVERAGES, Cell, Plan
from emor3.experiments.results import Column, Results, mean_share
from emor3.method.types import Estimate
from emor3.report.table_cell import TableCell
from emor3.runs.predictions import TABLE
from emor3.stats.classification import is_correct
from emor3.stats.figures import FIGURES, GIVEN, checks
from emor3.stats.format import (
    markdown_table,
    p_equation,
    percent_interval,
    percent_value,
    points,
    points_with_interval,
    seed_spread,
)
from emor3.stats.measures import Check
from emor3.stats.power import detectable
from emor3.stats.uncertainty import bootstrap, holm, wilson
from emor3.storage.cells import table_text
from emor3.storage.outputs import write_whole

Rows = Mapping[str, Mapping[str, TableCell]]
"""Numbers by method and column."""


def accuracy_table(results: Results) -> dict[str, dict[str, TableCell]]:
    """Accuracy of every method (rows) in every column and average."""
    groups = results.groups()
    table = {name: dict(_estimates(results, name, groups, is_correct)) for name in results.predictions}
    _add_tests(results, table, groups)
    for group, name in _clear_winners(results, table, groups):
        table[name][group] = replace(table[name][group], bold=True)
    return table


def _add_tests(
    results: Results, table: dict[str, dict[str, TableCell]], groups: Mapping[str, Sequence[Column]]
) -> None:
    """Put the difference of every method to the reference into its cells, with p-value and smallest effect."""
    reference = results.plan.reference
    found = {
        (name, group): comparison
        for group, columns in groups.items()
        for name in table
        if name != reference and (comparison := results.compare(name, reference, columns, is_correct))
    }
    columns_alone = [[key for key in found if key[1] == group] for group in groups]
    adjusted: dict[tuple[str, str], tuple[float, int]] = {}
    for tests in columns_alone if not results.plan.families else ():
        p_values = holm({key: found[key].p_value for key in tests})
        adjusted |= {key: (p_value, len(tests)) for key, p_value in p_values.items()}
    for (name, group), comparison in found.items():
        p_value, tests_of_family = adjusted.get((name, group), (None, 1))
        table[name][group] = replace(
            table[name][group],
            p_value=p_value,
            difference=comparison.difference,
            # outcomes that never differ tell nothing of what would have been seen
            smallest_effect=detectable(comparison.standard_error, comparison.freedom, 0.05 / tests_of_family) or None,
        )


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
            found = results.compare(ranked[0], ranked[1], columns, is_correct)
            if found is not None:
                best[group], p_values[group] = ranked[0], found.p_value
    return [(group, best[group]) for group, p_value in holm(p_values).items() if p_value < 0.05]


def reasoning_table(results: Results) -> dict[str, dict[str, TableCell]]:
    """Reasoning figures of every method under the plan's fixed judge, over the cells where a figure is defined."""
    return {name: _figures(results, name, checks(results.thinking[name])) for name in results.predictions}


def truth_table(results: Results) -> dict[str, dict[str, TableCell]]:
    """What every method says it sees against the drawn truth, over the cells where a check applies; empty if undrawn.

    A direct answer says nothing of it, which is neither right nor wrong.
    """
    telling = (name for name in results.predictions if "reasoning" in GIVEN[results.thinking[name]])
    table = {name: _figures(results, name, results.truth.checks()) for name in telling}
    for name, row in table.items() if results.plan.reference in table else ():
        for figure, cell in row.items() if name != results.plan.reference else ():
            found = results.compare(name, results.plan.reference, results.columns, results.truth.checks()[figure])
            row[figure] = replace(cell, difference=None if found is None else found.difference)
    return {name: row for name, row in table.items() if row}


def _figures(results: Results, method: str, checked: Mapping[str, Check]) -> dict[str, TableCell]:
    row = {}
    for figure, check in checked.items():
        defined = [column for column in results.columns if results.sums(method, [column], check) is not None]
        if defined:
            row[figure] = dict(_estimates(results, method, {"all": defined}, check))["all"]
    return row


def to_markdown(results: Results, cells: Sequence[Cell], accuracy: Rows, reasoning: Rows, truth: Rows) -> str:
    """All tables as Markdown: the tests that decide, accuracy, differences, reasoning, truth of step 1, training.

    Percent, 95% intervals, seeds and items.
    """
    groups = list(results.groups())
    seeds = {name: str(max((cell.seeds for cell in row.values()), default=0)) for name, row in accuracy.items()}
    runs = [item for by_column in results.predictions.values() for item in by_column.items()]
    items = {test: len({p.sample.id for p in next(iter(of_seeds.values()))}) for (_, test), of_seeds in runs}
    others = [name for name in accuracy if name != results.plan.reference]
    parts = [
        decision.to_markdown(results),
        "## Accuracy, %\n",
        markdown_table(
            ["method", "seeds", *map(_short, groups)],
            ([name, seeds[name], *(_printed(row.get(group)) for group in groups)] for name, row in accuracy.items()),
        ),
        "Items: " + ", ".join(f"{test} {count}" for test, count in items.items()) + ". " + _note(accuracy) + "\n",
        f"## Accuracy against {results.plan.reference}, points ({_tested_by(results.plan)}sees)\n",
        markdown_table(
            ["method", *AVERAGES],
            ([name, *(_change(accuracy, accuracy[name].get(a)) for a in AVERAGES)] for name in others),
        ),
        _note_on_tests(accuracy) + "\n",
        "## Reasoning, %, all cells, fixed judge\n",
        markdown_table(
            ["method", *(FIGURES[figure].title.strip() for figure in checks())],
            ([name, *(_printed(row.get(figure)) for figure in checks())] for name, row in reasoning.items()),
        ),
        *_truth_text(results, truth),
        training_table.to_markdown(cells),
    ]
    return "\n".join(parts)


def _truth_text(results: Results, truth: Rows) -> list[str]:
    if not truth:
        return []
    figures = list(results.truth.checks())
    return [
        f"## Step 1 against the drawing, %, all cells; change against {results.plan.reference} in points\n",
        markdown_table(
            ["method", *figures],
            ([name, *(_with_change(row.get(figure)) for figure in figures)] for name, row in truth.items()),
        ),
    ]


def _with_change(cell: TableCell | None) -> str:
    change = "" if cell is None or cell.difference is None else f"; {points_with_interval(cell.difference)}"
    return f"{_printed(cell)}{change}"


def _tested_by(plan: Plan) -> str:
    """What stands beside a difference: with families their tables hold the p-values."""
    return "" if plan.families else "p, Holm over methods; "


def _over_seeds(accuracy: Rows) -> bool:
    """Whether a method was trained with several seeds, so that tests count them."""
    return any(cell.seeds > 1 for row in accuracy.values() for cell in row.values())


def _note(accuracy: Rows) -> str:
    test = "over seeds and items" if _over_seeds(accuracy) else "paired sign flips over items"
    return (
        "Each number is the mean over seeds with the 95% bootstrap interval over test items; ± is the standard "
        f"deviation over seeds. Bold: best of its column and better than the runner-up ({test}, p < 0.05 after Holm "
        "over columns)."
    )


def _note_on_tests(accuracy: Rows) -> str:
    sees = (
        "Sees: the smallest difference, in points, that such a test finds in 80% of studies, at the level of Holm's "
        "first test."
    )
    if not _over_seeds(accuracy):
        return f"One run of each method: paired sign flips over items, which speak for these runs only. {sees}"
    single = [name for name, row in accuracy.items() if max((cell.seeds for cell in row.values()), default=0) == 1]
    alone = f" One run, which is taken as it is: {', '.join(single)}." if single else ""
    return f"Tests and 95% intervals are over seeds and items together (docs/statistics.md).{alone} {sees}"


def _short(group: str) -> str:
    return group.replace("embedded:", "")


def _printed(cell: TableCell | None) -> str:
    if cell is None:
        return "-"
    value = percent_value(cell.estimate.value)
    value = f"**{value}**" if cell.bold else value
    return f"{value} {percent_interval(cell.estimate)}{seed_spread(cell.seed_deviation)}"


def _change(accuracy: Rows, cell: TableCell | None) -> str:
    """The difference to the reference; its interval only if it counts seeds, as sign flips have none."""
    if cell is None or cell.difference is None:
        return "-"
    change = points_with_interval(cell.difference) if _over_seeds(accuracy) else points(cell.difference.value)
    tested = [] if cell.p_value is None else [p_equation(cell.p_value)]
    sees = [] if cell.smallest_effect is None else [f"sees {percent_value(cell.smallest_effect)}"]
    return f"{change} ({'; '.join([*tested, *sees])})" if tested or sees else change


def write_tables(results: Results, cells: Sequence[Cell], folder: Path) -> list[Path]:
    """Write `table.md` and `table.csv` (one row per number of an evaluation); returns their paths."""
    accuracy, reasoning, truth = accuracy_table(results), reasoning_table(results), truth_table(results)
    rows = [
        {"figure": figure, "method": name, "column": column, **cell.to_row()}
        for figure, table in (("accuracy", accuracy), ("reasoning", reasoning), ("truth", truth))
        for name, row in table.items()
        for column, cell in row.items()
    ]
    markdown, csv = folder / "table.md", folder / TABLE
    write_whole(markdown, to_markdown(results, cells, accuracy, reasoning, truth))
    write_whole(csv, table_text(rows))
    return [markdown, csv]
