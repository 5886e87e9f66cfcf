"""`emor3 compare A B …`: paired tests between saved evaluations, on the same items or not at all. Needs no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.table import Table

from emor3.errors import UserError
from emor3.method.types import Estimate
from emor3.runs.predictions import SavedEvaluation
from emor3.stats.classification import clusters, compare_accuracy, compare_macro_f1, is_correct
from emor3.stats.figures import FIGURES, checks
from emor3.stats.format import p_value, percent_value, points_with_interval
from emor3.stats.uncertainty import compare_hits, holm


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
    """Exact McNemar, or sign flips of clusters; None if only an interval is at hand (macro-F1)."""
    adjusted: float | None = None
    """The p-value after Holm's correction over all tests of the comparison."""


def compare_evaluations(evaluations: Sequence[SavedEvaluation]) -> tuple[list[PairedTest], list[str]]:
    """Every evaluation against the first, on every data set that both have; and one line for each that was left out.

    Raises UserError for fewer than two evaluations.
    """
    if len(evaluations) < 2:
        raise UserError("a comparison needs at least two evaluations")
    first, rows, left_out = evaluations[0], list[PairedTest](), list[str]()
    for other in evaluations[1:]:
        for data in first.predictions:
            if data not in other.predictions:
                left_out.append(f"{other.folder}: has no predictions on {data}")
            elif first.checksum(data) != other.checksum(data):
                left_out.append(
                    f"{other.folder}: other samples of {data} than {first.folder}, nothing is compared there"
                )
            else:
                rows += _compare_data(data, first, other)
        if first.head["judge"] != other.head["judge"]:
            left_out.append(
                f"{other.folder}: judged by {other.head['judge']}, {first.folder} by {first.head['judge']}: "
                "consistency and coherence are not compared"
            )
    return _with_holm(rows), left_out


def _compare_data(data: str, first: SavedEvaluation, other: SavedEvaluation) -> Iterator[PairedTest]:
    before, after = first.predictions[data], other.predictions[data]
    names = (str(first.folder), str(other.folder))
    right = compare_accuracy(before, after)
    accuracies = (_share([*map(is_correct, before)]), _share([*map(is_correct, after)]))
    yield PairedTest(data, *names, "accuracy", accuracies, right.difference, right.p_value)
    yield PairedTest(data, *names, "macro_f1", *compare_macro_f1(before, after), None)
    same_judge = first.head["judge"] == other.head["judge"]
    for figure, check in checks(first.thinking).items():
        if (FIGURES[figure].judged and not same_judge) or figure not in checks(other.thinking):
            continue
        outcomes = [(p, check(p), check(q)) for p, q in zip(before, after, strict=True)]
        both = [(p, b, a) for p, b, a in outcomes if b is not None and a is not None]
        if both:
            hits_before, hits_after = [b for _, b, _ in both], [a for _, _, a in both]
            test = compare_hits(hits_before, hits_after, clusters([p for p, _, _ in both]))
            yield PairedTest(
                data, *names, figure, (_share(hits_before), _share(hits_after)), test.difference, test.p_value
            )


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def _with_holm(rows: Sequence[PairedTest]) -> list[PairedTest]:
    adjusted = holm({str(place): row.p_value for place, row in enumerate(rows) if row.p_value is not None})
    return [replace(row, adjusted=adjusted.get(str(place))) for place, row in enumerate(rows)]


def comparison_tables(rows: Sequence[PairedTest]) -> Iterator[Table]:
    """One table for each data set and model: shares in percent, changes in points with 95% intervals.

    p is given as tested and after Holm's correction over all rows of all tables.
    """
    pairs = dict.fromkeys((row.data, row.before, row.after) for row in rows)
    for data, before, after in pairs:
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title=f"{data}: {before} -> {after}")
        for heading in ("%", "before", "after", "change", "p", "p Holm"):
            table.add_column(heading, no_wrap=True)
        for row in rows:
            if (row.data, row.before, row.after) == (data, before, after):
                values = (*map(percent_value, row.values), points_with_interval(row.difference))
                table.add_row(FIGURES[row.figure].title.strip(), *values, p_value(row.p_value), p_value(row.adjusted))
        yield table
