"""The questions of the Reflective Emotional Reward, built from a parsed completion, and verdicts from replies."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from emor3.method.labels import LabelSet, affirmed, normalise
from emor3.method.thinking import FRAMES, escape, load_template, name_content, render
from emor3.method.types import (
    Aspect,
    Content,
    EmotionalThought,
    Finding,
    Judge,
    Question,
    Reflection,
    Reply,
    Sample,
    Verdict,
)

_WORD = re.compile(r"[^\W_]+")


def consistency_question(
    images: tuple[str, ...], trigger: str, text: str | None = None, of_video: bool = False
) -> Question:
    """Visual-text consistency: image + s1, "does this text describe the image?".

    Several images stand in one question; if s1 is `of_video`, they are its frames, or those of another one. If the
    sample has a text, s1 is a description of it too.
    """
    shown, video = None if text is None else escape(text), of_video and len(images) > 1
    content = name_content(len(images), text, video)
    asked = render(load_template("consistency"), trigger=escape(trigger), text=shown, content=content)
    return Question(Aspect.CONSISTENCY, FRAMES + asked if video else asked, ("Yes", "No"), images)


def question_on(sample: Sample, trigger: str) -> Question:
    """The question whether a description is one of what a sample shows."""
    return consistency_question(sample.images, trigger, sample.text, sample.is_video)


def coherence_question(trigger: str, feeling: str, labels: LabelSet) -> Question:
    """Emotional coherence: s1 + s2 without the image, "which emotion, one of K labels?"."""
    names = ", ".join(labels.labels)
    text = render(load_template("coherence"), trigger=escape(trigger), feeling=escape(feeling), labels=names)
    return Question(Aspect.COHERENCE, text, labels.labels)


def ask(sample: Sample, thought: EmotionalThought, aspects: frozenset[Aspect]) -> dict[Aspect, Question | str]:
    """For each wanted aspect its question, or the reason why the completion does not allow it."""
    asked: dict[Aspect, Question | str] = {}
    for aspect in Aspect:
        if aspect not in aspects:
            continue
        if thought.trigger is None:
            asked[aspect] = "step1 is missing, repeated, not closed or blank"
        elif aspect is Aspect.CONSISTENCY:
            asked[aspect] = question_on(sample, thought.trigger)
        elif thought.feeling is None:
            asked[aspect] = "step2 is missing, repeated, not closed or blank"
        else:
            asked[aspect] = coherence_question(thought.trigger, thought.feeling, sample.labels)
    return asked


def read_verdict(question: Question, reply: Reply, label: str, labels: LabelSet) -> Verdict:
    """What a free-text reply says about a completion whose ground truth is `label`."""
    if question.aspect is Aspect.CONSISTENCY:
        return read_yes_no(reply.text)
    if affirmed(reply.text, labels) == label:
        return Verdict.SUPPORTED
    return Verdict.REFUTED if any(map(str.isalpha, reply.text)) else Verdict.UNREADABLE


def read_yes_no(reply: str) -> Verdict:
    """Whole words only: "eyes" holds no yes and "none" no no. A yes that a later "no" takes back says nothing."""
    words = _WORD.findall(normalise(reply))
    if words[:1] == ["no"]:
        return Verdict.REFUTED
    return Verdict.SUPPORTED if words[:1] == ["yes"] and "no" not in words else Verdict.UNREADABLE


def says_yes(reply: Reply) -> float:
    """Probability that a reply on consistency is a yes; 0 or 1 for a free text."""
    if reply.probabilities is None:
        return float(read_yes_no(reply.text) is Verdict.SUPPORTED)
    return reply.probabilities["Yes"]


def reflect(
    judge: Judge,
    items: Sequence[tuple[Sample, EmotionalThought]],
    aspects: frozenset[Aspect],
    *,
    distractors: Sequence[Sequence[Content]] | None = None,
) -> list[Reflection]:
    """Both findings for each of N completions, from one call of the judge in which identical questions stand once.

    `distractors` (N lists) is what each description is asked on too, beside its own sample (default: nothing).
    The judge is called even without a question, so that every rank of a distributed run calls it equally often.
    Raises ValueError if a judge does not answer every question.

    A judge that always says "Yes" supports the description and names no label:

    >>> from emor3.method.thinking import parse
    >>> moods = LabelSet("moods", ("fear", "joy"))
    >>> thought = parse(r"<step1>fog</step1><step2>tense</step2><step3>negative</step3>\\boxed{fear}")
    >>> judge = ScriptedJudge(lambda question: "Yes")
    >>> twice = [(Sample("1", ("fog.jpg",), "fear", moods), thought)] * 2
    >>> found = reflect(judge, twice, frozenset(Aspect))[1]
    >>> found.consistency.verdict.value, found.coherence.verdict.value
    ('supported', 'refuted')
    >>> len(judge.asked)  # two questions, not four: the completions are equal
    2
    """
    asked = [ask(sample, thought, aspects) for sample, thought in items]
    others = [
        [
            consistency_question(images, thought.trigger, text, sample.is_video)
            for images, text in contents
            if thought.trigger is not None
        ]
        for (sample, thought), contents in zip(items, distractors or [()] * len(items), strict=True)
    ]
    own = [q for per_item in asked for q in per_item.values() if isinstance(q, Question)]
    questions = list(dict.fromkeys([*own, *(q for per_item in others for q in per_item)]))
    replies = dict(zip(questions, judge.answer(questions), strict=True))
    return [
        Reflection(**{aspect.value: _finding(entry, replies, sample, elsewhere) for aspect, entry in per_item.items()})
        for (sample, _), per_item, elsewhere in zip(items, asked, others, strict=True)
    ]


def other_contents(batch: Sequence[Sample], place: int, count: int) -> list[Content]:
    """Distractors: contents of up to `count` other samples of the batch, those of the same label first (the hardest).

    A text is no match for an image, so samples without images come last for one that has some, and the other way round.
    """
    own = batch[place]
    following = [*batch[place + 1 :], *batch[:place]]
    following.sort(key=lambda other: (bool(other.images) != bool(own.images), other.label != own.label))  # stable
    contents = dict.fromkeys(sample.content for sample in following)
    return [content for content in contents if content != own.content][:count]


def _finding(
    asked: Question | str, replies: dict[Question, Reply], sample: Sample, elsewhere: Sequence[Question]
) -> Finding:
    if isinstance(asked, str):
        return Finding(Verdict.NOT_ASKED, reason=asked)
    reply = replies[asked]
    if reply.error is not None:
        return Finding(Verdict.ERROR, asked, reason=reply.error)
    distractors = tuple(replies[q] for q in elsewhere) if asked.aspect is Aspect.CONSISTENCY else ()
    return Finding(read_verdict(asked, reply, sample.label, sample.labels), asked, reply, distractors=distractors)


@dataclass
class ScriptedJudge:
    """A judge whose replies are given: for saved replies, and to run the method without a model."""

    script: Callable[[Question], str]
    asked: list[Question] = field(default_factory=list)
    """Every question so far, in order."""

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        self.asked.extend(questions)
        return [Reply(self.script(question)) for question in questions]
