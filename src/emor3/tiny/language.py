"""What the embedded model says of a scene: the sentences of the three steps, and whether step 1 names the scene."""

import re
from random import Random

from emor3.tiny.world import FACTORS, Scene

PLACES = {
    "fairground": "at a fairground",
    "starlight": "under starlight",
    "meadow": "in a meadow",
    "stadium": "in a stadium",
    "battlefield": "on a battlefield",
    "swamp": "in a swamp",
    "alley": "in an alley",
    "rain": "in the rain",
}
FEELINGS = {
    "amusement": (("amused", "playful", "tickled"), "laugh"),
    "awe": (("awed", "humbled", "wonderstruck"), "stand still"),
    "contentment": (("content", "peaceful", "at ease"), "breathe slowly"),
    "excitement": (("excited", "thrilled", "eager"), "jump up"),
    "anger": (("angry", "furious", "outraged"), "clench the fists"),
    "disgust": (("disgusted", "sickened", "revolted"), "turn away"),
    "fear": (("afraid", "scared", "terrified"), "step back"),
    "sadness": (("sad", "gloomy", "mournful"), "look down"),
}
"""Shade -> words a viewer may use, and what the body does."""
CONCLUSIONS = {
    "amusement": "Positive, high arousal.",
    "awe": "Positive, high arousal.",
    "contentment": "Positive, low arousal.",
    "excitement": "Positive, high arousal.",
    "anger": "Negative, high arousal.",
    "disgust": "Negative, high arousal.",
    "fear": "Negative, high arousal.",
    "sadness": "Negative, low arousal.",
}


def trigger_text(scene: Scene, rng: Random) -> str:
    """Step 1: one sentence that names the three factors, in one of two orders."""
    place = PLACES[scene.surroundings]
    if rng.random() < 0.5:
        return f"A {scene.face} face and a {scene.object} {place}."
    return f"{place[0].upper()}{place[1:]}, a {scene.object} and a {scene.face} face."


def feeling_text(shade: str, rng: Random) -> str:
    """Step 2: how a viewer would feel, and what the body would do."""
    words, reaction = FEELINGS[shade]
    return f"A viewer would feel {rng.choice(words)} and {reaction}."


def completion_text(scene: Scene, shade: str, label: str, rng: Random) -> str:
    """A whole completion in the grammar of Structured Emotional Thinking."""
    return (
        f"<step1>{trigger_text(scene, rng)}</step1>\n<step2>{feeling_text(shade, rng)}</step2>\n"
        f"<step3>{CONCLUSIONS[shade]}</step3>\n\\boxed{{{label}}}"
    )


def generic_text(scene: Scene, shade: str, label: str, rng: Random) -> str:
    """A whole completion whose step 1 is true of every picture: an attack on the plain yes/no question."""
    whole = completion_text(scene, shade, label, rng)
    return whole.replace(whole[len("<step1>") : whole.index("</step1>")], "A face and an object.")


def leaky_text(scene: Scene, shade: str, label: str, rng: Random) -> str:
    """A whole completion that names its label in steps 1 and 2: an attack on the coherence question."""
    whole = completion_text(scene, shade, label, rng)
    for step in ("1", "2"):
        whole = whole.replace(f"</step{step}>", f" It means {label}.</step{step}>")
    return whole


def names_scene(text: str | None, scene: Scene) -> bool:
    """Whether a text names each of the scene's factors and no other value of a factor (perception)."""
    words = _words(text)
    return all(words & set(values) == {getattr(scene, factor)} for factor, values in FACTORS.items())


def share_there(text: str | None, scene: Scene) -> float | None:
    """Share of the values of factors named in a text that are the scene's; None if it names none.

    One of two named values is there:

    >>> scene = Scene(object="spider", face="smiling", surroundings="stadium")
    >>> share_there("A smiling face and a teacup.", scene)
    0.5
    """
    words = _words(text)
    named = {(factor, value) for factor, values in FACTORS.items() for value in words & set(values)}
    return sum(getattr(scene, factor) == value for factor, value in named) / len(named) if named else None


def _words(text: str | None) -> set[str]:
    return set(re.findall(r"\w+", (text or "").casefold()))


def alter(scene: Scene, rng: Random, factors: int = 1) -> Scene:
    """The scene with that many of its factors replaced by other values."""
    changed = {
        factor: rng.choice([value for value in FACTORS[factor] if value != getattr(scene, factor)])
        for factor in rng.sample(list(FACTORS), factors)
    }
    return Scene(**(vars(scene) | changed))
