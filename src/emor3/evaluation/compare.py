"""`emor3 compare A B …`: tests between saved evaluations, on the same items or not at all. Needs no model.

Two single models are compared by McNemar's test on the same items; methods with several runs each, over seeds and items
together (docs/statistics.md).
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table

from emor3.errors import UserError
from emor3.method.types import Estimate, Prediction
from emor3.runs.predictions import SavedEvaluation
from emor3.stats.classification import clusters, compare_macro_f1, is_correct, macro_f1_table
from emor3.stats.figures import FIGURES, checks
from emor3.stats.format import count, p_value, percent_value, points_with_interval, with_more_seeds
from emor3.stats.measures import Check
from emor3.stats.power import detectable, images_needed, seeds_needed, smallest_effect
from emor3.stats.seeds import SeedComparison, compare_seeds, share_table
from emor3.stats.uncertainty import Comparison, Floats, compare_hits, holm

Group = Sequence[SavedEvaluation]
"""Evaluations of one method, trained with another seed for each; one alone is a model by itself."""
PLANNED_SEEDS = (2, 3, 5, 10, 20)


@dataclass(frozen=True)
class PairedTest:
    """One figure of one data set: `after` against `before`, and the share of each."""

    data: str
    before: str
    after: str
    figure: str
    values: tuple[float, float]
    difference: Estimate
    p_value: float | None
    """Exact McNemar, or sign flips of clusters; of several runs, over seeds and items. None: an interval only."""
    seeds: SeedComparison | None
    """The difference over seeds and items, whose error tells what could have been seen; None for a single item."""
    adjusted: float | None = None
    """The p-value after Holm's correction over all tests of the comparison."""


def compare_evaluations(evaluations: Sequence[SavedEvaluation]) -> tuple[list[PairedTest], list[str]]:
    """Every evaluation against the first, on every data set that both have; and one line for each that was left out.

    Raises UserError for fewer than two evaluations.
    """
    return compare_groups([[evaluation] for evaluation in evaluations])


def compare_groups(groups: Sequence[Group]) -> tuple[list[PairedTest], list[str]]:
    """Every method against the first, as `compare_evaluations`.

    Raises UserError for fewer than two, for a group that cannot be runs of one method, and for a single run against
    several, unless it is the model that these started from.
    """
    if len(groups) < 2:
        raise UserError("a comparison needs at least two evaluations")
    first, rows, left_out = groups[0], list[PairedTest](), list[str]()
    for other in groups[1:]:
        check_comparable(first, other)
    for other in groups[1:]:
        for data in first[0].predictions:
            if data not in other[0].predictions:
                left_out.append(f"{other[0].folder}: has no predictions on {data}")
            elif first[0].checksum(data) != other[0].checksum(data):
                left_out.append(
                    f"{other[0].folder}: other samples of {data} than {first[0].folder}, nothing is compared there"
                )
            else:
                rows += _compare_data(data, first, other)
        if (stranger := _other_judge(first, other)) is not None:
            left_out.append(
                f"{stranger.folder}: judged by {stranger.head['judge']}, {first[0].folder} by "
                f"{first[0].head['judge']}: consistency and coherence are not compared"
            )
    return _with_holm(rows), left_out


def check_comparable(first: Group, other: Group) -> None:
    """Raise UserError if one of two groups cannot be runs of one method, or if one run stands against several."""
    _check_group(first)
    _check_group(other)
    _check_seeds(first, other)


def _check_group(group: Group) -> None:
    """Raise UserError if evaluations that were given as runs of one method cannot be that."""
    seen: dict[str, SavedEvaluation] = {}
    for run in group:
        beside = f"{group[0].folder}, given as a run of the same method"
        if (same := seen.setdefault(run.model, run)) is not run:
            raise UserError(f"{run.folder}: the same model as {same.folder}, {run.model}, not another seed of a method")
        if run.thinking != group[0].thinking:
            raise UserError(f"{run.folder}: another way of thinking than {beside}")
        for data in group[0].predictions:
            if data not in run.predictions or run.checksum(data) != group[0].checksum(data):
                raise UserError(f"{run.folder}: other samples of {data} than {beside}")


def _check_seeds(first: Group, other: Group) -> None:
    """Raise UserError for one run against several: it is no sample of a method that has seeds."""
    few, many = sorted((first, other), key=len)
    start = Path(few[0].model).resolve()
    if len(few) == 1 < len(many) and any(Path(str(run.head.get("start"))).resolve() != start for run in many):
        raise UserError(f"{few[0].folder}: one run against {len(many)}: give at least two of each, or one of each")


def _other_judge(first: Group, other: Group) -> SavedEvaluation | None:
    """An evaluation under another judge than the first one's."""
    return next((run for run in (*first, *other) if run.head["judge"] != first[0].head["judge"]), None)


def _compare_data(data: str, first: Group, other: Group) -> Iterator[PairedTest]:
    before, after = ([run.predictions[data] for run in group] for group in (first, other))
    _check_samples([*before, *after])
    same_judge = _other_judge(first, other) is None
    figures = {"accuracy": is_correct, "macro_f1": None, **checks(first[0].thinking)}
    for figure, check in figures.items():
        judged_apart = FIGURES[figure].judged and not same_judge
        if judged_apart or (FIGURES[figure].check and figure not in checks(other[0].thinking)):
            continue
        found = _macro_f1(before, after) if check is None else _shares(before, after, check)
        if found is not None:
            yield PairedTest(data, group_name(first), group_name(other), figure, *found)


Found = tuple[tuple[float, float], Estimate, float | None, SeedComparison | None]
"""Figures before and after, their difference, its p-value, and both over seeds and items."""


def _macro_f1(before: Sequence[Sequence[Prediction]], after: Sequence[Sequence[Prediction]]) -> Found:
    tables = macro_f1_table(before), macro_f1_table(after)
    if len(before) == len(after) == 1:
        return (*compare_macro_f1(before[0], after[0]), None, _over_items(*tables))
    return _over_seeds(*tables)


def _shares(
    before: Sequence[Sequence[Prediction]], after: Sequence[Sequence[Prediction]], check: Check
) -> Found | None:
    """Shares of samples that pass a check; None if there is nothing to count in one of the runs."""
    if len(before) == len(after) == 1:
        return _shares_of_two(before[0], after[0], check)
    outcomes, items = (_outcomes(before, check), _outcomes(after, check)), clusters(before[0])
    if any(np.isnan(runs).all(axis=1).any() for runs in outcomes):
        return None
    return _over_seeds(share_table(outcomes[0], items), share_table(outcomes[1], items))


def _shares_of_two(before: Sequence[Prediction], after: Sequence[Prediction], check: Check) -> Found | None:
    """Shares of two single models, on the samples that the check applies to in both; None if there are none."""
    hits = _paired_hits(before, after, check)
    if hits is None:
        return None
    test = compare_hits(*hits)
    shares = sum(hits.before) / len(hits.items), sum(hits.after) / len(hits.items)
    tables = [share_table(np.array([run], dtype=np.float64), hits.items) for run in (hits.before, hits.after)]
    return shares, test.difference, test.p_value, _over_items(*tables)


def compare_check(before: Sequence[Prediction], after: Sequence[Prediction], check: Check) -> Comparison | None:
    """Paired test between two models of the share that passes a check, on the samples that it applies to in both.

    None if it applies to none. Raises UserError if the samples differ.
    """
    _check_samples([before, after])
    hits = _paired_hits(before, after, check)
    return None if hits is None else compare_hits(*hits)


class _PairedHits(NamedTuple):
    """Whether two models pass a check, for each sample that it applies to in both, and the samples' clusters."""

    before: list[bool]
    after: list[bool]
    items: list[Hashable]


def _paired_hits(before: Sequence[Prediction], after: Sequence[Prediction], check: Check) -> _PairedHits | None:
    outcomes = [(p, check(p), check(q)) for p, q in zip(before, after, strict=True)]
    both = [(p, b, a) for p, b, a in outcomes if b is not None and a is not None]
    if not both:
        return None
    return _PairedHits([bool(b) for _, b, _ in both], [bool(a) for _, _, a in both], clusters([p for p, _, _ in both]))


def _check_samples(runs: Sequence[Sequence[Prediction]]) -> None:
    samples = [(p.sample.id, p.sample.label) for p in runs[0]]
    if any([(p.sample.id, p.sample.label) for p in run] != samples for run in runs[1:]):
        raise UserError("a paired test needs predictions on the same samples in the same order")


def _outcomes(runs: Sequence[Sequence[Prediction]], check: Check) -> Floats:
    """1 or 0 for each run and item, NaN if the check does not apply."""
    found = ([check(prediction) for prediction in run] for run in runs)
    return np.array([[np.nan if outcome is None else float(outcome) for outcome in run] for run in found])


def _over_items(before: Floats, after: Floats) -> SeedComparison | None:
    """Of single runs, whose test has no error of its own; None for one item, which cannot vary."""
    return compare_seeds(before, after) if before.shape[1] > 1 else None


def _over_seeds(before: Floats, after: Floats) -> Found:
    seeds = compare_seeds(before, after)
    return (float(before.mean()), float(after.mean())), seeds.difference, seeds.p_value, seeds


def group_name(group: Group) -> str:
    """A method's name: its first run's, and how many more there are."""
    return with_more_seeds(str(group[0].folder), len(group))


def _with_holm(rows: Sequence[PairedTest]) -> list[PairedTest]:
    adjusted = holm({place: row.p_value for place, row in enumerate(rows) if row.p_value is not None})
    return [replace(row, adjusted=adjusted.get(place)) for place, row in enumerate(rows)]


def comparison_tables(rows: Sequence[PairedTest]) -> Iterator[Table]:
    """One table for each data set and model: shares in percent, changes in points with 95% intervals.

    p is given as tested and after Holm's correction over all rows of all tables. Below stand what the tests speak for
    and the smallest changes that they could have seen.
    """
    number = sum(row.p_value is not None for row in rows)
    pairs = dict.fromkeys((row.data, row.before, row.after) for row in rows)
    for data, before, after in pairs:
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title=f"{data}: {before} -> {after}")
        for heading in ("%", "before", "after", "change", "p", "p Holm"):
            table.add_column(heading, no_wrap=True)
        shown = [row for row in rows if (row.data, row.before, row.after) == (data, before, after)]
        table.caption = caption_of(shown, number)
        for row in shown:
            values = (*map(percent_value, row.values), points_with_interval(row.difference))
            table.add_row(FIGURES[row.figure].title.strip(), *values, p_value(row.p_value), p_value(row.adjusted))
        yield table


def caption_of(rows: Sequence[PairedTest], number: int) -> str:
    """What the tests of one table speak for, and the smallest change that each could have seen at 80% power."""
    tested = [(row, row.seeds) for row in rows if row.p_value is not None and row.seeds is not None]
    several = any(max(seeds.seeds) > 1 for _, seeds in tested)
    speaks = "over seeds and items together" if several else "over items, and speak for these two models only"
    smallest = {
        row.figure: detectable(seeds.standard_error, seeds.freedom, 0.05 / number)
        for row, seeds in tested
        if seeds.standard_error > 0  # outcomes that never differ tell nothing of what would have been seen
    }
    effects = [f"{FIGURES[figure].title.strip()} {percent_value(effect)}" for figure, effect in smallest.items()]
    sees = f" Smallest change, in points, that 80% of such tests find at p < 0.05 / {number}: {', '.join(effects)}."
    return f"Tests are {speaks}.{sees if effects else ''}"


def power_tables(rows: Sequence[PairedTest], effect: float) -> Iterator[Table]:
    """Images and seeds that a planned comparison of accuracies needs, from the spread of the runs at hand.

    Raises UserError if a method has a single run, which shows no spread of seeds.
    """
    for row in rows:
        if row.figure != "accuracy":
            continue
        if row.seeds is None or min(row.seeds.seeds) < 2:
            raise UserError("--power needs the spread of seeds: give at least two runs of each method, as A1,A2 B1,B2")
        spread, images = row.seeds.spread, row.difference.n
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
        table.title = f"{row.data}: to see a change of accuracy by {percent_value(effect)} points"
        for heading in ("seeds of each", "images needed", f"smallest change on {images} images"):
            table.add_column(heading, justify="right")
        for seeds in PLANNED_SEEDS:
            needed = images_needed(spread, effect, seeds)
            smallest = percent_value(smallest_effect(spread, images, seeds))
            table.add_row(str(seeds), "more seeds first" if needed is None else count(needed), smallest)
        enough = seeds_needed(spread, effect, images)
        table.caption = (
            f"On {images} images {'no number of seeds' if enough is None else f'{enough} seeds of each method'} will "
            f"do. Power 80%, p < 0.05; spread as in {row.before} and {row.after}; near copies count as one image."
        )
        yield table
