"""Label single images, with the three steps behind each label and what the reflection says of them.

There is no ground truth here: coherence asks whether steps 1 and 2 lead a reader to the model's own answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from PIL import Image

from emor3.data.folders import LabelSpec, label_set_for, load_mixture
from emor3.data.importers.sources import images_below
from emor3.errors import UserError, one_line
from emor3.evaluation.candidate import Candidate
from emor3.evaluation.evaluate import check_prompts, predict_samples, sample_completions, weigh_draws
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.decoding import Decision, decide
from emor3.method.labels import MIKELS8, LabelSet
from emor3.method.reflection import read_verdict
from emor3.method.rewards import judge_failed, predicted_label
from emor3.method.thinking import parse
from emor3.method.types import Finding, Prediction, Sample
from emor3.models.architectures import SMALL_MODEL, download_text
from emor3.models.checkpoints import EMBEDDED, HARD, PACKAGED
from emor3.models.engines.batches import OnBatch
from emor3.runs.predictions import reasoning_row
from emor3.stats.format import hundredths
from emor3.storage.images import image_fault, save_picture
from emor3.tiny.folders import drawn_domain
from emor3.tiny.world import Domain


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
        if len({source.labels for source in samples.sources}) > 1:
            raise UserError("it was trained on several")
        return samples[0].labels
    except UserError as error:
        raise UserError(
            f"cannot tell the label set this model was trained on, name one with --labels: {error}"
        ) from None


@dataclass(frozen=True)
class Outcome:
    """The prediction for one image and, from reflective decoding, the decision behind it."""

    prediction: Prediction
    decision: Decision | None = None


Picture: TypeAlias = str | Path | bytes | Image.Image
"""The path of an image file, or a picture in memory: the bytes of such a file, or as Pillow holds it."""


def pictures_of(images: Sequence[Picture]) -> list[Picture]:
    """The pictures with each folder replaced by the images in it, at any depth, by name. Raises UserError for none."""
    found: list[Picture] = []
    for image in images:
        if not isinstance(image, str | Path) or not Path(image).is_dir():
            found.append(image)
        elif inside := [str(path) for path in images_below(Path(image))]:
            found += inside
        else:
            raise UserError(f"{image}: no images in this folder: give image files, or a folder that holds some")
    return found


DRAWINGS_ONLY = "has only ever seen drawings: what it says of other images is near chance"


def model_for(model: str | None, pictures: Sequence[Picture]) -> str:
    """The model asked for; if none is, the embedded one of the world that the pictures were drawn in.

    Raises UserError if none is asked for and a picture was not drawn by the package: what can be taken, and its price.
    """
    if model is not None:
        return model
    domains = _domains(pictures)
    if None in domains:
        other = pictures[domains.index(None)]
        if isinstance(other, str | Path) and (fault := image_fault(str(other))) is not None:
            raise UserError(fault)
        raise UserError(
            f"name a model with --model: for photographs on a laptop {SMALL_MODEL} ({download_text(SMALL_MODEL)}), or "
            f"your own; {EMBEDDED} needs no download, shows the form of an answer, and {DRAWINGS_ONLY}"
        )
    return HARD if any(domain.hard for domain in domains if domain) else EMBEDDED


def caution(model: str, pictures: Sequence[Picture]) -> str | None:
    """What to keep in mind if an embedded model is to answer on pictures that the package did not draw."""
    return f"note: {model} {DRAWINGS_ONLY}" if model in PACKAGED and None in _domains(pictures) else None


def _domains(pictures: Sequence[Picture]) -> list[Domain | None]:
    return [drawn_domain(Path(picture)) if isinstance(picture, str | Path) else None for picture in pictures]


def predict(
    candidate: Candidate,
    images: Sequence[Picture],
    labels: LabelSet,
    settings: EvaluationSettings,
    abstain_below: float = 0.0,
    on_batch: OnBatch = None,
) -> Iterator[tuple[Picture, Outcome | UserError]]:
    """For each picture, in order, its outcome, or the error that says why it has none; a folder is all images in it.

    With `settings.reflective`, M completions are sampled and weighed, and the best-supported one is the prediction.
    `on_batch` gets the number of completions just made.
    """
    with TemporaryDirectory() as scratch:
        pictures = pictures_of(images)
        for start in range(0, len(pictures), settings.batch_size):
            batch = pictures[start : start + settings.batch_size]
            paths = [_path_of(picture, Path(scratch, f"picture-{start + n}")) for n, picture in enumerate(batch)]
            errors = {n: UserError(why) for n, path in enumerate(paths) if (why := image_fault(path)) is not None}
            readable = [Sample(path, (path,), "", labels) for n, path in enumerate(paths) if n not in errors]
            check_prompts(candidate, readable, settings)
            if settings.reflective:
                outcomes = iter(decode_reflectively(candidate, readable, settings, abstain_below, on_batch))
            else:
                made = predict_samples(candidate, readable, settings, on_batch)
                outcomes = iter([Outcome(against_own_answer(prediction)) for prediction in made])
            yield from ((picture, errors[n] if n in errors else next(outcomes)) for n, picture in enumerate(batch))


def _path_of(picture: Picture, free: Path) -> str:
    """Where a picture lies; one in memory is written to the free path, where the model and the judge open it."""
    if isinstance(picture, bytes):
        free.write_bytes(picture)
    elif isinstance(picture, Image.Image):
        save_picture(picture, free)
    else:
        return str(picture)
    return str(free)


def decode_reflectively(
    candidate: Candidate,
    samples: Sequence[Sample],
    settings: EvaluationSettings,
    abstain_below: float,
    on_batch: OnBatch = None,
) -> list[Outcome]:
    """For each of N samples the best-supported of M sampled completions, and the decision of all M."""
    draws = sample_completions(candidate, samples, settings, on_batch)
    thoughts = [[parse(text, settings.thinking) for text in texts] for texts in draws]
    weighed = weigh_draws(candidate.judge, samples, thoughts)
    return [
        _decided(
            [
                (Prediction(sample, text, thought, predicted_label(thought, sample.labels), reflection), weight)
                for text, thought, (weight, reflection) in zip(*own, strict=True)
            ],
            abstain_below,
        )
        for sample, *own in zip(samples, draws, thoughts, weighed, strict=True)
    ]


def _decided(drawn: Sequence[tuple[Prediction, float]], abstain_below: float) -> Outcome:
    predictions, weights = [prediction for prediction, _ in drawn], [weight for _, weight in drawn]
    answers = [prediction.predicted for prediction in predictions]
    decision = decide(answers, weights, predictions[0].sample.labels, abstain_below)
    return Outcome(against_own_answer(predictions[decision.best or 0]), decision)


def against_own_answer(prediction: Prediction) -> Prediction:
    """The prediction with its coherence read against the label it names itself; without a label it stays refuted."""
    finding = prediction.reflection.coherence
    if finding is None or finding.question is None or finding.reply is None or prediction.predicted is None:
        return prediction
    verdict = read_verdict(finding.question, finding.reply, prediction.predicted, prediction.sample.labels)
    coherence = replace(finding, verdict=verdict)
    return replace(prediction, reflection=replace(prediction.reflection, coherence=coherence))


def outcome_row(image: str, outcome: Outcome | UserError) -> dict[str, Any]:
    """One image's outcome as JSON."""
    if isinstance(outcome, UserError):
        return {"image": image, "error": str(outcome)}
    row = {"image": image, "label": outcome.prediction.predicted, **reasoning_row(outcome.prediction)}
    if outcome.decision is None:
        return row
    decision = outcome.decision
    return row | {"label": decision.label, "distribution": decision.distribution, "abstains": decision.abstains}


def decision_text(decision: Decision) -> str:
    """What M completions say together, on one line."""
    ranked = sorted(decision.distribution.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {hundredths(share)}" for name, share in ranked if share > 0)
    abstains = "  (abstains)" if decision.abstains else ""
    return f"  {'weighed':<12} {shares or 'no completion is supported'}{abstains}"


def prediction_text(prediction: Prediction) -> str:
    """A prediction as a person reads it: label, three steps, and what the judge makes of them."""
    thought, reflection = prediction.thought, prediction.reflection
    lines = [
        ("label", prediction.predicted or f"none of the set (answer: {thought.answer})"),
        ("trigger", thought.trigger),
        ("feeling", thought.feeling),
        ("conclusion", thought.conclusion),
        ("consistency", finding_text(reflection.consistency)),
        ("coherence", finding_text(reflection.coherence)),
    ]
    return "\n".join(
        [one_line(prediction.sample.image), *(f"  {name:<12} {one_line(text or '-')}" for name, text in lines)]
    )


def finding_text(finding: Finding | None) -> str:
    """What the judge says with its likeliest replies, "supported (Yes 0.98, No 0.02)", or why it was not asked."""
    if finding is None or finding.reply is None:
        what = "judge failed" if judge_failed(finding) else "not asked"
        return what + (f": {finding.reason}" if finding and finding.reason else "")
    ranked = sorted((finding.reply.probabilities or {}).items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {hundredths(share)}" for name, share in ranked)
    return f"{finding.verdict} ({shares})"
