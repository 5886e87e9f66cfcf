"""The table of figures: everything that is known of a figure's name, which all tables, pages and tests read here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from emor3.method.thinking import Thinking
from emor3.stats import measures
from emor3.stats.measures import Check, Distance

Needs = Literal[
    "label", "completion", "reasoning", "step 3", "samples", "votes", "people", "ranking", "ratings", "confidence"
]
"""What must be at hand: true labels, completions, their reasoning, three steps, M sampled answers, these and votes.

`people`: answers and votes; `ranking`: sampled answers and votes, of which the order counts; `ratings`: valence and
arousal of the data, and completions that state them; `confidence`: completions that state one.
"""


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    title: str
    """As tables call it; a control is indented below what it controls."""
    needs: Needs = "label"
    better: Literal["up", "down"] = "up"
    unit: Literal["share", "number"] = "share"
    judged: bool = False
    """Whether it is a judge's opinion, which is compared under one judge only."""
    on_card: bool = False
    """Whether a model card states it."""
    check: Check | None = None
    """What a prediction must pass, of which the figure is the rate."""
    distance: Distance | None = None
    """Distance of the model's distribution to human votes, of which the figure is the mean."""


def _judged(title: str, check: Check, better: Literal["up", "down"] = "up", on_card: bool = True) -> Figure:
    return Figure(title, "reasoning", better, judged=True, on_card=on_card, check=check)


def _distance(title: str, distance: Distance, better: Literal["up", "down"] = "down") -> Figure:
    return Figure(title, "votes", better, "number", distance=distance)


FIGURES: Mapping[str, Figure] = {
    "accuracy": Figure("accuracy", on_card=True),
    "lenient_accuracy": Figure("lenient accuracy"),
    "macro_f1": Figure("macro-F1", on_card=True),
    "weighted_f1": Figure("weighted F1"),
    "balanced_accuracy": Figure("balanced accuracy"),
    "polarity_accuracy": Figure("polarity accuracy"),
    "unparsed": Figure("unparsed", better="down", on_card=True),
    "format": Figure("format", "completion", on_card=True, check=measures.keeps_format),
    "consistency": _judged("consistency", measures.consistent),
    "swapped_consistency": _judged("  on another image", measures.consistent_when_swapped, "down", on_card=False),
    "coherence": _judged("coherence", measures.coherent),
    "agreement": _judged("think-answer agreement", measures.agrees),
    "step3_polarity": Figure("step 3 polarity", "step 3", check=measures.polarity_holds),
    "step3_arousal": Figure("step 3 arousal", "step 3", check=measures.arousal_holds),
    "dominant_accuracy": Figure("dominant label of the votes", "people"),
    "voters_agreeing": Figure("voters who agree", "people"),
    "voters_agreeing_ceiling": Figure("  with who knows the votes", "people"),
    "dominant_in_top2": Figure("dominant label in top 2", "ranking"),
    "dominant_in_top3": Figure("dominant label in top 3", "ranking"),
    "rank_correlation": Figure("rank correlation with votes", "ranking", unit="number"),
    "mean_average_precision": Figure("mAP of labels with votes", "ranking"),
    "rates": Figure("states ratings", "ratings"),
    "valence_srcc": Figure("valence SRCC", "ratings", unit="number"),
    "valence_plcc": Figure("valence PLCC", "ratings", unit="number"),
    "arousal_srcc": Figure("arousal SRCC", "ratings", unit="number"),
    "arousal_plcc": Figure("arousal PLCC", "ratings", unit="number"),
    "states_confidence": Figure("states a confidence", "confidence"),
    "stated_calibration_error": Figure("ECE, stated", "confidence", "down", "number"),
    "stated_brier": Figure("Brier, stated (right or wrong)", "confidence", "down", "number"),
    "stated_auroc": Figure("AUROC, stated", "confidence", unit="number"),
    "stated_risk_coverage_area": Figure("AURC, stated", "confidence", "down", "number"),
    "leading_accuracy": Figure("accuracy, majority of M", "samples"),
    "unanswered": Figure("no answer in M", "samples", "down"),
    "expected_calibration_error": Figure("ECE", "samples", "down", "number"),
    "brier": Figure("Brier (label)", "samples", "down", "number"),
    "brier_votes": _distance("Brier (votes)", measures.brier),
    "risk_coverage_area": Figure("AURC", "samples", "down", "number"),
    "chebyshev": _distance("Chebyshev", measures.chebyshev),
    "clark": _distance("Clark", measures.clark),
    "canberra": _distance("Canberra", measures.canberra),
    "kullback_leibler": _distance("KL", measures.kullback_leibler),
    "jensen_shannon": _distance("Jensen-Shannon", measures.jensen_shannon),
    "cosine": _distance("cosine (up)", measures.cosine, "up"),
    "intersection": _distance("intersection (up)", measures.intersection, "up"),
}
"""Every figure by its name in `results.json`, in the order of every table."""

GIVEN: Mapping[Thinking, tuple[Needs, ...]] = {
    "direct": ("completion",),
    "free": ("completion", "reasoning"),
    "steps": ("completion", "reasoning", "step 3"),
    "confidence": ("completion", "reasoning", "step 3"),
}
"""What completions of a way of thinking have that can be checked."""


def checks(thinking: Thinking = "steps") -> dict[str, Check]:
    """Checks of the reasoning that a way of thinking can be asked to pass: without steps there is no step 3."""
    return {name: row.check for name, row in FIGURES.items() if row.check and row.needs in GIVEN[thinking]}


def titles() -> dict[str, str]:
    """What tables call each figure."""
    return {name: row.title for name, row in FIGURES.items()}
