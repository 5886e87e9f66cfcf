"""Label single images, with the three steps behind each label and what the reflection says of them.

There is no ground truth here: coherence asks whether steps 1 and 2 lead a reader to the model's own answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from emor3.data import LabelSpec, label_set_for, load_mixture
from emor3.errors import UserError, one_line
from emor3.evaluate import Candidate, EvaluationSettings, predict_samples
from emor3.generation import open_image
from emor3.predictions import reasoning_row
from emor3.reflection import read
from emor3.rewards import judge_failed
from emor3.taxonomy import MIKELS8, LabelSet
from emor3.types import Finding, Prediction, Sample


def choose_labels(candidate: Candidate, labels: LabelSpec) -> LabelSet:
    """The label set asked for, else that of the candidate's training data, else Mikels-8.

    Raises UserError for a set that cannot be read.
    """
    if labels is not None:
        return label_set_for(labels, ())
    if candidate.recipe is None:
        return MIKELS8
    data = candidate.recipe.data
    try:
        samples = load_mixture(data.folders, labels=data.labels, label_field=data.label_field)
        if len({sample.labels for sample in samples}) > 1:
            raise UserError("it was trained on several")
        return samples[0].labels
    except UserError as error:
        raise UserError(
            f"cannot tell the label set this model was trained on, name one with --labels: {error}"
        ) from None


def predict(
    candidate: Candidate, images: Sequence[str], labels: LabelSet, settings: EvaluationSettings
) -> Iterator[tuple[str, Prediction | UserError]]:
    """For each image, in order, its prediction, or the error that says why it has none."""
    for start in range(0, len(images), settings.batch_size):
        batch = images[start : start + settings.batch_size]
        errors = {image: error for image in batch if (error := _unreadable(image)) is not None}
        readable = [Sample(image, image, "", labels) for image in batch if image not in errors]
        predictions = map(against_own_answer, predict_samples(candidate, readable, settings))
        yield from ((image, errors[image] if image in errors else next(predictions)) for image in batch)


def _unreadable(image: str) -> UserError | None:
    try:
        open_image(image)
    except UserError as error:
        return error
    return None


def against_own_answer(prediction: Prediction) -> Prediction:
    """The prediction with its coherence read against the label it names itself; without a label it stays refuted."""
    finding = prediction.reflection.coherence
    if finding is None or finding.question is None or finding.reply is None or prediction.predicted is None:
        return prediction
    verdict = read(finding.question, finding.reply, prediction.predicted, prediction.sample.labels)
    coherence = replace(finding, verdict=verdict)
    return replace(prediction, reflection=replace(prediction.reflection, coherence=coherence))


def outcome_row(image: str, outcome: Prediction | UserError) -> dict[str, Any]:
    """One image's outcome as JSON."""
    if isinstance(outcome, UserError):
        return {"image": image, "error": str(outcome)}
    return {"image": image, "label": outcome.predicted, **reasoning_row(outcome)}


def describe(prediction: Prediction) -> str:
    """A prediction as a person reads it: label, three steps, and what the judge makes of them."""
    thought, reflection = prediction.thought, prediction.reflection
    lines = [
        ("label", prediction.predicted or f"none of the set (answer: {thought.answer})"),
        ("trigger", thought.trigger),
        ("feeling", thought.feeling),
        ("conclusion", thought.conclusion),
        ("consistency", _describe_finding(reflection.consistency)),
        ("coherence", _describe_finding(reflection.coherence)),
    ]
    return "\n".join(
        [one_line(prediction.sample.image), *(f"  {name:<12} {one_line(text or '-')}" for name, text in lines)]
    )


def _describe_finding(finding: Finding | None) -> str:
    if finding is None or finding.reply is None:
        what = "judge failed" if judge_failed(finding) else "not asked"
        return what + (f": {finding.reason}" if finding and finding.reason else "")
    ranked = sorted((finding.reply.probabilities or {}).items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {share:.2f}" for name, share in ranked)
    return f"{finding.verdict} ({shares})"
