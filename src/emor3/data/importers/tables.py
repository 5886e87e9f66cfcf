"""Tables with one image a row: CSV, TSV, JSONL, Parquet, and data sets of the hub with images, problem and answer.

Rows are streamed. Only what the columns of `FIELDS` hold becomes part of the manifest: a problem is somebody else's
prompt, and a coarse column (`course_grained`) contradicts the labels, so polarity comes from the label.
"""

import base64
import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, starmap
from pathlib import Path
from typing import Any

from emor3.data.importers.items import Dropped, Found, Item, Options, WrongLayoutError, favourite, why_no_favourite
from emor3.data.importers.sources import number, split_of
from emor3.data.rows import parse_row
from emor3.errors import UserError
from emor3.method.labels import BUILT_IN, resolve
from emor3.method.thinking import parse
from emor3.storage.cells import from_cell
from emor3.storage.yaml_text import parse_yaml

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

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Suffixes of the files that are read."""
VOTES = "votes"
"""Field that several columns hold: one for each label, with its votes."""

TableRow = tuple[str, str | None, Mapping[str, Any]]
"""Place of a row for messages, the split that its file belongs to, and its cells."""


def table(source: Path, options: Options) -> Found:
    """One file; images are named relative to its folder."""
    known = {*chain(*FIELDS.values()), *map(str.casefold, options.columns.values())}
    yield from items(rows_of_file(source, known), source.parent, options)


def rows_of_file(source: Path, known: Iterable[str]) -> Iterator[TableRow | Dropped]:
    """Rows of a table; `known` columns tell the separator. Raises WrongLayoutError for a file that is no table."""
    form = source.suffix.lower()
    if form not in TABLES or not source.is_file():
        raise WrongLayoutError(f"{source.name}, which is no .csv, .tsv, .jsonl or .parquet file")
    if form == ".parquet":
        return _streamed("parquet", data_files=str(source))
    return _jsonl(source) if form == ".jsonl" else separated(source, known)


def hub(source: Path, options: Options) -> Found:
    """A data set in the hub's layout: a local folder, or the name of one that the `datasets` library can reach.

    A folder of TSV files is read as tables are, whose cells are texts: pandas would take an id such as 007 for 7.
    """
    tables = _tables(source)
    rows = chain.from_iterable(starmap(_of_split, tables.items())) if tables else _streamed(str(source))
    yield from items(rows, source, options)


def _tables(folder: Path) -> dict[str, Path]:
    """split -> file, if the README of a folder names one TSV file for each split, and nothing else."""
    try:
        head = parse_yaml((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1], "the README")
        files = {str(named["split"]): folder / str(named["path"]) for named in head["configs"][0]["data_files"]}
    except (OSError, ValueError, UserError, LookupError, TypeError):  # of anybody's README, or of none
        return {}
    return files if all(path.suffix == ".tsv" and path.is_file() for path in files.values()) else {}


def _of_split(split: str, path: Path) -> Iterator[TableRow | Dropped]:
    known = set(chain(*FIELDS.values()))
    for found in separated(path, known):
        yield found if isinstance(found, Dropped) else (found[0], split, found[2])


def items(rows: Iterable[TableRow | Dropped], folder: Path, options: Options) -> Found:
    """Rows as items, and why one is none; images are named relative to the folder."""
    known: dict[tuple[str, ...], dict[str, str]] = {}  # JSONL rows need not all have the same columns
    for found in rows:
        if isinstance(found, Dropped):
            yield found
            continue
        where, split, row = found
        try:
            row = _multiple_choice(row)
        except ValueError as error:
            yield Dropped(where, str(error))
            continue
        if not known:
            _check_columns(row, options)
            yield from _votes_not_read(row, _columns(row, options))
        names = tuple(row)
        if names not in known:
            known[names] = _columns(row, options)
        try:
            yield _item(row, known[names], split, folder, options)
        except ValueError as error:
            yield Dropped(where, str(error))


def _columns(row: Mapping[str, Any], options: Options) -> dict[str, str]:
    """Field -> the column of this row that holds it."""
    names = {name.strip().casefold(): name for name in row}
    found = {
        field: next((names[name] for name in candidates if name in names), None) for field, candidates in FIELDS.items()
    }
    columns = {field: column for field, column in {**found, **options.columns}.items() if column is not None}
    if "label" not in columns and VOTES not in columns:
        columns |= _vote_columns(row)
    return columns


def _vote_columns(row: Mapping[str, Any]) -> dict[str, str]:
    """The columns named after labels of one built-in set, if there are at least two."""
    for labels in BUILT_IN:
        voted = [name for name in row if resolve(name, labels) is not None]
        if len(voted) > 1:
            return {VOTES: ",".join(voted)}
    return {}


def _votes_not_read(row: Mapping[str, Any], columns: Mapping[str, str]) -> Iterator[Dropped]:
    """Name columns that look like votes beside a label column, which decides alone unless a person says otherwise."""
    voted = _vote_columns(row).get(VOTES, "")
    if not voted or VOTES in columns or "distribution" in columns:
        return
    if all(number(str(row[name])) is not None for name in voted.split(",")):
        way = f"the label column decides; --column {VOTES}={voted} reads them as votes"
        yield Dropped(f"columns {voted}", way)


def _check_columns(row: Mapping[str, Any], options: Options) -> None:
    """Raises UserError for columns asked for in vain, WrongLayoutError if image or label is in none."""
    for field, column in options.columns.items():
        if field not in FIELDS and field != VOTES:
            raise UserError(f"--column {field}=…: there are the fields {', '.join(FIELDS)}, {VOTES}")
        if not set(column.split(",") if field == VOTES else [column]) <= set(row):
            raise UserError(f"--column {field}={column}: the table has the columns {', '.join(row)}")
    columns = _columns(row, options)
    for field in ("image", "label"):
        if field not in columns and not (field == "label" and VOTES in columns):
            raise WrongLayoutError(
                f"the columns {', '.join(row)}, none for the {field}: give --column {field}=NAME"
                + (f", or --column {VOTES}=NAME,NAME if columns hold votes" if field == "label" else "")
            )


def _item(
    row: Mapping[str, Any], columns: Mapping[str, str], split: str | None, folder: Path, options: Options
) -> Item:
    """A row as an item. Raises ValueError, saying what is wrong with it."""
    cells = {field: row[column] for field, column in columns.items() if row.get(column) not in (None, "")}
    votes = _votes(row, columns[VOTES].split(",")) if VOTES in columns else _mapping(cells, "distribution")
    label = favourite(votes or {}) if "label" not in columns else _label(cells.get("label"), options.label_names)
    if label is None:
        raise ValueError(why_no_favourite(votes or {}))
    named = str(cells["split"]).strip() if "split" in cells else None
    return Item(
        image=_image(cells.get("image"), folder),
        label=label,
        split=split if named is None else split_of(named) or named,
        distribution=votes,
        valence=_number(cells, "valence"),
        arousal=_number(cells, "arousal"),
        group=str(cells["group"]) if "group" in cells else None,
        attributes=_mapping(cells, "attributes"),
        id=str(cells["id"]) if "id" in cells else None,
    )


def _votes(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    counts = {name.strip(): number(str(row[name])) if row.get(name) not in (None, "") else 0.0 for name in names}
    if bad := [name for name, count in counts.items() if count is None]:
        raise ValueError(f"its votes for {bad[0]} are {row[bad[0]]!r}, not a number")
    return {name: count or 0.0 for name, count in counts.items()}


def _label(value: Any, names: Mapping[int, str]) -> str:
    """A label in words: a number is one only by the names of numbers, whatever the format of the file."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if re.fullmatch(r"[+-]?[0-9]{1,9}(\.0+)?", whole):
        index = int(float(whole))
        if index in names:
            return names[index]
        if index < 0:
            raise ValueError(f"its label is {index}, which stands for no label")
        raise ValueError(f"its label is the number {index}, which has no name: give --label-names NAME,NAME,…")
    if not isinstance(value, str):
        raise ValueError(f"its label is {value!r}, not a word")
    return unwrap(value)


_PAIR = re.compile(r"(\*\*|__|\*|_|`)(.+)\1", re.DOTALL)


def unwrap(text: str) -> str:
    """The label in an answer, without the thought, answer tags, box and emphasis. Raises ValueError for none."""
    answer = re.split("</think>", text, flags=re.IGNORECASE)[-1]
    if re.search("<think>", answer, re.IGNORECASE):
        raise ValueError("its label has a thought that never ends")
    answer = re.split("<answer>", answer, flags=re.IGNORECASE)[-1]
    answer = re.split("</answer>", answer, flags=re.IGNORECASE)[0].strip()
    answer = parse(answer).answer or answer
    while pair := _PAIR.fullmatch(answer):
        answer = pair[2].strip()
    if not answer:
        raise ValueError("its label is blank")
    return answer


def _multiple_choice(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A question with options A, B, … as `emor3 share` writes them becomes its image and its label."""
    if not {"question", "answer", "A", "B"} <= set(row):
        return row
    if row.get("hint"):
        raise ValueError("it has a text beside its image, which imports do not read")
    label = row.get(str(row["answer"]).strip()) if len(str(row["answer"]).strip()) == 1 else None
    return {"image": row.get("image"), "label": label}


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
    content = _inline(value)
    if content is not None:
        return content
    path = Path(value.replace("\\", "/"))
    root = folder.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


LONGEST_NAME = 400
"""Characters: what is longer is no path."""


def _inline(text: str) -> bytes | None:
    """The picture that a data URI or a base64 text holds; None for a path."""
    head, comma, data = text.partition(",")
    if not (head.casefold().startswith("data:") and comma):
        if len(text) < LONGEST_NAME and not re.match(r"iVBORw0KGgo|/9j/|R0lGOD|UklGR", text):
            return None
        data = text
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except ValueError:
        if comma and head.casefold().startswith("data:"):
            raise ValueError("its image is a data URI without base64") from None
        return None


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


LARGEST_CELL = 64 * 2**20
"""Characters of a cell: a picture in base64 is far longer than the csv module takes."""


def separated(path: Path, known: Iterable[str] = ()) -> Iterator[TableRow | Dropped]:
    """Rows of a CSV or TSV file; its separator is the one that finds most of the known columns in the header.

    A row with more or fewer cells than the header is dropped. Raises WrongLayoutError for a name that comes twice.
    """
    before = csv.field_size_limit(LARGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = _delimiter(file.readline(), path.suffix.lower(), set(known))
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != "\t")
            header = [name.strip() for name in next(reader, [])]
            names = Counter(name.casefold() for name in header if name)
            if twice := [name for name, count in names.items() if count > 1]:
                raise WrongLayoutError(f"a header that names the column {twice[0]!r} twice: rename one")
            for cells in reader:
                where = f"{path.name} line {reader.line_num}"
                if not cells:
                    continue
                if len(cells) == len(header):
                    yield where, None, dict(zip(header, map(from_cell, cells), strict=True))
                else:
                    yield Dropped(where, f"it has {len(cells)} cells, the header has {len(header)}")
    finally:
        csv.field_size_limit(before)


def _delimiter(header: str, suffix: str, known: set[str]) -> str:
    usual = "\t" if suffix == ".tsv" else ","

    def fit(delimiter: str) -> tuple[int, int, bool]:
        cells = next(csv.reader([header.strip("\r\n")], delimiter=delimiter, skipinitialspace=True), [])
        return len(known & {cell.strip().casefold() for cell in cells}), len(cells), delimiter == usual

    return max((",", ";", "\t", "|"), key=fit)


def _jsonl(path: Path) -> Iterator[TableRow | Dropped]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path.name} line {number}"
                try:
                    yield where, None, parse_row(line, where)
                except UserError as error:
                    raise WrongLayoutError(str(error)) from None


def _streamed(name: str, **files: str) -> Iterator[TableRow | Dropped]:
    from datasets import ClassLabel, load_dataset
    from datasets.exceptions import DatasetsError

    try:
        parts = load_dataset(name, streaming=True, **files)
        for part, stream in parts.items():
            split = None if len(parts) == 1 else split_of(part) or part
            features = stream.features or {}
            words = {column: kind.names for column, kind in features.items() if isinstance(kind, ClassLabel)}
            for index, row in enumerate(stream.decode(False)):
                named = {column: _class_name(row[column], names) for column, names in words.items()}
                yield f"{part} row {index}", split, {**row, **named}
    except (OSError, ValueError, DatasetsError) as error:
        raise WrongLayoutError(f"something that the datasets library cannot read ({error})") from None


def _class_name(value: Any, names: Sequence[str]) -> Any:
    """Name of a class by its index; an index that has none (-1) stays a number, which is no label."""
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
