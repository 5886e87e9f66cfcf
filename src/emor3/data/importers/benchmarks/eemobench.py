"""EEmo-Bench (arXiv 2504.16405): the three emotions that most people felt at an image, and its mean VAD ratings.

Both stand in the questions' files as a text, `Ranking:{'Anger': 33, …} category:… Valence:5.33 Arousal:6.44
Dominance:5.44`, beside the image's name. Read so from the pair file that the authors publish with GPT-4o's answers.
"""

import json
import re
from ast import literal_eval
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError, favourite, why_no_favourite
from emor3.data.importers.sources import listing
from emor3.method import labels as taxonomy
from emor3.method.labels import EKMAN7

_NUMBER = r"(\d+(?:\.\d+)?)"
_ANNOTATION = re.compile(
    rf"Ranking:\s*(\{{[^{{}}]*\}})\s+category:(.*?)\s+Valence:{_NUMBER}\s+Arousal:{_NUMBER}\s+Dominance:{_NUMBER}"
)
_IMAGE, _LABEL = re.compile(r"image([12]?)_url"), re.compile(r"image([12]?)_?label")
FOLDERS = ("", "images", "EEmo-Bench_single/images", "EEmo-Bench_pair/images")
"""Where images may lie below the source."""
QUESTIONS = "EEmo-Bench*.json"
"""Files of questions, in the source or one folder below."""
SCALE = 8
"""Ratings go from 1 to 9."""


def eemobench(source: Path, options: Options) -> Found:
    """One row for each image that a question of any file names with its annotation; all are test rows.

    Votes of the third and further ranks are not published, so the distribution is that of the first three. Ratings from
    1 to 9 become 0 to 1; dominance is an attribute.
    """
    files = sorted({*source.glob(QUESTIONS), *source.glob(f"*/{QUESTIONS}")})
    if not files:
        raise WrongLayoutError(f"no file of questions, as EEmo-Bench(pair).json; {listing(source)}")
    seen: dict[str, str] = {}
    for file in files:
        for name, annotation in _annotations(file):
            if name not in seen:
                seen[name] = annotation
                yield _item(name, annotation, source, options.policy)
            elif seen[name] != annotation:
                yield Dropped(f"{file.name}: {name}", "it is annotated in another way before")
    if not seen:
        raise WrongLayoutError(f"{files[0].name} without annotations as `Ranking:{{'Anger': 33, …}} … Valence:5.33 …`")


def _annotations(file: Path) -> Iterator[tuple[str, str]]:
    """Name of an image and its annotation, of each image of each question."""
    try:
        rows = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WrongLayoutError(f"{file.name}, which is not JSON ({error})") from None
    for row in rows if isinstance(rows, list) else ():
        fields: Mapping[str, Any] = row if isinstance(row, dict) else {}
        names = {found[1]: str(value) for key, value in fields.items() if (found := _IMAGE.fullmatch(key))}
        for key, value in fields.items():
            place, text = _LABEL.fullmatch(key), _ANNOTATION.search(str(value))
            if place and text and place[1] in names:
                yield names[place[1]].replace("\\", "/"), text[0]


def _item(name: str, annotation: str, source: Path, policy: str) -> Item | Dropped:
    ranking, category, *numbers = _ANNOTATION.fullmatch(annotation).groups()  # type: ignore[union-attr]
    try:
        counts = {str(word): float(votes) for word, votes in literal_eval(ranking).items()}
    except (ValueError, SyntaxError, TypeError):
        return Dropped(name, f"its ranking is {ranking[:80]}")
    votes = {taxonomy.resolve(word, EKMAN7) or word: count for word, count in counts.items()}
    if strange := votes.keys() - set(EKMAN7.labels):
        return Dropped(name, f"{sorted(strange)[0]!r} is none of {EKMAN7.listed()}")
    label = favourite(votes, policy)
    if label is None:
        return Dropped(name, why_no_favourite(votes))
    valence, arousal, dominance = ((float(number) - 1) / SCALE for number in numbers)
    places = (f"{folder}/{name}".lstrip("/") for folder in FOLDERS)
    image = next((place for place in places if (source / place).is_file()), f"images/{name}")
    attributes = {"content": category.strip(), "dominance": dominance}
    return Item(image, label, "test", votes, valence, arousal, attributes=attributes, id=name)
