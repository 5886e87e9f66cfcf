"""Label single images and clips, with the three steps behind each label and what the reflection says of them.

There is no ground truth here: coherence asks whether steps 1 and 2 lead a reader to the model's own answer.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from PIL import Image

from emor3.data.folders import LabelSpec, label_set_for, load_mixture
from emor3.data.importers.sources import files_below, images_below
from emor3.errors import UserError, one_line
from emor3.evaluation.candidate import Candidate
from emor3.evaluation.evaluate import answers_in, check_prompts, complete, judged, sample_completions
from emor3.evaluation.journal import BatchedJudge
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.labels import MIKELS8, LabelSet
from emor3.method.reflection import read_verdict
from emor3.method.rewards import judge_failed
from emor3.method.types import Finding, Prediction, Sample
from emor3.models.architectures import SMALL_MODEL, download_text
from emor3.models.checkpoints import EMBEDDED, HARD, PACKAGED
from emor3.models.engines.batches import OnBatch, always
from emor3.runs.predictions import reasoning_row
from emor3.stats.format import hundredths
from emor3.storage.clips import CLIP_SUFFIXES, FRAMES, check_frames, is_clip, write_frames
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
class Decision:
    """What M sampled completions of one image say together."""

    distribution: dict[str, float]
    """Share of each label among the answers that can be read; empty if none can be."""
    label: str | None
    """The label with the largest share."""
    abstains: bool
    """Whether that share is below the one asked for, or there is none."""


@dataclass(frozen=True)
class Outcome:
    """The prediction for one image and, of several sampled completions, the decision that it stands for."""

    prediction: Prediction
    decision: Decision | None = None


@dataclass(frozen=True)
class Drawn:
    """A video clip of which frames were drawn: their files, in order of time."""

    name: str
    images: tuple[str, ...]


Picture: TypeAlias = str | Path | bytes | Image.Image | Drawn
"""Path of an image file or a video clip, or a picture in memory: the bytes of an image file, or as Pillow holds it."""


def pictures_of(images: Sequence[Picture]) -> list[Picture]:
    """The pictures with each folder replaced by the images and clips in it, at any depth. Raises UserError for none."""
    found: list[Picture] = []
    for image in images:
        if not isinstance(image, str | Path) or not Path(image).is_dir():
            found.append(image)
        elif inside := sorted([*images_below(Path(image)), *files_below(Path(image), CLIP_SUFFIXES)]):
            found += map(str, inside)
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
        if isinstance(other, str | Path) and clip_of(other) is None and (fault := image_fault(str(other))) is not None:
            raise UserError(fault)
        raise UserError(
            f"name a model with --model: for photographs on a laptop {SMALL_MODEL} ({download_text(SMALL_MODEL)}), or "
            f"your own; {EMBEDDED} needs no download, shows the form of an answer, and {DRAWINGS_ONLY}"
        )
    return HARD if any(domain.hard for domain in domains if domain) else EMBEDDED


def clip_of(picture: Picture) -> Path | None:
    """Path of a picture that is a video clip, told by its name; None for any other."""
    return Path(picture) if isinstance(picture, str | Path) and is_clip(Path(picture)) else None


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
    frames: int = FRAMES,
) -> Iterator[tuple[Picture, Outcome | UserError]]:
    """For each picture, in order, its outcome, or the error that says why it has none; a folder is all images in it.

    Of a video clip so many frames are shown, as `emor3 data import` draws them. With `settings.samples` M above 0, M
    completions are sampled, and the first that names their majority is the prediction. `on_batch` gets the number of
    completions just made.
    """
    check_frames(frames)
    with TemporaryDirectory() as scratch:
        pictures = pictures_of(images)
        for start in range(0, len(pictures), settings.batch_size):
            batch = pictures[start : start + settings.batch_size]
            samples, errors = list[Sample](), dict[int, UserError]()
            for number, picture in enumerate(batch):
                try:
                    free = Path(scratch, f"picture-{start + number}")
                    samples.append(_sample(picture, labels, free, frames))
                except UserError as error:
                    errors[number] = error
            check_prompts(candidate, samples, settings)
            outcomes = iter(_outcomes(candidate, samples, settings, abstain_below, on_batch))
            yield from ((picture, errors[n] if n in errors else next(outcomes)) for n, picture in enumerate(batch))


def _sample(picture: Picture, labels: LabelSet, free: Path, frames: int) -> Sample:
    """The sample of a picture, or of frames of a clip. Raises UserError if it cannot be read."""
    if clip := clip_of(picture):
        picture = draw_clip(clip, free, frames)
    if isinstance(picture, Drawn):
        return Sample(picture.name, picture.images, "", labels, clip=picture.name)
    path = _path_of(picture, free)
    if (fault := image_fault(path)) is not None:
        raise UserError(fault)
    return Sample(path, (path,), "", labels)


def draw_clip(clip: Path, folder: Path, count: int = FRAMES) -> Drawn:
    """Draw frames of a clip into a new folder. Raises UserError if it cannot be read."""
    folder.mkdir()
    files = [folder / f"{number}.jpg" for number in range(count)]
    write_frames(clip, files)
    return Drawn(str(clip), tuple(map(str, files)))


def _path_of(picture: str | Path | bytes | Image.Image, free: Path) -> str:
    """Where a picture lies; one in memory is written to the free path, where the model and the judge open it."""
    if isinstance(picture, bytes):
        free.write_bytes(picture)
    elif isinstance(picture, Image.Image):
        save_picture(picture, free)
    else:
        return str(picture)
    return str(free)


def _outcomes(
    candidate: Candidate,
    samples: Sequence[Sample],
    settings: EvaluationSettings,
    abstain_below: float,
    on_batch: OnBatch,
) -> list[Outcome]:
    """For each of N samples its one completion, or the first that names the majority of M, and what the judge says."""
    if settings.samples:
        draws = sample_completions(candidate, samples, settings, on_batch)
    else:
        draws = [[text] for text in complete(candidate, samples, settings, on_batch)]
    answers = [answers_in(sample, texts, settings.thinking) for sample, texts in zip(samples, draws, strict=True)]
    decisions = [decide(own, sample.labels, abstain_below) for sample, own in zip(samples, answers, strict=True)]
    shown = [texts[own.index(decision.label)] for texts, own, decision in zip(draws, answers, decisions, strict=True)]
    judge = BatchedJudge(candidate.judge, candidate.processor, always)
    return [
        Outcome(against_own_answer(prediction), decision if settings.samples else None)
        for prediction, decision in zip(judged(judge, samples, shown, settings.thinking), decisions, strict=True)
    ]


def decide(answers: Sequence[str | None], labels: LabelSet, abstain_below: float) -> Decision:
    """The majority of M answers; of equal shares the label that comes first in the set.

    >>> decide(["awe", "fear", "awe", None], LabelSet("two", ("fear", "awe")), 0.5)
    Decision(distribution={'fear': 0.3333333333333333, 'awe': 0.6666666666666666}, label='awe', abstains=False)
    """
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Decision({}, None, abstains=True)
    shares = {label: counts[label] / counts.total() for label in labels.labels}
    label = max(shares, key=shares.__getitem__)
    return Decision(shares, label, abstains=shares[label] < abstain_below)


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
    return row | {"distribution": outcome.decision.distribution, "abstains": outcome.decision.abstains}


def decision_text(decision: Decision) -> str:
    """What M completions say together, on one line."""
    ranked = sorted(decision.distribution.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {hundredths(share)}" for name, share in ranked if share > 0)
    abstains = "  (abstains)" if decision.abstains else ""
    return f"  {'sampled':<12} {shares or 'no answer names a label of the set'}{abstains}"


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
        [one_line(prediction.sample.id), *(f"  {name:<12} {one_line(text or '-')}" for name, text in lines)]
    )


def finding_text(finding: Finding | None) -> str:
    """What the judge says with its likeliest replies, "supported (Yes 0.98, No 0.02)", or why it was not asked."""
    if finding is None or finding.reply is None:
        what = "judge failed" if judge_failed(finding) else "not asked"
        return what + (f": {finding.reason}" if finding and finding.reason else "")
    ranked = sorted((finding.reply.probabilities or {}).items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {hundredths(share)}" for name, share in ranked)
    return f"{finding.verdict} ({shares})"
