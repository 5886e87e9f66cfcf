"""What people said of completions: `marks-NAME.jsonl` beside the evaluation, a line for each mark of one reviewer.

A mark names the completion by its digest, so that it counts for no other one; a later line replaces an earlier one of
the same reviewer on the same completion.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter

from emor3.errors import UserError
from emor3.method.types import Prediction
from emor3.runs.predictions import SavedEvaluation, Text
from emor3.runs.records import Record, read_jsonl
from emor3.storage.outputs import written_to

MARKS = "marks-{}.jsonl"
"""Name of the file of one reviewer."""
LONGEST_NAME = 40


class Mark(Record):
    """What a reviewer said of one completion."""

    data: Text
    id: Text
    completion: Text
    """SHA-256 of the completion."""
    reviewer: Text
    emotion: Text | None
    """The label that steps 1 and 2 convey; None: none of the set."""
    describes: bool
    """Whether step 1 describes the image."""
    follows: bool | None
    """Whether step 3 follows from steps 1 and 2; None: there is no step 3."""
    seed: int
    """Of the draw."""
    seconds: float
    """How long the completion was shown before."""
    time: Text
    """When it was marked, in UTC."""


MARK = TypeAdapter(Mark)


@dataclass(frozen=True)
class Marks:
    """The marks on one evaluation."""

    by_reviewer: Mapping[str, Mapping[tuple[str, str], Mark]]
    """Of each reviewer by data set and sample."""
    left_out: Sequence[str]
    """A line for each file with marks of completions that are not there any more."""


NO_MARKS = Marks({}, ())


def fingerprint(prediction: Prediction) -> str:
    """SHA-256 of a completion."""
    return sha256(prediction.completion.encode(errors="surrogatepass")).hexdigest()


def is_marks_file(name: str) -> bool:
    """Whether a file of an evaluation's folder holds marks."""
    before, after = MARKS.split("{}")
    return name.startswith(before) and name.endswith(after)


def marks_file(folder: Path, reviewer: str) -> Path:
    """The file of a reviewer. Raises UserError for a name that may be no part of a file's name."""
    plain = reviewer.replace("-", "").replace("_", "").replace(".", "")
    if not (plain.isalnum() and reviewer[0].isalnum() and len(reviewer) <= LONGEST_NAME):
        raise UserError(
            f"--reviewer {reviewer!r}: a name has up to {LONGEST_NAME} letters, digits, dots, dashes and underscores, "
            "and begins with a letter or digit"
        )
    return folder / MARKS.format(reviewer)


def read_marks(evaluation: SavedEvaluation, folder: Path | None = None) -> Marks:
    """All marks on an evaluation, from its folder unless it is said where that lies.

    Raises UserError if a file is broken, or a mark names an emotion that is none of the labels.
    """
    folder = folder or evaluation.folder
    by_reviewer: dict[str, dict[tuple[str, str], Mark]] = {}
    left_out = []
    shown = {(data, p.sample.id): p for data, made in evaluation.predictions.items() for p in made}
    for path in sorted(path for path in folder.iterdir() if is_marks_file(path.name)):
        strange = 0
        for mark in _of_file(path, shown):
            if mark is None:
                strange += 1
            else:
                by_reviewer.setdefault(mark.reviewer, {})[mark.data, mark.id] = mark
        if strange:
            left_out.append(f"{path}: marks on other completions than those of the evaluation: {strange}")
    return Marks(by_reviewer, left_out)


def _of_file(path: Path, shown: Mapping[tuple[str, str], Prediction]) -> Iterator[Mark | None]:
    """The marks of a file; None for one on a completion that is not there."""
    for number, mark in enumerate(read_jsonl(path, MARK), start=1):
        prediction = shown.get((mark.data, mark.id))
        if prediction is None or fingerprint(prediction) != mark.completion:
            yield None
            continue
        labels = prediction.sample.labels.labels
        if mark.emotion is not None and mark.emotion not in labels:
            raise UserError(f"{path} line {number}: {mark.emotion!r} is none of the labels {', '.join(labels)}")
        yield mark


def append_mark(path: Path, mark: Mark) -> None:
    """Append a mark in one write that has reached the disk when this returns; a line cut short before is dropped.

    For one process at a time. Raises UserError if the file cannot be written to.
    """
    line = json.dumps(mark.model_dump()).encode() + b"\n"
    with written_to(path), path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        if whole < end:
            file.truncate(whole)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
