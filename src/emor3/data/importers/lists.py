"""Sets that come with a list or a table of ratings beside their images: Emotion6, the LDL sets, Abstract, RAF-DB,
EmoSet; and ArtPhoto, whose file names are the list."""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError, favourite, why_no_favourite
from emor3.data.importers.sources import images_below, number, require, rows_of
from emor3.method import labels as taxonomy
from emor3.method.labels import EKMAN6, EKMAN7, MIKELS8, SENTIMENT3, LabelSet

VA4 = ("negative_high_arousal", "negative_low_arousal", "positive_high_arousal", "positive_low_arousal")
VA5 = LabelSet(
    "va5",
    (*VA4[:2], "neutral", *VA4[2:]),
    polarity=dict(zip(VA4, (-1, -1, 1, 1), strict=True)),
    arousal=dict(zip(VA4, (1, -1, 1, -1), strict=True)),
)
OASIS_POLICIES: Mapping[str, LabelSet | None] = {"sentiment3": SENTIMENT3, "va5": VA5}
NEGATIVE_BELOW, POSITIVE_ABOVE = 3.5, 4.5
"""Cuts of the mean valence on its scale from 1 to 7; they are ours, OASIS has ratings and no classes."""


def oasis(source: Path, options: Options) -> Found:
    """`OASIS.csv` (Theme, Valence_mean, Arousal_mean) and `images/<theme>.jpg`; 1 to 7 becomes 0 to 1 for VA.

    `Acorns 1` and `Acorns 2` are of one group. `va5` cuts negative and positive at the median arousal of the table.
    """
    require(source, "OASIS.csv", "images")
    with (source / "OASIS.csv").open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"Theme", "Valence_mean", "Arousal_mean"} <= set(reader.fieldnames or ()):
            raise WrongLayoutError(f"OASIS.csv with the columns {', '.join(reader.fieldnames or ())}")
        rows = [(f"OASIS.csv line {reader.line_num}", row) for row in reader]
    ratings = [(number(row["Valence_mean"] or ""), number(row["Arousal_mean"] or "")) for _, row in rows]
    middle = median([arousal for _, arousal in ratings if arousal is not None] or [0.0])
    for (where, row), (valence, arousal) in zip(rows, ratings, strict=True):
        theme = (row["Theme"] or "").strip()
        if valence is None or arousal is None or not theme:
            yield Dropped(where, "a theme and mean ratings of valence and arousal expected")
            continue
        label = "negative" if valence < NEGATIVE_BELOW else "positive" if valence > POSITIVE_ABOVE else "neutral"
        if options.policy == "va5" and label != "neutral":
            label = f"{label}_{'high' if arousal > middle else 'low'}_arousal"
        group = re.sub(r"\s*[0-9]+$", "", theme)
        yield Item(f"images/{theme}.jpg", label, valence=(valence - 1) / 6, arousal=(arousal - 1) / 6, group=group)


@dataclass(frozen=True)
class MikelsVotes:
    """A table with a header of label names and one line of vote counts for each image."""

    table: str
    images: str
    delimiter: str | None

    def __call__(self, source: Path, options: Options) -> Found:
        require(source, self.table, self.images)
        rows = rows_of(source / self.table, self.delimiter)
        _, header = next(rows, ("", []))
        labels = [taxonomy.resolve(name, MIKELS8) for name in header[1:]]  # `Content` and `Sad` are aliases
        if set(labels) != set(MIKELS8.labels):
            raise WrongLayoutError(f"{self.table} with the columns {', '.join(header)}")
        for where, (name, *cells) in rows:
            counts = [number(cell) for cell in cells]
            if len(counts) != len(labels) or None in counts:
                yield Dropped(where, f"{len(labels)} vote counts expected, found {' '.join(cells)}")
                continue
            by_label = dict(zip(labels, counts, strict=True))
            votes = {label: by_label[label] or 0.0 for label in MIKELS8.labels}
            label = favourite(votes, options.policy)
            if label is None:
                yield Dropped(f"{where}: {name}", why_no_favourite(votes))
            else:
                yield Item(f"{self.images}/{name}", label, distribution=votes)


EMOTION6_COLUMNS = ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")
KEYWORD, VOTES7, VOTES6 = "keyword", "votes7", "votes6"


def emotion6(source: Path, options: Options) -> Found:
    """Tab-separated ratings, read by position since the header's spelling varies; 1 to 9 becomes 0 to 1 for VA."""
    require(source, "ground_truth.txt", "images")
    for where, cells in rows_of(source / "ground_truth.txt", "\t"):
        ratings = [number(cell) for cell in cells[1:10]]
        if len(ratings) < 9 or None in ratings:
            if not where.endswith(" line 1"):  # which is the header
                yield Dropped(where, f"a file name and nine numbers expected, found {len(cells)} cells")
            continue
        valence, arousal, *votes = (rating or 0.0 for rating in ratings)
        name = cells[0].replace("\\", "/").removeprefix("images/")
        distribution = dict(zip(EMOTION6_COLUMNS, votes, strict=True))
        labels = EKMAN7 if options.policy == VOTES7 else EKMAN6
        over_labels = {label: distribution[label] for label in labels.labels}
        by_keyword = options.policy == KEYWORD
        label = taxonomy.match(name.split("/")[0], EKMAN6) if by_keyword else favourite(over_labels)
        if label is None:
            reason = "its folder is none of the six keywords" if by_keyword else why_no_favourite(over_labels)
            yield Dropped(f"{where}: {name}", reason)
            continue
        yield Item(
            f"images/{name}",
            label,
            distribution=over_labels if sum(over_labels.values()) > 0 else None,
            valence=(valence - 1) / 8,
            arousal=(arousal - 1) / 8,
        )


RAFDB_CLASSES = dict(zip("1234567", ("surprise", "fear", "disgust", "joy", "sadness", "anger", "neutral"), strict=True))


def rafdb(source: Path, options: Options) -> Found:
    """`train_00001.jpg 5` names `Image/aligned/train_00001_aligned.jpg`, or the picture it was cut from."""
    table = "EmoLabel/list_patition_label.txt"  # spelt so in the set
    folder = f"Image/{options.policy}"
    require(source, table, folder)
    suffix = "_aligned" if options.policy == "aligned" else ""
    for where, cells in rows_of(source / table, None):
        split, _, _ = cells[0].partition("_")
        stem, dot, extension = cells[0].rpartition(".")
        label = RAFDB_CLASSES.get(cells[1]) if len(cells) == 2 else None
        if label is None or split not in ("train", "test"):
            yield Dropped(where, f"expected as in `train_00001.jpg 5`, found {' '.join(cells)}")
        else:
            yield Item(f"{folder}/{stem}{suffix}{dot}{extension}", label, split)


def artphoto(source: Path, options: Options) -> Found:
    """`testImages_artphoto/<label>_<id>.jpg`, with `sad` and `content` for two labels."""
    require(source, "testImages_artphoto")
    for path in images_below(source / "testImages_artphoto"):
        name = path.relative_to(source).as_posix()
        label = taxonomy.resolve(path.stem.split("_")[0], MIKELS8)
        fault = Dropped(name, "its name does not begin with one of the eight labels")
        yield fault if label is None else Item(name, label)


# --- EmoSet -----------------------------------------------------------------------------------------------------------

EMOSET_ATTRIBUTES = ("brightness", "colorfulness", "scene", "facial_expression", "human_action", "object")


def emoset(source: Path, options: Options) -> Found:
    """Lists of `[emotion, image, annotation]`, or `[emotion, id, image, annotation]` as the set's own text has it."""
    require(source, "info.json", "train.json", "test.json", "annotation", "image")
    for split in ("train", "val", "test"):
        if not (source / f"{split}.json").exists():
            continue
        for index, row in enumerate(_read_json(source / f"{split}.json", list)):
            where = f"{split}.json row {index}"
            match row:
                case [emotion, str(image), str(annotation)] | [emotion, _, str(image), str(annotation)]:
                    label = taxonomy.match(str(emotion), MIKELS8)
                case _:
                    raise WrongLayoutError(f"{where}: {str(row)[:80]}")
            if label is None:
                yield Dropped(f"{where}: {image}", f"{emotion!r} is none of the eight labels")
            elif ".." in annotation.split("/") or not (source / annotation).is_file():
                yield Dropped(f"{where}: {image}", f"its annotation {annotation} is missing")
            else:
                try:
                    attributes = emoset_attributes(_read_json(source / annotation, dict))
                    yield Item(image, label, split, attributes=attributes)
                except WrongLayoutError as error:
                    yield Dropped(f"{where}: {image}", f"its annotation is {error}")


def emoset_attributes(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that an annotation gives; what it leaves out, or leaves empty, is unknown."""
    return {name: annotation[name] for name in EMOSET_ATTRIBUTES if annotation.get(name) not in (None, "", [])}


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WrongLayoutError(f"{path.name}, which is not JSON ({error})") from None
    if not isinstance(content, kind):
        raise WrongLayoutError(f"{path.name}, which holds no JSON {kind.__name__}")
    return content
