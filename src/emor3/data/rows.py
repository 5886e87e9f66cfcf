"""A row of the manifest `metadata.jsonl`: one JSON object a line, read and checked until it is a sample.

A row has `label` and `file_name` (relative to the folder); or `file_names`, a list, if several images belong to one
label; or only a `text`, which may also accompany images and stands in the prompt. It may have `split` (default: train),
`id` (default: the first file name; a row without images needs one), `distribution` (votes over the labels), `valence`,
`arousal`, `group` (near copies share one), `attributes` (what is known of the picture), `reasoning` (a whole
completion to learn from) and `clip` (the name of the video whose frames, in order of time, its images are). Other
fields are left alone: a name or a theme must never reach a model.
"""

import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from emor3.errors import UserError
from emor3.method import labels as taxonomy
from emor3.method.annotations import is_finite, match_label, read_attributes, read_votes
from emor3.method.labels import LabelSet
from emor3.method.types import Sample
from emor3.storage.files import regular

MANIFEST = "metadata.jsonl"
MAX_ROW_BYTES = 1_000_000
"""Longer lines are refused before they are read whole: no prompt holds that much."""
MAX_TEXT = 32_000
"""Characters of a row's text or reasoning: about four times what a prompt holds in the paper."""
MAX_IMAGES = 100
"""Images of one row."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
shown = _SHORT.repr
"""What a row holds, cut short for a message of one line."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""Halves of surrogate pairs, of which some may be whole; Python's JSON takes them in both spellings."""

# A large manifest writes the same few labels again and again.
_normalise = lru_cache(maxsize=4096)(taxonomy.normalise)


def manifest_lines(folder: Path) -> Iterator[tuple[str, bytes, int, int]]:
    """Each non-blank line of a folder's manifest: its name in messages, its bytes, its number and its first byte.

    Of a line over `MAX_ROW_BYTES`, which `parse_row` refuses, there are one more bytes than that.
    """
    manifest, number = folder / MANIFEST, 0
    with open(manifest, "rb", opener=regular) as file:
        while line := file.readline(MAX_ROW_BYTES + 1):
            number, start, rest = number + 1, file.tell() - len(line), line
            while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_ROW_BYTES + 1)
            if line.strip():
                yield line_name(folder, number), line, number, start


def line_name(folder: Path, number: int) -> str:
    """What messages call a line of a folder's manifest."""
    return f"{folder / MANIFEST} line {number}"


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """One manifest line as a dict. Raises UserError if it is too long, not a JSON object or no proper text."""
    if len(line) > MAX_ROW_BYTES:
        raise UserError(f"{where}: a row of over {MAX_ROW_BYTES:,} bytes: shorten its texts")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: a row must be a JSON object, not {type(row).__name__}")
    if _SURROGATE.search(line):
        _refuse_surrogates(row, where)
    return row


def _refuse_surrogates(row: Mapping[str, Any], where: str) -> None:
    for name, value in row.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise UserError(f"{where}: {name!r} holds half of a surrogate pair ({half}), no character") from None


def row_split(row: Mapping[str, Any]) -> str:
    """Split of a row; data without splits is all `train`."""
    return str(row.get("split", "train"))


def read_label(row: Mapping[str, Any], label_field: str, where: str) -> str:
    """The row's label as it is written there. Raises UserError if it is missing, blank or not a string."""
    label = row.get(label_field)
    if not isinstance(label, str) or not _normalise(label):
        raise UserError(f"{where}: {label_field!r} must be a label in words, found {shown(label)}")
    _refuse_unfit(label, where)
    return label


def _refuse_unfit(label: str, where: str) -> None:
    if fault := taxonomy.label_fault(label):
        raise UserError(f"{where}: {shown(label)} is not a label: {fault}")


def named_labels(row: Mapping[str, Any], label_field: str, where: str) -> list[str]:
    """Labels that a row names: its own and those that viewers could vote for. Raises UserError if one is blank."""
    votes = row.get("distribution") if label_field == "label" else None
    voted = votes if isinstance(votes, dict) else {}
    if not all(map(_normalise, voted)):
        raise UserError(f"{where}: 'distribution' has votes for a blank label")
    for name in voted:
        _refuse_unfit(name, where)
    return [read_label(row, label_field, where), *voted]


def to_sample(row: Mapping[str, Any], folder: Path, labels: LabelSet, label_field: str, where: str) -> Sample:
    """A manifest row as a sample. Raises UserError for a label outside the set, a missing image or a bad field."""
    written = read_label(row, label_field, where)
    label = match_label(written, labels)
    if label is None:
        raise UserError(f"{where}: label {written!r} is not in the set {labels.name} ({labels.listed()})")
    group = row.get("group")
    images, text = row_content(row, folder, where)
    return Sample(
        id=row_id(row),
        images=images,
        text=text,
        label=label,
        labels=labels,
        split=row_split(row),
        valence=_number(row, "valence", where),
        arousal=_number(row, "arousal", where),
        group=None if group is None else str(group),
        reasoning=_text(row, "reasoning", where),
        clip=_text(row, "clip", where),
        **_annotated(row, labels, label_field, where),
    )


def file_names(row: Mapping[str, Any]) -> list[Any]:
    """Names of the images of a row, as they are written there."""
    if "file_name" in row:
        return [row["file_name"]]
    return list(row.get("file_names", ()))


def row_id(row: Mapping[str, Any]) -> str:
    """Id of a row, by default the name of its first image."""
    return str(row["id"] if "id" in row else file_names(row)[0])


def row_content(row: Mapping[str, Any], folder: Path, where: str) -> tuple[tuple[str, ...], str | None]:
    """Paths of a row's images, and its text. Raises UserError for a missing image or a bad field."""
    text = _text(row, "text", where)
    if text is not None and not text.strip():
        raise UserError(f"{where}: 'text' is blank: leave it out, or say what a reader would see")
    if "file_name" in row and "file_names" in row:
        raise UserError(f"{where}: give 'file_name' for one image or 'file_names' for several, not both")
    if not isinstance(row.get("file_names", []), list):
        raise UserError(f"{where}: 'file_names' must be a list of paths, found {shown(row['file_names'])}")
    names = file_names(row)
    if len(names) > MAX_IMAGES:
        raise UserError(f"{where}: {len(names):,} images: at most {MAX_IMAGES} belong to one row")
    if not names and text is None:
        raise UserError(f"{where}: neither an image ('file_name', 'file_names') nor a 'text': a row needs one of them")
    if not names and "id" not in row:
        raise UserError(f"{where}: a row without an image needs an 'id'")
    field = "file_names" if "file_names" in row else "file_name"
    return tuple(_image_path(name, field, folder, where) for name in names), text


def leads_out(name: str) -> bool:
    """Whether a path may lead out of the folder that it is relative to."""
    return name.startswith("/") or ".." in name.split("/")


def _image_path(name: object, field: str, folder: Path, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: {field!r} must be a path relative to the folder, found {shown(name)}")
    if leads_out(name):
        raise UserError(f"{where}: {field!r} leads out of the folder: {shown(name)}")
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise UserError(f"{where}: image {shown(name)} does not exist in {folder}: check its path")
    return path


def _annotated(row: Mapping[str, Any], labels: LabelSet, label_field: str, where: str) -> dict[str, Any]:
    """Votes and attributes of a row; votes are on the labels of the field `label`."""
    try:
        votes = read_votes(row, labels) if label_field == "label" else None
        return {"distribution": votes, "attributes": read_attributes(row)}
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _text(row: Mapping[str, Any], field: str, where: str) -> str | None:
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: {field!r} must be a text, found {shown(value)}")
    if value is not None and len(value) > MAX_TEXT:
        raise UserError(f"{where}: {field!r} has {len(value):,} characters: shorten it to {MAX_TEXT:,} at most")
    return value


def _number(row: Mapping[str, Any], field: str, where: str) -> float | None:
    value = row.get(field)
    if value is None:
        return None
    if not is_finite(value):
        raise UserError(f"{where}: {field!r} must be a number, found {shown(value)}")
    return float(value)
