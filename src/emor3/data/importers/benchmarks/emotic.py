"""EMOTIC (Kosti et al. 2019): 26 categories and VAD of people in photographs, in a Matlab structure.

Layout of the authors' README and of the PyTorch implementation that it names: `Annotations/Annotations.mat` with the
parts train, val and test, and images at `emotic/<folder>/<filename>`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError, favourite, why_no_favourite
from emor3.data.importers.sources import listing
from emor3.method.labels import LabelSet

_POSITIVE = ("affection", "confidence", "engagement", "esteem", "excitement", "happiness", "peace", "pleasure")
_NEGATIVE = (
    *("anger", "annoyance", "aversion", "disapproval", "disconnection", "disquietment", "embarrassment", "fatigue"),
    *("fear", "pain", "sadness", "suffering"),
)
EMOTIC26 = LabelSet(
    "emotic26",
    tuple(
        sorted(
            (
                *_POSITIVE,
                *_NEGATIVE,
                *("anticipation", "doubt/confusion", "sensitivity", "surprise", "sympathy", "yearning"),
            )
        )
    ),
    polarity={**dict.fromkeys(_POSITIVE, 1), **dict.fromkeys(_NEGATIVE, -1)},
)
"""The signs are ours; six categories have none."""

ANNOTATIONS = ("Annotations/Annotations.mat", "Annotations.mat", "CVPR17_Annotations.mat")
PARTS = ("train", "val", "test")
SCALE = 9
"""Ratings go from 1 to 10."""


def emotic(source: Path, options: Options) -> Found:
    """Images with one annotated person: votes are the annotators that chose a category, each of several if they did.

    `drop-ties` leaves out images of which several categories have most votes, as nearly all of those with one annotator
    (the training part); `first-of-ties` takes the first in alphabetical order. Ratings from 1 to 10 become 0 to 1.
    """
    file = next((source / name for name in ANNOTATIONS if (source / name).is_file()), None)
    if file is None:
        raise WrongLayoutError(f"no {ANNOTATIONS[0]}; {listing(source)}")
    try:
        content = loadmat(file, squeeze_me=True, struct_as_record=False)
    except (MatReadError, ValueError, NotImplementedError, TypeError) as error:
        raise WrongLayoutError(f"{file.name}, which is no Matlab file that scipy reads ({error})") from None
    if missing := [part for part in PARTS if part not in content]:
        raise WrongLayoutError(f"{file.name} without the part {missing[0]}")
    for part in PARTS:
        for number, entry in enumerate(np.atleast_1d(content[part]), start=1):
            yield _item(entry, f"{part} {number}", part, source, options.policy)


def _item(entry: Any, where: str, part: str, source: Path, policy: str) -> Item | Dropped:
    try:
        name = f"{entry.folder}/{entry.filename}"
        people = list(np.atleast_1d(entry.person))
        if len(people) != 1:
            return Dropped(f"{where}: {name}", f"{len(people)} people are annotated: whose emotion is asked for?")
        votes = Counter(label for chosen in _categories(people[0]) for label in chosen)
        valence, arousal = _ratings(people[0])
    except AttributeError as error:
        raise WrongLayoutError(f"{where} without a field of EMOTIC ({error})") from None
    except KeyError as error:
        raise WrongLayoutError(f"{where} with the category {error}, which is none of the 26") from None
    by_label = {label: float(votes[label]) for label in EMOTIC26.labels}
    label = favourite(by_label, policy)
    if label is None:
        return Dropped(f"{where}: {name}", why_no_favourite(by_label))
    image = f"emotic/{name}" if (source / "emotic" / name).is_file() else name
    return Item(image, label, part, distribution=dict(votes), valence=valence, arousal=arousal)


def _categories(person: Any) -> Iterator[list[str]]:
    """The categories that each annotator chose."""
    for annotator in np.atleast_1d(person.annotations_categories):
        yield [_CATEGORY[str(category).strip().lower()] for category in np.atleast_1d(annotator.categories)]


_CATEGORY: Mapping[str, str] = {label: label for label in EMOTIC26.labels} | {"disquitement": "disquietment"}


def _ratings(person: Any) -> tuple[float | None, float | None]:
    """Mean valence and arousal of the annotators that rated both, from 0 to 1."""
    rated = [
        (float(annotator.valence), float(annotator.arousal))
        for annotator in np.atleast_1d(person.annotations_continuous)
    ]
    known = [pair for pair in rated if not any(map(math.isnan, pair))]
    return (_mean([v for v, _ in known]), _mean([a for _, a in known])) if known else (None, None)


def _mean(ratings: Sequence[float]) -> float:
    return (sum(ratings) / len(ratings) - 1) / SCALE
