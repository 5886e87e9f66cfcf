"""The functions behind the YAML files that `emor3 data export --for lmms` writes; lmms-eval calls them by name.

A row of theirs (doc) holds the prompt, paths of images and, as JSON, the sample. `process_results` gives for each row
and figure a record from which the figure of all rows follows: `score` if it is a mean, with the cluster that
lmms-eval's clustered standard error asks for.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from PIL import Image

from emor3.errors import UserError
from emor3.hosts.harnesses.answers import mark, predict
from emor3.hosts.versions import LMMS, check_version
from emor3.method.labels import LabelSet, resolve
from emor3.method.thinking import sample_prompt, thinking_of
from emor3.method.types import EmotionalThought, Estimate, Prediction, Sample
from emor3.runs.records import content_row
from emor3.stats.classification import classify, is_correct
from emor3.stats.distributions import calibration, distances
from emor3.stats.figures import FIGURES
from emor3.stats.measures import keeps_format
from emor3.storage.images import open_image

Doc = Mapping[str, Any]
Item = dict[str, Any]
MARK, PREFIX = "emor3", "emor3_"
"""Key of an answer's mark in a row of lmms-eval's log, and what our figures begin with."""

SHARES: Mapping[str, Callable[[Prediction], bool]] = {
    "accuracy": is_correct,
    "lenient_accuracy": lambda p: resolve(p.thought.answer or "", p.sample.labels) == p.sample.label,  # "" is no label
    "unparsed": lambda p: p.predicted is None,
    "format": keeps_format,
}
"""Figures that are the share of rows that pass."""
COUNTED = ("macro_f1", "balanced_accuracy")
"""Figures of the whole table, of which one row has no score."""
SAMPLED = tuple(name for name, row in FIGURES.items() if row.needs == "samples")
VOTED = tuple(name for name, row in FIGURES.items() if row.needs == "votes")
"""Figures of M sampled answers, and those that need human votes too."""


def to_doc(sample: Sample, template: str, images: Sequence[str]) -> Item:
    """A row of the data that lmms-eval loads; `images` are where the sample's images will lie."""
    known = {
        **content_row(sample),
        "id": sample.id,
        "label": sample.label,
        "group": sample.group,
        "votes": sample.distribution,
        "labels": asdict(sample.labels),
        "template": template,
        "mark": mark(sample, template),
    }
    prompt = sample_prompt(sample, template)
    return {
        "id": sample.id,
        "prompt": prompt,
        "images": list(images),
        "label": sample.label,
        "emor3": json.dumps(known, ensure_ascii=False),
    }


def doc_to_text(doc: Doc) -> str:
    """The prompt."""
    return str(doc["prompt"])


def doc_to_target(doc: Doc) -> str:
    """The label."""
    return str(doc["label"])


def doc_to_visual(doc: Doc) -> list[Image.Image]:
    """The images, upright and as RGB. Raises UserError, which names the row, if it has no paths, or the file."""
    if not isinstance(doc.get("images"), list):
        raise UserError(
            f"row {doc.get('id')!r}: 'images' must be a list of paths, found {doc.get('images')!r}: write the folder "
            "anew with `emor3 data export --for lmms`"
        )
    return [open_image(path) for path in doc["images"]]


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """The one turn of a person: images, then the prompt."""
    content = [{"type": "image", "url": image} for image in doc_to_visual(doc)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": doc_to_text(doc)}]}]


def process_results(doc: Doc, results: Sequence[Any]) -> dict[str, Item]:
    """The mark of a row's answer, and a record for each figure of one completion. `results` holds it, or a list."""
    check_version(LMMS)
    known = json.loads(doc["emor3"])
    prediction = predict(_sample(known), texts_in(results), thinking_of(known["template"]))
    group = known["group"]
    record = {"cluster": f"id {known['id']}" if group is None else f"group {group}"}
    shares = {f"{PREFIX}{name}": record | {"score": float(share(prediction))} for name, share in SHARES.items()}
    answered = _record(prediction)
    return {MARK: known["mark"], **shares, **{f"{PREFIX}{name}": answered for name in COUNTED}}


def process_sampled(doc: Doc, results: Sequence[Any]) -> dict[str, Item]:
    """The mark of a row's M sampled answers, and their record for each figure that follows from them."""
    check_version(LMMS)
    known = json.loads(doc["emor3"])
    texts = texts_in(results)
    prediction = predict(_sample(known), texts, thinking_of(known["template"]))
    names = SAMPLED if known["votes"] is None else (*SAMPLED, *VOTED)
    sampled = _record(prediction) | {"sampled": prediction.sampled or [prediction.predicted]}
    return {MARK: known["mark"], **{f"{PREFIX}{name}": sampled for name in names}}


def texts_in(results: Any) -> list[str]:
    """All completions in nested lists, in order."""
    return [results] if isinstance(results, str) else [text for part in results for text in texts_in(part)]


def _sample(known: Mapping[str, Any]) -> Sample:
    return Sample(
        known["id"],
        tuple(known["images"]),
        known["label"],
        LabelSet(**known["labels"] | {"labels": tuple(known["labels"]["labels"])}),
        distribution=known["votes"],
        group=known["group"],
        text=known["text"],
        clip=known.get("clip"),
    )


def _record(prediction: Prediction) -> Item:
    """What figures of the whole table are made of, without the texts."""
    sample = prediction.sample
    return {
        "id": sample.id,
        "group": sample.group,
        "label": sample.label,
        "labels": list(sample.labels.labels),
        "votes": sample.distribution,
        "predicted": prediction.predicted,
    }


def _prediction(record: Item) -> Prediction:
    labels = LabelSet("labels", tuple(record["labels"]))
    sample = Sample(record["id"], (), record["label"], labels, distribution=record["votes"], group=record["group"])
    thought = EmotionalThought(None, None, None, record["predicted"], None)
    sampled = tuple(record["sampled"]) if "sampled" in record else None
    return Prediction(sample, "", thought, record["predicted"], sampled=sampled)


def mean(records: Sequence[Item]) -> float:
    """Share of the rows that pass."""
    return float(sum(record["score"] for record in records) / len(records))


def _of_table(name: str) -> Callable[[Sequence[Item]], float]:
    def aggregate(records: Sequence[Item]) -> float:
        return _figures(json.dumps(records))[name].value

    aggregate.__name__ = name
    return aggregate


@lru_cache(maxsize=4)
def _figures(records: str) -> Mapping[str, Estimate]:
    """All figures of a table: lmms-eval asks for one at a time, and their intervals take seconds."""
    predictions = [_prediction(record) for record in json.loads(records)]
    return classify(predictions).figures | calibration(predictions) | distances(predictions)


AGGREGATIONS = {f"aggregate_{name}": _of_table(name) for name in (*COUNTED, *SAMPLED, *VOTED)}
"""What `utils.py` beside the YAML files takes over by name."""
