"""Summary of predictions: every figure of an evaluation with its interval, as JSON and as a table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Column, Table

from emor3.data.importers.benchmarks.published import Published, published_on, sources
from emor3.method.thinking import Thinking
from emor3.method.types import Estimate, Prediction
from emor3.runs.predictions import majority_class
from emor3.stats import distributions
from emor3.stats.classification import classify
from emor3.stats.figures import FIGURES, checks
from emor3.stats.format import decimal, percent, percent_value, thousandths
from emor3.stats.measures import rate
from emor3.stats.people.confidence import stated_calibration, stated_confidence
from emor3.stats.people.ratings import against_ratings
from emor3.stats.people.votes import against_votes

IMPORTED = "imported"
"""Key of the set and label policy of a data folder that was imported, in the head of an evaluation."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions on one data set and their figures."""

    data: str
    predictions: Sequence[Prediction]
    figures: Mapping[str, Estimate]
    majority: Mapping[str, Estimate]
    """The figures that can be had for always answering the most frequent label of these samples."""
    confusion: tuple[tuple[int, ...], ...]


def summarise(data: str, predictions: Sequence[Prediction], thinking: Thinking) -> Evaluation:
    """Figures of N predictions on one label set, beside those of the majority class. Raises UserError for none."""
    found = classify(predictions)
    most_frequent = Counter(prediction.sample.label for prediction in predictions).most_common(1)[0][0]
    return Evaluation(
        data,
        predictions,
        figures=found.figures | reasoning_figures(predictions, thinking) | _distribution(predictions),
        majority=classify(majority_class(predictions, most_frequent)).figures,
        confusion=found.confusion,
    )


def reasoning_figures(predictions: Sequence[Prediction], thinking: Thinking) -> dict[str, Estimate]:
    """Rates of the checks that a way of thinking can be asked to pass, of those that apply to any prediction."""
    rates = {name: rate(predictions, check) for name, check in checks(thinking).items()}
    return {name: estimate for name, estimate in rates.items() if estimate is not None}


def _distribution(predictions: Sequence[Prediction]) -> dict[str, Estimate]:
    figures = against_votes(predictions) | against_ratings(predictions) | stated_calibration(predictions)
    return figures | distributions.calibration(predictions) | distributions.distances(predictions)


def results(head: Mapping[str, Any], evaluations: Iterable[Evaluation]) -> dict[str, Any]:
    """Content of `results.json`: the evaluation's head with figures, confusion and curves for each data set."""
    by_data = {evaluation.data: evaluation for evaluation in evaluations}
    return {**head, "data": [{**part, **_figures_row(by_data[part["data"]])} for part in head["data"]]}


def _figures_row(evaluation: Evaluation) -> dict[str, Any]:
    row = {
        "figures": {name: asdict(estimate) for name, estimate in evaluation.figures.items()},
        "majority_class": {name: asdict(estimate) for name, estimate in evaluation.majority.items()},
        "confusion": evaluation.confusion,
    }
    if sampled := [prediction for prediction in evaluation.predictions if prediction.sampled is not None]:
        confidence, right = distributions.confidences(sampled)
        row["reliability"] = distributions.reliability_cells(confidence, right).sum(0).tolist()
        row["risk_coverage"] = distributions.risk_curve(confidence, right).tolist()
    stated, confidence, right = stated_confidence(evaluation.predictions)
    if stated:
        row["stated_reliability"] = distributions.reliability_cells(confidence, right).sum(0).tolist()
        row["stated_risk_coverage"] = distributions.risk_curve(confidence, right).tolist()
    return row


def results_table(model: str, evaluations: Iterable[Evaluation], head: Mapping[str, Any] | None = None) -> Table:
    """Shares in percent and distances as they are, with 95% intervals, beside those of the majority class.

    With the evaluation's head also what others published on a set, and where.
    """
    parts = {part["data"]: part for part in (head or {}).get("data", ())}
    evaluations = list(evaluations)
    published = {e.data: published_on(parts.get(e.data, {}).get(IMPORTED)) for e in evaluations}
    beside = [Column("published by others", overflow="fold")] if any(published.values()) else []
    table = Table(Column("", overflow="fold"), model, "majority class", *beside, box=box.SIMPLE)
    for evaluation in evaluations:
        table.add_row(f"{evaluation.data}, n = {len(evaluation.predictions)}")
        others = published[evaluation.data]
        for name, row in ((name, row) for name, row in FIGURES.items() if name in evaluation.figures):
            is_share = row.unit == "share"
            ours = (percent if is_share else decimal)(evaluation.figures[name])
            majority = percent(evaluation.majority.get(name)) if is_share else ""
            cells = [published_cell(name, others)] if beside else []
            table.add_row(f"  {row.title}{' %' * is_share}", ours, majority, *cells)
        for source in sources(others):
            table.add_row(f"  published: {source}; none of it was measured with these prompts on these files")
        table.add_section()
    return table


def published_cell(name: str, others: Sequence[Published]) -> str:
    """What others published of a figure: "68.1 EmoCaliber (7B)", one a line."""
    shown = percent_value if FIGURES[name].unit == "share" else thousandths
    return "\n".join(f"{shown(entry.figures[name])} {entry.model}" for entry in others if name in entry.figures)
