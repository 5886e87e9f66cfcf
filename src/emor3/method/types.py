"""The data types of the pipeline, as frozen dataclasses, and the protocol of a judge.

Shape legend used in every docstring of the package:
B prompts, G completions per prompt, N = B * G, T tokens, K labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from emor3.method.labels import LabelSet

Attribute: TypeAlias = str | float | tuple[str, ...]
"""A word, a number or several words, as in scene "beach", brightness 0.6, object ("dog", "ball")."""

Content: TypeAlias = tuple[tuple[str, ...], str | None]
"""Paths of the images and the text of a sample: equal for samples that show the same."""


@dataclass(frozen=True)
class Sample:
    """What one viewer would see or read, with its label. `label` is always spelt as in `labels`."""

    id: str
    images: tuple[str, ...]
    """Paths of the image files: one as a rule, several, or none if there is a text."""
    label: str
    labels: LabelSet
    split: str = "train"
    distribution: Mapping[str, float] | None = None
    """Human votes as shares over `labels`, if humans voted."""
    valence: float | None = None
    arousal: float | None = None
    group: str | None = None
    """Items of one group are near copies: resample them together."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    """What is known of the picture; an attribute that is absent is unknown. Never part of a prompt."""
    reasoning: str | None = None
    """A completion to learn from, if the data has one; never shown to a judge."""
    text: str | None = None
    """What accompanies the images or stands in their place, and in the prompt."""
    clip: str | None = None
    """Name of the video whose frames, in order of time, the images are. That they are stands in the prompt, no name."""

    @property
    def image(self) -> str:
        """The only image, for what handles no other samples. Raises ValueError if there are several or none."""
        (image,) = self.images
        return image

    @property
    def is_video(self) -> bool:
        """Whether the images are to be seen as one video."""
        return self.clip is not None and len(self.images) > 1

    @property
    def content(self) -> Content:
        """What the sample shows."""
        return self.images, self.text


class Problem(StrEnum):
    """Why a completion breaks the grammar of Structured Emotional Thinking (format 0)."""

    EMPTY = "empty"
    STEP_MISSING = "step_missing"
    STEP_REPEATED = "step_repeated"
    STEP_BLANK = "step_blank"
    STEPS_OUT_OF_ORDER = "steps_out_of_order"
    TEXT_OUTSIDE_STEPS = "text_outside_steps"
    ANSWER_MISSING = "answer_missing"
    ANSWER_BEFORE_STEPS = "answer_before_steps"
    CONFIDENCE_MISSING = "confidence_missing"
    """No number from 0 to 1 behind the steps, where one is asked for."""


@dataclass(frozen=True)
class EmotionalThought:
    """A parsed completion `o = {s1, s2, s3, answer}`; None if a part is not usable."""

    trigger: str | None
    """Body of <step1>: what in the scene could cause an emotion."""
    feeling: str | None
    """Body of <step2>: how a viewer would feel."""
    conclusion: str | None
    """Body of <step3>: positive or negative, high or low arousal."""
    answer: str | None
    """Content of the last balanced, non-empty box, peeled; not yet normalised."""
    problem: Problem | None
    """None if the grammar holds."""
    confidence: float | None = None
    """How likely it says that its answer is right, from 0 to 1; None if it states no readable number."""


class Aspect(StrEnum):
    """The two reflections of the paper's section on the Reflective Emotional Reward."""

    CONSISTENCY = "consistency"
    COHERENCE = "coherence"


@dataclass(frozen=True)
class Question:
    """One question to a judge, asked in a fresh context. Hashable, so identical ones are asked once."""

    aspect: Aspect
    text: str
    """The whole user turn, placeholders in model text already escaped."""
    candidates: tuple[str, ...]
    """The replies the judge may choose from: ("Yes", "No") or the label set."""
    images: tuple[str, ...] = ()
    """Paths of the images that belong to the question."""


@dataclass(frozen=True)
class Reply:
    """What a judge said. `probabilities` is over the question's candidates if the judge scored them."""

    text: str
    probabilities: Mapping[str, float] | None = None
    error: str | None = None
    """Why there is no reply, if the judge failed; `text` is then empty."""


class Judge(Protocol):
    """Anything that answers a batch of questions, in order."""

    def answer(self, questions: Sequence[Question]) -> list[Reply]: ...


class Verdict(StrEnum):
    """What a reply says about the completion."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNREADABLE = "unreadable"
    NOT_ASKED = "not_asked"
    """The completion lacks what the question needs; `Finding.reason` says what. Scores 0."""
    ERROR = "error"
    """The judge failed; `Finding.reason` says how. Says nothing about the completion, so nothing is scored."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one reflection."""

    verdict: Verdict
    question: Question | None = None
    reply: Reply | None = None
    reason: str | None = None
    """Why the question could not be asked, or was not answered."""
    distractors: tuple[Reply, ...] = ()
    """What the judge said of the same description on other samples of the batch."""


@dataclass(frozen=True)
class Reflection:
    """Both findings on one completion. A finding is None if that reflection was never run."""

    consistency: Finding | None = None
    coherence: Finding | None = None


@dataclass(frozen=True)
class RewardBreakdown:
    """`total` is the weighted sum of `parts`; a part is None if its reflection was never run or failed.

    Of a rollout it is what trained: a part on which the judge failed is None in the whole group.
    """

    total: float
    parts: Mapping[str, float | None]
    """Raw, unweighted: accuracy, format, consistency, coherence, and the further parts that carry weight."""


@dataclass(frozen=True)
class Rollout:
    """One scored completion: the unit of `rollouts.jsonl`."""

    sample: Sample
    completion: str
    thought: EmotionalThought
    reflection: Reflection
    reward: RewardBreakdown
    placebo: int | None = None
    """Place in the group of the completion whose verdicts were paid to this one, in a placebo; None if its own were."""


@dataclass(frozen=True)
class Prediction:
    """One evaluated completion: the unit of `predictions.jsonl`."""

    sample: Sample
    completion: str
    thought: EmotionalThought
    predicted: str | None
    """The label of the set that the answer names; None is the outcome "unparsed"."""
    reflection: Reflection = field(default_factory=Reflection)
    swapped: Finding | None = None
    """A control: the judge on this sample and another one's step 1, which must not be supported."""
    sampled: tuple[str | None, ...] | None = None
    """Labels that M more completions answered, sampled at temperature 1; None if none were sampled."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int
