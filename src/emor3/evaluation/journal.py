"""What a killed evaluation goes on from: the outcome of each whole batch, known by what the batch was made from.

`unfinished.jsonl` holds one line a batch (completions, or a judge's replies) while an evaluation runs. One that goes on
comes to the same batches again, takes from there what was made, and makes the rest: so it ends with the files of one
that was never stopped. A batch made from anything else (other prompts, seed or questions) has another name.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from transformers import ProcessorMixin

from emor3.errors import UserError
from emor3.evaluation.settings import FORMER, EvaluationSettings
from emor3.method.types import Judge, Question, Reply
from emor3.models.engines.batches import Once, in_batches, plan
from emor3.models.generation import request_lengths
from emor3.runs.changes import differences
from emor3.runs.predictions import EVALUATION, RESULTS, UNFINISHED, is_unfinished
from emor3.runs.records import Record, append_jsonl, read_jsonl
from emor3.signals import Stopped
from emor3.storage.locks import LOCK, held
from emor3.storage.outputs import draft_of, fresh_output, written_to

QUESTIONS = 256
"""Most questions that a judge is asked at once."""
FOLLOWS = ("sample_ids", "imported")
"""Of a data set in an evaluation's head, what its checksums tell already."""
MOST_SHOWN = 6
"""Changes that a refusal names."""


class OtherEvaluationError(UserError):
    """What lies in a folder is another evaluation than the one that is to go on."""


class BatchRow(Record):
    """A line of `unfinished.jsonl`."""

    batch: str
    made: list[Any]


BATCH = TypeAdapter(BatchRow)


class Journal:
    """The batches of an evaluation, those of an earlier process among them."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if the file holds anything but such lines; a last one that was cut short is dropped."""
        self._path = path
        self._known = {row.batch: row.made for row in read_jsonl(path, BATCH)} if path.is_file() else {}
        if path.is_file():
            with draft_of(path) as draft:
                append_jsonl(draft, ({"batch": name, "made": made} for name, made in self._known.items()))

    def once(self, content: Any, make: Callable[[], list[Any]]) -> list[Any]:
        """What a batch of this content gives, made now if it is not known."""
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        if name not in self._known:
            self._known[name] = made = make()
            append_jsonl(self._path, [{"batch": name, "made": made}])
        return self._known[name]


@contextmanager
def journal_in(folder: Path) -> Iterator[Once]:
    """The journal of an evaluation, which goes when the evaluation is whole."""
    yield Journal(folder / UNFINISHED).once
    (folder / UNFINISHED).unlink(missing_ok=True)


def check_same(folder: Path, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise OtherEvaluationError if the head of the evaluation in a folder is not that of the one that is to go on."""
    found = differences(_compared(recorded), _compared(now))
    if found:
        more = [f"{len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
        shown = ", ".join([*map(str, found[:MOST_SHOWN]), *more])
        raise OtherEvaluationError(
            f"cannot go on with the evaluation in {folder} with {shown}: put that back, or choose another --output"
        )


def _compared(head: Mapping[str, Any]) -> dict[str, Any]:
    """A head as JSON has it, by data set, without the environment, which may be another one, and what follows from it.

    Settings that came later are at their defaults, which are what was done before they could be set; those that are
    gone are at the value that did nothing.
    """
    content = {name: value for name, value in json.loads(json.dumps(head)).items() if name != "environment"}
    parts = {part["data"]: {k: v for k, v in part.items() if k not in FOLLOWS} for part in content["data"]}
    defaults = FORMER | EvaluationSettings().model_dump(mode="json")
    return content | {"data": parts, "settings": defaults | content["settings"]}


@contextmanager
def evaluation_folder(output: Path | None, resume: bool) -> Iterator[Path]:
    """The folder that an evaluation is written to by this process alone: a fresh one, or one to go on in.

    Raises UserError if it holds what cannot be gone on with, or is not to be; and Stopped with the way to go on.
    """
    if resume and output is None:
        raise UserError("--resume goes on in the folder of a stopped evaluation: name it with --output")
    if output is not None and not resume and is_unfinished(output):
        raise UserError(f"{output} holds an unfinished evaluation: give --resume to go on, or another --output")
    with _going_on(output) if resume and output else fresh_output(output, "evaluation") as folder:
        try:
            yield folder
        except Stopped as stopped:
            hint = f"the same command with --resume --output {folder} goes on" if is_unfinished(folder) else ""
            raise Stopped(stopped.number, hint) from None


@contextmanager
def _going_on(folder: Path) -> Iterator[Path]:
    with written_to(folder), held(folder):
        if not (folder / EVALUATION).is_file() and any(path.name != LOCK for path in folder.iterdir()):
            raise UserError(f"nothing to go on with in {folder}: it has no {EVALUATION}")
        yield folder


def is_whole(folder: Path) -> bool:
    """Whether an evaluation came to its end."""
    return (folder / RESULTS).is_file()


@dataclass(frozen=True)
class BatchedJudge:
    """Asks a judge batch by batch, questions of like length together, and knows the replies to earlier ones."""

    judge: Judge
    processor: ProcessorMixin
    once: Once

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """Replies to the questions, in order. Those on the same images stay together, which are then read once."""
        lengths = request_lengths(self.processor, [(question.images, question.text) for question in questions])
        longest: dict[tuple[str, ...], int] = {}
        for question, length in zip(questions, lengths, strict=True):
            longest[question.images] = max(length, longest.get(question.images, 0))
        batches = plan([longest[question.images] for question in questions], QUESTIONS)
        return in_batches(batches, lambda _, places: self._answer([questions[place] for place in places]))

    def _answer(self, asked: list[Question]) -> list[Reply]:
        content = [[question.aspect, question.text, question.candidates, question.images] for question in asked]
        rows = self.once(content, lambda: [_row(reply) for reply in self.judge.answer(asked)])
        return [Reply(**row) for row in rows]


def _row(reply: Reply) -> dict[str, Any]:
    """A reply as JSON has it; a judge of one's own may give shares of any mapping and kind of number."""
    shares = reply.probabilities
    told = None if shares is None else {name: float(share) for name, share in shares.items()}
    return {"text": reply.text, "probabilities": told, "error": reply.error}
