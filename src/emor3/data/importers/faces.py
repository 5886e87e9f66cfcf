"""FER2013 and FER+: 48 x 48 grey pixels inside a table, written out as PNG files."""

import csv
from collections.abc import Iterator, Mapping
from io import BytesIO
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError, favourite, why_no_favourite
from emor3.data.importers.sources import listing, number, require
from emor3.method.labels import EKMAN7

USAGE = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
CLASSES = dict(zip("0123456", ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral"), strict=True))
FERPLUS_LABELS = ("neutral", "joy", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
NO_EMOTION = ("unknown", "not a face")
SIDE = 48


def fer2013(source: Path, options: Options) -> Found:
    """Rows of `fer2013.csv`: emotion 0 to 6, pixels, Usage."""
    require(source, "fer2013.csv")
    for where, row in _rows(source / "fer2013.csv", ("emotion", "pixels", "Usage")):
        label, split, image = CLASSES.get(row["emotion"]), USAGE.get(row["Usage"]), _png(row["pixels"])
        if label is None or split is None or image is None:
            yield Dropped(where, f"emotion {row['emotion']!r}, Usage {row['Usage']!r} or pixels are not as expected")
        else:
            yield Item(image, label, split)


def ferplus(source: Path, options: Options) -> Found:
    """Ten vote columns of `fer2013new.csv` for the pictures of `fer2013.csv`, line by line.

    Policy `ekman7` leaves out contempt, also from the distribution; `ferplus8` keeps it. Pictures that most voters find
    unknown or not a face, and ties, are dropped.
    """
    if not (source / "fer2013.csv").exists():
        raise WrongLayoutError(f"no fer2013.csv, which holds the pictures; {listing(source)}")
    require(source, "fer2013new.csv")
    labels = EKMAN7.labels if options.policy == "ekman7" else FERPLUS_LABELS
    pictures = _rows(source / "fer2013.csv", ("pixels", "Usage"))
    for picture, voted in zip_longest(pictures, _rows(source / "fer2013new.csv", ("Usage", "neutral"))):
        if picture is None or voted is None or picture[1]["Usage"] != voted[1]["Usage"]:
            raise WrongLayoutError(f"two tables that differ from {(picture or voted)[0]} on")
        where, row = voted
        cells = [number(cell) for cell in list(row.values())[2:12]]
        image = _png(picture[1]["pixels"])
        if len(cells) != 10 or None in cells or image is None:
            yield Dropped(where, "ten vote counts and 48 x 48 pixels expected")
            continue
        votes = dict(zip((*FERPLUS_LABELS, *NO_EMOTION), (cell or 0.0 for cell in cells), strict=True))
        label = favourite(votes)
        if label is None:
            yield Dropped(where, why_no_favourite(votes))
        elif label not in labels:
            yield Dropped(where, f"most votes are for {label}")
        else:
            counts = {name: votes[name] for name in labels}
            yield Item(image, label, USAGE.get(row["Usage"]), distribution=counts)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if not set(columns) <= set(reader.fieldnames or ()):
            raise WrongLayoutError(f"{path.name} with the columns {', '.join(reader.fieldnames or ())}")
        for row in reader:
            yield f"{path.name} line {reader.line_num}", {name: value or "" for name, value in row.items() if name}


def _png(pixels: str) -> bytes | None:
    """The picture of a row; None if it is not 48 x 48 values from 0 to 255."""
    values = pixels.split()
    if len(values) != SIDE * SIDE or not all(value.isdecimal() and int(value) < 256 for value in values):
        return None
    file = BytesIO()
    Image.frombytes("L", (SIDE, SIDE), bytes(map(int, values))).save(file, "PNG")
    return file.getvalue()
