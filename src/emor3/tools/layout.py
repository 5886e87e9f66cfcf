"""How a person's labelled images or clips lie: as a data folder, as a public set, in class folders, or in a table."""

import csv
from pathlib import Path

from emor3.data.folders import EMBEDDED
from emor3.data.importers.catalogue import SETS, DataSet
from emor3.data.importers.class_folders import ClassFolders, own_folders
from emor3.data.importers.items import Item, Options, WrongLayoutError
from emor3.data.importers.sources import files_below, images_below, listing
from emor3.data.importers.tables import TABLES
from emor3.data.rows import MANIFEST
from emor3.errors import UserError
from emor3.method.labels import normalise
from emor3.storage.clips import CLIP_SUFFIXES

OWN = ("folders", "table", "hub", "clips")
"""Layouts that are nobody's in particular."""


def layout_of(data: str) -> tuple[str, Path] | None:
    """What `emor3 data import` has to be told to read these images: a name and a source; None for a data folder.

    Raises UserError for a place without labelled images, for one label only, and if it could be read in several ways.
    """
    path = Path(data).expanduser()
    if data.startswith(EMBEDDED) or (path / MANIFEST).is_file():
        return None
    if path.suffix.lower() in TABLES and path.is_file():
        return "clips" if _holds_clips(path.parent) else "table", path
    if not path.is_dir():
        tables = ", ".join(TABLES)
        raise UserError(f"{data}: " + (f"no folder, and no table ({tables})" if path.exists() else "no such folder"))
    known = [name for name, data_set in SETS.items() if _reads(data_set, name, path)]
    if len(known) > 1:
        way = f"`emor3 data import NAME {data} OUT` with one of these names, then `emor3 init OUT`"
        raise UserError(f"{data} may be {' or '.join(known)}: {way}")
    return (known[0], path) if known else _own_layout(path)


def _reads(data_set: DataSet, name: str, path: Path) -> bool:
    """Whether the reader of a public set finds something in a folder; class folders could be anyone's."""
    if name in OWN or isinstance(data_set.read, ClassFolders):
        return False
    try:
        first = next(data_set.read(path, Options(next(iter(data_set.policies)))), None)
    except (WrongLayoutError, UserError, OSError, csv.Error, UnicodeDecodeError):
        return False
    return isinstance(first, Item)


def _own_layout(path: Path) -> tuple[str, Path]:
    """Class folders of two labels or more, else the one table of a folder; of clips if there is no image."""
    if _holds_clips(path):
        return "clips", path
    unclear = None
    labels: dict[str, str] = {}
    try:
        for found in own_folders(path, Options("")):
            if isinstance(found, Item):
                labels.setdefault(normalise(found.label), found.label)
    except WrongLayoutError as error:
        unclear = error
    if len(labels) > 1 and unclear is None:
        return "folders", path
    tables = sorted(file for file in path.iterdir() if file.suffix.lower() in TABLES and file.is_file())
    if len(tables) == 1:
        return "table", tables[0]
    if tables:
        raise UserError(f"{path} holds several tables: name the one with the labels, as in `emor3 init {tables[0]}`")
    if unclear is not None:
        raise UserError(f"{path}: {unclear}")
    if labels:
        raise one_label(str(path), *labels.values())
    if next(images_below(path), None) is not None:
        raise UserError(f"{path}: nothing tells the labels of its images: put them in one folder for each label")
    raise UserError(f"{path}: no images and no table in it; {listing(path)}")


def _holds_clips(folder: Path) -> bool:
    """Whether there are video clips, and no images, which would be asked about first."""
    return next(images_below(folder), None) is None and bool(files_below(folder, CLIP_SUFFIXES))


def one_label(place: str, *labels: str) -> UserError:
    """What is said of data in which there is nothing to tell apart."""
    named = f"only the label {labels[0]!r}" if labels else "no label"
    return UserError(f"{place} has {named}: give images of two labels or more")
