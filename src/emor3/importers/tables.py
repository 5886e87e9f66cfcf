"""Tables with one image a row: CSV, TSV, JSONL, Parquet, and data sets of the hub with images, problem and answer.

Rows are streamed. Only what the columns of `FIELDS` hold becomes part of the manifest: a problem is somebody else's
prompt, and a coarse column (`course_grained`) contradicts the labels, so polarity comes from the label.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from emor3.cells import from_cell
from emor3.data import parse_row
from emor3.errors import UserError
from emor3.importers.items import SPLITS, Dropped, Found, Item, Options, WrongLayoutError, number
from emor3.thinking import parse

FIELDS: Mapping[str, tuple[str, ...]] = {
    "image": ("file_name", "image", "images", "image_path", "path", "filename"),
    "label": ("label", "answer", "emotion"),
    "split": ("split", "usage"),
    "group": ("group",),
    "id": ("id",),
    "valence": ("valence",),
    "arousal": ("arousal",),
    "distribution": ("distribution",),
    "attributes": ("attributes",),
}
"""Field of ours -> columns it is read from; the first that the table has, in any case of letters."""

Row = tuple[str, str | None, Mapping[str, Any]]
"""Place of a row for messages, the split that its file belongs to, and its cells."""


def table(source: Path, options: Options) -> Found:
    """One file; images are named relative to its folder."""
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    reader = readers.get(source.suffix.lower())
    if reader is None or not source.is_file():
        raise WrongLayoutError(f"{source.name}, which is no .csv, .tsv, .jsonl or .parquet file")
    yield from _items(reader(source), source.parent, options)


def hub(source: Path, options: Options) -> Found:
    """A data set in the hub's layout: a local folder, or the name of one that the `datasets` library can reach."""
    yield from _items(_hub_rows(str(source)), source, options)


def _items(rows: Iterable[Row], folder: Path, options: Options) -> Found:
    known: dict[tuple[str, ...], dict[str, str]] = {}  # JSONL rows need not all have the same columns
    for where, split, row in rows:
        if not known:
            _check_columns(row, options)
        names = tuple(row)
        if names not in known:
            known[names] = _columns(row, options)
        try:
            yield _item(row, known[names], split, folder)
        except ValueError as error:
            yield Dropped(where, str(error))


def _columns(row: Mapping[str, Any], options: Options) -> dict[str, str]:
    """Field -> the column of this row that holds it."""
    names = {name.strip().casefold(): name for name in row}
    found = {
        field: next((names[name] for name in candidates if name in names), None) for field, candidates in FIELDS.items()
    }
    return {field: column for field, column in {**found, **options.columns}.items() if column is not None}


def _check_columns(row: Mapping[str, Any], options: Options) -> None:
    """Raises UserError for columns asked for in vain, WrongLayoutError where image or label is in none."""
    for field, column in options.columns.items():
        if field not in FIELDS:
            raise UserError(f"--column {field}=…: there are the fields {', '.join(FIELDS)}")
        if column not in row:
            raise UserError(f"--column {field}={column}: the table has the columns {', '.join(row)}")
    for field in ("image", "label"):
        if field not in _columns(row, options):
            raise WrongLayoutError(f"the columns {', '.join(row)}, none for the {field}: give --column {field}=NAME")


def _item(row: Mapping[str, Any], columns: Mapping[str, str], split: str | None, folder: Path) -> Item:
    """A row as an item. Raises ValueError, saying what is wrong with it."""
    cells = {field: row[column] for field, column in columns.items() if row.get(column) not in (None, "")}
    label = cells.get("label")
    if not isinstance(label, str):
        raise ValueError(f"its label is {label!r}, not a word")
    named = str(cells["split"]).strip() if "split" in cells else None
    return Item(
        image=_image(cells.get("image"), folder),
        label=parse(label).answer or label.strip(),
        split=split if named is None else SPLITS.get(named.casefold(), named),
        distribution=_mapping(cells, "distribution"),
        valence=_number(cells, "valence"),
        arousal=_number(cells, "arousal"),
        group=str(cells["group"]) if "group" in cells else None,
        attributes=_mapping(cells, "attributes"),
        id=str(cells["id"]) if "id" in cells else None,
    )


def _image(value: Any, folder: Path) -> str | bytes:
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"it has {len(value)} images, and only rows with one are supported")
        value = value[0]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("it has no image")
    path = Path(value.replace("\\", "/"))
    root = folder.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _mapping(cells: Mapping[str, Any], field: str) -> dict[str, Any] | None:
    value = cells.get(field)
    if isinstance(value, str):
        value = json.loads(value)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"its {field} is {value!r}, not a mapping")
    return {name: part for name, part in value.items() if part is not None}


def _number(cells: Mapping[str, Any], field: str) -> float | None:
    if field not in cells:
        return None
    value = number(str(cells[field]))
    if value is None:
        raise ValueError(f"its {field} is {cells[field]!r}, not a number")
    return value


# --- file formats ---------------------------------------------------------------------------------------------------


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", skipinitialspace=True)
        for row in reader:
            cells = {name: value and from_cell(value) for name, value in row.items() if isinstance(name, str)}
            yield f"{path.name} line {reader.line_num}", None, cells


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path.name} line {number}"
                try:
                    yield where, None, parse_row(line, where)
                except UserError as error:
                    raise WrongLayoutError(str(error)) from None


def _parquet(path: Path) -> Iterator[Row]:
    return _streamed("parquet", data_files=str(path))


def _hub_rows(name: str) -> Iterator[Row]:
    return _streamed(name)


def _streamed(name: str, **files: str) -> Iterator[Row]:
    from datasets import ClassLabel, load_dataset
    from datasets.exceptions import DatasetsError

    try:
        parts = load_dataset(name, streaming=True, **files)
        for part, stream in parts.items():
            split = None if len(parts) == 1 else SPLITS.get(part.casefold(), part)
            features = stream.features or {}
            words = {column: kind.names for column, kind in features.items() if isinstance(kind, ClassLabel)}
            for index, row in enumerate(stream.decode(False)):
                named = {column: names[row[column]] for column, names in words.items() if row[column] is not None}
                yield f"{part} row {index}", split, {**row, **named}
    except (OSError, ValueError, DatasetsError) as error:
        raise WrongLayoutError(f"something that the datasets library cannot read ({error})") from None
