"""What a reader of a layout yields: items and dropped entries; and the label that votes give."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from emor3.method.types import Attribute


class WrongLayoutError(Exception):
    """The source is not in the expected layout; the text says what was found instead."""


@dataclass(frozen=True)
class Item:
    """One labelled image of a source. `split` is None if the set has no split of its own."""

    image: str | bytes
    """Path relative to the source folder, with forward slashes, or the image file's content."""
    label: str
    split: str | None = None
    distribution: Mapping[str, float] | None = None
    valence: float | None = None
    """From 0 to 1 if the set defines its scale, as is arousal."""
    arousal: float | None = None
    group: str | None = None
    attributes: Mapping[str, Attribute | list[str]] | None = None
    id: str | None = None
    text: str | None = None
    """What stands in the prompt beside the image."""
    is_clip: bool = False
    """Whether `image` is the path of a clip, a video file or a folder of its frames: some frames become the images."""


@dataclass(frozen=True)
class Dropped:
    """An entry of the source that does not become a row, and why."""

    what: str
    reason: str
    label: str | None = None
    """Its label, if it had one: a label of which nothing is left is named."""


@dataclass(frozen=True)
class Options:
    """Options of an import: a label policy of the set, and the columns of a table that hold each field."""

    policy: str
    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: Mapping[int, str] = field(default_factory=dict)
    """Number -> label, if a table holds numbers in place of labels."""


Found: TypeAlias = Iterator[Item | Dropped]
Reader: TypeAlias = Callable[[Path, Options], Found]


DROP_TIES, FIRST_OF_TIES = "drop-ties", "first-of-ties"


def favourite(votes: Mapping[str, float], policy: str = DROP_TIES) -> str | None:
    """The label with most votes; None for a tie unless the policy takes the first in the set's order, or for none."""
    best = max(votes.values(), default=0.0)
    leaders = [label for label, count in votes.items() if count == best]
    return leaders[0] if best > 0 and (len(leaders) == 1 or policy == FIRST_OF_TIES) else None


def why_no_favourite(votes: Mapping[str, float]) -> str:
    """Reason for a row to be dropped whose votes name no label."""
    best = max(votes.values(), default=0.0)
    leaders = " and ".join(label for label, count in votes.items() if count == best)
    return f"tie of {leaders}" if best > 0 else "no votes"
