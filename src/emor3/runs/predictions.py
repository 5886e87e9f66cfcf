"""The files of an evaluation, written and read: all figures follow from them without a model.

evaluation.json    what was asked: model, judge, settings, environment, and of each data set its label set and samples
predictions.jsonl  one line per sample: completion, judge's replies, sampled answers
results.json       the figures, recomputed from the two by `emor3 evaluate --from`
unfinished.jsonl   batches made so far, of an evaluation that has not come to its end
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, InstanceOf, TypeAdapter

from emor3.errors import UserError
from emor3.method.labels import LabelSet
from emor3.method.reflection import read_verdict
from emor3.method.rewards import predicted_label
from emor3.method.thinking import Thinking, parse
from emor3.method.types import (
    Aspect,
    EmotionalThought,
    Finding,
    Prediction,
    Question,
    Reflection,
    Reply,
    Sample,
    Verdict,
)
from emor3.runs.records import Record, append_jsonl, content_row, finding_row, read_json, read_jsonl, typed

EVALUATION, PREDICTIONS, RESULTS = "evaluation.json", "predictions.jsonl", "results.json"
UNFINISHED = "unfinished.jsonl"
"""What an evaluation goes on from (`emor3.evaluation.journal`)."""
TABLE = "table.csv"
"""The table of a reproduction (`emor3.experiments.table`), over many evaluations."""
VERSION = 2
"""Raised whenever older files can no longer be read."""

Text = InstanceOf[str]
"""Also one with halves of surrogate pairs, as file names that are no text have them."""


class LabelSetRow(Record):
    """A label set as `data_head` writes it."""

    name: Text
    labels: list[Text] = Field(min_length=1)
    polarity: dict[Text, int]
    arousal: dict[Text, int]
    aliases: dict[Text, Text]


class DataHead(Record):
    """What `evaluation.json` says of one data set."""

    data: Text
    n: int
    label_set: LabelSetRow
    sample_ids: list[Text]


class SettingsRow(Record):
    """The settings of an evaluation that its figures and pages need; others are shown as they are."""

    thinking: Thinking
    split: Text | None
    temperature: float = 0.0


class EvaluationHead(Record):
    """What is needed of `evaluation.json`; the rest is passed on as it is."""

    model: Text
    judge: Text
    settings: SettingsRow
    data: list[DataHead]


class FindingRow(Record):
    """A finding as `finding_row` writes it."""

    verdict: Annotated[Verdict, Field(strict=False)]
    question: Text | None
    reply: Text | None
    probabilities: dict[Text, float] | None
    reason: Text | None


class PredictionRow(Record):
    """A line of `predictions.jsonl`, but for what follows from the completion."""

    data: Text
    id: Text
    images: list[Text] | None = None
    image: Text | None = None
    """The one image in older records, which have no `images` and no text."""
    text: Text | None = None
    clip: Text | None = None
    label: Text
    votes: dict[Text, float] | None
    group: Text | None
    completion: Text
    consistency: FindingRow | None
    coherence: FindingRow | None
    swapped: FindingRow | None
    sampled: list[Text | None] | None
    valence: float | None = None
    """Mean rating of people from 0 to 1, if the data have it, as is arousal."""
    arousal: float | None = None


HEAD, PREDICTION = TypeAdapter(EvaluationHead), TypeAdapter(PredictionRow)


@dataclass(frozen=True)
class SavedEvaluation:
    """One evaluation read from its folder."""

    folder: Path
    head: Mapping[str, Any]
    """Content of `evaluation.json`."""
    predictions: Mapping[str, list[Prediction]]
    """By data set, in the order of its samples."""

    @property
    def model(self) -> str:
        return str(self.head["model"])

    @property
    def thinking(self) -> Thinking:
        thinking: Thinking = self.head["settings"]["thinking"]
        return thinking

    def checksum(self, data: str) -> str:
        """Digest of the sample ids of a data set: two models are compared on the same ones or not at all."""
        return checksum([prediction.sample.id for prediction in self.predictions[data]])


def checksum(ids: Iterable[str]) -> str:
    """SHA-256 of sample ids in their order."""
    return sha256("\n".join(ids).encode(errors="surrogatepass")).hexdigest()


def data_head(data: str, samples: Sequence[Sample], unreadable: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What `evaluation.json` says of one data set. All samples share one label set.

    Samples left out because their images cannot be read are named with the reason, if there are any.
    """
    ids = [sample.id for sample in samples]
    return {
        "data": data,
        "n": len(ids),
        "label_set": asdict(samples[0].labels),
        "sample_ids": ids,
        "sample_ids_sha256": checksum(ids),
        **({"unreadable": dict(unreadable)} if unreadable else {}),
    }


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds an evaluation that was stopped and can go on."""
    return (folder / UNFINISHED).is_file() and not (folder / RESULTS).is_file()


def leaves_out(folder: Path) -> bool:
    """Whether an evaluation left out samples whose images could not be read."""
    return any(part.get("unreadable") for part in read_json(folder / EVALUATION)["data"])


def prediction_row(data: str, prediction: Prediction) -> dict[str, Any]:
    """One line of `predictions.jsonl`."""
    sample = prediction.sample
    return {
        "data": data,
        "id": sample.id,
        **content_row(sample),
        "label": sample.label,
        "votes": sample.distribution,
        "group": sample.group,
        "predicted": prediction.predicted,
        **reasoning_row(prediction),
        "swapped": finding_row(prediction.swapped),
        "sampled": prediction.sampled,
        "valence": sample.valence,
        "arousal": sample.arousal,
    }


def reasoning_row(prediction: Prediction) -> dict[str, Any]:
    """A completion, its parts, and what the judge made of them, as JSON."""
    findings = {name: finding_row(finding) for name, finding in vars(prediction.reflection).items()}
    return {"completion": prediction.completion, **asdict(prediction.thought), **findings}


def write_predictions(folder: Path, data: str, predictions: Iterable[Prediction]) -> None:
    """Append the predictions on one data set."""
    append_jsonl(folder / PREDICTIONS, (prediction_row(data, prediction) for prediction in predictions))


def read_evaluation(path: Path) -> SavedEvaluation:
    """An evaluation from its folder or from one of its files; completions and replies are read anew.

    Raises UserError if files are missing, broken, of another version or unfinished, or hold too few samples.
    """
    folder = path.parent if path.is_file() else path
    if not (folder / EVALUATION).is_file():
        raise UserError(f"{path}: no {EVALUATION} there: give the folder that `emor3 evaluate` wrote")
    if is_unfinished(folder):
        raise UserError(f"{folder}: an unfinished evaluation: `emor3 evaluate` as before with --resume goes on with it")
    content = read_json(folder / EVALUATION)
    if content.get("version") != VERSION:
        raise UserError(
            f"{folder}: an evaluation of version {content.get('version')}, this emor3 reads {VERSION}: redo it"
        )
    head = typed(content, HEAD, str(folder / EVALUATION))
    found: dict[str, dict[str, Prediction]] = {part.data: {} for part in head.data}
    labels = {part.data: _read_labels(part.label_set, folder / EVALUATION) for part in head.data}
    for number, row in enumerate(read_jsonl(folder / PREDICTIONS, PREDICTION), start=1):
        if row.data in labels:
            where = f"{folder / PREDICTIONS} line {number}"
            found[row.data][row.id] = _read_prediction(row, labels[row.data], head.settings.thinking, where)
    predictions = {part.data: _in_order(folder, part, found[part.data]) for part in head.data}
    return SavedEvaluation(folder, content, predictions)


def copy_evaluation(folder: Path, target: Path) -> Path:
    """Copy the predictions without their figures to a new folder; returns it."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (EVALUATION, PREDICTIONS):
        shutil.copyfile(folder / name, target / name)
    return target


def _read_labels(row: LabelSetRow, path: Path) -> LabelSet:
    try:
        return LabelSet(row.name, tuple(row.labels), row.polarity, row.arousal, row.aliases)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _in_order(path: Path, part: DataHead, found: Mapping[str, Prediction]) -> list[Prediction]:
    if missing := [sample_id for sample_id in part.sample_ids if sample_id not in found]:
        raise UserError(
            f"{path}: {len(missing)} of {part.n} samples of {part.data} are missing "
            f"(the first is {missing[0]!r}): the evaluation was cut short, run it again"
        )
    return [found[sample_id] for sample_id in part.sample_ids]


def _read_prediction(row: PredictionRow, labels: LabelSet, thinking: Thinking, where: str) -> Prediction:
    answers = [answer for answer in row.sampled or () if answer is not None]
    stray = [label for label in (row.label, *answers, *(row.votes or ())) if label not in labels.labels]
    if stray:
        raise UserError(f"{where}: {stray[0]!r} is none of the labels {', '.join(labels.labels)}")
    images = row.images if row.images is not None else [] if row.image is None else [row.image]
    sample = Sample(
        row.id,
        tuple(images),
        row.label,
        labels,
        distribution=row.votes,
        valence=row.valence,
        arousal=row.arousal,
        group=row.group,
        text=row.text,
        clip=row.clip,
    )
    thought = parse(row.completion, thinking)
    return Prediction(
        sample,
        row.completion,
        thought,
        predicted_label(thought, labels),
        Reflection(
            _read_finding(row.consistency, Aspect.CONSISTENCY, sample),
            _read_finding(row.coherence, Aspect.COHERENCE, sample),
        ),
        _read_finding(row.swapped, Aspect.CONSISTENCY, sample),
        None if row.sampled is None else tuple(row.sampled),
    )


def _read_finding(row: FindingRow | None, aspect: Aspect, sample: Sample) -> Finding | None:
    if row is None:
        return None
    if row.reply is None or row.question is None:
        return Finding(row.verdict, reason=row.reason)
    candidates = ("Yes", "No") if aspect is Aspect.CONSISTENCY else sample.labels.labels
    question = Question(aspect, row.question, candidates, sample.images if aspect is Aspect.CONSISTENCY else ())
    reply = Reply(row.reply, row.probabilities)
    return Finding(read_verdict(question, reply, sample.label, sample.labels), question, reply)


def majority_class(predictions: Sequence[Prediction], label: str) -> list[Prediction]:
    """Predictions of always answering one label on the same samples, the baseline of an accuracy."""
    thought = EmotionalThought(None, None, None, label, None)
    return [Prediction(prediction.sample, "", thought, label) for prediction in predictions]
