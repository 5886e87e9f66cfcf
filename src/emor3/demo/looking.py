"""What the page shows of an image: each model's answer at once, then what many completions say together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from emor3.errors import UserError, one_line
from emor3.evaluation.candidate import Candidate, load_candidate
from emor3.evaluation.predict import Drawn, Outcome, choose_labels, draw_clip, predict
from emor3.evaluation.settings import EvaluationSettings
from emor3.method.labels import BUILT_IN, LabelSet, label_set_from
from emor3.method.reflection import reflect
from emor3.method.types import Aspect, Finding
from emor3.printing import say

MOST_SAMPLES = 32
"""Completions that may be sampled of one image."""
MOST_TYPED = 2_000
"""Characters of labels that are typed: all of them stand in every prompt."""


@dataclass(frozen=True)
class DemoSettings:
    """Which models the page shows, and how they answer."""

    model: str = "embedded"
    compare: str | None = None
    """A second model, side by side with the first."""
    judge: str | None = None
    """Checkpoint that judges both; None: the first model's start model, else that model itself."""
    max_new_tokens: int = 256
    abstain_below: float = 0.5
    """Share of the leading label below which a model abstains."""

    def load(self) -> list[Candidate]:
        """The models, under one judge. Raises UserError as `load_candidate`."""
        first = load_candidate(self.model, self.judge)
        if self.compare is None:
            return [first]
        second = load_candidate(self.compare, first.judge_path)
        return [first, replace(second, judge=first.judge)]


@dataclass(frozen=True)
class Look:
    """What one model makes of an image, as far as it is known."""

    model: str
    judge: str
    answer: Outcome
    """Its greedy completion, with both reflections."""
    elsewhere: Finding | None
    """The judge on the same description and another image, of which it should not hold."""
    sampled: Outcome | None = None
    """The decision of M sampled completions, and the first of their majority."""


def label_choices(candidate: Candidate) -> dict[str, LabelSet]:
    """Label sets to choose from by name, the one that the model was trained on first, if it can be told."""
    try:
        own = choose_labels(candidate, None)
    except UserError as error:
        own = BUILT_IN[0]
        say(f"the page begins with {own.name}: {one_line(str(error))}", error=True)
    return {own.name: own} | {labels.name: labels for labels in BUILT_IN if labels.name != own.name}


def typed_labels(text: str) -> LabelSet:
    """The label set that a person typed, `a, b, c`. Raises UserError if it is none."""
    if len(text) > MOST_TYPED:
        raise UserError(f"the labels have {len(text):,} characters, of at most {MOST_TYPED:,}: type fewer of them")
    labels = [label for label in map(str.strip, text.split(",")) if label]
    if len(labels) < 2:
        raise UserError("the label set needs two labels or more, with commas between them, as in: calm, uneasy")
    return label_set_from(labels, "typed")


def look_at(
    picture: str | Drawn,
    other: str,
    candidates: Sequence[Candidate],
    labels: LabelSet,
    settings: DemoSettings,
    samples: int,
    on_sample: Callable[[str, int], None],
) -> Iterator[list[Look]]:
    """What every model makes of the picture at a path, or of the frames of a clip, again whenever more is known.

    First each one's greedy answer, its description also put to the judge with the `other` picture; then each one's
    decision over M samples. `on_sample` gets the model and the number of completions just sampled.
    Raises UserError for a picture that cannot be read or prompts that do not fit a model.
    """
    looks: list[Look] = []
    for candidate in candidates:
        answer = _outcome(candidate, picture, labels, _settings_for(candidate, settings, 0))
        looks.append(Look(candidate.path, candidate.judge_path, answer, _elsewhere(candidate, answer, other)))
        yield looks
    for place, candidate in enumerate(candidates):
        sampling, tell = _settings_for(candidate, settings, samples), partial(on_sample, candidate.path)
        decided = _outcome(candidate, picture, labels, sampling, settings.abstain_below, tell)
        looks[place] = replace(looks[place], sampled=decided)
        yield looks


def _settings_for(candidate: Candidate, settings: DemoSettings, samples: int) -> EvaluationSettings:
    """Settings of one greedy answer (no samples) or of the majority of so many, with the prompt of the model's run."""
    return EvaluationSettings(
        samples=samples,
        max_new_tokens=settings.max_new_tokens,
        template=candidate.template,
        thinking=candidate.thinking,
        batch_size=1,
    )


def _outcome(
    candidate: Candidate,
    picture: str | Drawn,
    labels: LabelSet,
    settings: EvaluationSettings,
    abstain_below: float = 0.0,
    on_sample: Callable[[int], None] | None = None,
) -> Outcome:
    ((_, outcome),) = predict(candidate, [picture], labels, settings, abstain_below, on_sample)
    if isinstance(outcome, UserError):
        raise UserError(str(outcome).replace(f"image {picture}", "the image"))  # the path is the server's own
    return outcome


def _elsewhere(candidate: Candidate, answer: Outcome, other: str) -> Finding | None:
    """What the judge says of the answer's description and another picture."""
    prediction = answer.prediction
    sample = replace(prediction.sample, id=other, images=(other,))
    return reflect(candidate.judge, [(sample, prediction.thought)], frozenset({Aspect.CONSISTENCY}))[0].consistency


def frames_of(clip: str, folder: Path) -> Drawn:
    """Frames of an uploaded clip, in a folder. Raises UserError, without the server's own path, if it is none."""
    try:
        return replace(draw_clip(Path(clip), folder / "frames"), name="the clip")
    except UserError as error:
        raise UserError(str(error).replace(f"clip {clip}", "the clip")) from None


def another(picture: str, examples: Sequence[Path]) -> str:
    """The first example that is not the picture itself."""
    shown = Path(picture).read_bytes()
    return str(next(path for path in examples if path.read_bytes() != shown))
