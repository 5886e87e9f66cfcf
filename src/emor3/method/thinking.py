"""Structured Emotional Thinking: the prompt that asks for it and the parser that reads it, side by side.

A completion is <step1>…</step1><step2>…</step2><step3>…</step3>\\boxed{label}. Tags and box are the contract; the
words around them are a template's. Baselines think freely (<think>…</think>\\boxed{label}) or not at all
(\\boxed{label}); each way has a shipped template of its name and is read by the same parser. Thinking with confidence
is the three steps, and a number from 0 to 1 behind them: <confidence>0.7</confidence>. What checkpoints think whose
chat template opens <think> is no part of it (`after_thoughts`).
"""

import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from emor3.errors import UserError
from emor3.method.labels import SPECIAL, LabelSet, without_invisible
from emor3.method.types import EmotionalThought, Problem, Sample
from emor3.storage.files import read_text

if TYPE_CHECKING:
    from jinja2 import Template

Thinking = Literal["steps", "free", "direct", "confidence"]
"""How a completion thinks before its answer; also the name of the shipped template that asks for it."""

_PLACEHOLDER = re.compile(r"<(?=\S)([^<>]*)>|\[(/?[A-Z_]{2,})\]")

_NUMBER = re.compile(r"[01](?:\.[0-9]{0,12})?|\.[0-9]{1,12}", re.ASCII)

CONFIDENCE = "confidence"
"""Tag of the number that says how likely the answer is right, and the way of thinking that asks for it."""

LONGEST_TEMPLATE = 100_000
"""Characters."""

_STEPS = ("step1", "step2", "step3")
TAGS: dict[Thinking, tuple[str, ...]] = {"steps": _STEPS, "free": ("think",), "direct": (), "confidence": _STEPS}
"""The tag pairs that each way of thinking needs, in order."""


@cache
def load_template(name: str) -> str:
    """Text of a shipped template by name (a way of thinking, "consistency", "coherence") or of a user's file by path.

    Raises UserError if neither exists.
    """
    shipped = files("emor3") / "method" / "prompts" / f"{name}.txt"
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8").strip()
    try:
        text = read_text(name, LONGEST_TEMPLATE + 1).strip()
    except (OSError, ValueError):
        raise UserError(
            f"template {name!r} is neither a shipped template nor a file: give the path of a text file"
        ) from None
    if len(text) > LONGEST_TEMPLATE:
        raise UserError(f"template {name!r} has more than {LONGEST_TEMPLATE:,} characters")
    return text


def render(template: str, **values: str | None) -> str:
    """Fill a template. Values are inserted as data: braces inside them are never evaluated.

    Raises UserError if the template has an error of its own, asks for a value that is not there, or exceeds the limits.
    """
    from emor3.templating import check_length, within_limits  # here: parsing alone does not pay for Jinja

    with within_limits(template, hint=f"; it may use {', '.join(values)}"):
        filled = _compile(template).render(**values)
    check_length(template, filled)
    return filled


@cache
def _compile(template: str) -> "Template":
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined).from_string(template)


def escape(text: str) -> str:
    """Model or data text that may stand in a prompt: `<image>`, `<|image_pad|>`, `[IMG]` and the like become inert.

    Blanks inside the brackets keep them readable while no tokenizer or chat template takes them for its own. Orders
    to the judge are left as they are: they are just text.
    """
    return _PLACEHOLDER.sub(lambda found: f"{found[0][0]} {found[0][1:-1]} {found[0][-1]}", text)


FRAMES = "The images are frames of one video, in order of time.\n"
"""What prompts and questions on a video begin with."""


def name_content(images: int, text: str | None, video: bool = False) -> str:
    """What a prompt calls what a sample shows: "image", "images and the text", "text", or "video" of its frames."""
    pictures = ("video",) if video else ("image",) if images == 1 else ("images",) if images else ()
    return " and the ".join([*pictures, *(() if text is None else ("text",))])


def build_prompt(
    labels: LabelSet, template: str = "steps", images: int = 1, text: str | None = None, video: bool = False
) -> str:
    """User turn that goes with the images: the instruction, with the K labels of the sample's own label set.

    That the images are frames of a `video`, and a text of the sample, stand before the instruction, whatever the
    template. Beside `labels`, a template may use `content` (what the sample shows: "image", "images", "video", "text",
    …) and `it` ("it" or "they").
    """
    content = name_content(images, text, video)
    it = "it" if content in ("image", "video", "text") else "they"
    instruction = _instruction(load_template(template), labels.labels, content, it)
    if found := SPECIAL.search(instruction):  # the labels were looked at, so it is the template's
        raise UserError(
            f"template {template}: models take {found[0]!r} for a token of their own; leave it out, images stand first"
        )
    before = FRAMES if video else ""
    return before + (instruction if text is None else f"Text: {escape(text)}\n{instruction}")


@lru_cache(maxsize=256)
def _instruction(template: str, labels: tuple[str, ...], content: str, it: str) -> str:
    """A template filled; it is the same for nearly all samples of a run, which are gone through before it starts."""
    return render(template, labels=", ".join(labels), content=content, it=it)


def sample_prompt(sample: Sample, template: str) -> str:
    """User turn of a sample."""
    return build_prompt(sample.labels, template, len(sample.images), sample.text, sample.is_video)


def way_named(name: object) -> Thinking | None:
    """The way of thinking of a name; None if there is none."""
    return next((way for way in TAGS if way == name), None)


def thinking_of(template: str) -> Thinking:
    """The way of thinking that a template asks for: that of its name if it is shipped, else steps."""
    return way_named(template) or "steps"


def parse(text: str, thinking: Thinking = "steps") -> EmotionalThought:
    """Read a completion `o = {s1, s2, s3, answer}`. Linear in the text's length, whatever it holds.

    A step is usable if its tag pair stands exactly once, closed and non-blank, even if the grammar is broken.
    A free thought is one description: it stands as the trigger, with an empty feeling.

    >>> thought = parse(r"<step1>fog</step1><step2>tense</step2><step3>negative, high</step3>\\boxed{\\text{Fear}}")
    >>> thought.trigger, thought.answer, thought.problem
    ('fog', 'Fear', None)
    >>> parse("<step1>fog</step1> I would say fear.").problem.value
    'step_missing'
    """
    bodies = [_body(text, tag) for tag in TAGS[thinking]]
    if thinking == "free":
        bodies.append(None if bodies[0] is None else "")
    trigger, feeling, conclusion = [*bodies, None, None, None][:3]
    box = _last_box(text)
    problem = _problem(text, TAGS[thinking], box[0] if box else None)
    if thinking == CONFIDENCE and problem is None and not _ends_with_confidence(text):
        problem = Problem.CONFIDENCE_MISSING
    return EmotionalThought(
        trigger=trigger,
        feeling=feeling,
        conclusion=conclusion,
        answer=box[1] if box else None,
        problem=problem,
        confidence=stated_number(text, CONFIDENCE),
    )


def after_thoughts(text: str, thinking: Thinking) -> str:
    """What the grammar is of in a completion whose prompt opened `<think>`: what stands behind the first `</think>`.

    A completion that never closes it says nothing. Free thinking is these thoughts, so its tag is put back.

    >>> after_thoughts("Is it fog? Yes. </think> <step1>fog</step1>", "steps")
    '<step1>fog</step1>'
    >>> after_thoughts("Is it fog?", "steps"), after_thoughts("fog</think>", "free")
    ('', '<think>fog</think>')
    """
    opening, closing = _tags("think")
    return opening + text if thinking == "free" else text.partition(closing)[2].lstrip()


def stated_number(text: str, tag: str) -> float | None:
    """The number from 0 to 1 between a pair of tags that stands exactly once; None if there is none.

    >>> stated_number("<confidence> 0.70 </confidence>", "confidence"), stated_number("<valence>7</valence>", "valence")
    (0.7, None)
    """
    body = _body(text, tag)
    if body is None or not _NUMBER.fullmatch(body):
        return None
    value = float(body)
    return value if value <= 1 else None


def _ends_with_confidence(text: str) -> bool:
    """Whether a number stands behind the last step, before or behind the box."""
    span = _span(text, CONFIDENCE)
    return span is not None and stated_number(text, CONFIDENCE) is not None and text.index("</step3>") < span[0]


def _tags(step: str) -> tuple[str, str]:
    return f"<{step}>", f"</{step}>"


def _is_blank(text: str) -> bool:
    return not without_invisible(text).strip()


def _span(text: str, step: str) -> tuple[int, int] | None:
    """Where the body of a step begins and ends; None unless its tags stand once each, the opening one first."""
    opening, closing = _tags(step)
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    start, end = text.index(opening) + len(opening), text.index(closing)
    return (start, end) if start <= end else None


def _body(text: str, step: str) -> str | None:
    span = _span(text, step)
    if span is None or _is_blank(text[slice(*span)]):
        return None
    return text[slice(*span)].strip()


def _problem(text: str, steps: tuple[str, ...], box_start: int | None) -> Problem | None:
    """The first rule of the grammar that the completion breaks, in the order of `Problem`."""
    if _is_blank(text):
        return Problem.EMPTY
    if any(text.count(tag) > 1 for step in steps for tag in _tags(step)):
        return Problem.STEP_REPEATED
    spans = [span for step in steps if (span := _span(text, step))]
    if len(spans) < len(steps):
        return Problem.STEP_MISSING
    if any(_is_blank(text[start:end]) for start, end in spans):
        return Problem.STEP_BLANK
    place = 0
    gaps = []
    for step, (start, end) in zip(steps, spans, strict=True):
        opening, closing = _tags(step)
        if start - len(opening) < place:
            return Problem.STEPS_OUT_OF_ORDER
        gaps.append(text[place : start - len(opening)])
        place = end + len(closing)
    if any(gap.strip() for gap in gaps):
        return Problem.TEXT_OUTSIDE_STEPS
    if box_start is None:
        return Problem.ANSWER_MISSING
    return Problem.ANSWER_BEFORE_STEPS if box_start < place else None


def read_conclusion(text: str | None) -> tuple[int | None, int | None]:
    """Polarity and arousal that step 3 claims, each +1, -1, or None if it claims neither or both."""
    words = set(re.findall(r"[^\W\d_]+", (text or "").casefold()))
    return _sign(words, "positive", "negative"), _sign(words, "high", "low")


def _sign(words: set[str], plus: str, minus: str) -> int | None:
    return {(True, False): 1, (False, True): -1}.get((plus in words, minus in words))


# --- the answer box --------------------------------------------------------------------------------------------------

_BRACE = re.compile(r"\\boxed\{|[{}]")
_WRAPPER = re.compile(r"(?:\\(?:boxed|text[a-z]*|math[a-z]+|mbox|emph|underline) *)?\{")
_AROUND_WRAPPER = " \t\r\n$*_`~\"'.,;:!"


def _last_box(text: str) -> tuple[int, str] | None:
    """Start and peeled content of the last balanced, non-empty box. A box inside a balanced box is part of it."""
    closes: dict[int, int] = {}
    open_braces: list[tuple[int, int]] = []
    boxes: list[tuple[int, int]] = []
    for brace in _BRACE.finditer(text):
        if brace[0] != "}":
            open_braces.append((brace.start(), brace.end() - 1))
        elif open_braces:
            start, opening = open_braces.pop()
            closes[opening] = brace.start()
            if start != opening:
                boxes.append((start, opening))
    seen_from = len(text)
    for start, opening in reversed(boxes):
        if start >= seen_from:
            continue
        seen_from = start
        answer = _peel(text, opening + 1, closes[opening], closes)
        if not _is_blank(answer):
            return start, answer
    return None


def _peel(text: str, start: int, end: int, closes: dict[int, int]) -> str:
    """The text between two places less the boxes, braces and text commands that wrap the whole of it."""
    while True:
        inner_start, inner_end = start, end
        while inner_start < inner_end and text[inner_start] in _AROUND_WRAPPER:
            inner_start += 1
        while inner_start < inner_end and text[inner_end - 1] in _AROUND_WRAPPER:
            inner_end -= 1
        wrapper = _WRAPPER.match(text, inner_start, inner_end)
        if wrapper is None or closes.get(wrapper.end() - 1) != inner_end - 1:
            return text[start:end].strip()
        start, end = wrapper.end(), inner_end - 1
