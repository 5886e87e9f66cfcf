"""Which completions are shown, and in which order: by a seed, so that all reviewers mark the same ones.

The draw depends on samples and completions only, not on folders or their order; more completions with the same seed
hold fewer, so that marks stay useful.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emor3.data.subsets import rank
from emor3.errors import UserError
from emor3.method.types import Prediction
from emor3.review.marks import fingerprint
from emor3.runs.predictions import SavedEvaluation


@dataclass(frozen=True)
class Drawn:
    """One completion to be marked."""

    evaluation: SavedEvaluation
    data: str
    prediction: Prediction


def draw(evaluations: Sequence[SavedEvaluation], number: int, seed: int) -> list[Drawn]:
    """Up to `number` completions in the order in which they are shown, as many of each evaluation and data set.

    Every evaluation shows the same samples if it can: those that come first by the seed. Then all are shuffled, so that
    neither models nor images stand together. Completions without steps 1 and 2 have nothing to be marked and are left
    out. Raises UserError if none is left.
    """
    parts = [part for evaluation in evaluations for part in _readable(evaluation) if part]
    if not parts:
        named = ", ".join(str(evaluation.folder) for evaluation in evaluations)
        raise UserError(f"{named}: no completion has steps 1 and 2 that can be read, so there is nothing to mark")
    for part in parts:
        part.sort(key=lambda drawn: rank(seed, _name(drawn)))
    by_turns = [part[turn] for turn in range(max(map(len, parts))) for part in parts if turn < len(part)]
    return sorted(by_turns[:number], key=lambda drawn: rank(seed, f"{_name(drawn)}/{fingerprint(drawn.prediction)}"))


def _readable(evaluation: SavedEvaluation) -> Iterator[list[Drawn]]:
    """The completions of each data set that can be marked."""
    for data, predictions in evaluation.predictions.items():
        yield [Drawn(evaluation, data, p) for p in predictions if p.thought.trigger and p.thought.feeling is not None]


def _name(drawn: Drawn) -> str:
    """A sample's name in ASCII, whatever its id holds."""
    return json.dumps([drawn.data, drawn.prediction.sample.id])
