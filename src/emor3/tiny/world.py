"""The drawn world: scenes whose emotion is a distribution over labels, as human votes are, in three domains.

A scene has a trigger object, a face and surroundings, drawn together: first a shade of feeling, then each factor given
the shade. So what a scene evokes is the posterior over shades (Bayes' rule over the table below), sometimes clear and
sometimes mixed. Simulated viewers vote by that posterior; the label is the majority and the votes are kept.

The three hard domains have the easy ones' labels. Their pictures are hard to see, three viewers vote instead of nine,
and a coloured border goes with the label, in every domain in another way: what it teaches in one misleads in the next.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from emor3.method.labels import EKMAN6, MIKELS8, WEBEMO7, LabelSet
from emor3.tiny.drawing import FACE_ICONS, OBJECT_ICONS, SURROUNDINGS

VOTERS = 9
HARD_VOTERS = 3
CUES = 8
"""How many borders there are."""
CUED = 0.85
"""Share of hard scenes whose border is that of the label."""

SHADES = MIKELS8.labels

EVOKES = {
    "balloon": ("amusement",),
    "rainbow": ("awe",),
    "teacup": ("contentment",),
    "rocket": ("excitement",),
    "flame": ("anger",),
    "garbage": ("disgust",),
    "spider": ("fear",),
    "grave": ("sadness",),
    "laughing": ("amusement", "excitement"),
    "smiling": ("contentment",),
    "gaping": ("awe",),
    "scowling": ("anger",),
    "grimacing": ("disgust",),
    "trembling": ("fear",),
    "weeping": ("sadness",),
    "fairground": ("amusement",),
    "starlight": ("awe",),
    "meadow": ("contentment",),
    "stadium": ("excitement",),
    "battlefield": ("anger",),
    "swamp": ("disgust",),
    "alley": ("fear",),
    "rain": ("sadness",),
}
"""Which shades a factor goes with; all others meet it by chance only."""

FACTORS = {"object": tuple(OBJECT_ICONS), "face": tuple(FACE_ICONS), "surroundings": tuple(SURROUNDINGS)}
AFFINITY = {"object": 14.0, "face": 10.0, "surroundings": 7.0}
"""How many times likelier a factor is under a shade it goes with than under another."""


@dataclass(frozen=True)
class Domain:
    """A set of scenes with its own drawing style and label set, and how shades are voted for in it."""

    name: str
    style: str
    labels: LabelSet
    votes: Mapping[str, Mapping[str, float]]
    """Shade -> share of its votes that go to each label."""
    voters: int = VOTERS
    cue_shift: int | None = None
    """The label at place i goes with border i + cue_shift, counted round; None: easy pictures, without borders."""

    @property
    def hard(self) -> bool:
        """Whether pictures are hard to see and have a border."""
        return self.cue_shift is not None

    def cue(self, label: str) -> int:
        """The border that goes with a label."""
        return (self.labels.labels.index(label) + (self.cue_shift or 0)) % CUES


EASY_DOMAINS = {
    domain.name: domain
    for domain in (
        Domain("scenes8", "painted", MIKELS8, {shade: {shade: 1.0} for shade in SHADES}),
        Domain(
            "scenes6",
            "sketched",
            EKMAN6,
            {
                "amusement": {"joy": 1.0},
                "awe": {"surprise": 1.0},
                "contentment": {"joy": 1.0},
                "excitement": {"joy": 1.0},
                "anger": {"anger": 1.0},
                "disgust": {"disgust": 1.0},
                "fear": {"fear": 1.0},
                "sadness": {"sadness": 1.0},
            },
        ),
        # The votes fall on WebEmo's finer labels (affection, enthrallment, zest, ...), folded here to its seven.
        Domain(
            "scenes7",
            "faded",
            WEBEMO7,
            {
                "amusement": {"joy": 1.0},
                "awe": {"surprise": 0.8, "joy": 0.1, "confusion": 0.1},
                "contentment": {"love": 0.8, "joy": 0.2},
                "excitement": {"joy": 0.9, "surprise": 0.1},
                "anger": {"anger": 1.0},
                "disgust": {"anger": 1.0},
                "fear": {"fear": 1.0},
                "sadness": {"sadness": 1.0},
            },
        ),
    )
}
HARD_DOMAINS = {
    name: replace(EASY_DOMAINS[easy], name=name, voters=HARD_VOTERS, cue_shift=shift)
    for name, easy, shift in (("hard8", "scenes8", 0), ("hard6", "scenes6", 6), ("hard7", "scenes7", 5))
}
"""The shifts are such that a border never goes with the same feeling in two domains."""
DOMAINS = EASY_DOMAINS | HARD_DOMAINS


@dataclass(frozen=True)
class Scene:
    """The three factors a viewer can name."""

    object: str
    face: str
    surroundings: str


@cache
def likelihood(factor: str, shade: str) -> tuple[float, ...]:
    """P(value | shade) for the values of a factor, in the order of FACTORS."""
    weights = [AFFINITY[factor] if shade in EVOKES[value] else 1.0 for value in FACTORS[factor]]
    return tuple(weight / sum(weights) for weight in weights)


@cache
def posterior(scene: Scene) -> dict[str, float]:
    """P(shade | scene) under equally likely shades."""
    joint = {}
    for shade in SHADES:
        joint[shade] = 1.0
        for factor, values in FACTORS.items():
            joint[shade] *= likelihood(factor, shade)[values.index(getattr(scene, factor))]
    return {shade: value / sum(joint.values()) for shade, value in joint.items()}


def label_distribution(scene: Scene, domain: Domain) -> dict[str, float]:
    """P(one viewer's vote | scene) over the K labels of the domain."""
    shares = dict.fromkeys(domain.labels.labels, 0.0)
    for shade, probability in posterior(scene).items():
        for label, share in domain.votes[shade].items():
            shares[label] += probability * share
    return shares


def likely_shade(scene: Scene, label: str, domain: Domain) -> str:
    """The shade that most probably lies behind a viewer's vote for the label."""
    shares = posterior(scene)
    return max(shares, key=lambda shade: shares[shade] * domain.votes[shade].get(label, 0.0))


def sample_scene(rng: Random) -> Scene:
    """A shade at random, then each factor given the shade."""
    shade = rng.choice(SHADES)
    return Scene(*(rng.choices(values, likelihood(factor, shade))[0] for factor, values in FACTORS.items()))


def vote(scene: Scene, domain: Domain, rng: Random) -> tuple[str, dict[str, float]]:
    """The majority label of the domain's simulated viewers (ties drawn at random) and the shares of all labels."""
    shares = label_distribution(scene, domain)
    votes = Counter(rng.choices(list(shares), list(shares.values()), k=domain.voters))
    most = max(votes.values())
    label = rng.choice([label for label in shares if votes[label] == most])
    return label, {label: votes[label] / domain.voters for label in shares}


def draw_cue(label: str, domain: Domain, rng: Random) -> int:
    """The border of a hard scene: the label's in CUED of the scenes, else any other."""
    right = domain.cue(label)
    return right if rng.random() < CUED else rng.choice([cue for cue in range(CUES) if cue != right])
