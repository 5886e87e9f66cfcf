"""The judge against people, and people against each other: one row for each evaluation, data set and question.

The judge's side of each question follows from its saved replies. It is asked two questions; step 3 is right on its
side if the polarity and arousal that step 3 claims are those of the emotion that the judge reads from steps 1 and 2.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich import box
from rich.table import Table

from emor3.method.rewards import label_read, signs_held
from emor3.method.types import Estimate, Prediction, Verdict
from emor3.review.marks import Mark, Marks
from emor3.runs.predictions import SavedEvaluation
from emor3.stats.agreement.coefficients import MISSING, Agreement, agreement
from emor3.stats.classification import clusters
from emor3.stats.format import count, hundredths, percent_value

NONE = "none of these"
"""The answer that no label of the set is conveyed, which is a category of its own."""
READABLE = (Verdict.SUPPORTED, Verdict.REFUTED)

Answer = str | bool | None
"""None: there is none."""


@dataclass(frozen=True)
class Question:
    """One question of the page."""

    title: str
    marked: Callable[[Mark], Answer]
    judged: Callable[[Prediction], Answer]


def _describes(prediction: Prediction) -> Answer:
    finding = prediction.reflection.consistency
    return finding.verdict is Verdict.SUPPORTED if finding and finding.verdict in READABLE else None


def _emotion(prediction: Prediction) -> Answer:
    finding = prediction.reflection.coherence
    if finding is None or finding.verdict not in READABLE:
        return None
    return label_read(finding, prediction.sample.labels) or NONE


def _follows(prediction: Prediction) -> Answer:
    label = label_read(prediction.reflection.coherence, prediction.sample.labels)
    if label is None or prediction.thought.conclusion is None:
        return None
    held = [
        sign for sign in signs_held(prediction.thought, replace(prediction.sample, label=label)) if sign is not None
    ]
    return all(held) if held else None


QUESTIONS = (
    Question("emotion of steps 1, 2", lambda mark: mark.emotion or NONE, _emotion),
    Question("step 1 describes", lambda mark: mark.describes, _describes),
    Question("step 3 follows", lambda mark: mark.follows, _follows),
)


@dataclass(frozen=True)
class AgreementRow:
    """How far one question is agreed upon, on the completions of one model."""

    name: str
    """Of the evaluation."""
    data: str
    question: str
    judge: Agreement | None
    """Of the judge with people; None if no completion was marked on which it has an answer."""
    people: Agreement | None
    """Of people with each other; None if no two marked the same completion."""
    reviewers: Sequence[str]


def agreement_rows(name: str, evaluation: SavedEvaluation, marks: Marks) -> Iterator[AgreementRow]:
    """Every question on every data set of an evaluation that somebody marked."""
    for data, predictions in evaluation.predictions.items():
        by_reviewer = {
            reviewer: {sample: mark for (of, sample), mark in given.items() if of == data}
            for reviewer, given in sorted(marks.by_reviewer.items())
        }
        by_reviewer = {reviewer: given for reviewer, given in by_reviewer.items() if given}
        marked = [p for p in predictions if any(p.sample.id in given for given in by_reviewer.values())]
        for question in QUESTIONS if marked else ():
            yield _row(name, data, question, marked, by_reviewer)


def _row(
    name: str,
    data: str,
    question: Question,
    predictions: Sequence[Prediction],
    by_reviewer: Mapping[str, Mapping[str, Mark]],
) -> AgreementRow:
    answers = [
        [question.judged(p), *(_marked(question, given.get(p.sample.id)) for given in by_reviewer.values())]
        for p in predictions
    ]
    kinds = list(dict.fromkeys(answer for row in answers for answer in row if answer is not None))
    ratings = np.array([[MISSING if answer is None else kinds.index(answer) for answer in row] for row in answers])
    people = range(1, len(by_reviewer) + 1)
    items = clusters(predictions)
    return AgreementRow(
        name,
        data,
        question.title,
        agreement(ratings, [(0, person) for person in people], items),
        agreement(ratings, [tuple(people)], items) if len(people) > 1 else None,
        list(by_reviewer),
    )


def _marked(question: Question, mark: Mark | None) -> Answer:
    return None if mark is None else question.marked(mark)


HEADINGS = ("n", "same %", "kappa", "alpha")


def cells(found: Agreement | None) -> tuple[str, ...]:
    """Number of completions, share of equal answers in percent, and both coefficients with their intervals."""
    if found is None:
        return ("",) * len(HEADINGS)
    return count(found.items), percent_value(found.share.value), coefficient(found.kappa), coefficient(found.alpha)


def coefficient(estimate: Estimate | None) -> str:
    """A coefficient with its interval: "0.61 [0.48, 0.73]"; "none" if all say one and the same throughout."""
    if estimate is None:
        return "none"
    return f"{hundredths(estimate.value)} [{hundredths(estimate.low)}, {hundredths(estimate.high)}]"


CAPTION = (
    "Kappa is Cohen's, of several pairs their mean; alpha is Krippendorff's for categories; both 0 by chance, 1 if all "
    "agree; with 95% bootstrap intervals over completions. There is none if all say one and the same throughout."
)


def agreement_tables(rows: Sequence[AgreementRow]) -> Iterator[Table]:
    """One table for each evaluation and data set: the judge with people, then people with each other."""
    for name, data in dict.fromkeys((row.name, row.data) for row in rows):
        shown = [row for row in rows if (row.name, row.data) == (name, data)]
        table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
        table.title = f"{data}: {name}, marked by {', '.join(shown[0].reviewers)}"
        table.caption = CAPTION
        table.add_column("judge with people")
        for heading in HEADINGS:
            table.add_column(heading, no_wrap=True)
        for row in shown:
            table.add_row(row.question, *cells(row.judge))
        if any(row.people for row in shown):
            table.add_section()
            table.add_row("people with each other")
            for row in shown:
                table.add_row(row.question, *cells(row.people))
        yield table
