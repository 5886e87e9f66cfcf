"""What the embedded base is taught: supervised examples made from drawn scenes, in the shipped prompts.

The base behaves like a pretrained model before alignment. It perceives scenes well and answers both reflection
questions, but its emotional prior is mismatched with the label sets: four shades are mostly taken for a neighbour
(CONFUSIONS). So reinforcement learning has room, and the right answer stays within reach of sampling.

The hard base sees hard pictures and, after it has felt something, now and then tells what goes with the feeling rather
than what is there (IMAGINED), as large models do. Questions it answers about what is there: checking is easier for it
than making.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from PIL import Image

from emor3.method.labels import PLUTCHIK8, SENTIMENT3, mask
from emor3.method.reflection import coherence_question, consistency_question
from emor3.method.thinking import build_prompt
from emor3.tiny.drawing import STYLES
from emor3.tiny.hard_drawing import draw_picture
from emor3.tiny.language import PLACES, alter, completion_text, feeling_text, trigger_text
from emor3.tiny.world import CUES, EASY_DOMAINS, EVOKES, FACTORS, SHADES, Domain, Scene, posterior, sample_scene

CONFUSIONS = {"amusement": "excitement", "awe": "contentment", "anger": "disgust", "fear": "sadness"}
"""Shade -> the neighbour the base takes it for, CONFUSED of the time."""
CONFUSED = 0.6
IMAGINED = 0.1
"""Share of the factors against its feeling that the hard base tells as one that goes with the feeling."""

PLUTCHIK_NAMES = ("joy", "surprise", "trust", "anticipation", "anger", "disgust", "fear", "sadness")
POSITIVE_SHARES = (1.0, 0.6, 0.6, 1.0, 0.0, 0.0, 0.0, 0.0)
NEUTRAL_SHARES = (0.0, 0.4, 0.4, 0.0, 0.0, 0.0, 0.0, 0.3)
OTHER_LABEL_SETS = (
    Domain(
        "plutchik8",
        "painted",
        PLUTCHIK8,
        {shade: {name: 1.0} for shade, name in zip(SHADES, PLUTCHIK_NAMES, strict=True)},
    ),
    Domain(
        "sentiment3",
        "painted",
        SENTIMENT3,
        {
            shade: {"positive": positive, "neutral": neutral, "negative": 1 - positive - neutral}
            for shade, positive, neutral in zip(SHADES, POSITIVE_SHARES, NEUTRAL_SHARES, strict=True)
        },
    ),
)
"""Label sets the base has met beside those of the embedded domains, so that it follows the options it is given."""


@dataclass(frozen=True)
class Example:
    """One supervised example: a user turn, with or without a picture, and the reply to learn."""

    prompt: str
    reply: str
    image: Image.Image | None = None
    checked_against: Scene | None = None
    """The true scene of a consistency question: the words of the text fit it or not."""


def felt_shade(scene: Scene, rng: Random) -> str:
    """The shade the base reports: drawn from the scene's sharpened posterior, then confused with its neighbour."""
    shares: Mapping[str, float] = posterior(scene)
    shade = rng.choices(list(shares), [share**2 for share in shares.values()])[0]
    return CONFUSIONS[shade] if shade in CONFUSIONS and rng.random() < CONFUSED else shade


def imagined(scene: Scene, shade: str, rng: Random) -> Scene:
    """What the hard base tells of a scene after it has felt a shade."""
    told = {
        factor: rng.choice([value for value in FACTORS[factor] if shade in EVOKES[value]])
        for factor, value in vars(scene).items()
        if shade not in EVOKES[value] and rng.random() < IMAGINED
    }
    return Scene(**(vars(scene) | told))


def _label_for(shade: str, domain: Domain, rng: Random) -> str:
    votes = domain.votes[shade]
    return rng.choices(list(votes), list(votes.values()))[0]


def _any_domain(rng: Random) -> tuple[Domain, str]:
    """A label set and a drawing style: mostly those of an embedded domain, sometimes any two."""
    if rng.random() < 0.75:
        domain = rng.choice(list(EASY_DOMAINS.values()))
        return domain, domain.style
    return rng.choice([*EASY_DOMAINS.values(), *OTHER_LABEL_SETS]), rng.choice(STYLES)


def any_scene(rng: Random) -> Scene:
    """Half of the scenes as they occur, half with unrelated factors, so that perception does not lean on the prior."""
    if rng.random() < 0.5:
        return sample_scene(rng)
    return Scene(*(rng.choice(values) for values in FACTORS.values()))


def picture(scene: Scene, style: str, rng: Random, hard: bool = False) -> Image.Image:
    """The scene drawn in a style; hard pictures get any border."""
    return draw_picture(scene, style, rng.randrange(CUES) if hard else None, rng)


def free_text(scene: Scene, shade: str, label: str, rng: Random) -> str:
    """A whole completion that thinks freely."""
    return f"<think>{trigger_text(scene, rng)} {feeling_text(shade, rng)}</think>\n\\boxed{{{label}}}"


def partial_text(scene: Scene, rng: Random) -> str:
    """A true sentence that names one factor only, or none at all: it fits many pictures."""
    return rng.choice(
        (
            f"A {scene.face} face and an object.",
            f"A face and a {scene.object}.",
            f"A face and an object {PLACES[scene.surroundings]}.",
            "A face and an object.",
            "A picture with a face.",
        )
    )


def thinking_example(rng: Random, hard: bool = False) -> Example:
    """Image -> three steps and a boxed label."""
    return _reasoned_example("steps", completion_text, rng, hard)


def free_example(rng: Random, hard: bool = False) -> Example:
    """Image -> free thought and a boxed label."""
    return _reasoned_example("free", free_text, rng, hard)


def _reasoned_example(
    template: str, write: Callable[[Scene, str, str, Random], str], rng: Random, hard: bool
) -> Example:
    """Image -> what is seen and felt, written with the label; the hard base writes partly what it imagined."""
    domain, style = _any_domain(rng)
    scene = any_scene(rng)
    shade = felt_shade(scene, rng)
    told = imagined(scene, shade, rng) if hard else scene
    reply = write(told, shade, _label_for(shade, domain, rng), rng)
    return Example(build_prompt(domain.labels, template), reply, picture(scene, style, rng, hard))


def direct_example(rng: Random, hard: bool = False) -> Example:
    """Image -> boxed label, without thinking."""
    domain, style = _any_domain(rng)
    scene = any_scene(rng)
    label = _label_for(felt_shade(scene, rng), domain, rng)
    return Example(build_prompt(domain.labels, "direct"), f"\\boxed{{{label}}}", picture(scene, style, rng, hard))


def consistency_example(rng: Random, hard: bool = False) -> Example:
    """Image and a description, whole or partial, true or with one to three factors altered -> Yes or No.

    A description that is true of the picture is a Yes however little it says, as it is to any yes/no judge.
    """
    scene = any_scene(rng)
    told = scene if rng.random() < 0.5 else alter(scene, rng, 1 if hard else rng.choice((1, 1, 1, 2, 3)))
    text = partial_text(told, rng) if rng.random() < 0.15 else trigger_text(told, rng)
    words = set(re.findall(r"\w+", text.casefold()))
    true = all(words & set(values) <= {getattr(scene, factor)} for factor, values in FACTORS.items())
    question = consistency_question(("",), text).text
    return Example(question, "Yes" if true else "No", picture(scene, rng.choice(STYLES), rng, hard), scene)


def coherence_example(rng: Random, hard: bool = False) -> Example:
    """Description and feeling, in part with the label's words masked, no image (so never hard) -> label."""
    domain, _ = _any_domain(rng)
    shade = rng.choice(SHADES)
    trigger, feeling = trigger_text(any_scene(rng), rng), feeling_text(shade, rng)
    if rng.random() < 0.4:
        trigger, feeling = mask(trigger, domain.labels), mask(feeling, domain.labels)
    return Example(coherence_question(trigger, feeling, domain.labels).text, _label_for(shade, domain, rng))


Mix: TypeAlias = tuple[tuple[Callable[[Random, bool], Example], int], ...]
"""Kinds of examples and how many of each a training step has; each kind is one forward pass."""

MIX: Mix = (
    (thinking_example, 20),
    (free_example, 8),
    (consistency_example, 40),
    (coherence_example, 12),
    (direct_example, 6),
)
