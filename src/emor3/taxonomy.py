"""Label sets: their labels, polarity and arousal signs, aliases, and the label normaliser."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LabelSet:
    """K labels with what is known of them. Signs are +1 or -1; a label without a fixed sign is absent."""

    name: str
    labels: tuple[str, ...]
    polarity: Mapping[str, int] = field(default_factory=dict, hash=False)
    arousal: Mapping[str, int] = field(default_factory=dict, hash=False)
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)


MIKELS8 = LabelSet("mikels8", ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness"))
EKMAN6 = LabelSet("ekman6", ("anger", "disgust", "fear", "joy", "sadness", "surprise"))
WEBEMO7 = LabelSet("webemo7", ("love", "joy", "surprise", "confusion", "anger", "fear", "sadness"))
