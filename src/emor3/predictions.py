"""What an evaluation leaves behind, and how it is read again: everything follows from it without a model.

evaluation.json    what was asked: model, judge, settings, environment, and of each data set its label set and samples
predictions.jsonl  one line per sample: completion, judge's replies, sampled answers
results.json       the figures, recomputed from the two by `emor3 evaluate --from`
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from emor3.errors import UserError
from emor3.records import append_jsonl, content_row, finding_row, read_content, read_json, read_jsonl
from emor3.reflection import read
from emor3.rewards import predicted_label
from emor3.taxonomy import LabelSet
from emor3.thinking import Thinking, parse
from emor3.types import Aspect, EmotionalThought, Finding, Prediction, Question, Reflection, Reply, Sample, Verdict

EVALUATION, PREDICTIONS, RESULTS = "evaluation.json", "predictions.jsonl", "results.json"
TABLE = "table.csv"
"""The table of a reproduction (`emor3.table1`), over many evaluations."""
VERSION = 2
"""Raised whenever older files can no longer be read."""


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
    return sha256("\n".join(ids).encode()).hexdigest()


def data_head(data: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """What `evaluation.json` says of one data set. All samples share one label set."""
    ids = [sample.id for sample in samples]
    return {
        "data": data,
        "n": len(ids),
        "label_set": asdict(samples[0].labels),
        "sample_ids": ids,
        "sample_ids_sha256": checksum(ids),
    }


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
        "weights": prediction.weights,
    }


def reasoning_row(prediction: Prediction) -> dict[str, Any]:
    """A completion, its parts, and what the judge made of them, as JSON."""
    findings = {aspect.value: finding_row(getattr(prediction.reflection, aspect.value)) for aspect in Aspect}
    return {"completion": prediction.completion, **asdict(prediction.thought), **findings}


def write_predictions(folder: Path, data: str, predictions: Iterable[Prediction]) -> None:
    """Append the predictions on one data set."""
    append_jsonl(folder / PREDICTIONS, (prediction_row(data, prediction) for prediction in predictions))


def read_evaluation(path: Path) -> SavedEvaluation:
    """An evaluation from its folder or from one of its files; completions and replies are read anew.

    Raises UserError where files are missing, broken, of another version, or hold fewer samples than were asked for.
    """
    folder = path.parent if path.is_file() else path
    if not (folder / EVALUATION).is_file():
        raise UserError(f"{path}: no {EVALUATION} there: give the folder that `emor3 evaluate` wrote")
    head = read_json(folder / EVALUATION)
    if head.get("version") != VERSION:
        raise UserError(
            f"{folder}: an evaluation of version {head.get('version')}, this emor3 reads {VERSION}: redo it"
        )
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in read_jsonl(folder / PREDICTIONS):
        rows.setdefault(row["data"], {})[row["id"]] = row
    return SavedEvaluation(folder, head, {part["data"]: _read_data(folder, head, part, rows) for part in head["data"]})


def copy_evaluation(folder: Path, target: Path) -> Path:
    """Copy what figures follow from, without the figures, to a new folder; returns it."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (EVALUATION, PREDICTIONS):
        shutil.copyfile(folder / name, target / name)
    return target


def _read_data(
    folder: Path, head: Mapping[str, Any], part: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> list[Prediction]:
    found = rows.get(part["data"], {})
    missing = [sample_id for sample_id in part["sample_ids"] if sample_id not in found]
    if missing:
        raise UserError(
            f"{folder / PREDICTIONS}: {len(missing)} of {part['n']} samples of {part['data']} are missing "
            f"(the first is {missing[0]!r}): the evaluation was cut short, run it again"
        )
    label_set = part["label_set"]
    labels = LabelSet(**{**label_set, "labels": tuple(label_set["labels"])})
    thinking: Thinking = head["settings"]["thinking"]
    return [_read_prediction(found[sample_id], labels, thinking) for sample_id in part["sample_ids"]]


def _read_prediction(row: Mapping[str, Any], labels: LabelSet, thinking: Thinking) -> Prediction:
    images, text = read_content(row)
    votes, group = row["votes"], row["group"]
    sample = Sample(row["id"], images, row["label"], labels, distribution=votes, group=group, text=text)
    thought = parse(row["completion"], thinking)
    consistency, coherence = (_read_finding(row[aspect.value], aspect, sample) for aspect in Aspect)
    return Prediction(
        sample,
        row["completion"],
        thought,
        predicted_label(thought, labels),
        Reflection(consistency, coherence),
        _read_finding(row["swapped"], Aspect.CONSISTENCY, sample),
        *(None if row[name] is None else tuple(row[name]) for name in ("sampled", "weights")),
    )


def _read_finding(row: Mapping[str, Any] | None, aspect: Aspect, sample: Sample) -> Finding | None:
    if row is None:
        return None
    if row["reply"] is None:
        return Finding(Verdict(row["verdict"]), reason=row["reason"])
    candidates = ("Yes", "No") if aspect is Aspect.CONSISTENCY else sample.labels.labels
    question = Question(aspect, row["question"], candidates, sample.images if aspect is Aspect.CONSISTENCY else ())
    reply = Reply(row["reply"], row["probabilities"])
    return Finding(read(question, reply, sample.label, sample.labels), question, reply)


def majority_class(predictions: Sequence[Prediction], label: str) -> list[Prediction]:
    """What always answering one label would give on the same samples."""
    thought = EmotionalThought(None, None, None, label, None)
    return [Prediction(prediction.sample, "", thought, label) for prediction in predictions]
