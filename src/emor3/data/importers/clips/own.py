"""Anyone's clips: in class folders, or named by a table beside them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from emor3.data.importers import tables
from emor3.data.importers.class_folders import labelled
from emor3.data.importers.clips.finding import Clips, clips_below
from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError
from emor3.data.importers.sources import listing, split_of
from emor3.data.importers.tables import TableRow
from emor3.errors import UserError
from emor3.method.labels import normalise

LONGEST_NAME = 200
"""Characters of a name that no clip has."""
ARRAYS = ".npz"
TABLES = (*tables.TABLES, ARRAYS)
"""Suffixes of the tables that are read."""
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": (
        "clip",
        "video",
        "video_name",
        "video_path",
        "clip_name",
        "file_name",
        "filename",
        "path",
        "file",
        "name",
    ),
    "label": ("label", "emotion", "discrete", "emo", "answer"),
    "group": ("group", "speaker", "actor", "subject", "film", "movie"),
}
"""Field -> columns it is read from, the first that the table has; clips of one speaker or film share a group."""


def own_clips(source: Path, options: Options) -> Found:
    """Class folders of clips with two labels or more, else the clips that one table names.

    Raises WrongLayoutError if there is neither.
    """
    if source.is_file():
        yield from table(source, options)
        return
    unclear = f"no folders of two labels and no table; {listing(source)}"
    try:
        found = list(labelled(source, clips_below(source), "clip"))
    except WrongLayoutError as error:
        found, unclear = [], str(error)
    if len({normalise(item.label) for item in found if isinstance(item, Item)}) > 1:
        yield from (replace(item, is_clip=True) if isinstance(item, Item) else item for item in found)
        return
    named = sorted(path for path in source.iterdir() if path.suffix.lower() in TABLES and path.is_file())
    if len(named) != 1:
        several = f"the tables {', '.join(path.name for path in named)}: give the one with the labels as SRC"
        raise WrongLayoutError(several if named else unclear)
    yield from table(named[0], options)


def table(source: Path, options: Options) -> Found:
    """The clips that a table names, from the folder in which it lies down; one in train/ or test/ has that split."""
    for item in named_clips(_rows(source), source.parent, Clips(source.parent, [source.parent]), options):
        if isinstance(item, Item) and item.split is None:
            item = replace(item, split=next(filter(None, map(split_of, Path(str(item.image)).parts[:-1])), None))
        yield item


def named_clips(rows: Iterable[TableRow | Dropped], root: Path, clips: Clips, options: Options) -> Found:
    """Items of a table's rows, whose names are looked up among the clips."""
    for item in tables.items(*_named(rows, root, options)):
        if isinstance(item, Dropped):
            yield item
            continue
        try:
            yield replace(item, image=clips.find(str(item.image)), is_clip=True)
        except ValueError as error:
            yield Dropped(str(item.image)[:LONGEST_NAME], str(error), item.label)


def _named(
    rows: Iterable[TableRow | Dropped], root: Path, options: Options
) -> tuple[Iterator[TableRow | Dropped], Path, Options]:
    """Rows whose clips are named in words, also if the table has numbers, and the columns in which they are."""
    rows, before = iter(rows), list[TableRow | Dropped]()
    for row in rows:
        before.append(row)
        if not isinstance(row, Dropped):
            options = replace(options, columns=_columns(row[2], options.columns))
            break
    column = options.columns.get("image", "")

    def spelt() -> Iterator[TableRow | Dropped]:
        for row in chain(before, rows):
            if isinstance(row, Dropped) or not isinstance(row[2].get(column), int):
                yield row
            else:
                yield row[0], row[1], {**row[2], column: str(row[2][column])}

    return spelt(), root, options


def _columns(row: Mapping[str, object], given: Mapping[str, str]) -> dict[str, str]:
    """Field -> column, as a person gives them and as they are usually called; `clip` is what images have as `image`.

    Raises UserError for a column of clips that is asked for in vain, WrongLayoutError if there is none.
    """
    names = {name.strip().casefold(): name for name in row}
    usual = {field: next((names[name] for name in known if name in names), None) for field, known in COLUMNS.items()}
    asked = {"image" if field == "clip" else field: column for field, column in given.items()}
    found = {field: column for field, column in {**usual, **asked}.items() if column is not None}
    if "image" not in found:
        raise WrongLayoutError(f"the columns {', '.join(row)}, none for the clip: give --column clip=NAME")
    if found["image"] not in row:
        raise UserError(f"--column clip={found['image']}: the table has the columns {', '.join(row)}")
    return found


def _rows(source: Path) -> Iterator[TableRow | Dropped]:
    if source.suffix.lower() == ARRAYS:
        return _arrays(source)
    return tables.rows_of_file(source, {name for known in COLUMNS.values() for name in known})


def _arrays(source: Path) -> Iterator[TableRow | Dropped]:
    """Rows of the columns of an .npz file. Raises WrongLayoutError if they are Python objects, which are not loaded."""
    try:
        with np.load(source, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
    except ValueError:
        raise WrongLayoutError(
            f"pickled Python objects in {source.name}, which could run any code when they are loaded: "
            "give the table that it was made of (such as train-label.csv), or save names and labels as CSV"
        ) from None
    except (OSError, BadZipFile, EOFError) as error:
        raise WrongLayoutError(f"{source.name}, which is no .npz file ({error})") from None
    shapes = {name: array.shape for name, array in columns.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise WrongLayoutError(f"arrays in {source.name} that are no columns of one length: {shapes}")
    for number, cells in enumerate(zip(*(array.tolist() for array in columns.values()), strict=True)):
        yield f"{source.name} row {number}", None, dict(zip(columns, cells, strict=True))
